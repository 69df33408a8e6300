/* The page of ThresholdExplorer: sliders, presets, numbers and six plots; nothing is asked of a kernel. */

const GROUPS = [
  ["At any prevalence", [
    ["sensitivity", "sensitivity", rate], ["specificity", "specificity", rate], ["balanced_accuracy", "balanced accuracy", rate],
    ["youden", "Youden index", plain(3)], ["lr_positive", "LR+", plain(2)], ["lr_negative", "LR−", plain(3)],
  ]],
  ["At the prevalence chosen", [
    ["ppv", "PPV", rate], ["npv", "NPV", (value) => (Number.isNaN(value) ? "–" : `${(100 * value).toFixed(2)}%`)],
    ["biopsies_per_melanoma", "flagged per melanoma", plain(1)], ["risk", "threshold stands for a risk of", rate],
    ["net_benefit", "net benefit a case", plain(4)],
  ]],
  ["On these cases", [["f1", "F1", plain(3)], ["accuracy", "accuracy", rate], ["mcc", "MCC", plain(3)]]],
];
const STEP = 0.001, BIG = 0.05, HINT = "Arrow keys move by 0.001, with shift by 0.01, page up and down by 0.05.";

/** Where a key takes the threshold, or undefined if it takes it nowhere. */
function thresholdAfter(key, shift, t) {
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[key] * (shift ? 10 : 1)
    || { PageUp: BIG / STEP, PageDown: -BIG / STEP }[key];
  if (key === "Home") return 0;
  if (key === "End") return 1;
  return by && Math.min(1, Math.max(0, (Math.round(t / STEP) + by) / (1 / STEP)));
}

function confusionTable() {
  const cells = Object.fromEntries(["tp", "fn", "fp", "tn"].map((name) => [name, h("td", { dataset: { number: name } })]));
  const row = (title, ...names) => h("tr", {}, h("th", { scope: "row" }, title), ...names.map((name) => cells[name]));
  const table = h("table", { className: "mk-t-counts", "aria-label": "what becomes of these images" },
    h("thead", {}, h("tr", {}, h("td", {}, "images"), h("th", { scope: "col" }, "flagged"), h("th", { scope: "col" }, "let go"))),
    h("tbody", {}, row("melanoma", "tp", "fn"), row("other", "fp", "tn")));
  return { table, cells };
}

function numberGroups() {
  const fields = {};
  const group = ([title, numbers]) => h("div", { className: "mk-t-group", role: "group", "aria-label": title },
    h("p", {}, title), h("div", { className: "mk-t-numbers" }, ...numbers.map(([name, label, format]) => {
      const value = h("strong", { dataset: { number: name } });
      fields[name] = { value, format };
      return h("div", {}, h("span", {}, label), value);
    })));
  return { element: h("div", { className: "mk-t-groups" }, ...GROUPS.map(group)), fields };
}

/** A field for a number; gives what was typed, if it is one within the limits, and says what is wrong if not. */
function numberField(label, { min, max, step }, onNumber) {
  const input = h("input", { type: "number", min, max, step: "any", "aria-label": label });
  let shown = "";
  const show = (value, digits) => {
    shown = input.value = Number(value.toPrecision(digits));
    input.setCustomValidity("");
  };
  input.addEventListener("change", () => {
    const value = input.valueAsNumber;
    if (value === shown) return; // left as it was: it stands for a number with more digits
    const wrong = !(value >= min && value <= max);
    input.setCustomValidity(wrong ? `Expected a number from ${min} to ${max}.` : "");
    if (wrong) input.reportValidity();
    else onNumber(value);
  });
  input.addEventListener("keydown", (event) => { // the browser would step from odd values to odd values
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!by || !step) return;
    event.preventDefault();
    input.value = Math.min(max, Math.max(min, (Math.round(input.valueAsNumber / step) + by) / (1 / step)));
    input.dispatchEvent(new Event("change"));
  });
  return { input, show };
}

let explorers = 0; // ids within one page

