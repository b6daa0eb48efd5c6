// The page: a picture goes in, and is shown beside what bicubic makes of it.

import { Viewer } from "./viewer.js";

const at = (id) => document.getElementById(id);
const mode = document.body.dataset.mode; // "enhance" or "compare"

// What a browser shows; the service answers in the first that suits the picture.
const SHOWN = "image/png, image/jpeg, image/webp";
const SMALLEST_PROVED_SCALE = 1.5;

let picture = null; // the file in hand
let running = null; // the AbortController of the work under way
let secondsPerMegapixel = 0.2; // a first guess, corrected by every answer
const urls = []; // of the blobs on show

// -- a picture comes in ------------------------------------------------------------------

at("file").addEventListener("change", () => take(at("file").files[0]));

document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});

for (const sample of document.querySelectorAll("button[data-sample]"))
  sample.addEventListener("click", async () => {
    const name = sample.dataset.sample;
    if (mode === "compare") return compareSample(name);
    const answer = await fetch(`samples/${name}`);
    if (!answer.ok) return complain(await problemOf(await answer.blob()));
    take(new File([await answer.blob()], `${name}.png`, { type: "image/png" }));
  });

function take(file) {
  if (!file) return;
  picture = file;
  document.querySelector("[data-sample][aria-current]")?.removeAttribute("aria-current");
  at("file").value = ""; // so that the same file can be chosen again
  at("go").disabled = false;
  run();
}

at("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  if (picture) run();
  else if (document.body.dataset.sample) compareSample(document.body.dataset.sample);
});
at("cancel").addEventListener("click", () => running?.abort());

function compareSample(sample) {
  location.search = new URLSearchParams({ sample, ...parameters() });
}

// -- the pickers -------------------------------------------------------------------------

const models = await fetch("models")
  .then((answer) => answer.json())
  .then((answer) => answer.models)
  .catch(() => []); // the service's own choice is still there

for (const scale of [...new Set(models.map((model) => model.scale))].sort()) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.textContent = `×${scale}`;
  chip.value = scale;
  chip.addEventListener("click", () => {
    at("scale").value = scale;
    markScale();
  });
  at("scales").append(chip);
}
at("scale").addEventListener("input", markScale);
markScale();

const families = [...new Set(models.map((model) => model.family))];
for (const [label, names] of [
  ["Families", families],
  ["Models", models.map((model) => model.name)],
]) {
  const group = document.createElement("optgroup");
  group.label = label;
  group.append(...names.map((name) => new Option(name)));
  at("model").append(group);
}
at("model").value = at("model").dataset.chosen;
if (at("model").selectedIndex < 0) at("model").value = "";
if (document.body.dataset.sample) at("go").disabled = false;

function markScale() {
  for (const chip of at("scales").children)
    chip.setAttribute("aria-pressed", String(chip.value === at("scale").value));
}

function parameters() {
  const chosen = { scale: at("scale").value };
  if (at("model").value) chosen.model = at("model").value;
  if (at("ensemble").checked) chosen.ensemble = true;
  return chosen;
}

// -- the work ----------------------------------------------------------------------------

async function run() {
  running?.abort();
  const mine = (running = new AbortController());
  forget();
  for (const id of ["drop", "problem", "outcome"]) at(id).hidden = true;
  at("result").replaceChildren();
  at("working").hidden = false;
  at("preview").src = remember(picture);
  at("preview").hidden = false;
  report("Reading", 0);
  const megapixels = await at("preview")
    .decode()
    .then(() => (at("preview").naturalWidth * at("preview").naturalHeight) / 1e6)
    .catch(() => {
      at("preview").hidden = true; // no picture, or of a kind that browsers do not show
      return picture.size / 1e6;
    });
  try {
    if (mode === "compare") await compare(megapixels, mine.signal);
    else await enhance(megapixels, mine.signal);
  } catch (problem) {
    if (mine !== running) return; // another picture has come
    if (problem.name !== "AbortError") complain(problem);
    at("drop").hidden = false;
  }
  if (mine === running) at("working").hidden = true;
}

