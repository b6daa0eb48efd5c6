// Two pictures of one size under a divider: zoomed and panned together, with a loupe.
//
// A figure holds <img data-name data-label>s, and in data-views a list of
// {label, left, right}: which two are shown together.

const LARGEST_ZOOM = 16;
const GRIP = 28; // px around the divider in which a drag moves it, not the picture
const STEP = 40; // px that an arrow key moves
const LOUPE = 150; // px, side of one of its two panes

const KEYS = "+ and − zoom, 0 fits, 1 is one to one, L is the loupe, arrows move";

export class Viewer {
  constructor(figure) {
    this.figure = figure;
    this.images = new Map([...figure.querySelectorAll("img")].map((img) => [img.dataset.name, img]));
    this.views = JSON.parse(figure.dataset.views);
    this.at = 0.5;
    this.pointers = new Map();
    this.#build();
    this.show(this.views[0]);
    this.ready = Promise.all([...this.images.values()].map((img) => img.decode())).then(() => {
      this.fit();
      new ResizeObserver(() => (this.fitted ? this.fit() : this.#draw())).observe(this.frame);
    });
  }

  // Puts one pair under the divider.
  show(view) {
    this.left = this.images.get(view.left);
    this.right = this.images.get(view.right);
    for (const img of this.images.values()) {
      img.hidden = img !== this.left && img !== this.right;
      img.classList.toggle("left", img === this.left);
    }
    this.tags[0].textContent = this.left.dataset.label;
    this.tags[1].textContent = this.right.dataset.label;
    this.range.setAttribute(
      "aria-label",
      `Divider: ${this.left.dataset.label} on the left, ${this.right.dataset.label} on the right`,
    );
    this.#draw();
  }

  // As much as there is room for, but never enlarged.
  fit() {
    const room = window.innerHeight * 0.72;
    const zoom = Math.min(1, this.frame.clientWidth / this.width, room / this.height);
    this.frame.style.height = `${Math.round(this.height * zoom)}px`;
    Object.assign(this, { zoom, x: 0, y: 0, fitted: true });
    this.#draw();
  }

  // Zooms so that the picture's point under (x, y) of the frame stays there.
  zoomTo(zoom, x = this.frame.clientWidth / 2, y = this.frame.clientHeight / 2) {
    zoom = Math.min(LARGEST_ZOOM, Math.max(this.smallest, zoom));
    this.x = x - ((x - this.x) * zoom) / this.zoom;
    this.y = y - ((y - this.y) * zoom) / this.zoom;
    this.zoom = zoom;
    this.fitted = zoom === this.smallest;
    this.#draw();
  }

  toggleLoupe() {
    const on = this.loupe.hidden;
    this.loupe.hidden = !on;
    this.loupeButton.setAttribute("aria-pressed", String(on));
    this.spot ??= [this.frame.clientWidth / 2, this.frame.clientHeight / 2];
    this.#draw();
  }

  get width() {
    return this.right.naturalWidth;
  }

  get height() {
    return this.right.naturalHeight;
  }

  get smallest() {
    return Math.min(1, this.frame.clientWidth / this.width, this.frame.clientHeight / this.height);
  }

  get overflows() {
    return (
      this.width * this.zoom > this.frame.clientWidth + 1 ||
      this.height * this.zoom > this.frame.clientHeight + 1
    );
  }

  #build() {
    const element = (tag, attributes = {}, ...children) => {
      const made = document.createElement(tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      made.append(...children);
      return made;
    };
    const button = (label, action, attributes) => {
      const made = element("button", { type: "button", ...attributes }, label);
      made.addEventListener("click", action);
      return made;
    };
    this.tags = [element("span", { class: "tag left" }), element("span", { class: "tag right" })];
    this.divider = element("div", { class: "divider" });
    this.loupe = element("canvas", { class: "loupe", hidden: "", "aria-hidden": "true" });
    this.frame = element(
      "div",
      { class: "frame", tabindex: "0", role: "group", "aria-label": `Picture. ${KEYS}.` },
      ...this.images.values(),
      this.divider,
      ...this.tags,
      this.loupe,
    );
    this.range = element("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
    this.range.addEventListener("input", () => {
      this.at = this.range.value / 100;
      this.#draw();
    });
    this.percent = element("output", { class: "percent" });
    this.loupeButton = button("Loupe", () => this.toggleLoupe(), {
      "aria-pressed": "false",
      title: "Both pictures, one pixel to the pixel",
    });
    const tools = element(
      "div",
      { class: "tools" },
      element(
        "div",
        { class: "joined", role: "group", "aria-label": "Zoom" },
        button("−", () => this.zoomTo(this.zoom / 1.5), { "aria-label": "Zoom out" }),
        button("Fit", () => this.fit()),
        button("1:1", () => this.zoomTo(1), { title: "One pixel to the pixel" }),
        button("+", () => this.zoomTo(this.zoom * 1.5), { "aria-label": "Zoom in" }),
      ),
      this.percent,
      this.loupeButton,
    );
    if (this.views.length > 1) tools.append(this.#chooser(element));
    this.figure.append(this.frame, this.range, tools);

    this.frame.addEventListener("keydown", (event) => this.#key(event));
    this.frame.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.frame.addEventListener("dblclick", (event) => {
      if (this.zoom < 1) this.zoomTo(1, ...this.#position(event));
      else this.fit();
    });
    this.frame.addEventListener("pointerdown", (event) => this.#press(event));
    this.frame.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"])
      this.frame.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    this.frame.addEventListener("dragstart", (event) => event.preventDefault());
  }

  #chooser(element) {
    const select = element("select", { "aria-label": "What to show" });
    for (const view of this.views) select.append(new Option(view.label));
    select.addEventListener("change", () => this.show(this.views[select.selectedIndex]));
    return select;
  }

  #draw() {
    if (this.zoom === undefined) return; // the pictures are not there yet
    const { clientWidth, clientHeight } = this.frame;
    const inside = (offset, room, length) =>
      length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, offset));
    this.x = inside(this.x, clientWidth, this.width * this.zoom);
    this.y = inside(this.y, clientHeight, this.height * this.zoom);
    const style = this.frame.style;
    // On whole pixels: between them, one to one would be blurred.
    const [x, y] = [Math.round(this.x), Math.round(this.y)];
    style.setProperty("--x", `${x}px`);
    style.setProperty("--y", `${y}px`);
    style.setProperty("--zoom", this.zoom);
    style.setProperty("--at", `${this.at * clientWidth}px`);
    // The left picture is cut in its own pixels.
    const cut = this.width - (this.at * clientWidth - x) / this.zoom;
    style.setProperty("--cut", `${Math.min(this.width, Math.max(0, cut))}px`);
    this.frame.classList.toggle("pixels", this.zoom >= 2);
    this.frame.classList.toggle("pannable", this.overflows);
    this.range.value = 100 * this.at;
    this.percent.textContent = `${Math.round(100 * this.zoom)} %`;
    if (!this.loupe.hidden) this.#drawLoupe();
  }

  // Both pictures around one spot, side by side, one picture pixel to the pixel.
  #drawLoupe() {
    const density = window.devicePixelRatio;
    const power = this.zoom < 1 ? 1 : 2 * this.zoom;
    const [x, y] = this.spot;
    const seen = LOUPE / power;
    const left = (x - this.x) / this.zoom - seen / 2;
    const top = (y - this.y) / this.zoom - seen / 2;
    this.loupe.width = 2 * LOUPE * density;
    this.loupe.height = LOUPE * density;
    const context = this.loupe.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.scale(density, density);
    [this.left, this.right].forEach((img, i) => {
      context.save();
      context.beginPath();
      context.rect(i * LOUPE, 0, LOUPE, LOUPE);
      context.clip();
      context.drawImage(img, i * LOUPE - left * power, -top * power, this.width * power, this.height * power);
      context.restore();
    });
    context.fillStyle = "white";
    context.fillRect(LOUPE - 1, 0, 2, LOUPE);
    const beside = Math.min(Math.max(0, x - LOUPE), Math.max(0, this.frame.clientWidth - 2 * LOUPE));
    const above = y - LOUPE - 24;
    this.loupe.style.left = `${beside}px`;
    this.loupe.style.top = `${above < 0 ? Math.min(y + 24, this.frame.clientHeight - LOUPE) : above}px`;
  }

  #key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const actions = {
      "+": () => this.zoomTo(this.zoom * 1.5),
      "=": () => this.zoomTo(this.zoom * 1.5),
      "-": () => this.zoomTo(this.zoom / 1.5),
      0: () => this.fit(),
      1: () => this.zoomTo(1),
      l: () => this.toggleLoupe(),
    };
    const arrow = arrows[event.key];
    const action = actions[event.key.toLowerCase()];
    if (event.ctrlKey || event.metaKey || event.altKey || !(arrow || action)) return;
    event.preventDefault();
    if (action) return action();
    if (this.loupe.hidden) {
      this.x -= STEP * arrow[0];
      this.y -= STEP * arrow[1];
    } else {
      const limits = [this.frame.clientWidth, this.frame.clientHeight];
      this.spot = this.spot.map((at, i) => Math.min(limits[i], Math.max(0, at + 10 * arrow[i])));
    }
    this.#draw();
  }

