/* The page of LayerExplorer: an image and two of its maps, and what the model makes of the metadata. */

const truth = ({ target, outcome }) => `${target ? "melanoma" : "other lesion"}, ${outcome}`;
const DIRECTIONS = [["1", "melanoma (raises the logit)"], ["-1", "other lesion (lowers the logit)"]];
const SCALES = [["", "each map’s own"], ["one", "one for both"]];

const signOf = ({ target }) => (target ? "▲" : "●");
const raw = (value) => Number(value.toPrecision(2)).toString();

/** A case as the page keeps it; its pictures are ready a little later. */
function keep(entry, facts) {
  return { ...entry, kept: readMaps(entry.maps), answers: answersOf(entry.logits, facts), ground: groundOf(entry, facts.side) };
}

function checkbox(label, onChange) {
  const input = h("input", { type: "checkbox", onChange: () => onChange(input.checked) });
  return { input, element: h("label", { className: "mk-field" }, input, label) };
}

/** A picture with choosers above and words below. */
function panel(side, name, ...above) {
  const canvas = h("canvas", { width: side, height: side, role: "img" }), caption = h("div", { className: "mk-l-caption" });
  const element = h("div", { className: "mk-l-panel", role: "group", "aria-label": name }, h("div", { className: "mk-l-above" }, ...above), canvas, caption);
  const say = (label, lines) => {
    canvas.setAttribute("aria-label", label);
    caption.replaceChildren(...lines.filter(Boolean).map(([kind, words]) => h("p", { className: kind && `mk-l-${kind}` }, words)));
  };
  return { element, canvas, caption, say };
}

/** Method and layer of one of the two maps. */
function mapPanel(letter, facts, put) {
  const layers = facts.layers.map(({ name, points }, i) => {
    const place = i === 0 ? ", early" : i === facts.layers.length - 1 ? ", late" : "";
    return [name, `${name}: ${points} × ${points}${place}`];
  });
  const key = letter.toLowerCase();
  const method = chooser(`method ${letter}`, facts.methods, "", (value) => put({ [`method_${key}`]: value }));
  const layer = chooser(`layer ${letter}`, layers, "", (value) => put({ [`layer_${key}`]: value }));
  for (const { element } of [method, layer]) element.firstChild.classList.add("mk-spoken"); // the letter says enough to the eye
  const parts = panel(facts.side, `map ${letter}`, h("strong", {}, letter), method.element, layer.element);
  const show = (shown) => {
    method.select.value = shown[`method_${key}`];
    layer.select.value = shown[`layer_${key}`];
  };
  return { ...parts, key, show };
}

/** Everything told of one map, a paragraph each. */
function mapWords(map, facts, { method, layer, direction }, scaled) {
  const [, label, note] = facts.methods.find(([name]) => name === method);
  const { points } = facts.layers.find(({ name }) => name === layer);
  const turned = map.turned === null ? "" : ` (with the other sign ${percent(map.turned)})`;
  const energy = map.energy === null ? "" : `${percent(map.energy)} of the positive energy lies on the lesion${turned}. `;
  const lines = [
    ["size", `raw ±${raw(map.size)}${scaled ? ` on a scale of ±${raw(scaled)}` : ""}`], ["", `${energy}${points} × ${points} points.`], ["", note],
    map.doubtful && ["flag", "Sign doubtful: it may as well be turned round."],
  ];
  return { label: `${label}, ${layer}, direction ${direction > 0 ? "melanoma" : "other lesion"}: ${peakWords(map)}, ±${raw(map.size)}. ${energy}`, lines };
}

function metadataControls(facts, put, agesNow) {
  const years = (age) => (age === null ? "unknown" : `${Number(age.toFixed(1))} years`);
  const age = slider("age", { min: 0, max: 1, step: 1, value: 0, format: (i) => years(agesNow()[i] ?? null), onInput: (i) => put({ age: agesNow()[i] }) });
  const list = (name, values) => {
    const { element, select } = chooser(name, values.map((value, i) => [String(i), value ?? "unknown"]), "", (i) => put({ [name]: values[i] }));
    return { element, show: (value) => { select.value = String(values.indexOf(value)); } };
  };
  const sex = list("sex", facts.sexes), site = list("site", facts.sites);
  const show = (shown) => {
    age.input.max = agesNow().length - 1;
    age.set(agesNow().indexOf(shown.age));
    age.input.setAttribute("aria-valuetext", years(shown.age));
    sex.show(shown.sex);
    site.show(shown.site);
  };
  return { elements: [age.element, sex.element, site.element], show };
}