async function enhance(megapixels, signal) {
  const asked = parameters();
  const scale = Number(asked.scale);
  const made = megapixels * scale ** 2;
  const views = asked.ensemble ? 8 : 1;
  const proof = scale >= SMALLEST_PROVED_SCALE ? { proof: true } : {};
  const enhanced = await send(`enhance?${new URLSearchParams({ ...asked, ...proof })}`, {
    signal,
    accept: SHOWN,
    seconds: 0.3 + made * views * secondsPerMegapixel,
    span: [0, 0.85],
    doing: `Enhancing to ${made < 10 ? made.toFixed(1) : Math.round(made)} megapixels`,
  });
  const header = (name) => enhanced.xhr.getResponseHeader(name);
  const spent = [...header("Server-Timing").matchAll(/dur=([\d.]+)/g)];
  secondsPerMegapixel = spent.reduce((sum, [, ms]) => sum + ms / 1000, 0) / made / views;
  const format = enhanced.blob.type.split("/")[1];
  const bicubic = await send(
    `enhance?${new URLSearchParams({ scale, format, fallback: "always" })}`,
    { signal, accept: SHOWN, seconds: 0.3 + made * 0.1, span: [0.85, 1], doing: "Making bicubic’s, to compare" },
  );

  const name = header("X-Model").split("@")[0];
  const figure = document.createElement("figure");
  figure.className = "viewer";
  figure.dataset.views = JSON.stringify([{ left: "bicubic", right: "enhanced" }]);
  for (const [key, label, blob, alt] of [
    ["bicubic", "bicubic", bicubic.blob, "Enlarged by bicubic"],
    ["enhanced", name, enhanced.blob, `Enhanced by ${name}`],
  ]) {
    const img = new Image();
    Object.assign(img.dataset, { name: key, label });
    Object.assign(img, { src: remember(blob), alt });
    figure.append(img);
  }
  at("result").replaceChildren(figure);
  at("working").hidden = true;
  await show(figure);

  const gain = header("X-Proof-Gain-dB");
  const size = header("X-Output-Size").replace("x", " × ");
  at("gain").replaceChildren(...(gain ? verdict(name, Number(gain)) : [`${size} pixels`]));
  at("proof").textContent = gain
    ? `An estimate: your picture was shrunk by ${asked.scale}, brought back by both, and scored ` +
      `against itself. Bicubic came to ${header("X-Proof-Bicubic-dB")} dB, ${name} to ` +
      `${header("X-Proof-Model-dB")} dB (PSNR of luma). The result has ${size} pixels.`
    : `Made by ${name}. ${sentence(header("X-Notes") ?? "no proof below a scale of 1.5")}`;
  const file = `${stem(picture.name)}-x${asked.scale}.${format === "jpeg" ? "jpg" : format}`;
  at("download").href = remember(enhanced.blob);
  at("download").download = file;
  at("download").textContent = `Download ${format.toUpperCase()}, ${bytes(enhanced.blob.size)}`;
  at("curl").textContent = curl({ ...asked, format }, file);
  at("outcome").hidden = false;
}

async function compare(megapixels, signal) {
  const { blob } = await send(`compare?${new URLSearchParams(parameters())}`, {
    signal,
    accept: "text/html",
    seconds: 0.5 + megapixels * (1 + (at("ensemble").checked ? 8 : 1) * secondsPerMegapixel),
    span: [0, 1],
    doing: "Shrinking, bringing back, scoring",
  });
  const page = new DOMParser().parseFromString(await blob.text(), "text/html");
  at("result").replaceChildren(...page.getElementById("result").childNodes);
  at("working").hidden = true;
  await showComparison();
}

async function showComparison() {
  const figure = document.querySelector("#result .viewer");
  if (figure) await show(figure);
}

async function show(figure) {
  try {
    await new Viewer(figure).ready;
  } catch {
    figure.remove();
    complain(new Error("The result has more pixels than this browser shows; it can be downloaded."));
  }
}

