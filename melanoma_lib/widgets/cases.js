/* The page of CaseExplorer: filters, the pages of tiles, the selected case below its row, and a quiz. */

const TELLING = ["target", "diagnosis", "outcome"]; // fields that give the label away

function badge(melanoma) {
  const shape = h("span", { "aria-hidden": "true" }, melanoma ? "▲ " : "● ");
  const [kind, word] = melanoma ? ["mkc-melanoma", "melanoma"] : ["mkc-other", "other lesion"];
  return h("span", { className: `mkc-line ${kind}` }, shape, word);
}

function line(text) {
  return h("span", { className: "mkc-line", title: text }, text);
}

/** Pictures come as bytes; a set of them lives until the next set is drawn. */
function pictureSet() {
  let urls = [];
  const release = () => {
    const old = urls;
    setTimeout(() => old.forEach((url) => URL.revokeObjectURL(url)), 5000); // one that is still being read would fail
    urls = [];
  };
  const draw = ({ picture, problem, image_id }) => {
    if (!picture) return h("span", { className: "mkc-picture" }, h("span", { className: "mkc-absent", title: problem }, problem));
    urls.push(URL.createObjectURL(new Blob([picture], { type: "image/jpeg" })));
    return h("span", { className: "mkc-picture" }, h("img", { src: urls.at(-1), alt: `dermoscopy image ${image_id}` }));
  };
  return { draw, release };
}

/** One control per field; `show` makes it follow filters that a cell has set. */
function choiceControl({ field, options }, change) {
  const texts = [["", "any"], ...options.map(({ text }, index) => [String(index), text])];
  const name = field === "target" ? "label" : field;
  const { element, select } = chooser(name, texts, "", (key) => change(field, key === "" ? undefined : options[key].value));
  const show = (wanted) => { select.value = String(options.findIndex(({ value }) => value === wanted)).replace("-1", ""); };
  return { element, field, show };
}

function filterBar(model) {
  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const send = (filters) => put("filters", filters);
  const change = (field, wanted) => {
    const { [field]: _, ...others } = model.get("filters");
    send(wanted === undefined ? others : { ...others, [field]: wanted });
  };
  const controls = model.get("choices").map((choice) => choiceControl(choice, change));
  controls.forEach(({ element, field }) => element.classList.toggle("mkc-telling", TELLING.includes(field)));
  const orders = Object.entries(model.get("orders"));
  const order = chooser("order", orders, model.get("order"), (value) => put("order", value));
  order.element.classList.add("mkc-telling");
  order.element.hidden = !orders.length;
  const show = () => {
    controls.forEach((control) => control.show(model.get("filters")[control.field]));
    order.select.value = model.get("order");
  };
  const tellNothing = () => {
    send(Object.fromEntries(Object.entries(model.get("filters")).filter(([field]) => !TELLING.includes(field))));
    put("order", "table");
  };
  const clear = h("button", { type: "button", onClick: () => { send({}); show(); } }, "Clear filters"); // also what was not sent
  const element = h("div", { className: "mk-row mkc-filters", role: "group", "aria-label": "filters" },
    ...controls.map((control) => control.element), order.element, clear);
  return { element, show, tellNothing };
}

function pager(model) {
  const turn = (page) => {
    if (!(page >= 1 && page <= model.get("view").pages)) return show();
    model.set("page", page);
    model.save_changes();
  };
  const button = (text, step) => h("button", { type: "button", onClick: () => turn(model.get("page") + step) }, text);
  const [previous, next] = [button("◀ Previous", -1), button("Next ▶", 1)];
  const number = h("input", { type: "number", min: 1, step: 1, "aria-label": "page number" });
  number.addEventListener("change", () => turn(Math.round(number.valueAsNumber)));
  const total = h("span");
  const chosen = h("span", { role: "status" });
  function show() {
    const { page, pages } = model.get("view");
    number.value = page;
    number.max = pages;
    chosen.textContent = model.get("selected") && `selected: ${model.get("selected")}`;
    total.textContent = `of ${pages.toLocaleString("en")}`;
    previous.setAttribute("aria-disabled", page <= 1); // stays in the tab order, unlike a disabled button
    next.setAttribute("aria-disabled", page >= pages);
  }
  const element = h("div", { className: "mk-row mkc-pager" },
    previous, h("label", { className: "mk-field" }, "page", number, total), next, chosen);
  return { element, show, turn };
}

