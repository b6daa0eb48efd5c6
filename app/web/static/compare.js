// The page at /compare: a picture is taken as the truth; the service makes the page of the scores.

import { complain, showState } from "./bar.js";
import { send } from "./jobs.js";
import { ask, hasKey } from "./key.js";
import { problemOf, refusalOf } from "./problems.js";
import { listen } from "./upload.js";
import { Viewer } from "./viewer.js";
import { say } from "./words.js";

const at = (id) => document.getElementById(id);
const GUESSED_SECONDS = 6;
let picture = null; // the file in hand
let running = null; // what the bar shows
let viewer = null;

export async function start(settings) {
  listen(take, complain);
  for (const sample of document.querySelectorAll("button[data-sample]"))
    sample.addEventListener("click", (event) => {
      event.stopImmediatePropagation();
      compareSample(settings, sample.dataset.sample);
    }, { capture: true });
  const again = () =>
    picture ? run(settings) : compareSample(settings, document.body.dataset.sample);
  at("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    if (settings.valid) again();
  });
  at("cancel").addEventListener("click", cancel);
  document.addEventListener("keydown", (event) => event.key === "Escape" && cancel());
  at("go").disabled = !document.body.dataset.sample;
  await showComparison();
  // A browser that opens a page sends no key, and gets it without the comparison.
  if (!at("result").childElementCount && hasKey()) await askForComparison();

  function take([file]) {
    if (!file) return;
    picture = file;
    document.querySelector("[data-sample][aria-current]")?.removeAttribute("aria-current");
    at("go").disabled = false;
    run(settings);
  }
}

function compareSample(settings, sample) {
  location.search = new URLSearchParams({ sample, ...asked(settings) });
}

function asked(settings) {
  const { scale, model, ensemble } = settings.parameters();
  return { scale, model, ...(ensemble && { ensemble }) };
}

function cancel() {
  running?.controller.abort();
}

async function run(settings) {
  cancel();
  const mine = { state: "working", part: 0, doing: say("comparing"), controller: new AbortController() };
  running = mine;
  showState(mine);
  const begun = performance.now();
  const timer = setInterval(() => {
    mine.part = 0.95 * (1 - 2 ** ((-2 * (performance.now() - begun)) / 1000 / GUESSED_SECONDS));
    showState(mine);
  }, 200);
  try {
    const refusal = refusalOf(picture);
    if (refusal) throw refusal;
    const query = new URLSearchParams(asked(settings));
    const options = { signal: mine.controller.signal, accept: "text/html" };
    const { blob } = await send(`compare?${query}`, picture, options);
    if (mine !== running) return;
    showState(null);
    await showPage(await blob.text());
  } catch (problem) {
    if (mine !== running) return; // another picture has come
    const cancelled = problem.name === "AbortError";
    showState(cancelled ? null : { ...mine, state: "failed", problem });
    at("result").replaceChildren();
    at("drop").hidden = false;
  } finally {
    clearInterval(timer);
    if (mine === running) running = null;
  }
}

async function askForComparison() {
  const answer = await ask(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return complain(await problemOf(await answer.blob(), answer.headers.get("Retry-After")));
  await showPage(await answer.text());
}

async function showPage(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  at("result").replaceChildren(...page.getElementById("result").childNodes);
  at("drop").hidden = true;
  await showComparison();
}

async function showComparison() {
  const figure = document.querySelector("#result .viewer");
  if (!figure) return;
  viewer?.close();
  const sources = [...figure.querySelectorAll("img")].map((img) => ({
    name: img.dataset.name,
    label: img.dataset.label,
    alt: img.alt,
    blob: blobOf(img.src),
  }));
  const views = JSON.parse(figure.dataset.views);
  figure.replaceChildren();
  viewer = new Viewer(figure, sources, views);
  await viewer.ready;
}

// Of a data: address; the policy of the page lets it fetch none.
function blobOf(address) {
  const [head, data] = address.split(",");
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length).split(";")[0] });
}
