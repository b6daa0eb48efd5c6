// The page: pictures go in, and each is shown beside what plain enlarging makes of it.

import { complain, showState } from "./bar.js";
import * as comparison from "./compare.js";
import { element } from "./elements.js";
import { Film, thumbnailOf } from "./film.js";
import { ask } from "./key.js";
import { Pictures } from "./pictures.js";
import { refusalOf } from "./problems.js";
import { show as showResult, showCommands } from "./results.js";
import { saveAll } from "./save.js";
import { Settings } from "./settings.js";
import { listen } from "./upload.js";
import { Viewer } from "./viewer.js";
import { say } from "./words.js";
import { enlargePlainly, Queue, Work } from "./work.js";

const at = (id) => document.getElementById(id);
const PREVIEW = 1600; // px, longer side

const models = await ask("models")
  .then((answer) => answer.json())
  .then((answer) => answer.models ?? [])
  .catch(() => []); // the automatic choice is still there
const settings = new Settings(models, settingsChanged);
const pictures = new Pictures(); // thumbnails and previews
const queue = new Queue(settings, changed);
const film = new Film(pictures, { select, remove });
let current = null; // the work that is looked at
let viewer = null;

document.body.classList.add("ready");
if (document.body.dataset.mode === "compare") await comparison.start(settings);
else start();

function start() {
  showGo();
  listen(take, complain);
  at("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    if (current && settings.valid) again(settings.parameters());
  });
  at("cancel").addEventListener("click", () => cancel());
  at("against").addEventListener("change", () => showPictures(current));
  at("save-all").addEventListener("click", () => saveAll(queue.works).catch(complain));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (at("kinds").open) at("kinds").open = false;
    else if (!document.fullscreenElement) cancel();
  });
  addEventListener("beforeunload", (event) => {
    if (queue.busy) event.preventDefault();
  });
  // A job would go on for nobody.
  addEventListener("pagehide", () => queue.works.forEach((work) => queue.cancel(work)));
  for (const button of document.querySelectorAll("[data-copies]"))
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(at(button.dataset.copies).textContent);
      button.textContent = say("copied");
      setTimeout(() => (button.textContent = say("copy")), 2000);
    });
  if (!navigator.clipboard) document.body.classList.add("without-clipboard");
}

// Files have come in: a work for each.
async function take(files) {
  if (!files.length) return;
  const taken = files.map((file) => ({ file }));
  if (!settings.valid) return at("scale").focus();
  const works = [];
  for (const picture of taken) {
    const work = new Work(picture, settings.parameters(), { batch: files.length > 1 });
    const refusal = refusalOf(picture.file);
    if (refusal) Object.assign(work, { state: "failed", problem: refusal, refused: true });
    else if (!works.length) work.asked = await settings.parametersFor(picture);
    works.push(work);
  }
  const [first, ...others] = works;
  queue.add([first]);
  select(first);
  for (const work of others) if (!work.ended) work.asked = await settings.parametersFor(work.picture);
  queue.add(others);
  changed(first);
}

// The picture that is looked at, with other settings.
function again(asked) {
  const work = new Work(current.picture, asked);
  if (current.ended && current.state !== "done") queue.remove(current);
  queue.add([work]);
  select(work);
}

function cancel() {
  if (!current || current.ended) return;
  const { picture } = current;
  const cancelled = current;
  queue.cancel(cancelled);
  const last = queue.works.findLast((work) => work.picture === picture && work.state === "done");
  if (!last) return select(cancelled);
  queue.remove(cancelled);
  select(last);
}

function remove(work) {
  queue.remove(work);
  if (work === current) select(queue.works.at(-1) ?? null);
  else changed(current);
}

// A work has gone on.
function changed(work) {
  film.show(queue.works, current);
  showSaveAll();
  if (work !== current) return;
  const waiting = queue.works.filter((other) => !other.ended && other !== current).length;
  if (work && work.shown !== work.state) return select(work);
  showState(work, waiting);
}