await showComparison();

// Sends the picture; resolves to the request and the answer's blob, rejects with a problem.
// fetch cannot tell how much was sent, so this is XMLHttpRequest.
function send(url, { signal, accept, seconds, span, doing }) {
  const show = (text, part) => report(text, span[0] + part * (span[1] - span[0]));
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    let timer;
    xhr.open("POST", url);
    xhr.responseType = "blob";
    xhr.setRequestHeader("Accept", accept);
    xhr.upload.onprogress = ({ loaded, total }) => show("Sending", (0.15 * loaded) / total);
    xhr.upload.onload = () => {
      const begun = performance.now();
      // Nobody knows how far the service is: half of what is left in every half of the time.
      timer = setInterval(() => {
        const spent = (performance.now() - begun) / 1000;
        show(`${doing} (${Math.round(spent)} s)`, 0.15 + 0.75 * (1 - 2 ** (-2 * spent / seconds)));
      }, 100);
    };
    xhr.onprogress = ({ loaded, total }) => {
      clearInterval(timer);
      show("Receiving", 0.9 + (total ? (0.1 * loaded) / total : 0));
    };
    xhr.onload = async () => {
      if (xhr.status === 200) return resolve({ xhr, blob: xhr.response });
      reject(await problemOf(xhr.response, xhr.getResponseHeader("Retry-After")));
    };
    xhr.onerror = () => reject(new Error("The service did not answer. Is it still running?"));
    xhr.onabort = () => reject(new DOMException("", "AbortError"));
    xhr.onloadend = () => clearInterval(timer);
    signal.addEventListener("abort", () => xhr.abort());
    const form = new FormData();
    form.append("file", picture);
    xhr.send(form);
  });
}

// -- what is said ------------------------------------------------------------------------

// A problem+json as an Error whose message is a sentence.
async function problemOf(blob, retryAfter = null) {
  try {
    const { title, detail } = JSON.parse(await blob.text());
    const again = retryAfter ? ` Try again in ${retryAfter} s.` : "";
    return new Error(`${title}: ${detail.replace(/\.$/, "")}.${again}`);
  } catch {
    return new Error("The service gave an answer that it should not have.");
  }
}

function complain(problem) {
  at("problem").textContent = problem.message;
  at("problem").hidden = false;
}

function report(text, part) {
  // Told twice, it would be read aloud twice.
  if (at("status").textContent !== text) at("status").textContent = text;
  at("progress").value = part;
}

function verdict(name, gain) {
  const figure = document.createElement("strong");
  const won = gain >= 0 ? name : "bicubic";
  figure.textContent = `${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(1)} dB`;
  const words = gain >= 0 ? " over bicubic, on your picture" : " under bicubic, on your picture";
  return [figure, words + (won === "bicubic" ? ": bicubic is the better one here" : "")];
}

function curl(query, file) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const name = picture.name;
  // In curl's own syntax, some characters end a file's name unless it is quoted.
  const part = /[;,"\\]/.test(name) ? `file=@"${name.replace(/(["\\])/g, "\\$1")}"` : `file=@${name}`;
  const plain = /^[\w.@=-]+$/.test(part) ? part : quoted(part);
  const url = new URL(`enhance?${new URLSearchParams(query)}`, location.href);
  return `curl -F ${plain} ${quoted(url.href)} -o ${quoted(file)}`;
}

if (navigator.clipboard)
  at("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(at("curl").textContent);
    at("copy").textContent = "Copied";
    setTimeout(() => (at("copy").textContent = "Copy"), 2000);
  });
else at("copy").hidden = true; // browsers have it on secure pages alone

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function stem(name) {
  return name.replace(/\.[^.]*$/, "") || "picture";
}

function bytes(count) {
  return count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

function remember(blob) {
  urls.push(URL.createObjectURL(blob));
  return urls.at(-1);
}

function forget() {
  for (const url of urls.splice(0)) URL.revokeObjectURL(url);
}
