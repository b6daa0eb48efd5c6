// What pointers, the wheel and keys do with a viewer.

const GRIP = 28; // px of CSS around the divider in which a drag moves it, not the picture
const STEP = 40; // px that an arrow key moves the picture
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listen(viewer) {
  const { frame } = viewer;
  const pointers = new Map(); // id -> place
  let moving = "divider";

  const place = (event) => {
    const box = frame.getBoundingClientRect();
    return [(event.clientX - box.left) * viewer.density, (event.clientY - box.top) * viewer.density];
  };

  frame.addEventListener("pointerdown", (event) => {
    const [x, y] = place(event);
    pointers.set(event.pointerId, [x, y]);
    frame.setPointerCapture(event.pointerId);
    const near = Math.abs(x - viewer.at * viewer.room[0]) < GRIP * viewer.density;
    moving = viewer.overflows && !near ? "picture" : "divider";
    if (moving === "divider") viewer.moveDivider(x / viewer.room[0]);
  });
  frame.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const [x, y] = place(event);
    pointers.set(event.pointerId, [x, y]);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
      const middle = [(x + other[0]) / 2, (y + other[1]) / 2];
      const zoom = (viewer.zoom * apart([x, y], other)) / Math.max(1, apart(before, other));
      viewer.zoomTo(zoom, ...middle);
    } else if (moving === "picture") {
      viewer.panBy(x - before[0], y - before[1]);
    } else {
      viewer.moveDivider(x / viewer.room[0]);
    }
  });
  for (const end of ["pointerup", "pointercancel"])
    frame.addEventListener(end, (event) => pointers.delete(event.pointerId));
  frame.addEventListener("dragstart", (event) => event.preventDefault());
  frame.addEventListener("dblclick", (event) => {
    if (viewer.zoom < 1) viewer.zoomTo(1, ...place(event));
    else viewer.fit();
  });
  frame.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      viewer.zoomTo(viewer.zoom * Math.exp(-event.deltaY / 300), ...place(event));
    },
    { passive: false },
  );

  const actions = {
    "+": () => viewer.zoomTo(viewer.zoom * 1.5),
    "=": () => viewer.zoomTo(viewer.zoom * 1.5),
    "-": () => viewer.zoomTo(viewer.zoom / 1.5),
    0: () => viewer.fit(),
    1: () => viewer.zoomTo(1),
    f: () => viewer.toggleFullScreen(),
    "?": () => viewer.help(),
    " ": () => viewer.hold(true),
  };
  frame.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    const action = actions[event.key.toLowerCase()];
    if (event.ctrlKey || event.metaKey || event.altKey || !(arrow || action)) return;
    event.preventDefault();
    if (action) action();
    else viewer.panBy(-STEP * arrow[0], -STEP * arrow[1]);
  });
  frame.addEventListener("keyup", (event) => event.key === " " && viewer.hold(false));
  frame.addEventListener("blur", () => viewer.hold(false));

  // The button does the same by pointer and by key.
  const { holdButton } = viewer;
  for (const [event, held] of [
    ["pointerdown", true],
    ["pointerup", false],
    ["pointercancel", false],
    ["pointerleave", false],
    ["blur", false],
  ])
    holdButton.addEventListener(event, () => viewer.hold(held));
  holdButton.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    viewer.hold(true);
  });
  holdButton.addEventListener("keyup", () => viewer.hold(false));
}
