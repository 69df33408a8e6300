// The file goes straight into the server's memory; this component's value is only the name it is known by there.
const most = @max;
let latest = 0, held = ""; // the newest choice, which wins however answers arrive; the upload that the server holds for it

function say(text, kind) {
  const status = element.querySelector(".ml-status");
  status.textContent = text; // never as HTML: file names are the user's
  status.dataset.kind = kind;
  status.setAttribute("role", kind === "problem" ? "alert" : "status");
}

function mark(example) {
  const buttons = element.querySelectorAll("[data-example]");
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.example === example));
}

function choose(token) {
  forget();
  if (token && !token.startsWith("example-")) held = token;
  if (token !== props.value) {
    // What is in view belongs to another image; it pales until Gradio puts the new answer in its place.
    const shown = "#ml-answer [data-case], #ml-pictures [data-case], #ml-meaning .ml-card";
    for (const old of document.querySelectorAll(shown)) old.classList.add("ml-old");
  }
  props.value = token; // which triggers "change"
}

function forget() {
  if (held) fetch(`api/images/${held}`, { method: "DELETE", keepalive: true });
  held = "";
}

async function send(file) {
  const mine = ++latest;
  mark("");
  const size = file.size < 1e6 ? `${Math.ceil(file.size / 1e3)} kB` : `${(file.size / 1e6).toFixed(1)} MB`;
  const fail = (text) => {
    if (mine !== latest) return;
    say(`${file.name}: ${text}`, "problem");
    choose(""); // or the former answer would be taken for this file's
  };
  const mb = Math.round(file.size / 1048576);
  if (file.size > most) return fail(`The file has ${mb} MB; this page takes up to ${most / 1048576} MB. Save it smaller, as JPEG.`);
  say(`Reading ${file.name} …`, "busy");
  try {
    const answer = await fetch("api/images", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    const said = await answer.json();
    if (mine !== latest) return;
    if (!answer.ok) return fail(said.error);
    say(`${file.name} · ${size}`, "done");
    choose(said.image);
  } catch (error) {
    fail(`The server cannot be reached (${error.message}). Is it still running?`);
  }
}

element.addEventListener("change", (event) => {
  if (event.target.type !== "file" || !event.target.files.length) return;
  const [file] = event.target.files;
  send(file);
  event.target.value = ""; // so that the same file can be chosen again
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-example]");
  if (!button) return;
  latest += 1;
  mark(button.dataset.example);
  say(button.title, "done");
  choose(button.dataset.example);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  element.addEventListener(name, (event) => {
    const zone = event.target.closest(".ml-drop");
    if (!zone) return;
    event.preventDefault();
    zone.classList.toggle("ml-over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}
window.addEventListener("pagehide", forget);
const lost = "The page does not reach its server. Behind a proxy, start the app with --root-path and let the proxy pass Host on.";
const reached = fetch(`${window.gradio_config.root}/gradio_api/app_id`); // as Gradio will ask
reached.then((answer) => answer.ok || Promise.reject()).catch(() => say(lost, "problem"));
