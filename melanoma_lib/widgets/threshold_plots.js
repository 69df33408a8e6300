/* ThresholdExplorer's plots: drawn once, then only what moves is moved. Each returns its svg and a function that shows a state. */

const GREEN = "var(--mk-green)", QUARTERS = [0, 0.25, 0.5, 0.75, 1].map((value) => [value, String(value)]);

function moving(tag, attributes) {
  const element = s(tag, attributes);
  const move = (values) => { for (const [name, value] of Object.entries(values)) element.setAttribute(name, value); };
  return { element, move };
}

const dot = () => moving("circle", { r: 6.5, fill: MELANOMA, stroke: PAPER, "stroke-width": 1.5, cx: 0, cy: 0 });
const place = (x, y) => ({ cx: across(x), cy: up(y) });
const tell = (svg, words) => svg.setAttribute("aria-label", words);

function scorePanel({ shares: [melanomas, others] }, id) {
  const width = (RIGHT - LEFT) / melanomas.length, middle = (TOP + BOTTOM) / 2, half = (BOTTOM - TOP) / 2 / 1.05;
  // Each class to its own scale: outputs of easy lesions pile up near 0 and would flatten the melanomas.
  const bars = (values, sign) => values.map((share, i) => {
    const x = LEFT + i * width, y = middle - (sign * share * half) / Math.max(...values);
    return share ? `M${x},${middle}V${y}h${width}V${middle}Z` : "";
  }).join("");
  const area = (values, sign, fill, more) => s("path", { d: bars(values, sign), fill, ...more });
  const clip = moving("rect", { x: LEFT, y: TOP, width: RIGHT - LEFT, height: BOTTOM - TOP });
  const line = moving("line", { y1: TOP - 4, y2: BOTTOM, stroke: "currentColor", "stroke-width": 2 });
  const flagged = { "clip-path": `url(#${id})` }, faint = { opacity: 0.35 };
  const most = (values) => percent(Math.max(...values));
  const svg = plot(
    {
      title: "scores, share of each class", label: "", xlabel: "probability: flagged from the line on", xs: QUARTERS,
      ys: [[0.5 - 0.5 / 1.05, most(others)], [0.5, "0%"], [0.5 + 0.5 / 1.05, most(melanomas)]],
    },
    s("clipPath", { id }, clip.element),
    area(melanomas, 1, MELANOMA, faint), area(others, -1, OTHER, faint), area(melanomas, 1, MELANOMA, flagged), area(others, -1, OTHER, flagged),
    line.element, text(LEFT + 6, TOP + 12, "▲ melanomas", "start", { fill: "var(--mk-melanoma-ink)" }),
    text(RIGHT, BOTTOM - 8, "● negatives", "end", { fill: "var(--mk-other-ink)" }),
  );
  const show = (state, t) => {
    const x = across(t);
    clip.move({ x, width: Math.max(0, RIGHT - x) });
    line.move({ x1: x, x2: x });
    tell(svg, `Scores by class. From ${t.toFixed(3)} on lie ${percent(state.sensitivity)} of the melanomas and ${percent(1 - state.specificity)} of the negatives.`);
  };
  return { svg, show };
}

function rocPanel({ roc, auroc }) {
  const point = dot();
  const svg = plot(
    { title: `ROC, AUROC ${auroc.toFixed(3)}`, label: "", xlabel: "false-positive rate", xs: QUARTERS, ys: QUARTERS },
    curve([0, 1], [0, 1], EDGE, { "stroke-width": 1, "stroke-dasharray": "2 4" }), curve(...roc, OTHER), point.element,
    text(RIGHT, BOTTOM - 8, "sensitivity ↑", "end", { fill: SOFT }),
  );
  const show = ({ sensitivity, specificity }) => {
    point.move(place(1 - specificity, sensitivity));
    tell(svg, `ROC curve, AUROC ${auroc.toFixed(3)}; at sensitivity ${percent(sensitivity)} and specificity ${percent(specificity)}.`);
  };
  return { svg, show };
}

/** Steps, as average precision counts the area; a straight line between points would promise too much. */
function stairs([recall, precision]) {
  const steps = recall.map((r, i) => [[i ? recall[i - 1] : r, precision[i]], [r, precision[i]]]).flat();
  return [steps.map(([r]) => r), steps.map(([, p]) => p)];
}

