// Decodes pictures and draws parts of them, off the page's main thread.
//
// All places are pixels of the result, whose size the picture on the right has. Another picture is
// stretched to it: an original, as plain enlarging does it.

const LARGEST_LEVEL = 2048; // px, longer side of the smallest copy of a picture
const SEARCHED = 128; // px, side of the windows in which two pictures are compared
const WINDOWS = 14; // most of them along a side
const SQUARE = 12; // px, of the checkerboard under what is transparent
const CHECKERS = { light: ["#ffffff", "#d4d4d4"], dark: ["#2c2c2c", "#111111"] };

const pictures = new Map();
const canvases = new Map();
const scratches = new Map();

const calls = {
  canvas({ name, canvas }) {
    // In software: a device may not hold so large a picture, and only parts of it are drawn.
    canvases.set(name, canvas.getContext("2d", { willReadFrequently: true }));
  },

  // Decodes a picture; without a blob that a browser shows, rejects.
  async open({ name, blob }) {
    const bitmap = await createImageBitmap(blob);
    const levels = [bitmap];
    while (Math.max(levels.at(-1).width, levels.at(-1).height) > LARGEST_LEVEL)
      levels.push(halved(levels.at(-1)));
    const { width, height } = bitmap;
    pictures.set(name, { levels, width, height, part: { x: 0, y: 0, width, height } });
    return { width, height, transparent: isTransparent(levels.at(-1)) };
  },

  // Lets a picture show the part that a result of this size has of it, cropped at its centre.
  crop({ name, width, height }) {
    const picture = pictures.get(name);
    const scale = Math.max(width / picture.width, height / picture.height);
    const part = { width: width / scale, height: height / scale };
    part.x = (picture.width - part.width) / 2;
    part.y = (picture.height - part.height) / 2;
    picture.part = part;
  },

  // A small copy, at most `side` high and wide.
  async thumbnail({ blob, side }) {
    const bitmap = await createImageBitmap(blob);
    const { width, height } = bitmap;
    const scale = Math.min(1, side / Math.max(width, height));
    const small = await createImageBitmap(bitmap, {
      resizeWidth: Math.max(1, Math.round(width * scale)),
      resizeHeight: Math.max(1, Math.round(height * scale)),
      resizeQuality: "medium",
    });
    bitmap.close();
    return { width, height, small };
  },

  draw({ canvas, width, height, size, panes, checker }) {
    const context = canvases.get(canvas);
    if (context.canvas.width !== width) context.canvas.width = width;
    if (context.canvas.height !== height) context.canvas.height = height;
    context.clearRect(0, 0, width, height);
    for (const pane of panes) paint(context, pictures.get(pane.picture), size, pane, checker);
  },

  // The centre of the window in which the two differ most.
  spot({ left, right, size }) {
    const [width, height] = [Math.min(SEARCHED, size.width), Math.min(SEARCHED, size.height)];
    let best = { x: size.width / 2, y: size.height / 2, difference: -1 };
    for (const y of spread(size.height - height, height))
      for (const x of spread(size.width - width, width)) {
        const [one, other] = [left, right].map((name, i) => {
          const context = scratch(`spot${i}`, width, height);
          const pane = { x: 0, y: 0, width, height, zoom: 1, left: -x, top: -y };
          paint(context, pictures.get(name), size, pane, "light");
          return context.getImageData(0, 0, width, height).data;
        });
        let difference = 0;
        for (let i = 1; i < one.length; i += 4) difference += Math.abs(one[i] - other[i]);
        if (difference > best.difference)
          best = { x: x + width / 2, y: y + height / 2, difference };
      }
    return best;
  },
};

