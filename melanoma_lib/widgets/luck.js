/* The page of LuckExplorer: six sliders, test sets to choose from, numbers and three plots; nothing is asked of a kernel. */

const GREEN = "var(--mk-green)", MELANOMA_INK = "var(--mk-melanoma-ink)", OTHER_INK = "var(--mk-other-ink)";
const LINE = { "stroke-width": 2.6 }, DASHED = { "stroke-width": 1.4, "stroke-dasharray": "5 4" };
const LOWEST = Math.log(10), HIGHEST = Math.log(5000), COUNTS = Array.from({ length: 61 }, (_, i) => Math.exp(LOWEST + (i / 60) * (HIGHEST - LOWEST)));
const countPlace = (count) => Math.min(1, Math.max(0, (Math.log(count) - LOWEST) / (HIGHEST - LOWEST)));
const DECADES = [10, 100, 1000].map((count) => [countPlace(count), count.toLocaleString("en")]);
const share = (value) => (value > 0 && value < 0.001 ? "under 0.1%" : `${(100 * value).toFixed(1)}%`);
const whole = (value) => (value > MOST || value === Infinity ? "no number" : value.toLocaleString("en"));
const CONTROLS = [ // name, label, step of the slider, what it stands for, how it is written
  ["melanomas", "melanomas in the test", null, (value) => value.toLocaleString("en")],
  ["ratio", "other lesions for each", null, (value) => String(Number(value.toPrecision(3)))],
  ["auroc", "true AUROC", 0.005, (value) => value.toFixed(3)],
  ["gap", "other model worse by", 0.001, (value) => value.toFixed(3)],
  ["alike", "correlation of the two AUROCs", 0.05, (value) => value.toFixed(2)],
  ["tries", "splits tried", null, String],
];
const WORD = 42; // width of an AUROC's three digits below a plot
const WHOLE = new Set(["melanomas", "tries"]);

/** A bell over an axis from low to high; peak is its height as a share of the drawing area. */
function bell(centre, error, [low, high], peak, colour, more) {
  const xs = Array.from({ length: 81 }, (_, i) => centre + (i / 20 - 2) * 2 * error).filter((x) => x >= low && x <= high);
  return curve(xs.map((x) => (x - low) / (high - low)), xs.map((x) => peak * Math.exp(-(((x - centre) / error) ** 2) / 2)), colour, more);
}

function bellPlot({ auroc, gap }, state, worse) {
  const reach = 3.6 * Math.max(state.error, worse), low = auroc - gap - reach, high = Math.min(auroc + reach, 1.0);
  const at = (value) => (value - low) / (high - low);
  const ends = [auroc - state.half_width, Math.min(high, auroc + state.half_width)], places = ends.map((end) => across(at(end)));
  const wide = places[1] - places[0], aside = Math.max(0, (WORD - wide) / 2); // a narrow band's two numbers stand beside it
  const marks = ends.map((end, i) => text(places[i] + (i ? aside : -aside), BOTTOM + 18, end.toFixed(3)));
  if (Math.min(across(at(auroc)) - places[0], places[1] - across(at(auroc))) > WORD) marks.push(text(across(at(auroc)), BOTTOM + 18, auroc.toFixed(3)));
  const band = s("rect", { x: places[0], width: wide, y: TOP, height: BOTTOM - TOP, fill: GREEN, opacity: 0.13 });
  const label = `What a test set may say: 95 of 100 put the better model between ${ends[0].toFixed(3)} and ${ends[1].toFixed(3)}; ` +
    `the other one is truly at ${(auroc - gap).toFixed(3)}`;
  return plot(
    { title: "AUROC that a test set shows", label, xlabel: "", xs: [], ys: [] },
    band, marks, text(RIGHT + 6, BOTTOM + 37, "AUROC; shaded: 95% interval of the better", "end"), curve([at(auroc - gap), at(auroc - gap)], [0, 0.9], OTHER, DASHED), curve([at(auroc), at(auroc)], [0, 0.9], GREEN, DASHED),
    bell(auroc - gap, worse, [low, high], 0.8 * Math.min(1, state.error / worse), OTHER, LINE), bell(auroc, state.error, [low, high], 0.8 * Math.min(1, worse / state.error), GREEN, LINE),
    text(LEFT + 6, TOP + 14, "━ better", "start", { fill: "var(--mk-green-ink)" }), text(LEFT + 6, TOP + 31, "━ worse", "start", { fill: OTHER_INK }),
  );
}

function orderPlot(values, state) {
  const shares = COUNTS.map((melanomas) => {
    const between = gapError(values.auroc, values.gap, values.alike, melanomas, melanomas * values.ratio);
    return below(-values.gap / between) / 0.5;
  });
  const x = countPlace(values.melanomas), y = state.wrong / 0.5;
  const label = `Share of test sets that put the worse model first, by melanomas: ${share(state.wrong)} at ${values.melanomas}`;
  return plot(
    { title: "the worse model comes first", label, xlabel: "melanomas in the test", xs: DECADES, ys: [0, 0.25, 0.5].map((value) => [value / 0.5, percent(value)]) },
    curve(COUNTS.map(countPlace), shares, MELANOMA, LINE), curve([x, x], [0, y], EDGE, DASHED),
    s("circle", { cx: across(x), cy: up(y), r: 6.5, fill: MELANOMA, stroke: PAPER, "stroke-width": 1.5 }),
    text(RIGHT, TOP + 14, "a coin toss: 50%", "end", { fill: SOFT }),
  );
}

