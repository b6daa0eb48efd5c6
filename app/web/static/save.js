// All results in one zip file, written as it is made where the browser can do that.

import { fileName } from "./results.js";
import { downloadZip } from "./vendor/client-zip.js";

const NAME = "superres.zip";

export async function saveAll(works) {
  const done = works.filter((work) => work.state === "done");
  if (window.showSaveFilePicker) {
    let file;
    try {
      const types = [{ accept: { "application/zip": [".zip"] } }];
      file = await window.showSaveFilePicker({ suggestedName: NAME, types });
    } catch (problem) {
      if (problem.name === "AbortError") return; // nobody wants it
    }
    if (file) return downloadZip(entriesOf(done)).body.pipeTo(await file.createWritable());
  }
  const url = URL.createObjectURL(await downloadZip(entriesOf(done)).blob());
  const link = Object.assign(document.createElement("a"), { href: url, download: NAME });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// Names that occur twice get a number.
function* entriesOf(works) {
  const taken = new Map();
  for (const work of works) {
    const name = fileName(work, work.result);
    const count = (taken.get(name) ?? 0) + 1;
    taken.set(name, count);
    const unique = count === 1 ? name : name.replace(/(\.[^.]*)$/, `-${count}$1`);
    yield { name: unique, input: work.result.blob, lastModified: new Date() };
  }
}
