// A detail of both pictures side by side at 1:1, and the box that shows and moves its place.

import { element } from "./elements.js";
import { say } from "./words.js";

const STEP = 40; // px that an arrow key moves the place

export class Detail {
  constructor(viewer) {
    this.viewer = viewer;
    this.shown = false;
    this.box = element("div", { class: "box", hidden: "" });
    this.canvas = element("canvas", { role: "img", "aria-label": say("detail") });
    this.pane = element(
      "div",
      { class: "detail", hidden: "", tabindex: "0", role: "group", "aria-label": say("detail_keys") },
      this.canvas,
    );
    const surface = this.canvas.transferControlToOffscreen();
    viewer.pictures.call("canvas", { name: "detail", canvas: surface }, [surface]);
    this.#listen();
  }

  // Width and height of one half.
  get half() {
    const { density } = this.viewer;
    return [
      Math.floor((this.pane.clientWidth * density) / 2) - 1,
      Math.floor(this.pane.clientHeight * density),
    ];
  }

  // Height of the pane below the frame, px of CSS; 0 beside it.
  get heightBelow() {
    if (!this.shown) return 0;
    return this.pane.offsetLeft > this.viewer.frame.offsetLeft + 10 ? 0 : this.pane.offsetHeight + 8;
  }

  // Shows or hides it; returns whether it is shown.
  toggle(shown) {
    this.shown = shown;
    this.pane.hidden = this.box.hidden = !shown;
    return shown;
  }

  moveTo({ x, y }) {
    this.x = x;
    this.y = y;
    this.draw();
  }

  moveBy(x, y) {
    this.moveTo({ x: this.x + x, y: this.y + y });
  }

  draw() {
    if (!this.shown || this.x === undefined) return;
    const { viewer } = this;
    const { size, density } = viewer;
    const [width, height] = this.half;
    const inside = (centre, seen, length) =>
      seen >= length ? length / 2 : Math.min(length - seen / 2, Math.max(seen / 2, centre));
    this.x = inside(this.x, width, size.width);
    this.y = inside(this.y, height, size.height);
    const left = Math.round(width / 2 - this.x);
    const top = Math.round(height / 2 - this.y);
    const place = { y: 0, width, height, zoom: 1, top };
    viewer.paint("detail", 2 * width + 2, height, [
      { ...place, picture: viewer.left.name, x: 0, left },
      { ...place, picture: viewer.right.name, x: width + 2, left: width + 2 + left },
    ]);
    const { style } = this.box;
    style.left = `${(viewer.x + (this.x - width / 2) * viewer.zoom) / density}px`;
    style.top = `${(viewer.y + (this.y - height / 2) * viewer.zoom) / density}px`;
    style.width = `${(Math.min(width, size.width) * viewer.zoom) / density}px`;
    style.height = `${(Math.min(height, size.height) * viewer.zoom) / density}px`;
  }

  #listen() {
    this.#drag(this.box, (x, y) => this.moveBy(x / this.viewer.zoom, y / this.viewer.zoom));
    this.#drag(this.pane, (x, y) => this.moveBy(-x, -y));
    this.pane.addEventListener("keydown", (event) => {
      const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const arrow = arrows[event.key];
      if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.moveBy(STEP * arrow[0], STEP * arrow[1]);
    });
  }

  // Calls move(x, y) with how far a pointer that holds an element has come, px of the screen.
  #drag(held, move) {
    let before = null;
    held.addEventListener("pointerdown", (event) => {
      event.stopPropagation(); // the frame would move the divider
      before = [event.clientX, event.clientY];
      held.setPointerCapture(event.pointerId);
    });
    held.addEventListener("pointermove", (event) => {
      if (!before) return;
      const { density } = this.viewer;
      move((event.clientX - before[0]) * density, (event.clientY - before[1]) * density);
      before = [event.clientX, event.clientY];
    });
    for (const end of ["pointerup", "pointercancel"]) held.addEventListener(end, () => (before = null));
  }
}