onmessage = async ({ data: { id, call, options } }) => {
  try {
    const value = await calls[call](options);
    postMessage({ id, value }, value?.small ? [value.small] : []);
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};

// Where windows of a side begin, spread over a length.
function spread(length, side) {
  const count = Math.min(WINDOWS, Math.ceil(length / side) + 1);
  return Array.from({ length: count }, (_, i) => Math.round((length * i) / Math.max(1, count - 1)));
}

// Draws what a pane shows of a picture: it begins at (left, top), `zoom` px to a pixel of the result.
function paint(context, picture, size, pane, checker) {
  const { x, y, width, height, zoom, left, top } = pane;
  const seen = {
    x0: Math.max(0, (x - left) / zoom),
    y0: Math.max(0, (y - top) / zoom),
    x1: Math.min(size.width, (x + width - left) / zoom),
    y1: Math.min(size.height, (y + height - top) / zoom),
  };
  if (seen.x0 >= seen.x1 || seen.y0 >= seen.y1) return;
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.beginPath();
  context.rect(left, top, size.width * zoom, size.height * zoom);
  context.clip();
  fillCheckers(context, pane, checker);
  const whole = picture.width === size.width && picture.height === size.height;
  if (whole || zoom <= 1) {
    stretch(context, picture, size, seen, pane, whole && (zoom === 1 || zoom >= 2));
  } else {
    // As plain enlarging makes the pixels of the result, and then each of these enlarged.
    const [x0, y0] = [Math.floor(seen.x0), Math.floor(seen.y0)];
    const [across, down] = [Math.ceil(seen.x1) - x0, Math.ceil(seen.y1) - y0];
    const middle = scratch("middle", across, down);
    stretch(middle, picture, size, seen, { zoom: 1, left: -x0, top: -y0 }, false);
    context.imageSmoothingEnabled = zoom < 2;
    context.drawImage(middle.canvas, left + x0 * zoom, top + y0 * zoom, across * zoom, down * zoom);
  }
  context.restore();
}

function stretch(context, picture, size, { x0, y0, x1, y1 }, { zoom, left, top }, exact) {
  const { part, levels } = picture;
  const [perX, perY] = [part.width / size.width, part.height / size.height];
  const smaller = Math.floor(Math.log2(Math.max(1, Math.min(perX, perY) / zoom)));
  const level = levels[Math.min(levels.length - 1, smaller)];
  // A few pixels more, which the ones at the edge are made from; what is too much is clipped.
  const margin = 4 / Math.min(perX, perY);
  [x0, y0] = [Math.max(0, Math.floor(x0 - margin)), Math.max(0, Math.floor(y0 - margin))];
  [x1, y1] = [Math.min(size.width, Math.ceil(x1 + margin)), Math.min(size.height, Math.ceil(y1 + margin))];
  const [kx, ky] = [level.width / picture.width, level.height / picture.height];
  context.imageSmoothingEnabled = !exact;
  context.imageSmoothingQuality = "high";
  context.drawImage(
    level,
    (part.x + x0 * perX) * kx,
    (part.y + y0 * perY) * ky,
    (x1 - x0) * perX * kx,
    (y1 - y0) * perY * ky,
    left + x0 * zoom,
    top + y0 * zoom,
    (x1 - x0) * zoom,
    (y1 - y0) * zoom,
  );
}

function fillCheckers(context, { x, y, width, height }, checker) {
  if (!checker) return;
  const tile = new OffscreenCanvas(2 * SQUARE, 2 * SQUARE);
  const pattern = tile.getContext("2d");
  [pattern.fillStyle] = CHECKERS[checker];
  pattern.fillRect(0, 0, 2 * SQUARE, 2 * SQUARE);
  pattern.fillStyle = CHECKERS[checker][1];
  pattern.fillRect(0, 0, SQUARE, SQUARE);
  pattern.fillRect(SQUARE, SQUARE, SQUARE, SQUARE);
  context.fillStyle = context.createPattern(tile, "repeat");
  context.fillRect(x, y, width, height);
}

function halved(source) {
  const [width, height] = [Math.ceil(source.width / 2), Math.ceil(source.height / 2)];
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, width, height);
  return context.canvas;
}

function isTransparent(source) {
  const context = scratch("alpha", 256, 256);
  context.drawImage(source, 0, 0, 256, 256);
  const { data } = context.getImageData(0, 0, 256, 256);
  for (let i = 3; i < data.length; i += 4) if (data[i] < 255) return true;
  return false;
}

function scratch(name, width, height) {
  let context = scratches.get(name);
  if (!context) {
    context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    scratches.set(name, context);
  }
  if (context.canvas.width !== width || context.canvas.height !== height)
    Object.assign(context.canvas, { width, height });
  else context.clearRect(0, 0, width, height);
  return context;
}
