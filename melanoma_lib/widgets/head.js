/* The page of HeadExplorer: four sliders, the ROC curve, the scores by class, the losses, and five numbers. */

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

function rocPlot(state, start) {
  const ticks = [0, 0.5, 1].map((value) => [value, String(value)]);
  const words = `ROC curve, AUROC ${state.auroc.toFixed(3)}; at the start ${start.auroc.toFixed(3)}`;
  return plot(
    { title: "ROC: sensitivity", label: words, xlabel: "false-positive rate", xs: ticks, ys: ticks },
    curve([0, 1], [0, 1], EDGE, { "stroke-width": 1, "stroke-dasharray": "2 4" }),
    curve(...start.roc, EDGE, { "stroke-dasharray": "6 4" }), curve(...state.roc, ACCENT, { "stroke-width": 2.8 }),
    s("circle", {
      cx: LEFT + (1 - state.specificity) * (RIGHT - LEFT), cy: BOTTOM - state.sensitivity * (BOTTOM - TOP), r: 6, fill: MELANOMA, stroke: PAPER,
    }),
    text(RIGHT, BOTTOM - 26, "● output 0.5", "end", { fill: MELANOMA_INK }), text(RIGHT, BOTTOM - 8, "- - -  at the start", "end", { fill: SOFT }),
  );
}

function lossPlot({ losses: [training, validation] }) {
  const top = 1.08 * Math.max(...training, ...validation), n = training.length;
  const xs = training.map((_, i) => (n > 1 ? i / (n - 1) : 0));
  const label = `Loss after ${n} epochs: training ${training.at(-1).toPrecision(2)}, validation ${validation.at(-1).toPrecision(2)}`;
  const half = (top / 2).toPrecision(2);
  return plot(
    { title: "loss", label, xlabel: "epoch", xs: [[0, "1"], [1, String(n)]], ys: [[0, "0"], [half / top, String(Number(half))]] },
    curve(xs, training.map((value) => value / top), ACCENT), curve(xs, validation.map((value) => value / top), OTHER),
    text(RIGHT, BOTTOM - 26, "validation", "end", { fill: OTHER_INK }), text(RIGHT, BOTTOM - 8, "training", "end", { fill: "var(--mk-accent-ink)" }),
  );
}

function render({ model, el }) {
  const choices = model.get("choices"), start = model.get("start");
  const values = Object.fromEntries(CONTROLS.map(([name]) => [name, model.get("state")[name]]));
  const nearest = (name) => Math.max(0, choices[name].indexOf(values[name]));
  const plots = h("div", { className: "mk-plots" });
  const numbers = h("div", { className: "mk-numbers", role: "list" });
  const status = h("p", { role: "status" });
  const showBusy = (busy) => {
    status.textContent = busy ? "The head learns again …" : "The head has learned with these values.";
    plots.classList.toggle("mk-busy", busy);
    plots.setAttribute("aria-busy", busy);
  };
  const { ask, stop } = questions(model, () => values, showBusy);
  const sliders = CONTROLS.map(([name, label, format]) => {
    const list = choices[name];
    const control = slider(label, {
      min: 0, max: list.length - 1, step: 1, value: nearest(name), format: (index) => format(list[index]),
      onInput: (index) => { values[name] = list[index]; describeValue(); ask(); },
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
  const back = h("button", { type: "button", onClick: () => { sliders.forEach(({ reset }) => reset()); ask(); } }, "Back to the start");
  const stopWatching = frame(
    model, el, "The head, retrained while you watch", h("div", { className: "mk-sliders" }, ...sliders.map(({ element }) => element)),
    h("div", { className: "mk-row mk-status" }, status, back), numbers, plots,
  );
  const stopDrawing = watch(model, {
    state: () => {
      const state = model.get("state");
      plots.replaceChildren(scorePlot(state), rocPlot(state, start), lossPlot(state));
      numbers.replaceChildren(...numberList(NUMBERS.map(([name, label, format]) =>
        [name, label, format(state[name]), `at the start ${format(start[name])}`, state[name]])));
    },
  });
  return () => {
    stop();
    stopDrawing();
    stopWatching();
  };
}

export default { render };
