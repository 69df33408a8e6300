/* The page of ThresholdExplorer: a slider, counts, two plots; on request all numbers and plots. Nothing is asked of a kernel. */

const GROUPS = [
  ["At any prevalence", [
    ["balanced_accuracy", "balanced accuracy", rate], ["youden", "Youden index", plain(3)], ["lr_positive", "LR+", plain(2)], ["lr_negative", "LR−", plain(3)],
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
    h("thead", {}, h("tr", {}, h("td", {}, "images"), h("th", { scope: "col" }, "flagged"), h("th", { scope: "col" }, "not flagged"))),
    h("tbody", {}, row("melanoma", "tp", "fn"), row("other lesion", "fp", "tn")));
  return { table, cells };
}

/** The two rates with their intervals, and the other numbers by group. */
function numberGroups() {
  const fields = {}, intervals = {};
  const rates = ["sensitivity", "specificity"].map((name) => {
    fields[name] = { value: h("strong", { dataset: { number: name } }), format: rate };
    intervals[name] = h("span", { dataset: { interval: name }, title: "95% interval by Wilson; it takes each image for one observation" });
    return h("div", {}, h("span", {}, name), h("br"), fields[name].value, intervals[name]);
  });
  const group = ([title, numbers]) => h("div", { className: "mk-t-group", role: "group", "aria-label": title },
    h("p", {}, title), h("div", { className: "mk-t-numbers" }, ...numbers.map(([name, label, format]) => {
      const value = h("strong", { dataset: { number: name } });
      fields[name] = { value, format };
      return h("div", {}, h("span", {}, label), value);
    })));
  const groups = h("div", { className: "mk-t-groups mk-t-full" }, ...GROUPS.map(group));
  return { rates: h("div", { className: "mk-t-rates" }, ...rates), groups, fields, intervals };
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
  const { rates, groups, fields, intervals } = numberGroups();
  const status = h("p", { className: "mk-t-status", role: "status" }), spoken = h("p", { className: "mk-spoken", "aria-live": "polite" });

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
  const costs = ["fn_cost", "fp_cost"].map((name) => numberField(name === "fn_cost" ? "cost of a false negative" : "cost of a false positive",
    { min: 1e-6, max: 1e9, step: 1 }, (value) => put(name, value)));
  let best = null; // the threshold of the lowest cost
  const byCost = h("button", { type: "button", onClick: () => {
    if (best !== null) put("threshold", best);
    else status.textContent = "Flagging nobody costs less than any threshold: raise the cost of a false negative or the prevalence.";
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
    for (const [name, [hits, misses]] of [["sensitivity", ["tp", "fn"]], ["specificity", ["tn", "fp"]]]) {
      const [low, high] = wilson(state[hits], state[hits] + state[misses]);
      intervals[name].textContent = `95% interval ${rate(low)} to ${rate(high)}`;
    }
    for (const [name, cell] of Object.entries(cells)) cell.textContent = state[name].toLocaleString("en");
    for (const panel of panels) panel.show(state, t, prevalence);
    for (const { value, button } of presets) button.setAttribute("aria-pressed", value === t);
    byCost.setAttribute("aria-pressed", t === best);
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
    telling = setTimeout(() => { spoken.textContent = `Threshold ${t.toFixed(3)}: ${words}. Of 1,000 lesions ${state.fn_per_1000} are false negatives.`; }, 600);
  };
  const showCosts = () => {
    costs.forEach((field, i) => field.show(model.get(["fn_cost", "fp_cost"][i]), 6));
    best = cheapest(counts, model.get("fn_cost"), model.get("fp_cost"), model.get("prevalence"));
    draw();
  };
  const more = h("button", { type: "button", onClick: () => put("simple", !model.get("simple")) });
  const showMode = () => {
    whole.classList.toggle("mk-t-simple", model.get("simple"));
    more.textContent = model.get("simple") ? "Show everything" : "Show less";
    more.setAttribute("aria-expanded", !model.get("simple"));
  };

  const full = "mk-t-full";
  common.classList.add(full);
  const whole = h(
    "div", {},
    h("div", { className: "mk-t-controls mk-sticky" }, h("label", { htmlFor: range.id }, "threshold"), range, exact.input,
      h("label", { htmlFor: common.id, className: full }, "prevalence"), common, h("span", { className: `mk-field ${full}` }, percentage.input, "%")),
    h("div", { className: `mk-row mk-t-presets ${full}`, role: "group", "aria-label": "presets" }, ...presets.map(({ button }) => button), byCost,
      h("span", { className: "mk-field mk-t-costs" }, "a false negative costs", costs[0].input, "a false positive", costs[1].input)),
    h("div", { className: `mk-row mk-t-presets ${full}`, role: "group", "aria-label": "prevalences" }, "prevalence of", ...places.map(({ button }) => button), status),
    h("div", { className: "mk-row mk-t-top" }, table, rates, more), groups,
    h("div", { className: "mk-t-plots" }, ...panels.map(({ svg }) => svg)), spoken,
    ...(facts.calibration ? [] : [h("p", { className: `mk-note ${full}` }, "No calibration was given: risk and net benefit hold only if the probability itself is a risk.")]),
  );
  panels.slice(2).forEach(({ svg }) => svg.classList.add(full));
  const stop = frame(model, el, "What a threshold decides", whole);
  const forget = watch(model, { simple: showMode, threshold: draw, prevalence: showCosts, fn_cost: showCosts, fp_cost: showCosts });
  return () => [() => clearTimeout(telling), stop, forget].forEach((end) => end());
}

export default { render };