function precisionPanel({ pr, average_precision: area, prevalences }) {
  const point = dot(), own = prevalences["these cases"];
  const svg = plot(
    { title: `PPV by sensitivity, AP ${area.toFixed(3)}`, label: "", xlabel: "sensitivity (recall), on these cases", xs: QUARTERS, ys: QUARTERS },
    curve([0, 1], [own, own], EDGE, { "stroke-width": 1, "stroke-dasharray": "2 4" }), curve(...stairs(pr), OTHER), point.element,
  );
  const show = ({ sensitivity, case_ppv: ppv }) => {
    point.move(Number.isNaN(ppv) ? { visibility: "hidden" } : { visibility: "visible", ...place(sensitivity, ppv) });
    const words = Number.isNaN(ppv) ? "nobody is flagged" : `at sensitivity ${percent(sensitivity)} the PPV is ${percent(ppv)}`;
    tell(svg, `Precision-recall curve, average precision ${area.toFixed(3)}; ${words}.`);
  };
  return { svg, show };
}

const LESIONS = [
  ["tp_per_1000", "true positives", MELANOMA], ["fn_per_1000", "false negatives", "currentColor"],
  ["fp_per_1000", "false positives", OTHER], ["tn_per_1000", "true negatives", "var(--mk-line)"],
];
const CELL = 5.4, DEEP = 25; // lesions stand in columns of 25, each kind in one block

/** Outline of the places from the first on to the last, column by column. */
function blockOutline(first, last) {
  if (first === last) return "";
  const x = (column) => LEFT - 20 + column * CELL, y = (row) => TOP + row * CELL;
  const [c1, r1, c2, r2] = [Math.floor(first / DEEP), first % DEEP, Math.floor(last / DEEP), last % DEEP];
  if (c1 === c2) return `M${x(c1)},${y(r1)}H${x(c1 + 1)}V${y(r2)}H${x(c1)}Z`;
  return `M${x(c1)},${y(r1)}H${x(c1 + 1)}V${y(0)}H${x(c2)}${r2 ? `H${x(c2 + 1)}V${y(r2)}H${x(c2)}` : ""}V${y(DEEP)}H${x(c1)}Z`;
}

function lesionPanel(id) {
  const kinds = LESIONS.map(([name, words, colour], i) => {
    const mark = name === "fn_per_1000"
      ? s("path", { d: "M.8,.8l3.8,3.8M4.6,.8l-3.8,3.8", stroke: colour, "stroke-width": 1.3 })
      : s("circle", { cx: CELL / 2, cy: CELL / 2, r: 2.25, fill: colour });
    const pattern = s("pattern", { id: `${id}${name}`, x: LEFT - 20, y: TOP, width: CELL, height: CELL, patternUnits: "userSpaceOnUse" }, mark);
    const block = moving("path", { fill: `url(#${id}${name})` });
    const [x, y] = [LEFT - 20 + (i % 2) * 150, BOTTOM + (i < 2 ? -16 : 8)];
    const legend = text(x + 12, y, "", "start");
    const sign = name === "fn_per_1000" ? text(x, y, "×", "start", { "font-weight": 700 }) : s("circle", { cx: x + 4, cy: y - 4, r: 4, fill: colour });
    return { name, words, pattern, block, legend, sign };
  });
  const title = text(LEFT - 20, 18, "", "start", { "font-weight": 600, "font-size": 14 });
  const parts = kinds.flatMap(({ pattern, block, legend, sign }) => [pattern, block.element, sign, legend]);
  const svg = s("svg", { viewBox: "0 0 280 252", role: "img", "aria-label": "" }, title, ...parts);
  const show = (state, _, prevalence) => {
    let first = 0;
    title.textContent = `1,000 lesions, ${(100 * prevalence).toPrecision(3)}% melanomas`;
    for (const { name, words, block, legend } of kinds) {
      block.move({ d: blockOutline(first, first + state[name]) });
      legend.textContent = `${state[name]} ${words}`;
      first += state[name];
    }
    tell(svg, `Of 1,000 lesions: ${LESIONS.map(([name, words]) => `${state[name]} ${words}`).join(", ")}.`);
  };
  return { svg, show };
}

const DECADES = [0.001, 0.01, 0.1, 0.9]; // the prevalence axis: odds on a log scale, so that rare and common both have room
const LOW = Math.log(oddsOf(0.0005)), HIGH = Math.log(oddsOf(0.9));
const prevalencePlace = (share) => Math.min(1, Math.max(0, (Math.log(oddsOf(share)) - LOW) / (HIGH - LOW)));

