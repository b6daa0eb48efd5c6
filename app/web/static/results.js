// What came of it: the verdict, what to download, and how the page knows.

import { element } from "./elements.js";
import { explain, nameOf, offeredFamilies } from "./kinds.js";
import { reasonOf, toldOf } from "./notes.js";
import { provable } from "./settings.js";
import { curl, python } from "./terminal.js";
import { bytes, decibels, number, say } from "./words.js";
import { enlargePlainly, gainOf } from "./work.js";

const at = (id) => document.getElementById(id);
const CLEAR_DB = Number(document.body.dataset.clearDb); // from which a result is clearly sharper
const EQUAL_DB = Number(document.body.dataset.equalDb); // up to which the two look alike
const TRIED_SIDE = 1024; // px of the part of a picture on which other models are tried
const urls = []; // of the blobs that can be downloaded

// Whether plain enlarging is the better of the two.
export function isLoss({ gain }) {
  return gain !== null && gain < 0;
}

export function fileName({ picture, asked }, { suffix, width, height }, mark = "") {
  const stem = picture.file.name.replace(/\.[^.]*$/, "") || "picture";
  const size = asked.scale ? `x${asked.scale}` : `${width}x${height}`;
  return `${stem}-${size}${mark}${suffix}`;
}

// Shows the outcome of a work that is done. `enlarged` is called with another model's name.
export function show(work, { tryModel, fail }) {
  for (const url of urls.splice(0)) URL.revokeObjectURL(url);
  const { result } = work;
  at("verdict").replaceChildren(...verdict(result));
  const reason = reasonOf(result.notes);
  at("reason").textContent = reason;
  at("reason").hidden = !reason;
  explain(reason);
  showDownloads(work, fail);
  showExplanation(work);
  at("others").hidden = true;
  if (isLoss(result)) tryOthers(work, tryModel);
}

export function verdictInWords({ gain, width, height, model }) {
  if (model === "bicubic") return say("verdict_plain");
  if (gain === null) return say("verdict_size", { width: number(width), height: number(height) });
  if (gain >= CLEAR_DB) return say("verdict_clear");
  if (gain > EQUAL_DB) return say("verdict_sharper");
  return say(gain >= -EQUAL_DB ? "verdict_equal" : "verdict_loss");
}

function verdict(result) {
  const words = verdictInWords(result);
  if (result.gain === null || result.model === "bicubic") return [element("strong", {}, words)];
  return [element("strong", {}, words), ` (${decibels(result.gain)})`];
}

// The better one first.
function showDownloads(work, fail) {
  const { result } = work;
  const url = URL.createObjectURL(result.blob);
  urls.push(url);
  const format = result.format.toUpperCase();
  const size = bytes(result.blob.size);
  const loss = isLoss(result);
  at("download").hidden = loss;
  at("download").href = url;
  at("download").download = fileName(work, result);
  at("download").textContent = say("download", { format, size });
  at("download-plain").hidden = !loss;
  at("download-plain").disabled = false;
  at("download-plain").textContent = say("download_plain", { format });
  at("download-plain").onclick = () => downloadPlain(work, fail);
  at("download-anyway").hidden = !loss;
  at("download-anyway").href = url;
  at("download-anyway").download = fileName(work, result);
  at("download-anyway").textContent = say("download_anyway", { model: result.model });
  at("copy-picture").hidden = !canCopy(result);
  at("copy-picture").textContent = say("copy_picture");
  at("copy-picture").onclick = () => copyPicture(work, fail);
}

async function downloadPlain(work, fail) {
  at("download-plain").disabled = true;
  try {
    work.plain ??= await enlargePlainly(work);
    const url = URL.createObjectURL(work.plain.blob);
    urls.push(url);
    element("a", { href: url, download: fileName(work, work.plain, "-plain") }).click();
  } catch (problem) {
    fail(problem);
  }
  at("download-plain").disabled = false;
}

function canCopy({ width, height }) {
  return Boolean(navigator.clipboard?.write && window.ClipboardItem) && width * height <= 40e6;
}

// As PNG, which is what clipboards take.
async function copyPicture({ result }, fail) {
  const asPng = async () => {
    if (result.blob.type === "image/png") return result.blob;
    const bitmap = await createImageBitmap(result.blob);
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  };
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": asPng() })]);
    at("copy-picture").textContent = say("copied");
  } catch {
    fail(new Error(say("not_copied")));
  }
}

function showExplanation({ picture, asked, result }) {
  const { scale, ...others } = asked;
  const { proof, ...made } = asked;
  const proved = result.gain !== null;
  const size = say("size_of_result", { width: number(result.width), height: number(result.height) });
  const scored = say("method", {
    model: result.model,
    plain: result.plainDecibels,
    enhanced: result.modelDecibels,
  });
  const unproved = proof && provable(asked, picture.size) !== asked ? say("no_proof_at_scale") : "";
  at("method").textContent = [proved ? scored : unproved, say("made_by", { model: result.model }), size]
    .filter(Boolean)
    .join(" ");
  at("told").replaceChildren(
    ...toldOf(result.notes).flatMap(([label, what]) => [
      element("dt", {}, label),
      element("dd", {}, what),
    ]),
  );
  at("explanation").hidden = false;
  showCommands(picture.file.name, { ...made, format: result.format }, fileName({ picture, asked }, result));
}

// What makes the same from a terminal and from Python.
export function showCommands(name, query, file) {
  at("curl").textContent = curl(name, query, file);
  at("python").textContent = python(name, query, file);
  at("commands").hidden = false;
}

// Offers other models that beat plain enlarging, on a part of the picture.
async function tryOthers(work, tryModel) {
  const { picture, asked, result } = work;
  if (!asked.scale) return;
  const part = await partOf(picture);
  if (!part) return;
  work.better ??= (async () => {
    const better = [];
    const made = result.model.replace(/(-x\d)?(\+ensemble)?$/, "");
    for (const family of offeredFamilies().filter((name) => name !== made)) {
      const gain = await gainOf(family, part, asked, work.controller.signal).catch(() => NaN);
      if (gain > EQUAL_DB) better.push({ family, gain });
    }
    return better.sort((one, other) => other.gain - one.gain);
  })();
  const better = await work.better;
  if (!better.length || at("download-anyway").download !== fileName(work, result)) return;
  at("others").replaceChildren(
    `${say("these_win")} `,
    ...better.map(({ family, gain }) => {
      const label = `${nameOf(family)} (${decibels(gain)})`;
      const button = element("button", { type: "button", "data-model": family }, label);
      button.addEventListener("click", () => tryModel(family));
      return button;
    }),
  );
  at("others").hidden = false;
}

// The picture itself if it is small, else its middle; null where the browser does not show it.
async function partOf({ file, size }) {
  if (!size) return null;
  if (size.width <= TRIED_SIDE && size.height <= TRIED_SIDE) return file;
  try {
    const [width, height] = [Math.min(TRIED_SIDE, size.width), Math.min(TRIED_SIDE, size.height)];
    const [x, y] = [(size.width - width) >> 1, (size.height - height) >> 1];
    const bitmap = await createImageBitmap(file, x, y, width, height);
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return new File([await canvas.convertToBlob({ type: "image/png" })], file.name);
  } catch {
    return null;
  }
}
