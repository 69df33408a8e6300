/* The page of FocalLossExplorer: alpha, gamma and one output against loss, slope and true risk. */

const MELANOMA_INK = "var(--mk-melanoma-ink)", OTHER_INK = "var(--mk-other-ink)"; // for words, which need more contrast than shapes
const Z = Array.from({ length: 241 }, (_, i) => (i - 120) / 12); // logits; in the output, dense where the curves bend
const OUTPUTS = Z.map((z) => 1 / (1 + Math.exp(-z)));
const HIGHEST = 3, STEEPEST = 1.5; // of the drawn loss and slope
const HALVES = [0, 0.5, 1].map((value) => [value, String(value)]);
const GAMMAS = [0, 1, 2, 5]; // drawn together on request
const FAINT = { "stroke-width": 1.4, "stroke-dasharray": "5 4", opacity: 0.75 };
const inWords = (value) => (Math.abs(value) >= 0.0005 || value === 0 ? value.toFixed(3) : value.toExponential(1));
const exactly = (risk) => `${(100 * risk).toFixed(1)}%`;
const outputInWords = (output) => (output >= 0.01 && output <= 0.99 ? output.toFixed(2) : String(Number(output.toPrecision(3))));
const CONTROLS = [ // of alpha, 0 stands for none
  ["alpha", "focal α", { min: 0, max: 0.95, step: 0.05 }, (value) => (value ? String(Number(value.toFixed(3))) : "none")],
  ["gamma", "focal γ", { min: 0, max: 5, step: 0.1 }, (value) => String(Number(value.toFixed(3)))],
  ["output", "output p", { min: 0.01, max: 0.99, step: 0.01 }, outputInWords],
];

/** A line over the outputs; what leaves the drawing area is left out. */
function line(heights, stroke, more) {
  const kept = heights.map((y, i) => [OUTPUTS[i], y]).filter(([, y]) => y >= 0 && y <= 1);
  return curve(kept.map(([x]) => x), kept.map(([, y]) => y), stroke, more);
}

/** A triangle for the melanoma, a dot for the other lesion: told apart without colour. */
function mark(kind, output, height) {
  const x = across(output), y = up(Math.min(1, Math.max(0, height)));
  if (kind === 0) return s("path", { d: `M${x - 7},${y + 5}L${x + 7},${y + 5}L${x},${y - 8}Z`, fill: MELANOMA, stroke: PAPER });
  return s("circle", { cx: x, cy: y, r: 6, fill: kind === 1 ? OTHER : ACCENT, stroke: PAPER });
}

function classPlot(title, label, ys, words, [focal, others, here], output, place) {
  const lines = [MELANOMA, OTHER].flatMap((colour, kind) => [
    ...others.map((pairs) => line(pairs.map((pair) => place(pair[kind])), colour, FAINT)), line(focal.map((pair) => place(pair[kind])), colour, { "stroke-width": 2.8 }),
  ]);
  const stem = curve([output, output], [0, 1], EDGE, { "stroke-width": 1, "stroke-dasharray": "2 3" });
  return plot({ title, label, xlabel: "output p", xs: HALVES, ys }, stem, lines, here.map((value, kind) => mark(kind, output, place(value))), words);
}

function lossPlot({ focal, others, here, crossEntropy, output }) {
  const label = `Loss against the output. At ${outputInWords(output)} a melanoma has ${inWords(here.losses[0])}, another lesion ` +
    `${inWords(here.losses[1])}; cross-entropy gives ${inWords(crossEntropy.losses[0])} and ${inWords(crossEntropy.losses[1])}`;
  const middle = (LEFT + RIGHT) / 2;
  const words = [
    text(middle, TOP + 14, "▲ melanoma", "middle", { fill: MELANOMA_INK }), text(middle, TOP + 32, "● other lesion", "middle", { fill: OTHER_INK }),
    text(middle, TOP + 50, others.length > 1 ? `- - γ ${GAMMAS.join(", ")}` : "- - cross-entropy", "middle", { fill: SOFT }),
  ];
  return classPlot(
    "loss", label, [0, 1, 2, 3].map((value) => [value / HIGHEST, String(value)]), words,
    [focal.map(({ losses }) => losses), others.map((one) => one.map(({ losses }) => losses)), here.losses], output, (value) => value / HIGHEST,
  );
}

function slopePlot({ focal, others, here, output }) {
  const label = `Slope of the loss in the logit against the output. At ${outputInWords(output)} it is ${inWords(here.slopes[0])} for a melanoma, ` +
    `${inWords(here.slopes[1])} for another lesion`;
  const place = (value) => (value / STEEPEST + 1) / 2;
  const words = [
    text(LEFT + 8, TOP + 16, "● pulled down", "start", { fill: OTHER_INK }), text(RIGHT - 2, BOTTOM - 10, "▲ pulled up", "end", { fill: MELANOMA_INK }),
  ];
  return classPlot(
    "gradient in the logit", label, [-1, 0, 1].map((value) => [place(value), String(value).replace("-", "−")]), words,
    [focal.map(({ slopes }) => slopes), others.map((one) => one.map(({ slopes }) => slopes)), here.slopes], output, place,
  );
}