function render({ model, el }) {
  const facts = model.get("facts"), counts = unpackCounts(model.get("counts")), id = `mk-t${Date.now()}-${explorers++}`;
  let telling;
  const put = (name, value) => {
    model.set(name, value);
    model.save_changes(); // at once: Jupyter holds back what a busy kernel cannot take, and an echo would undo what is not sent
  };
  const panels = [
    scorePanel(facts, `${id}clip`), rocPanel(facts), precisionPanel(facts), lesionPanel(id), valuesPanel(), benefitPanel(counts, facts),
  ];
  const { table, cells } = confusionTable();
  const { element: numbers, fields } = numberGroups();
  const status = h("p", { className: "mk-t-status", role: "status" }), spoken = h("p", { className: "mk-t-spoken", "aria-live": "polite" });

  const range = h("input", { type: "range", id: `${id}threshold`, min: 0, max: 1, step: "any", "aria-label": "threshold", title: HINT });
  range.addEventListener("input", () => put("threshold", Math.round(range.valueAsNumber / STEP) / (1 / STEP)));
  range.addEventListener("keydown", (event) => {
    const next = thresholdAfter(event.key, event.shiftKey, model.get("threshold"));
    if (next === undefined) return;
    event.preventDefault();
    put("threshold", next);
  });
  const exact = numberField("threshold, exact", { min: 0, max: 1, step: STEP }, (value) => put("threshold", value));

  const toShare = (place) => { const odds = Math.exp(LOW + place * (HIGH - LOW)); return Number((odds / (1 + odds)).toPrecision(3)); };
  const common = h("input", { type: "range", id: `${id}prevalence`, className: "mk-t-prevalence", min: 0, max: 1, step: 0.005, "aria-label": "prevalence" });
  common.addEventListener("input", () => put("prevalence", toShare(common.valueAsNumber)));
  const percentage = numberField("prevalence, percent", { min: 0.01, max: 99.99, step: 0.1 }, (value) => put("prevalence", value / 100));

  const choose = (name, value) => h("button", { type: "button", onClick: () => put("threshold", value) }, name);
  const presets = Object.entries(facts.presets).map(([name, value]) => ({ value, button: choose(name, value) }));
  const costs = ["fn_cost", "fp_cost"].map((name) => numberField(name === "fn_cost" ? "cost of a missed melanoma" : "cost of a false alarm",
    { min: 1e-6, max: 1e9, step: 1 }, (value) => put(name, value)));
  const byCost = h("button", { type: "button", onClick: () => {
    const best = cheapest(counts, model.get("fn_cost"), model.get("fp_cost"), model.get("prevalence"));
    if (best !== null) put("threshold", best);
    else status.textContent = "Flagging nobody costs less than any threshold: raise the cost of a miss or the prevalence.";
  } }, "lowest cost");
  const places = Object.entries(facts.prevalences).map(([name, value]) => ({
    value, button: h("button", { type: "button", onClick: () => put("prevalence", value) }, `${name}: ${(100 * value).toPrecision(3)}%`),
  }));

  const draw = () => {
    const t = model.get("threshold"), prevalence = model.get("prevalence");
    const state = stateAt(counts, t, prevalence, facts.calibration);
    for (const [name, { value, format }] of Object.entries(fields)) {
      value.textContent = format(state[name]);
      value.dataset.value = state[name];
    }
    for (const [name, cell] of Object.entries(cells)) cell.textContent = state[name].toLocaleString("en");
    for (const panel of panels) panel.show(state, t, prevalence);
    for (const { value, button } of presets) button.setAttribute("aria-pressed", value === t);
    for (const { value, button } of places) button.setAttribute("aria-pressed", value === prevalence);
    status.textContent = "";
    range.value = t;
    exact.show(t, 6);
    common.value = prevalencePlace(prevalence);
    percentage.show(100 * prevalence, 4);
    const words = `sensitivity ${rate(state.sensitivity)}, specificity ${rate(state.specificity)}, PPV ${rate(state.ppv)}`;
    range.setAttribute("aria-valuetext", `${t.toFixed(3)}: ${words}`);
    common.setAttribute("aria-valuetext", `${(100 * prevalence).toPrecision(3)} percent`);
    clearTimeout(telling);
    telling = setTimeout(() => { spoken.textContent = `Threshold ${t.toFixed(3)}: ${words}. Of 1,000 lesions ${state.missed} melanomas are missed.`; }, 600);
  };
  const showCosts = () => {
    status.textContent = "";
    costs.forEach((field, i) => field.show(model.get(["fn_cost", "fp_cost"][i]), 6));
  };

  const stop = frame(
    model, el, "What a threshold decides",
    h("div", { className: "mk-t-controls" }, h("label", { htmlFor: range.id }, "threshold"), range, exact.input, h("label", { htmlFor: common.id }, "prevalence"), common,
      h("span", { className: "mk-field" }, percentage.input, "%")),
    h("div", { className: "mk-row mk-t-presets", role: "group", "aria-label": "presets" }, ...presets.map(({ button }) => button), byCost,
      h("span", { className: "mk-field mk-t-costs" }, "a miss costs", costs[0].input, "a false alarm", costs[1].input)),
    h("div", { className: "mk-row mk-t-presets", role: "group", "aria-label": "prevalences" }, "prevalence of", ...places.map(({ button }) => button), status),
    h("div", { className: "mk-t-head" }, table, numbers),
    h("div", { className: "mk-t-plots" }, ...panels.map(({ svg }) => svg)), spoken,
    ...(facts.calibration ? [] : [h("p", { className: "mk-note" }, "No calibration was given: risk and net benefit hold only if the output itself is a risk.")]),
  );
  const forget = watch(model, { threshold: draw, prevalence: draw, fn_cost: showCosts, fp_cost: showCosts });
  return () => [() => clearTimeout(telling), stop, forget].forEach((end) => end());
}

export default { render };
