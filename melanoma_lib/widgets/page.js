/* An explorer in a page of its own: values live here, nothing is asked of a kernel or a network. After the explorer's script. */

/** Values as they were written into the page; bytes come as DataView, as in a notebook. */
function readValues(text) {
  const bytes = (base64) => new DataView(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
  return JSON.parse(text, (_, value) => (value && typeof value.bytes === "string" ? bytes(value.bytes) : value));
}

/** What a renderer knows of a notebook's model. */
function pageModel(values) {
  const handlers = {};
  return {
    get: (name) => values[name],
    set: (name, value) => {
      if (Object.is(values[name], value)) return;
      values[name] = value;
      [...(handlers[`change:${name}`] ?? [])].forEach((handler) => handler());
    },
    save_changes: () => {},
    on: (event, handler) => (handlers[event] ??= []).push(handler),
    off: (event, handler) => { handlers[event] = (handlers[event] ?? []).filter((other) => other !== handler); },
  };
}

/** Draw an explorer into an element of the page, with the values kept in another one. */
function mount(element, values) {
  const [el, source] = [element, values].map((id) => document.getElementById(id));
  render({ model: pageModel(readValues(source.textContent)), el });
}

/** Light or dark as the browser is told to be. */
function followTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("mk-dark", dark.matches);
  dark.addEventListener("change", follow);
  follow();
}