function riskPlot({ focal, others, here, half, output }) {
  const label = `True risk against the output. ${outputInWords(output)} means a risk of ${exactly(here.risk)}; 0.5 means ${exactly(half.risk)}`;
  const [x, y, anchor] = half.risk >= 0.5 ? [RIGHT - 2, BOTTOM - 10, "end"] : [LEFT + 8, TOP + 16, "start"]; // where no curve runs
  return plot(
    { title: "true risk it stands for", label, xlabel: "output p", xs: HALVES, ys: HALVES },
    curve([0, 1], [0, 1], EDGE, { "stroke-width": 1.4, "stroke-dasharray": "5 4" }),
    ...(others.length > 1 ? others.map((one) => line(one.map(({ risk }) => risk), ACCENT, FAINT)) : []),
    line(focal.map(({ risk }) => risk), ACCENT, { "stroke-width": 2.8 }),
    curve([output, output, 0], [0, here.risk, here.risk], EDGE, { "stroke-width": 1, "stroke-dasharray": "2 3" }),
    s("circle", { cx: across(0.5), cy: up(half.risk), r: 7.5, fill: "none", stroke: "currentColor", "stroke-width": 1.8 }),
    mark(2, output, here.risk), text(x, y, `○ 0.5 means ${exactly(half.risk)}`, anchor),
  );
}

function outputNumbers({ here, crossEntropy, output }) {
  const both = (key, words) => ["melanoma", "other lesion"].map((name, kind) => [
    `${key}-${kind ? "other" : "melanoma"}`, `${words}, ${name}`, inWords(here[key][kind]), `cross-entropy ${inWords(crossEntropy[key][kind])}`, here[key][kind],
  ]);
  return [
    ...both("losses", "loss"), ...both("slopes", "gradient"),
    ["risk", `${outputInWords(output)} means a risk of`, exactly(here.risk), "if perfectly trained", here.risk],
  ];
}

function render({ model, el }) {
  const start = Object.fromEntries(CONTROLS.map(([name]) => [name, model.get(name)]));
  const plain = Z.map((z) => focalAt(null, 0, z));
  const plots = h("div", { className: "mk-plots" }), numbers = h("div", { className: "mk-numbers", role: "list" });
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const sliders = CONTROLS.map(([name, label, limits, format]) => {
    const control = slider(label, {
      ...limits, value: model.get(name) ?? 0, format, onInput: (value) => set({ [name]: name === "alpha" && value === 0 ? null : value }),
    });
    const show = (value, words) => {
      control.set(value ?? 0);
      control.input.setAttribute("aria-valuetext", words ?? format(value ?? 0));
    };
    return [name, { element: control.element, show }];
  });
  const shown = Object.fromEntries(sliders);
  let comparing = false;
  const compare = h("button", { type: "button", "aria-pressed": false, onClick: () => {
    comparing = !comparing;
    compare.setAttribute("aria-pressed", comparing);
    draw();
  } }, `Compare γ ${GAMMAS.join(", ")}`);
  const draw = () => {
    const [alpha, gamma, output] = CONTROLS.map(([name]) => model.get(name));
    const at = (logit) => focalAt(alpha, gamma, logit);
    const others = comparing ? GAMMAS.map((one) => Z.map((z) => focalAt(alpha, one, z))) : [plain];
    const state = { focal: Z.map(at), others, here: at(logitOf(output)), half: at(0), crossEntropy: focalAt(null, 0, logitOf(output)), output };
    plots.replaceChildren(lossPlot(state), slopePlot(state), riskPlot(state));
    numbers.replaceChildren(...numberList(outputNumbers(state)));
    shown.alpha.show(alpha);
    shown.gamma.show(gamma);
    shown.output.show(output, `${outputInWords(output)}, a risk of ${exactly(state.here.risk)}`);
  };
  const back = h("button", { type: "button", onClick: () => set(start) }, "Back to the start");
  const stopWatching = frame(
    model, el, "Focal loss, and what its output means",
    h("div", { className: "mk-focal-sliders" }, ...sliders.map(([, { element }]) => element), h("div", { className: "mk-row" }, compare, back)), numbers, plots,
  );
  const stopDrawing = watch(model, { alpha: draw, gamma: draw, output: draw });
  return () => {
    stopDrawing();
    stopWatching();
  };
}

export default { render };
