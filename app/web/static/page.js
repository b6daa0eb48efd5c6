// The page: a picture goes in, and is shown beside what bicubic makes of it.

import { Viewer } from "./viewer.js";

const at = (id) => document.getElementById(id);
const mode = document.body.dataset.mode; // "enhance" or "compare"

// What a browser shows, by media type; the service answers in the first that suits the picture.
const RESULT_FORMATS = JSON.parse(document.body.dataset.resultFormats);
const SHOWN = Object.keys(RESULT_FORMATS).join(", ");
const SMALLEST_PROVED_SCALE = 1.5;
const JOB_MEGAPIXELS = 8; // of output, from which on the work is a job, followed tile by tile
const NO_ANSWER = "The service did not answer. Is it still running?";
const STAGES = {
  waiting: "Waiting for its turn",
  decode: "Decoding",
  proof: "Estimating the gain",
  encode: "Encoding",
};

let picture = null; // the file in hand
let running = null; // the AbortController of the work under way
let secondsPerMegapixel = 0.2; // a first guess, corrected by every answer
const urls = []; // of the blobs on show
let taking = null; // the promise of a key that is being asked for

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
addEventListener("pagehide", () => running?.abort()); // a job would go on for nobody

function compareSample(sample) {
  location.search = new URLSearchParams({ sample, ...parameters() });
}

// -- the pickers -------------------------------------------------------------------------

const models = await ask("models")
  .then((answer) => answer.json())
  .then((answer) => answer.models ?? [])
  .catch(() => []); // auto is still there