function bestPlot({ auroc, tries }, state) {
  const numbers = [1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50, 70, 100, 140, 200], place = (n) => Math.log(n) / Math.log(200);
  const top = 3 * state.error, height = (value) => 0.1 + (0.9 * (value - auroc)) / top; // the truth a little above the floor
  const shown = numbers.map((n) => height(Math.min(1, auroc + state.error * expectedMaximum(n))));
  const [x, y] = [place(tries), height(state.best)];
  const label = `What the best of many splits shows: ${state.best.toFixed(3)} for the best of ${tries}, where the truth is ${auroc.toFixed(3)}`;
  return plot(
    {
      title: "best of many splits reports", label, xlabel: "splits tried", xs: [1, 10, 100].map((n) => [place(n), String(n)]),
      ys: [0, 1, 2, 3].map((n) => auroc + n * state.error).filter((value) => value <= 1).map((value) => [height(value), value.toFixed(3)]),
    },
    curve([0, 1], [0.1, 0.1], GREEN, DASHED), curve(numbers.map(place), shown, MELANOMA, LINE), curve([x, x], [0, y], EDGE, DASHED),
    s("circle", { cx: across(x), cy: up(y), r: 6.5, fill: MELANOMA, stroke: PAPER, "stroke-width": 1.5 }),
    text(RIGHT, up(0.1) - 8, "the truth", "end", { fill: "var(--mk-green-ink)" }),
  );
}

function luckNumbers(values, state) {
  const numbers = [
    ["half_width", "95% interval", `± ${state.half_width.toFixed(3)}`, `for ± ${FINE}: ${whole(state.fine)} melanomas`],
    ["wrong", "worse model first", share(state.wrong), "of all such test sets"],
    ["power", "power (test at 5%)", share(state.power), values.gap ? `for 80%: ${whole(state.found)} melanomas` : "no gap: false alarms"],
    ["best", `best of ${values.tries} reports`, state.best.toFixed(3), `the truth is ${values.auroc.toFixed(3)}`],
  ];
  return numbers.map(([key, name, words, remark]) => h("div", { role: "listitem" },
    h("span", {}, name), h("strong", { dataset: { number: key, value: state[key] } }, words), h("span", { dataset: { remark: key } }, remark)));
}

function render({ model, el }) {
  const limits = model.get("limits"), names = CONTROLS.map(([name]) => name);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes(); // at once: Jupyter holds back what a busy kernel cannot take, and an echo would undo what is not sent
  };
  const controls = CONTROLS.map(([name, label, step, words]) => {
    const [low, high] = limits[name], logarithmic = step === null;
    const place = (value) => (logarithmic ? Math.log(value / low) / Math.log(high / low) : value);
    const read = (at) => {
      const value = logarithmic ? low * (high / low) ** at : at;
      return Math.min(high, Math.max(low, WHOLE.has(name) ? Math.round(value) : Number(value.toPrecision(3))));
    };
    const control = slider(label, {
      min: logarithmic ? 0 : low, max: logarithmic ? 1 : high, step: step ?? 0.005, value: place(model.get(name)),
      format: (at) => words(read(at)), onInput: (at) => set({ [name]: read(at) }),
    });
    if (logarithmic) control.input.addEventListener("keydown", (event) => { // a whole one, or a twentieth, at a time
      const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key], value = model.get(name);
      if (!by) return;
      event.preventDefault();
      const next = WHOLE.has(name) ? value + by * Math.max(1, Math.round(value / 20)) : Number((value * 1.05 ** by).toPrecision(3));
      set({ [name]: Math.min(high, Math.max(low, next)) });
    });
    const show = () => {
      control.input.value = place(model.get(name));
      control.element.querySelector("output").textContent = words(model.get(name));
      control.input.setAttribute("aria-valuetext", words(model.get(name)));
    };
    return { element: control.element, show };
  });
  const places = Object.entries(model.get("places")).map(([name, [melanomas, ratio]]) => ({
    melanomas, ratio, button: h("button", { type: "button", onClick: () => set({ melanomas, ratio }) }, name),
  }));
  const numbers = h("div", { className: "mk-luck-numbers", role: "list" }), plots = h("div", { className: "mk-luck-plots" });
  const draw = () => {
    const values = Object.fromEntries(names.map((name) => [name, model.get(name)])), state = luckAt(values);
    const worse = aurocError(values.auroc - values.gap, values.melanomas, values.melanomas * values.ratio);
    controls.forEach(({ show }) => show());
    for (const { melanomas, ratio, button } of places) button.setAttribute("aria-pressed", melanomas === values.melanomas && ratio === values.ratio);
    numbers.replaceChildren(...luckNumbers(values, state));
    plots.replaceChildren(bellPlot(values, state, worse), orderPlot(values, state), bestPlot(values, state));
  };
  const stop = frame(
    model, el, "How much is luck?",
    h("div", { className: "mk-luck-sliders" }, ...controls.map(({ element }) => element)),
    h("div", { className: "mk-row mk-luck-places", role: "group", "aria-label": "test sets" }, "a test of", ...places.map(({ button }) => button),
      h("span", { className: "mk-luck-unit" }, "a lesion or patient counts once, however many images it has")),
    numbers, plots,
  );
  const forget = watch(model, Object.fromEntries(names.map((name) => [name, draw])));
  return () => [stop, forget].forEach((end) => end());
}

export default { render };