/** Guesses of the reader, and how they and the model did; whatever tells a label is hidden until it is guessed. */
function quizOf(start, redraw) {
  const guesses = new Map(), score = h("span", { role: "status" });
  let on = false;
  const share = (cases, fits) => `${cases.filter(fits).length} of ${cases.length}`;
  const show = () => {
    const all = [...guesses.values()], asked = all.filter(({ outcome }) => outcome);
    const right = (kind) => share(all.filter(({ melanoma }) => melanoma === kind), ({ guess }) => guess === kind);
    const words = `You recognised ${right(true)} melanomas and ${right(false)} negatives`;
    const told = asked.length ? `; the model ${share(asked, ({ outcome }) => outcome.startsWith("true"))} of these` : "";
    score.textContent = !on ? "" : all.length ? `${words}${told}.` : "Choose an image and say what it is.";
    button.setAttribute("aria-pressed", on);
    redraw(on);
  };
  const toggle = () => {
    on = !on;
    guesses.clear();
    if (on) start();
    show();
  };
  const guess = (state, melanoma) => {
    guesses.set(state.image_id, { ...state, guess: melanoma });
    show();
  };
  const button = h("button", { type: "button", onClick: toggle }, "Quiz");
  const said = (image_id) => {
    const { guess: wanted, melanoma } = guesses.get(image_id) ?? {};
    return wanted === undefined ? "" : `You said ${wanted ? "melanoma" : "other lesion"}: ${wanted === melanoma ? "right" : "wrong"}.`;
  };
  const hides = ({ image_id }) => on && !guesses.has(image_id);
  return { element: h("div", { className: "mk-row mkc-pager" }, button, score), hides, guess, said };
}

/** Does in a page without a kernel what the kernel does elsewhere, with the cases that the page holds. */
function answerAlone(model) {
  const held = model.get("held"), size = model.get("page_size");
  const fits = ({ values }) => Object.entries(model.get("filters")).every(
    ([field, wanted]) => values[field] === (wanted === "missing" ? null : wanted));
  const turn = () => {
    const chosen = held.filter(fits), pages = Math.max(1, Math.ceil(chosen.length / size)), page = Math.min(pages, model.get("page"));
    if (model.get("order") === "worst") chosen.sort((a, b) => a.worst - b.worst);
    const tiles = chosen.slice((page - 1) * size, page * size);
    model.set("view", { text: `${chosen.length} of ${held.length} cases match`, page, pages, tiles });
  };
  const restart = () => (model.get("page") === 1 ? turn() : model.set("page", 1));
  const pick = () => model.set("detail", held.find(({ image_id }) => image_id === model.get("selected")) ?? {});
  watch(model, { filters: restart, order: restart, page: turn, selected: pick });
}