function select(work) {
  current = work;
  if (work) work.shown = work.state;
  showState(work);
  film.show(queue.works, current);
  showSaveAll();
  viewer?.close();
  viewer = null;
  at("result").replaceChildren();
  at("against-field").hidden = at("explanation").hidden = true;
  at("drop").hidden = Boolean(work) && work.state !== "failed";
  at("preview").hidden = true;
  settingsChanged();
  if (!work) return;
  settings.show(work.refused ? null : work.picture, work.asked);
  showGo();
  if (work.refused) return;
  if (work.state !== "done") return showPreview(work);
  showResult(work, { tryModel: (model) => again({ ...work.asked, model }), fail: complain });
  offerOthers(work);
  showPictures(work);
}

async function showPreview(work) {
  const canvas = at("preview");
  canvas.hidden = true;
  const small = await thumbnailOf(work.picture, pictures);
  const draw = (bitmap) => {
    if (work !== current || work.state === "done") return;
    canvas.hidden = !bitmap;
    at("drop").hidden = Boolean(bitmap) || !work.ended;
    if (!bitmap) return;
    Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
  };
  draw(small);
  if (!small) return;
  const options = { blob: work.picture.file, side: PREVIEW };
  pictures.call("thumbnail", options).then(({ small: large }) => draw(large), () => {});
}

// What a result can be held against: plain enlarging, and the picture's other results.
function offerOthers(work) {
  const others = queue.works.filter(
    (other) => other !== work && other.picture === work.picture && other.state === "done",
  );
  at("against").replaceChildren(new Option(say("before"), ""));
  for (const other of others)
    at("against").append(new Option(labelOf(other), queue.works.indexOf(other)));
  at("against-field").hidden = others.length === 0;
}

function labelOf({ asked, result }) {
  return `${result.model} ×${asked.scale ?? ""}`.replace(/ ×$/, "");
}

async function showPictures(work) {
  const other = queue.works[at("against").value || -1];
  viewer?.close();
  const figure = element("figure", { class: "viewer" });
  at("result").replaceChildren(figure);
  const before = { name: "before", label: say("before"), alt: say("before_alt"), crop: true };
  const after = {
    name: "after",
    label: other ? labelOf(work) : say("after"),
    alt: say("after_alt", { model: work.result.model }),
    blob: work.result.blob,
  };
  if (other) Object.assign(before, { label: labelOf(other), blob: other.result.blob, crop: false });
  else before.blob = await originalOf(work);
  if (work !== current || !figure.isConnected) return;
  const mine = new Viewer(figure, [before, after], [{ left: "before", right: "after" }]);
  viewer = mine;
  await mine.ready.catch(() => {
    if (mine !== viewer) return;
    figure.replaceChildren(element("p", { class: "note" }, say("too_large_to_show")));
  });
}

// What the page enlarges itself; of a format that browsers do not show, the service does it.
async function originalOf(work) {
  if (await thumbnailOf(work.picture, pictures)) return work.picture.file;
  work.plain ??= await enlargePlainly(work).catch(() => work.result);
  return work.plain.blob;
}

function showSaveAll() {
  const done = queue.works.filter((work) => work.state === "done").length;
  at("save-all").hidden = done < 2;
  at("save-all").textContent = say("save_all", { count: done });
}

function settingsChanged() {
  showGo();
  if (current?.state !== "done") return;
  const { proof, ...made } = settings.parameters();
  showCommands(current.picture.file.name, { ...made, format: made.format ?? current.result.format }, at("download").download);
}

// One button: to enhance, or to update a result when the settings are no longer its own.
function showGo() {
  const same = current && isSame(settings.parameters(), current.asked);
  const again = current && (["failed", "cancelled"].includes(current.state) || !same);
  at("go").disabled = !again || !settings.valid || current.refused;
  at("go").textContent = say(current?.state === "done" && !same ? "update" : "enhance");
}

function isSame(one, other) {
  const names = new Set([...Object.keys(one), ...Object.keys(other)]);
  return [...names].every((name) => one[name] === other[name]);
}