function valuesPanel() {
  const grid = Array.from({ length: 61 }, (_, i) => i / 60);
  const shares = grid.map((at) => { const odds = Math.exp(LOW + at * (HIGH - LOW)); return odds / (1 + odds); });
  const [ppv, npv, here] = [moving("polyline", {}), moving("polyline", {}), moving("line", {})];
  const [ppvDot, npvDot] = [dot(), dot()];
  for (const [line, colour] of [[ppv, MELANOMA], [npv, OTHER]]) line.move({ fill: "none", stroke: colour, "stroke-width": 2.4 });
  here.move({ y1: TOP, y2: BOTTOM, stroke: "currentColor", "stroke-dasharray": "4 3" });
  npvDot.move({ fill: OTHER });
  const svg = plot(
    {
      title: "PPV and NPV by prevalence", label: "", xlabel: "prevalence (log odds)", ys: QUARTERS,
      xs: DECADES.map((share) => [prevalencePlace(share), share < 0.01 ? "0.1%" : percent(share)]),
    },
    ppv.element, npv.element, here.element, ppvDot.element, npvDot.element,
    text(LEFT + 6, TOP + 24, "NPV", "start", { fill: "var(--mk-other-ink)" }),
    text(LEFT + 6, BOTTOM - 22, "PPV", "start", { fill: "var(--mk-melanoma-ink)" }),
  );
  const points = (values) => grid.map((at, i) => `${across(at)},${up(Number.isNaN(values[i]) ? 0 : values[i])}`).join(" ");
  const show = (state, _, prevalence) => {
    const values = shares.map((share) => predictiveValues(state, share));
    ppv.move({ points: points(values.map((value) => value.ppv)), visibility: Number.isNaN(state.ppv) ? "hidden" : "visible" });
    npv.move({ points: points(values.map((value) => value.npv)), visibility: Number.isNaN(state.npv) ? "hidden" : "visible" });
    const x = prevalencePlace(prevalence);
    here.move({ x1: across(x), x2: across(x) });
    for (const [mark, value] of [[ppvDot, state.ppv], [npvDot, state.npv]]) {
      mark.move(Number.isNaN(value) ? { visibility: "hidden" } : { visibility: "visible", ...place(x, value) });
    }
    tell(svg, `At a prevalence of ${(100 * prevalence).toFixed(2)}% the PPV is ${rate(state.ppv)} and the NPV ${rate(state.npv)}.`);
  };
  return { svg, show };
}

const HIGHEST_RISK = 0.5, RISKS = Array.from({ length: 100 }, (_, i) => ((i + 1) / 100) * HIGHEST_RISK);

function benefitPanel(counts, { prevalences, calibration }) {
  const own = prevalences["these cases"], [model, everyone, mark] = [moving("polyline", {}), moving("polyline", {}), dot()];
  const clip = { fill: "none", "stroke-linejoin": "round" };
  model.move({ ...clip, stroke: GREEN, "stroke-width": 2.4 });
  everyone.move({ ...clip, stroke: EDGE, "stroke-width": 1.6, "stroke-dasharray": "6 4" });
  const low = -0.15, high = 1.05; // in units of the prevalence, the best that net benefit can be
  const y = (benefit, prevalence) => Math.max(0, Math.min(1, (benefit / prevalence - low) / (high - low)));
  const zero = (0 - low) / (high - low), one = (1 - low) / (high - low);
  const svg = plot(
    {
      title: "net benefit / prevalence", label: "", xlabel: "risk from which one would act", ys: [[zero, "0"], [one, "1"]],
      xs: [0, 0.1, 0.2, 0.3, 0.4, 0.5].map((risk) => [risk / HIGHEST_RISK, percent(risk)]),
    },
    curve([0, 1], [zero, zero], "currentColor", { "stroke-width": 1.2 }), everyone.element, model.element, mark.element,
    text(RIGHT, TOP + 12, "━ the model", "end", { fill: "var(--mk-green-ink)" }), text(RIGHT, TOP + 28, "- - flag all", "end", { fill: SOFT }),
  );
  let drawn = null;
  const redraw = (prevalence) => {
    const line = (benefit) => RISKS.map((risk) => [risk, y(benefit(risk), prevalence)]).filter(([, height]) => height > 0)
      .map(([risk, height]) => `${across(risk / HIGHEST_RISK)},${up(height)}`).join(" ");
    model.move({ points: line((risk) => {
      const { tp, fp, tn, fn } = countsAt(counts, outputOf(risk, own, prevalence, calibration));
      return netBenefit({ sensitivity: tp / (tp + fn), specificity: tn / (tn + fp), fp }, prevalence, risk);
    }) });
    everyone.move({ points: line((risk) => prevalence - (1 - prevalence) * oddsOf(risk)) });
    drawn = prevalence;
  };
  const show = (state, _, prevalence) => {
    if (drawn !== prevalence) redraw(prevalence);
    const inside = state.risk <= HIGHEST_RISK && Number.isFinite(state.net_benefit);
    mark.move(inside ? { visibility: "visible", ...place(state.risk / HIGHEST_RISK, y(state.net_benefit, prevalence)) } : { visibility: "hidden" });
    tell(svg, `Decision curve; acting from a risk of ${(100 * state.risk).toFixed(1)}% on has a net benefit of ${plain(4)(state.net_benefit)} a case.`);
  };
  return { svg, show };
}