function render({ model, el }) {
  if (model.get("held")) answerAlone(model);
  const [small, large] = [pictureSet(), pictureSet()];
  const bar = filterBar(model);
  const pages = pager(model);
  const summary = h("p", { className: "mkc-summary", role: "status" });
  const detail = h("div", { className: "mkc-detail", role: "region", "aria-label": "selected case" });
  const grid = h("div", { className: "mkc-grid" });
  grid.style.setProperty("--mkc-side", `${model.get("thumbnail")}px`);
  let tiles = new Map();

  const select = (image_id) => {
    model.set("selected", image_id);
    model.save_changes();
  };
  const close = () => {
    tiles.get(model.get("selected"))?.focus();
    select("");
  };
  const start = () => {
    select("");
    bar.tellNothing();
  };
  const quiz = quizOf(start, (on) => {
    bar.element.classList.toggle("mkc-quiz", on);
    drawPage();
  });
  const guess = (melanoma) => {
    quiz.guess(model.get("detail"), melanoma);
    detail.querySelector("button").focus();
  };
  const next = () => {
    const left = model.get("view").tiles.find(quiz.hides);
    if (left) select(left.image_id);
    else pages.turn(model.get("page") + 1);
  };
  grid.addEventListener("keydown", ({ key, ctrlKey, altKey, metaKey }) => {
    if (ctrlKey || altKey || metaKey) return;
    const kind = { m: true, n: false }[key.toLowerCase()], state = model.get("detail");
    if (key === "Escape") close();
    else if (kind !== undefined && state.image_id && quiz.hides(state)) guess(kind);
  });

  const drawTile = (tile) => {
    const toggle = () => select(model.get("selected") === tile.image_id ? "" : tile.image_id);
    return h("button", { type: "button", className: "mkc-tile", dataset: { image: tile.image_id }, onClick: toggle },
      small.draw(tile), quiz.hides(tile) ? line("?") : badge(tile.melanoma), line(tile.person), line(tile.site),
      ...(quiz.hides(tile) ? [] : [tile.diagnosis, tile.outcome, tile.answer].filter(Boolean).map(line)));
  };

  const drawSelection = () => {
    large.release();
    const state = model.get("detail");
    pages.show();
    tiles.forEach((tile, image_id) => tile.setAttribute("aria-pressed", image_id === model.get("selected")));
    const tile = tiles.get(state.image_id);
    if (!tile) return detail.remove();
    if (quiz.hides(state)) {
      const choice = (words, melanoma) => h("button", { type: "button", onClick: () => guess(melanoma) }, words);
      detail.replaceChildren(large.draw(state), h("div", { className: "mkc-facts" }, line(`${state.person}, ${state.site}`), h("p", {}, "What is it?"),
        h("div", { className: "mk-row mkc-guess" }, choice("Melanoma (M)", true), choice("Not melanoma (N)", false), h("button", { type: "button", onClick: close }, "Close"))));
      tile.after(detail);
      return detail.querySelector("button").focus();
    }
    const said = quiz.said(state.image_id), buttons = [h("button", { type: "button", onClick: close }, "Close")];
    if (said) buttons.unshift(h("button", { type: "button", onClick: next }, "Next"), h("span", { role: "status" }, said));
    const facts = Object.entries(state.facts).map(([name, value]) =>
      h("div", { role: "listitem" }, h("span", { className: "mkc-name" }, name.replaceAll("_", " ")), value));
    detail.replaceChildren(large.draw(state), h("div", { className: "mkc-facts" },
      h("div", { className: "mk-row" }, badge(state.melanoma), ...buttons),
      h("div", { className: "mkc-fact-list", role: "list" }, ...facts)));
    return tile.after(detail); // the grid packs densely: the rest of the tile's row closes up before it
  };
  const drawPage = () => {
    small.release();
    const view = model.get("view");
    const [matches, ...rest] = view.text.split(" · ");
    summary.replaceChildren(h("strong", {}, matches), ["", ...rest].join(" · "));
    tiles = new Map(view.tiles.map((tile) => [tile.image_id, drawTile(tile)]));
    grid.replaceChildren(...(tiles.size ? tiles.values() : [h("div", { className: "mkc-empty" }, "No case matches: widen a filter, or clear them.")]));
    drawSelection();
  };

  const stop = frame(model, el, "Case explorer", bar.element, summary, quiz.element, pages.element, grid);
  const forget = watch(model, { filters: bar.show, order: bar.show, view: drawPage, detail: drawSelection, selected: drawSelection });
  return () => [stop, forget, small.release, large.release].forEach((end) => end());
}

export default { render };
