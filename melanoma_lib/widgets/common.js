/* Helpers that every explorer is built from; kept in front of its script. */

/** An element with properties (style, dataset and on… handlers included) and children. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "dataset" || name === "style") Object.assign(element[name], value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The explorer's frame: title, place for its parts, the kernel's last problem, whether it is gone, and what it is not for. */
function frame(model, el, title, ...parts) {
  const problem = h("p", { className: "mk-problem", role: "alert" });
  const showProblem = () => {
    problem.textContent = model.get("problem");
    problem.hidden = !model.get("problem");
  };
  const gone = h("p", { className: "mk-problem", role: "alert", hidden: true }, "The kernel that this view belongs to is gone: run the cell again.");
  const body = h("div", {}, ...parts);
  const showGone = () => { [body.inert, gone.hidden] = [true, false]; };
  const box = h(
    "section", { className: "mk", "aria-label": title },
    h("h4", { className: "mk-title" }, title), gone, body, problem,
    h("p", { className: "mk-note" }, "Educational, not for diagnosis."),
  );
  // A notebook in command mode would take arrow keys and letters away from sliders and fields.
  box.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(box);
  model.on("comm_live_update", showGone); // Jupyter tells so when the kernel restarts; a view never comes to life again
  const stop = watch(model, { problem: showProblem });
  return () => {
    model.off("comm_live_update", showGone);
    stop();
  };
}

/** Run each handler now and whenever its value changes; returns what a renderer hands back for cleaning up. */
function watch(model, handlers) {
  const bound = Object.entries(handlers).map(([name, handler]) => [`change:${name}`, handler]);
  for (const [event, handler] of bound) {
    model.on(event, handler);
    handler();
  }
  return () => bound.forEach(([event, handler]) => model.off(event, handler));
}

/** A labelled slider; onInput gets its number while it moves. */
function slider(label, { min, max, step, value, format = String, onInput }) {
  const output = h("output", { className: "mk-value" }, format(value));
  const input = h("input", { type: "range", min, max, step, "aria-label": label });
  input.value = value; // after its limits, which would clip it
  const set = (number) => {
    input.value = number;
    output.textContent = format(number);
  };
  input.addEventListener("input", () => {
    output.textContent = format(Number(input.value));
    onInput(Number(input.value));
  });
  return { element: h("label", { className: "mk-field" }, h("span", {}, label), input, output), input, set };
}

/** A labelled list of choices, [value, text] each; onChange gets the chosen value. */
function chooser(label, options, value, onChange) {
  const select = h("select", { "aria-label": label },
    ...options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  select.addEventListener("change", () => onChange(select.value));
  return { element: h("label", { className: "mk-field" }, h("span", {}, label), select), select };
}
