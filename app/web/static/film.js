// The film strip: every picture of the session with its state, its download, and a way to remove it.

import { element } from "./elements.js";
import { fileName } from "./results.js";
import { number, say } from "./words.js";

const at = (id) => document.getElementById(id);
const SIDE = 320; // px of a thumbnail

export class Film {
  #frames = new Map(); // work -> its parts

  // pictures make thumbnails; select(work) and remove(work) are what its buttons do.
  constructor(pictures, { select, remove }) {
    this.pictures = pictures;
    this.select = select;
    this.remove = remove;
  }

  show(works, current) {
    for (const [work, { item, url }] of this.#frames)
      if (!works.includes(work)) {
        item.remove();
        if (url) URL.revokeObjectURL(url);
        this.#frames.delete(work);
      }
    for (const work of works) {
      if (!this.#frames.has(work)) this.#add(work);
      this.#update(work, work === current);
    }
    at("film").hidden = works.length < 2;
  }

  #add(work) {
    const canvas = element("canvas", { width: 1, height: 1 });
    const state = element("span", { class: "state" });
    const name = element("span", { class: "name" }, work.picture.file.name);
    const button = element("button", { type: "button" }, canvas, name, state);
    button.addEventListener("click", () => this.select(work));
    const file = work.picture.file.name;
    const download = element("a", { class: "button", hidden: "", "aria-label": say("download_of", { name: file }) }, "↓");
    const remove = element("button", { type: "button", class: "remove", "aria-label": say("remove", { name: file }) }, "×");
    remove.addEventListener("click", () => this.remove(work));
    const item = element("li", {}, button, download, remove);
    at("film").append(item);
    this.#frames.set(work, { item, button, state, canvas, download });
    this.#draw(work);
  }

  async #draw(work) {
    const small = await thumbnailOf(work.picture, this.pictures);
    if (!small) return;
    const { canvas } = this.#frames.get(work) ?? {};
    if (!canvas) return;
    Object.assign(canvas, { width: small.width, height: small.height });
    canvas.getContext("2d").drawImage(small, 0, 0);
  }

  #update(work, current) {
    const frame = this.#frames.get(work);
    frame.item.dataset.state = work.state;
    frame.button.setAttribute("aria-current", String(current));
    const { asked, result } = work;
    const size = asked.scale ? `×${asked.scale}` : "";
    frame.state.textContent =
      work.state === "working"
        ? `${number(100 * work.part)} %`
        : work.state === "done"
          ? [size, result.model.replace(/-x\d(?=$|\+)/, "")].filter(Boolean).join(" ")
          : say(`state_${work.state}`);
    if (work.state === "done" && !frame.url) {
      frame.url = URL.createObjectURL(result.blob);
      frame.download.href = frame.url;
      frame.download.download = fileName(work, result);
      frame.download.hidden = false;
    }
  }
}

// A small copy of a picture, and its size; null where the browser does not show its format.
export function thumbnailOf(picture, pictures) {
  picture.thumbnail ??= pictures
    .call("thumbnail", { blob: picture.file, side: SIDE })
    .then(({ width, height, small }) => {
      picture.size = { width, height };
      return small;
    })
    .catch(() => null);
  return picture.thumbnail;
}