function render({ model, el }) {
  const facts = model.get("facts"), bytes = model.get("palette");
  const palette = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const cases = new Map(model.get("cases").map((entry) => [entry.id, keep(entry, facts)]));
  const ids = [...cases.keys()], grounds = new Map();
  const now = () => model.get("shown"), current = () => cases.get(now().case);
  const put = (values) => {
    model.set("shown", { ...now(), ...values });
    model.save_changes(); // at once: Jupyter holds back what a busy kernel cannot take, and an echo would undo what is not sent
  };
  const turnTo = (id) => cases.has(id) && put({ case: id, ...cases.get(id).recorded });
  const step = (by) => turnTo(ids[ids.indexOf(now().case) + by]);

  const named = ids.map((id, i) => [id, `${i + 1}. ${signOf(cases.get(id))} ${id}: ${truth(cases.get(id))}`]);
  const pick = chooser("case", named, "", turnTo);
  const [previous, next] = [["◀ Previous", -1], ["Next ▶", 1]].map(([words, by]) => h("button", { type: "button", onClick: () => step(by) }, words));
  const direction = chooser("direction", DIRECTIONS, "", (value) => put({ direction: Number(value) }));
  const opacity = slider("opacity", { min: 0, max: 100, step: 5, value: 100, format: (value) => `${value}%`, onInput: (value) => put({ opacity: value / 100 }) });
  const scale = chooser("scale", SCALES, "", (value) => put({ one_scale: value === "one" }));
  const lines = checkbox("half-height lines", (lines) => put({ lines })), outline = checkbox("lesion outline", (outline) => put({ outline }));
  const bar = h("canvas", { width: 2 * STEPS + 1, height: 1, className: "mk-l-bar", role: "img", "aria-label": "colours from blue at −1 over none at 0 to orange at +1" });

  const image = panel(facts.side, "image", h("strong", {}, "image"));
  const maps = ["A", "B"].map((letter) => mapPanel(letter, facts, put));
  const pictures = h("div", { className: "mk-l-pictures", tabIndex: 0, role: "group", "aria-label": "pictures; arrow keys turn to another case" },
    image.element, ...maps.map(({ element }) => element));
  pictures.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.tagName === "SELECT") return;
    event.preventDefault();
    step(by);
  });

  const agesNow = () => facts.ages.filter((age) => age === null || age % 5 === 0 || age === current().recorded.age);
  const metadata = metadataControls(facts, put, agesNow);
  const back = h("button", { type: "button", onClick: () => put(current().recorded) }, "Recorded values");
  const numbers = h("div", { className: "mk-l-numbers", role: "list" }), told = h("p", { className: "mk-l-told", role: "status" });
  const plots = [h("div"), h("div")];

  const recordedNow = () => Object.entries(current().recorded).every(([name, value]) => now()[name] === value);
  const wanted = () => maps.map(({ key }) => [now()[`method_${key}`], now()[`layer_${key}`], now().direction]);

  /** Run a part's drawing only if what it depends on is not what it was; maps are compared by themselves. */
  const drawnWith = {};
  const ifChanged = (part, depends, drawing) => {
    if (drawnWith[part]?.length === depends.length && depends.every((value, i) => Object.is(value, drawnWith[part][i]))) return;
    drawnWith[part] = depends;
    drawing();
  };

  function drawImage() {
    const shown = now(), { target, diagnosis, covered } = current();
    paintImage(image.canvas, grounds.get(shown.case), shown.outline);
    const kind = target ? "melanoma" : "other";
    image.say(`Dermoscopy image ${shown.case}`, [
      [kind, `${signOf({ target })} ${truth(current())}`], diagnosis && ["", `Diagnosis in the source: ${diagnosis}.`],
      covered !== null && ["", `The outlined lesion covers ${percent(covered)} of the image.`],
    ]);
  }

  function drawPictures() {
    const shown = now(), { case: id, opacity, one_scale: scaled, lines, outline } = shown, ground = grounds.get(id);
    const found = wanted().map((each) => current().kept.get(keyOf(...each)));
    const largest = Math.max(...found.map(({ size }) => size));
    ifChanged("image", [id, outline], drawImage);
    ifChanged("bar", [opacity], () => paintBar(bar, palette, opacity));
    maps.forEach(({ key, canvas, say, show }, i) => {
      const map = found[i], [method, layer, direction] = wanted()[i];
      const limit = scaled ? largest : map.size;
      ifChanged(key, [id, map, limit, opacity, lines, outline, ...wanted()[i]], () => {
        paintMap(canvas, ground, map, { ...shown, limit, palette });
        const words = mapWords(map, facts, { method, layer, direction }, scaled && limit !== map.size && limit);
        say(words.label, words.lines);
        show(shown);
      });
    });
  }

  function drawRisk() {
    const shown = now(), { answers, recorded } = current();
    const of = ({ age, sex, site }) => [age, sex, site];
    const [risk, was, logit] = [answers.risk(...of(shown)), answers.risk(...of(recorded)), answers.logit(...of(shown))];
    const flagged = logit >= facts.threshold.logit;
    const list = numberList([
      ["risk", "risk, calibrated", riskWords(risk), `${riskWords(was)} as recorded`, risk],
      ["logit", "logit", logit.toFixed(2), `${answers.logit(...of(recorded)).toFixed(2)} as recorded`, logit],
      ["decision", "the run's threshold", flagged ? "flagged" : "not flagged", `flags from ${riskWords(facts.threshold.risk)} on`, Number(flagged)],
    ]);
    numbers.replaceChildren(...list);
    if (!facts.metadata) {
      told.textContent = "This model looks at the image only: age, sex and site change nothing.";
      return;
    }
    const top = (current().top ??= scaleOf(answers, facts));
    plots[0].replaceChildren(agePlot(answers, facts, shown, recorded, top));
    plots[1].replaceChildren(choicePlot(answers, facts, shown, recorded, top));
    metadata.show(shown);
    told.textContent = recordedNow() ? "These are the recorded values: move one, and the risk follows." : "The maps are those of the recorded values.";
    back.disabled = recordedNow();
  }

  function draw() {
    if (!grounds.has(now().case)) return; // pictures are still being decoded; drawn when they are there
    const shown = now(), at = ids.indexOf(shown.case);
    pick.select.value = shown.case;
    previous.disabled = at === 0;
    next.disabled = at === ids.length - 1;
    direction.select.value = String(shown.direction);
    opacity.set(Math.round(100 * shown.opacity));
    scale.select.value = shown.one_scale ? "one" : "";
    [lines.input.checked, outline.input.checked] = [shown.lines, shown.outline];
    outline.input.disabled = !grounds.get(shown.case).edge;
    drawPictures();
    ifChanged("risk", [shown.case, shown.age, shown.sex, shown.site], drawRisk);
    pictures.dataset.drawn = JSON.stringify(shown);
  }

  const stop = frame(
    model, el, "Where the model looked, layer by layer",
    h("div", { className: "mk-row" }, previous, pick.element, next, h("span", { className: "mk-field mk-l-key" }, "blue −1", bar, "+1 orange")),
    h("div", { className: "mk-row mk-l-controls" }, direction.element, opacity.element, scale.element, lines.element, outline.element),
    pictures,
    h("div", { className: "mk-l-metadata" }, h("div", { className: "mk-l-moves" }, ...(facts.metadata ? [...metadata.elements, back] : []), numbers, told),
      ...(facts.metadata ? plots : [])),
    h("p", { className: "mk-note" }, "A map says where a layer's output moves this logit, not why, and not whether the model is right. The curves say what the model would "
      + "answer, not what age does to a patient. ○ as recorded, ● as chosen, – – the run's threshold."),
  );
  const forget = watch(model, { shown: draw });
  let gone = false;
  for (const [id, { ground }] of cases) {
    ground.then((made) => {
      grounds.set(id, made);
      if (!gone && id === now().case) draw();
    });
  }
  return () => {
    gone = true;
    [stop, forget].forEach((end) => end());
  };
}

export default { render };
