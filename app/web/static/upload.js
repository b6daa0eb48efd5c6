// Files come in: chosen, dropped, pasted, or one of the samples; folders with all that is in them.

import { ask } from "./key.js";
import { problemOf } from "./problems.js";

const at = (id) => document.getElementById(id);

// Calls take(files) for what comes in, and fail(problem) where a sample cannot be fetched.
export function listen(take, fail) {
  for (const id of ["file", "folder"]) {
    const takeChosen = () => {
      const files = [...at(id).files];
      at(id).value = ""; // so that the same file can be chosen again
      take(id === "folder" ? files.filter(isPicture) : files);
    };
    at(id)?.addEventListener("change", takeChosen);
    if (at(id)?.files.length) takeChosen(); // before the page was ready
  }
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) take(files);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    take(await dropped(event.dataTransfer));
  });
  for (const sample of document.querySelectorAll("button[data-sample]"))
    sample.addEventListener("click", async () => {
      const name = sample.dataset.sample;
      const answer = await ask(`samples/${name}`);
      if (!answer.ok) return fail(await problemOf(await answer.blob(), null, name));
      take([new File([await answer.blob()], `${name}.png`, { type: "image/png" })]);
    });
}

// What was dropped, and all that is in dropped folders, but for what is no picture by its type.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const found = [];
  for (const entry of entries) {
    if (entry?.isDirectory) found.push(...(await filesIn(entry)).filter(isPicture));
    else if (entry) found.push(await fileOf(entry));
  }
  return found;
}

async function filesIn(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    // A reader gives at most 100 entries at a time.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const entry of entries)
      found.push(...(entry.isDirectory ? await filesIn(entry) : [await fileOf(entry)]));
  }
}

function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

// Browsers know no type for some of the formats that the service reads.
function isPicture(file) {
  if (file.name.startsWith(".")) return false;
  return file.type.startsWith("image/") || /\.(avif|heic|heif|jfif|jxl|tiff?)$/i.test(file.name);
}
