// Two pictures under a divider, zoomed and panned together, and a detail of both at 1:1.
//
// All places are pixels of the screen, not of CSS: at 1:1 one of them shows one of the picture.

import { makeControls } from "./controls.js";
import { Detail } from "./detail.js";
import { element } from "./elements.js";
import { listen } from "./gestures.js";
import { Pictures } from "./pictures.js";
import { number, say } from "./words.js";

const LARGEST_ZOOM = 16;
const SMALLEST_FRAME = 140; // px of CSS, height

export class Viewer {
  // sources: [{name, label, alt, blob, crop}]; views: [{label, left, right}], names of those.
  constructor(figure, sources, views) {
    this.figure = figure;
    this.sources = new Map(sources.map((source) => [source.name, source]));
    this.views = views;
    this.at = 0.5; // where the divider is, in the frame
    this.held = false; // whether the left one is shown alone
    this.checker = "light"; // the squares under what is transparent
    this.pictures = new Pictures();
    this.#build();
    this.ready = this.#open();
  }

  async #open() {
    const opened = [...this.sources.values()].map(async (source) => {
      Object.assign(source, await this.pictures.call("open", source));
    });
    await Promise.all(opened);
    this.transparent = [...this.sources.values()].some((source) => source.transparent);
    this.checkerButton.hidden = !this.transparent;
    await this.show(this.views[0]);
    this.observer = new ResizeObserver(() => (this.fitted ? this.fit() : this.draw()));
    this.observer.observe(this.figure);
    this.observer.observe(document.getElementById("bar")); // which takes from its room
  }

  close() {
    this.observer?.disconnect();
    this.pictures.close();
    this.figure.remove();
  }

  // Puts one pair under the divider.
  async show(view) {
    this.left = this.sources.get(view.left);
    this.right = this.sources.get(view.right);
    this.size = { width: this.right.width, height: this.right.height };
    if (this.left.crop) await this.pictures.call("crop", { name: view.left, ...this.size });
    this.tags[0].textContent = this.left.label;
    this.tags[1].textContent = this.right.label;
    this.canvas.setAttribute("aria-label", `${this.left.alt} | ${this.right.alt}`);
    this.range.setAttribute(
      "aria-label",
      say("divider", { left: this.left.label, right: this.right.label }),
    );
    this.fit();
    const names = { left: view.left, right: view.right };
    this.detail.moveTo(await this.pictures.call("spot", { ...names, size: this.size }));
    this.figure.dataset.ready = view.right;
  }

  get density() {
    return window.devicePixelRatio;
  }

  // Width and height of the frame.
  get room() {
    return [this.frame.clientWidth, this.frame.clientHeight].map((side) =>
      Math.round(side * this.density),
    );
  }

  get smallest() {
    const [width, height] = this.room;
    return Math.min(1, width / this.size.width, height / this.size.height);
  }

  get overflows() {
    const [width, height] = this.room;
    return this.size.width * this.zoom > width + 1 || this.size.height * this.zoom > height + 1;
  }

  // As much as there is room for, but never enlarged.
  fit() {
    if (!this.size) return;
    const ratio = this.size.height / this.size.width;
    const natural = Math.min(this.frame.clientWidth * ratio, this.size.height / this.density);
    this.detail.toggle(this.size.width / this.density > this.frame.clientWidth + 1);
    let height = Math.round(Math.min(natural, this.#heightLeft()));
    // What is too high for the window is also seen better in detail.
    if (this.detail.toggle(natural > height + 1 || this.detail.shown))
      height = Math.round(Math.min(this.frame.clientWidth * ratio, this.#heightLeft()));
    this.frame.style.height = `${Math.max(SMALLEST_FRAME, height)}px`;
    Object.assign(this, { zoom: this.smallest, x: 0, y: 0, fitted: true });
    this.draw();
  }

  // Of the window, px of CSS: less what is above the frame, below it, and the bar.
  #heightLeft() {
    const top = this.frame.getBoundingClientRect().top + window.scrollY;
    const below = this.controls.offsetHeight + this.detail.heightBelow + 16;
    const bar = document.getElementById("bar").offsetHeight;
    return Math.max(SMALLEST_FRAME, window.innerHeight - top - below - bar);
  }

  // Zooms so that the picture's point under (x, y) of the frame stays there.
  zoomTo(zoom, x = this.room[0] / 2, y = this.room[1] / 2) {
    zoom = Math.min(LARGEST_ZOOM, Math.max(this.smallest, zoom));
    this.x = x - ((x - this.x) * zoom) / this.zoom;
    this.y = y - ((y - this.y) * zoom) / this.zoom;
    this.zoom = zoom;
    this.fitted = zoom === this.smallest;
    this.draw();
  }

  panBy(x, y) {
    this.x += x;
    this.y += y;
    this.draw();
  }

  moveDivider(part) {
    this.at = Math.min(1, Math.max(0, part));
    this.draw();
  }

  // Shows the left picture alone, as long as a key or a button is held.
  hold(held) {
    if (this.held === held) return;
    this.held = held;
    this.holdButton.setAttribute("aria-pressed", String(held));
    this.draw();
  }

  toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.figure.requestFullscreen?.();
  }

  #build() {
    this.tags = [element("span", { class: "tag left" }), element("span", { class: "tag right" })];
    this.canvas = element("canvas", { role: "img" });
    this.divider = element("div", { class: "divider" });
    this.detail = new Detail(this);
    this.frame = element(
      "div",
      { class: "frame", tabindex: "0", role: "group", "aria-label": say("frame") },
      ...[this.canvas, this.detail.box, this.divider, ...this.tags],
    );
    this.controls = makeControls(this);
    this.figure.append(
      element("div", { class: "panes" }, this.frame, this.detail.pane),
      this.controls,
    );
    const surface = this.canvas.transferControlToOffscreen();
    this.pictures.call("canvas", { name: "frame", canvas: surface }, [surface]);
    listen(this);
  }

  help() {
    document.getElementById("keys-dialog").showModal();
  }

  switchCheckers() {
    this.checker = this.checker === "light" ? "dark" : "light";
    this.checkerButton.textContent = say(this.checker === "light" ? "checker_dark" : "checker_light");
    this.draw();
  }

  draw() {
    if (this.zoom === undefined) return; // the pictures are not there yet
    const [width, height] = this.room;
    const inside = (offset, room, length) =>
      length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, offset));
    // On whole pixels: between them, one to one would be blurred.
    const x = (this.x = Math.round(inside(this.x, width, this.size.width * this.zoom)));
    const y = (this.y = Math.round(inside(this.y, height, this.size.height * this.zoom)));
    const part = this.held ? 1 : this.at;
    const at = Math.round(part * width);
    this.frame.style.setProperty("--at", `${at / this.density}px`);
    this.frame.classList.toggle("pannable", this.overflows);
    this.divider.hidden = this.held;
    const covered = (tag, hidden) => tag.classList.toggle("covered", hidden);
    const [left, right] = this.tags;
    covered(left, at / this.density < left.offsetLeft + 24);
    covered(right, at / this.density > right.offsetLeft + right.offsetWidth - 24);
    this.range.value = 100 * this.at;
    this.range.setAttribute(
      "aria-valuetext",
      say("divider_at", { left: this.left.label, percent: number(100 * this.at, 1) }),
    );
    this.percent.textContent = `${number(100 * this.zoom)} %`;
    const place = { y: 0, height, zoom: this.zoom, left: x, top: y };
    this.paint("frame", width, height, [
      { ...place, picture: this.left.name, x: 0, width: at },
      { ...place, picture: this.right.name, x: at, width: width - at },
    ]);
    this.detail.draw();
  }

  // Has the worker draw, always the latest only.
  async paint(canvas, width, height, panes) {
    this.wanted ??= new Map();
    const waiting = this.wanted.has(canvas);
    const checker = this.transparent && this.checker;
    this.wanted.set(canvas, { canvas, width, height, panes, size: this.size, checker });
    if (waiting) return;
    for (let latest; latest !== this.wanted.get(canvas); ) {
      latest = this.wanted.get(canvas);
      await this.pictures.call("draw", latest);
    }
    this.wanted.delete(canvas);
    this.figure.dataset.drawn = Number(this.figure.dataset.drawn ?? 0) + 1;
  }
}