  #wheel(event) {
    // The page scrolls over a picture that nobody has turned to.
    if (!event.ctrlKey && document.activeElement !== this.frame) return;
    event.preventDefault();
    this.zoomTo(this.zoom * Math.exp(-event.deltaY / 300), ...this.#position(event));
  }

  #press(event) {
    this.pointers.set(event.pointerId, this.#position(event));
    this.frame.setPointerCapture(event.pointerId);
    const [x] = this.#position(event);
    const nearDivider = Math.abs(x - this.at * this.frame.clientWidth) < GRIP;
    this.moving = this.overflows && !nearDivider ? "picture" : "divider";
    if (this.moving === "divider") this.#moveDivider(x);
  }

  #move(event) {
    const [x, y] = this.#position(event);
    this.spot = [x, y];
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (!this.loupe.hidden) this.#drawLoupe();
      return;
    }
    this.pointers.set(event.pointerId, [x, y]);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
      const middle = [(x + other[0]) / 2, (y + other[1]) / 2];
      this.zoomTo((this.zoom * apart([x, y], other)) / Math.max(1, apart(before, other)), ...middle);
    } else if (this.moving === "picture") {
      this.x += x - before[0];
      this.y += y - before[1];
      this.#draw();
    } else {
      this.#moveDivider(x);
    }
  }

  #moveDivider(x) {
    this.at = Math.min(1, Math.max(0, x / this.frame.clientWidth));
    this.#draw();
  }

  #position(event) {
    const box = this.frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
}