// Bicubic is a model without a scale of its own.
const trained = models.filter((model) => model.parameters);
for (const scale of [...new Set(trained.map((model) => model.scale))].sort()) {
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

for (const [label, names] of [
  ["For the scale", [...new Set(models.map((model) => model.family))]],
  ["For one scale", trained.map((model) => model.name)],
]) {
  const group = document.createElement("optgroup");
  group.label = label;
  group.append(...names.map((name) => new Option(name)));
  at("model").append(group);
}
at("model").value = at("model").dataset.chosen;
if (at("model").selectedIndex < 0) at("model").value = "auto";
if (document.body.dataset.sample) at("go").disabled = false;

function markScale() {
  for (const chip of at("scales").children)
    chip.setAttribute("aria-pressed", String(chip.value === at("scale").value));
}

function parameters() {
  const chosen = Object.fromEntries([...new FormData(at("settings"))].filter(([, value]) => value));
  if (chosen.width || chosen.height) delete chosen.scale; // which are two ways to say the size
  return chosen;
}

// The scale that a size comes to, for a picture of so many pixels.
function scaleOf({ scale, width, height, fit }, given) {
  if (scale) return Number(scale);
  const ratios = [width / given.naturalWidth, height / given.naturalHeight].filter((ratio) => ratio);
  return fit === "cover" || fit === "exact" ? Math.max(...ratios) : Math.min(...ratios);
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
  const scale = scaleOf(asked, at("preview"));
  const made = megapixels * scale ** 2;
  const views = asked.ensemble ? 8 : 1;
  const { proof, ...others } = asked;
  const proved = proof && scale >= SMALLEST_PROVED_SCALE ? asked : others;
  const enhanced = await send(`enhance?${new URLSearchParams(proved)}`, {
    signal,
    accept: SHOWN,
    seconds: 0.3 + made * views * secondsPerMegapixel,
    span: [0, 0.85],
    doing: `Enhancing to ${made < 10 ? made.toFixed(1) : Math.round(made)} megapixels`,
    asJob: made >= JOB_MEGAPIXELS,
  });
  const { header } = enhanced;
  const spent = [...header("Server-Timing").matchAll(/dur=([\d.]+)/g)];
  secondsPerMegapixel = spent.reduce((sum, [, ms]) => sum + ms / 1000, 0) / made / views;
  const { name: format, suffix } = RESULT_FORMATS[enhanced.blob.type];
  const same = ["scale", "width", "height", "fit", "icc"].filter((name) => asked[name]);
  const alike = Object.fromEntries(same.map((name) => [name, asked[name]]));
  const bicubic = await send(
    `enhance?${new URLSearchParams({ ...alike, format, model: "bicubic" })}`,
    {
      signal,
      accept: SHOWN,
      seconds: 0.3 + made * 0.1,
      span: [0.85, 1],
      doing: "Making bicubic’s, to compare",
      asJob: made >= JOB_MEGAPIXELS,
    },
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
  const unproved = proof && proved !== asked && "no proof below a scale of 1.5";
  const size = header("X-Output-Size").replace("x", " × ");
  const reason = (header("X-Notes") ?? "").match(/chosen for [^;]*/)?.[0];
  at("gain").replaceChildren(...(gain ? verdict(name, Number(gain)) : [`${size} pixels`]));
  at("proof").textContent = gain
    ? (reason ? `${name} was ${reason}. ` : "") +
      `An estimate: your picture was shrunk by ${Number(scale.toFixed(2))}, brought back by both, and scored ` +
      `against itself. Bicubic came to ${header("X-Proof-Bicubic-dB")} dB, ${name} to ` +
      `${header("X-Proof-Model-dB")} dB (PSNR of luma). The result has ${size} pixels.`
    : [`Made by ${name}.`, ...[header("X-Notes"), unproved].filter(Boolean).map(sentence)].join(" ");
  const as = asked.scale ? `x${asked.scale}` : header("X-Output-Size");
  const file = `${stem(picture.name)}-${as}${suffix}`;
  at("download").href = remember(enhanced.blob);
  at("download").download = file;
  at("download").textContent = `Download ${format.toUpperCase()}, ${bytes(enhanced.blob.size)}`;
  at("curl").textContent = curl({ ...others, format }, file);
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
  await showPage(await blob.text());
}

async function showPage(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
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
// A browser that opens a page sends no key, and gets it without the comparison.
if (mode === "compare" && !at("result").childElementCount && sessionStorage.getItem("key"))
  await askForComparison();

async function askForComparison() {
  const answer = await ask(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return complain(await problemOf(await answer.blob(), answer.headers.get("Retry-After")));
  at("drop").hidden = true;
  await showPage(await answer.text());
}

// Sends the picture; resolves to the answer's headers and blob, rejects with a problem.
// fetch cannot tell how much was sent, so this is XMLHttpRequest.
function send(url, { signal, accept, seconds, span, doing, asJob = false }) {
  const show = (text, part) => report(text, span[0] + part * (span[1] - span[0]));
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    let timer;
    xhr.open("POST", url);
    xhr.responseType = "blob";
    xhr.setRequestHeader("Accept", accept);
    if (asJob) xhr.setRequestHeader("Prefer", "respond-async");
    for (const [name, value] of Object.entries(authorization())) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = ({ loaded, total }) => show("Sending", (0.15 * loaded) / total);
    xhr.upload.onload = () => {
      if (asJob) return;
      const begun = performance.now();
      // Nobody knows how far the service is: half of what is left in every half of the time.
      timer = setInterval(() => {
        const spent = (performance.now() - begun) / 1000;
        show(`${doing} (${Math.round(spent)} s)`, 0.15 + 0.75 * (1 - 2 ** (-2 * spent / seconds)));
      }, 100);
    };
    xhr.onprogress = ({ loaded, total }) => {
      clearInterval(timer);
      if (xhr.status !== 200) return;
      show("Receiving", 0.9 + (total ? (0.1 * loaded) / total : 0));
    };
    xhr.onload = async () => {
      const header = (name) => xhr.getResponseHeader(name);
      if (xhr.status === 200) return resolve({ header, blob: xhr.response });
      if (xhr.status === 202)
        return resolve(follow(JSON.parse(await xhr.response.text()), { signal, doing, show }));
      if (xhr.status === 401 && (await takeKey()))
        return resolve(send(url, { signal, accept, seconds, span, doing, asJob }));
      reject(await problemOf(xhr.response, xhr.getResponseHeader("Retry-After")));
    };
    xhr.onerror = () => reject(new Error(NO_ANSWER));
    xhr.onabort = () => reject(new DOMException("", "AbortError"));
    xhr.onloadend = () => clearInterval(timer);
    signal.addEventListener("abort", () => xhr.abort());
    const form = new FormData();
    form.append("file", picture);
    xhr.send(form);
  });
}

// Follows a job to its end; resolves to its result, or rejects with a problem, and removes it.
async function follow({ id }, { signal, doing, show }) {
  const job = `jobs/${id}`;
  try {
    let state;
    for (let failures = 0; ; await new Promise((again) => setTimeout(again, 1000))) {
      try {
        for await (const report of reports(job, signal)) {
          const { stage, tiles_done, tiles } = report.progress;
          const part = 0.15 + (0.75 * tiles_done) / tiles;
          show(STAGES[stage] ?? `${doing} (${tiles_done} of ${tiles} tiles)`, part);
          state = report.state;
          failures = 0;
        }
        if (state === "done" || state === "failed") break;
      } catch (problem) {
        // The network; and a service that is started again goes on with its jobs.
        if (!(problem instanceof TypeError)) throw problem;
        if (++failures > 30) throw new Error(NO_ANSWER);
      }
    }
    const answer = await ask(`${job}/result`, { signal });
    const blob = await answer.blob();
    if (!answer.ok) throw await problemOf(blob);
    return { header: (name) => answer.headers.get(name), blob };
  } finally {
    // If this fails, it expires.
    fetch(job, { method: "DELETE", keepalive: true, headers: authorization() }).catch(() => {});
  }
}

// What a job's event stream tells. EventSource would not do: it sends no headers of ours.
async function* reports(job, signal) {
  let answer = await ask(`${job}/events`, { signal });
  if (answer.status === 429 || answer.status === 503) {
    // Too many streams are open. The job itself tells the same, once.
    answer = await ask(job, { signal });
    if (answer.ok) return yield await answer.json();
  }
  if (!answer.ok) throw await problemOf(await answer.blob(), answer.headers.get("Retry-After"));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}

// -- the key -----------------------------------------------------------------------------

// Without one, a service that has no keys still answers.
function authorization() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// fetch with the key; while the service wants another one, the caller is asked for it.
async function ask(url, { headers = {}, signal } = {}) {
  for (;;) {
    const answer = await fetch(url, { headers: { ...headers, ...authorization() }, signal });
    if (answer.status !== 401 || !(await takeKey())) return answer;
  }
}

// Asks for a key, once for all who want it; resolves to whether there is one.
function takeKey() {
  taking ??= new Promise((resolve) => {
    at("key-refused").hidden = !sessionStorage.getItem("key");
    sessionStorage.removeItem("key");
    at("key").value = "";
    at("key-dialog").returnValue = "";
    at("key-dialog").addEventListener(
      "close",
      () => {
        const key = at("key-dialog").returnValue === "key" && at("key").value.trim();
        if (key) sessionStorage.setItem("key", key);
        taking = null;
        resolve(Boolean(key));
      },
      { once: true },
    );
    at("key-dialog").showModal();
  });
  return taking;
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
  const key = sessionStorage.getItem("key") ? '-H "Authorization: Bearer $SUPERRES_KEY" ' : "";
  return `curl ${key}-F ${plain} ${quoted(url.href)} -o ${quoted(file)}`;
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
