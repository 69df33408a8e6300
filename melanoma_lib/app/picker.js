// The file goes straight into the server's memory; this component's value is only the name it is known by there.
const most = @max;
// The newest choice, which wins however answers arrive; the upload that the server holds for it; what saved files are named after.
let latest = 0, held = "", named = "example";

function say(text, kind) {
  const status = element.querySelector(".ml-status");
  status.textContent = text; // never as HTML: file names are the user's
  status.dataset.kind = kind;
  status.setAttribute("role", kind === "problem" ? "alert" : "status");
}

/** Forget the image in view and its patient; waits until the page has cleared age, sex and site, so that none goes with the next. */
async function leave(refused = false) {
  forget();
  showOnly("none yet");
  if (!props.value && !refused) return; // what was entered before the first image is of its patient
  props.value = "";
  trigger("clear");
  const known = () => [...document.querySelectorAll("#ml-patient input, #ml-patient textarea")].some(({ value }) => !["", "unknown"].includes(value));
  for (let waits = 40; waits && known(); waits -= 1) await new Promise((done) => setTimeout(done, 50));
}

function take(token, example = "") {
  if (token && !example) held = token;
  element.querySelector("[data-remove]").hidden = !token;
  for (const button of element.querySelectorAll("[data-example]")) {
    button.setAttribute("aria-pressed", String(button.dataset.example === example));
  }
  showOnly(token);
  if (token !== props.value) props.value = token; // which triggers "change"
}

const shown = document.head.appendChild(document.createElement("style"));
function showOnly(token) { // what is in view, or still comes, of another image stays hidden
  shown.textContent = `#ml-right [data-case]:not([data-case="${token}"]) { visibility: hidden; }`;
}

function forget() {
  if (held) fetch(`api/images/${held}`, { method: "DELETE", keepalive: true });
  held = "";
}

async function send(file) {
  const mine = ++latest;
  const size = file.size < 1e6 ? `${Math.ceil(file.size / 1e3)} kB` : `${(file.size / 1e6).toFixed(1)} MB`;
  const fail = (text) => {
    if (mine !== latest) return;
    say(`${file.name}: ${text}`, "problem");
    leave(true).then(() => mine === latest && take("")); // or the former answer would be taken for this file's
  };
  const mb = Math.round(file.size / 1048576);
  if (file.size > most) return fail(`The file has ${mb} MB; this page takes up to ${most / 1048576} MB. Save it smaller, as JPEG.`);
  say(`Reading ${file.name} …`, "busy");
  await leave();
  setTimeout(() => { if (mine === latest && waits) say(`Still reading ${file.name}: the server takes long to answer …`, "busy"); }, 8000);
  let waits = true;
  try {
    const answer = await fetch("api/images", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    waits = false;
    const said = await answer.json();
    if (mine !== latest) return;
    if (!answer.ok) return fail(said.error);
    say(`${file.name} · ${size}`, "done");
    named = file.name.replace(/\.\w+$/, "");
    take(said.image);
  } catch {
    waits = false;
    fail("The server does not answer.");
  }
}

function save() { // what is in view, with the note that must go with it
  const [image, map] = ["figure img", ".ml-map"].map((which) => document.querySelector(`.ml-pictures ${which}`));
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d"), wide = 640;
  const high = (wide * image.naturalHeight) / image.naturalWidth;
  [canvas.width, canvas.height] = [2 * wide, high + 70];
  pen.fillStyle = "white";
  pen.fillRect(0, 0, 2 * wide, high + 70);
  for (const left of [0, wide]) pen.drawImage(image, left, 0, wide, high);
  pen.globalAlpha = getComputedStyle(map).opacity;
  pen.drawImage(map, wide, 0, wide, high);
  [pen.globalAlpha, pen.fillStyle, pen.font] = [1, "black", "20px sans-serif"];
  const said = document.querySelector(".ml-projected").firstChild.data, shown = Math.round(100 * getComputedStyle(map).opacity);
  pen.fillText(said, 10, high + 28, 2 * wide - 20);
  pen.fillText(`${map.closest("figure").innerText}, opacity ${shown}%`, 10, high + 56, 2 * wide - 20);
  Object.assign(document.createElement("a"), { href: canvas.toDataURL("image/png"), download: `${named}-heatmap.png` }).click();
}

element.addEventListener("change", (event) => {
  if (event.target.type !== "file" || !event.target.files.length) return;
  const [file] = event.target.files;
  send(file);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-example], [data-remove], [data-enlarge], [data-save], #ml-answer [download]");
  if (!button) return;
  if (button.download) return void (button.download = `${named}-answer.json`);
  if ("save" in button.dataset) return save();
  if ("enlarge" in button.dataset) return document.fullscreenElement ? document.exitFullscreen() : document.querySelector(".ml-pictures").requestFullscreen();
  const mine = ++latest, example = button.dataset.example ?? "";
  named = example;
  say(button.title, "done");
  leave().then(() => mine === latest && take(example, example));
  if ("remove" in button.dataset) element.querySelector("input").focus(); // the button is gone
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
document.addEventListener("beforeinput", (event) => { // the browser itself would drop a decimal comma: 2,5 became 25
  if (event.target.type !== "number" || !event.data?.includes(",")) return;
  event.preventDefault();
  document.execCommand("insertText", false, event.data.replace(",", "."));
});
document.addEventListener("blur", ({ target }) => { // Gradio itself would put the least number into an emptied field
  if (target.type !== "number" || target.value !== "") return;
  target.value = target.closest("#ml-prevalence") ? @usual : target.max;
  target.dispatchEvent(new Event("input", { bubbles: true }));
}, true);
document.querySelector("#ml-answer").setAttribute("aria-live", "polite");
window.addEventListener("pagehide", forget);
const ask = window.fetch, gone = (yes) => document.body.classList.toggle("ml-lost", yes);
window.fetch = (...given) => ask(...given).then(
  (answer) => (gone(answer.status >= 500), answer),
  (error) => { gone(error.name === "TypeError"); throw error; });
const lost = "The page does not reach its server. Behind a proxy, start the app with --root-path and let the proxy pass Host on.";
const reached = ask(`${window.gradio_config.root}/gradio_api/app_id`); // as Gradio will ask
reached.then((answer) => answer.ok || Promise.reject()).catch(() => say(lost, "problem"));
