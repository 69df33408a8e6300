/* The page of HeadExplorer: four sliders, the ROC curve, the scores by class, the losses, and five numbers. */

const MELANOMA = "#D55E00", OTHER = "#0072B2", TRAINING = "#E69F00", FAINT = "#8a8a8a";
const CONTROLS = [
  ["alpha", "focal α", (value) => (value === null ? "none" : value.toFixed(2))],
  ["gamma", "focal γ", (value) => value.toFixed(1)],
  ["dropout", "dropout", (value) => value.toFixed(2)],
  ["learning_rate", "learning rate", (value) => String(Number(value.toPrecision(2)))],
];
const NUMBERS = [
  ["auroc", "AUROC", (value) => value.toFixed(3)],
  ["f1", "F1 at 0.5", (value) => value.toFixed(2)],
  ["sensitivity", "sensitivity at 0.5", percent],
  ["specificity", "specificity at 0.5", percent],
  ["true_risk", "0.5 means a risk of", percent],
];
const LEFT = 46, RIGHT = 268, TOP = 28, BOTTOM = 208; // of the drawing area in each plot

function percent(value) {
  return `${(100 * value).toFixed(0)}%`;
}

function s(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function text(x, y, words, anchor = "middle", more = {}) {
  return s("text", { x, y, "text-anchor": anchor, fill: "#1b1b1b", ...more }, words);
}

/** A frame with title, axis words and ticks; xs and ys are [value between 0 and 1, words]. */
function plot({ title, label, xlabel, xs, ys }, ...marks) {
  const x = (share) => LEFT + share * (RIGHT - LEFT);
  const y = (share) => BOTTOM - share * (BOTTOM - TOP);
  const grid = [
    ...xs.map(([at]) => s("line", { x1: x(at), x2: x(at), y1: TOP, y2: BOTTOM, stroke: "#E4E4E4" })),
    ...ys.map(([at]) => s("line", { x1: LEFT, x2: RIGHT, y1: y(at), y2: y(at), stroke: "#E4E4E4" })),
  ];
  const words = [
    ...xs.map(([at, word]) => text(x(at), BOTTOM + 18, word)),
    ...ys.map(([at, word]) => text(LEFT - 6, y(at) + 4, word, "end")),
    text(LEFT, 18, title, "start", { "font-weight": 600, "font-size": 14 }), text((LEFT + RIGHT) / 2, BOTTOM + 37, xlabel),
  ];
  const axes = s("path", { d: `M${LEFT},${TOP}V${BOTTOM}H${RIGHT}`, fill: "none", stroke: "#1b1b1b" });
  return s("svg", { viewBox: "0 0 280 252", role: "img", "aria-label": label }, ...grid, ...marks.flat(), axes, ...words);
}

/** A line through points given as shares of the drawing area. */
function curve(xs, ys, stroke, more = {}) {
  const points = xs.map((x, i) => `${LEFT + x * (RIGHT - LEFT)},${BOTTOM - ys[i] * (BOTTOM - TOP)}`).join(" ");
  return s("polyline", { points, fill: "none", stroke, "stroke-width": 2.2, "stroke-linejoin": "round", ...more });
}

function rocPlot(state, start) {
  const ticks = [0, 0.5, 1].map((value) => [value, String(value)]);
  const words = `ROC curve, AUROC ${state.auroc.toFixed(3)}; at the start ${start.auroc.toFixed(3)}`;
  return plot(
    { title: "ROC: sensitivity", label: words, xlabel: "false-positive rate", xs: ticks, ys: ticks },
    curve([0, 1], [0, 1], FAINT, { "stroke-width": 1, "stroke-dasharray": "2 4" }),
    curve(...start.roc, FAINT, { "stroke-dasharray": "6 4" }), curve(...state.roc, TRAINING, { "stroke-width": 2.8 }),
    s("circle", {
      cx: LEFT + (1 - state.specificity) * (RIGHT - LEFT), cy: BOTTOM - state.sensitivity * (BOTTOM - TOP), r: 6, fill: MELANOMA, stroke: "#fff",
    }),
    text(RIGHT, BOTTOM - 26, "● output 0.5", "end", { fill: MELANOMA }), text(RIGHT, BOTTOM - 8, "- - -  at the start", "end", { fill: "#5a5a5a" }),
  );
}

function scorePlot({ shares: [melanomas, others], n }) {
  const top = Math.max(0.1, ...melanomas, ...others);
  const width = (RIGHT - LEFT) / melanomas.length, middle = (TOP + BOTTOM) / 2, scale = (BOTTOM - TOP) / 2 / top;
  const bars = (shares, fill, up) => shares.map((share, i) => s("rect", {
    x: LEFT + i * width, width: width - 0.6, height: share * scale, y: up ? middle - share * scale : middle, fill,
  }));
  const above = (shares) => shares.slice(Math.ceil(shares.length / 2)).reduce((sum, share) => sum + share, 0);
  const label = `Scores of ${n[0]} melanomas and ${n[1]} other lesions; in the upper half of the scale lie ` +
    `${percent(above(melanomas))} of the melanomas and ${percent(above(others))} of the others`;
  return plot(
    {
      title: "share of each class by output", label, xlabel: "output (validation cases)", xs: [0, 0.5, 1].map((value) => [value, String(value)]),
      ys: [[0, percent(top)], [0.5, "0%"], [1, percent(top)]],
    },
    bars(melanomas, MELANOMA, true), bars(others, OTHER, false), curve([0.5, 0.5], [0, 1], FAINT, { "stroke-dasharray": "6 4" }),
    text(RIGHT, TOP + 14, `▲ ${n[0]} melanomas`, "end", { fill: MELANOMA }), text(RIGHT, BOTTOM - 8, `● ${n[1]} others`, "end", { fill: OTHER }),
  );
}

function lossPlot({ losses: [training, validation] }) {
  const top = 1.08 * Math.max(...training, ...validation), n = training.length;
  const xs = training.map((_, i) => (n > 1 ? i / (n - 1) : 0));
  const label = `Loss after ${n} epochs: training ${training.at(-1).toPrecision(2)}, validation ${validation.at(-1).toPrecision(2)}`;
  const half = (top / 2).toPrecision(2);
  return plot(
    { title: "loss", label, xlabel: "epoch", xs: [[0, "1"], [1, String(n)]], ys: [[0, "0"], [half / top, String(Number(half))]] },
    curve(xs, training.map((value) => value / top), TRAINING), curve(xs, validation.map((value) => value / top), OTHER),
    text(RIGHT, BOTTOM - 26, "validation", "end", { fill: OTHER }), text(RIGHT, BOTTOM - 8, "training", "end", { fill: "#8a5f00" }),
  );
}

function numberList(state, start) {
  return NUMBERS.map(([name, label, format]) => h("div", { className: "mk-head-number", role: "listitem" },
    h("span", {}, label), h("strong", { dataset: { number: name } }, format(state[name])), h("span", {}, `at the start ${format(start[name])}`)));
}

function render({ model, el }) {
  const choices = model.get("choices"), start = model.get("start");
  const values = Object.fromEntries(CONTROLS.map(([name]) => [name, model.get("state")[name]]));
  const nearest = (name) => Math.max(0, choices[name].indexOf(values[name]));
  let timer, asked = 0, moved = false, waiting = false;

  const plots = h("div", { className: "mk-head-plots" });
  const numbers = h("div", { className: "mk-head-numbers", role: "list" });
  const status = h("p", { role: "status" });
  const showStatus = () => {
    const busy = moved || waiting;
    status.textContent = busy ? "The head learns again …" : "The head has learned with these values.";
    plots.classList.toggle("mk-head-busy", busy);
    plots.setAttribute("aria-busy", busy);
  };
  // One question at a time: a kernel that is training would otherwise answer a queue of values long left behind.
  const ask = () => {
    if (waiting || !moved) return;
    [moved, waiting, asked] = [false, true, model.get("answered") + 1]; // another view may have asked since
    model.set("request", { ...values, number: asked });
    model.save_changes();
  };
  const move = () => {
    moved = true;
    showStatus();
    clearTimeout(timer);
    timer = setTimeout(ask, 120);
  };
  const sliders = CONTROLS.map(([name, label, format]) => {
    const list = choices[name];
    const control = slider(label, {
      min: 0, max: list.length - 1, step: 1, value: nearest(name), format: (index) => format(list[index]),
      onInput: (index) => { values[name] = list[index]; describeValue(); move(); },
    });
    const describeValue = () => control.input.setAttribute("aria-valuetext", format(values[name]));
    describeValue();
    const reset = () => {
      values[name] = start[name];
      control.set(nearest(name));
      describeValue();
    };
    return { element: control.element, reset };
  });
  const back = h("button", { type: "button", onClick: () => { sliders.forEach(({ reset }) => reset()); move(); } }, "Back to the start");
  const stopWatching = frame(
    model, el, "The head, retrained while you watch", h("div", { className: "mk-head-sliders" }, ...sliders.map(({ element }) => element)),
    h("div", { className: "mk-row mk-head-status" }, status, back), numbers, plots,
  );
  const stopDrawing = watch(model, {
    state: () => {
      const state = model.get("state");
      plots.replaceChildren(scorePlot(state), rocPlot(state, start), lossPlot(state));
      numbers.replaceChildren(...numberList(state, start));
    },
    answered: () => {
      waiting = waiting && model.get("answered") < asked;
      showStatus();
      if (!waiting) ask();
    },
  });
  return () => {
    clearTimeout(timer);
    stopDrawing();
    stopWatching();
  };
}

export default { render };
