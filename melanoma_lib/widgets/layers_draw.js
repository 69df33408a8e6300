/* LayerExplorer's pictures: maps as they were packed, enlarged bilinearly and laid over the grey image. */

const STEPS = 127; // of a packed map, and colours on either side of zero
const MEANS = 32; // across a picture, which lines follow: they would circle each speckle of an early layer
const keyOf = (method, layer, direction) => `${method}/${layer}/${direction}`;

/** Packed maps by key; each with its values from -127 to 127. */
function readMaps({ index, bytes }) {
  const values = (map) => new Int8Array(bytes.buffer, bytes.byteOffset + map.at, map.rows * map.columns);
  return new Map(index.map((map) => [keyOf(map.method, map.layer, map.direction), { ...map, values: values(map) }]));
}

/** A context that keeps its pixels where they are computed. */
const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

const placesKept = new Map();

/** Where each of `side` pixels lies among n points: the points before and after it, and how far it is between them. */
function placesOf(n, side) {
  const key = `${n}/${side}`;
  if (!placesKept.has(key)) {
    const places = Array.from({ length: side }, (_, i) => Math.max(0, ((i + 0.5) * n) / side - 0.5));
    const before = Int32Array.from(places, (at) => Math.min(n - 1, Math.floor(at)));
    const after = before.map((low) => Math.min(n - 1, low + 1));
    placesKept.set(key, [before, after, Float32Array.from(places, (at, i) => at - before[i])]);
  }
  return placesKept.get(key);
}

/** A map at side × side points as torch's bilinear interpolation without aligned corners has it, times a factor. */
function enlarge({ values, rows, columns }, side, factor) {
  const [left, right, part] = placesOf(columns, side), [top, bottom, down] = placesOf(rows, side);
  const out = new Float32Array(side * side), row = new Float32Array(columns);
  for (let y = 0, i = 0; y < side; y++) {
    const above = top[y] * columns, below = bottom[y] * columns, low = factor * down[y], high = factor - low;
    for (let x = 0; x < columns; x++) row[x] = high * values[above + x] + low * values[below + x];
    for (let x = 0; x < side; x++, i++) {
      const here = row[left[x]];
      out[i] = here + part[x] * (row[right[x]] - here);
    }
  }
  return out;
}

/** A map of side × side points, evened out to means over squares and enlarged again. */
function evened(shares, side) {
  const step = Math.max(1, Math.floor(side / MEANS)), n = Math.floor(side / step), means = new Float32Array(n * n);
  for (let y = 0; y < n * step; y++) {
    const row = Math.floor(y / step) * n;
    for (let x = 0, i = y * side; x < n; x++) {
      let sum = 0;
      for (const end = i + step; i < end; i++) sum += shares[i];
      means[row + x] += sum / step ** 2;
    }
  }
  return enlarge({ values: means, rows: n, columns: n }, side, 1);
}

/** Pixels of the lesion's edge: 1 inside the white line, 2 on its black border, 0 elsewhere; null without a mask. */
function outlineOf(mask, side) {
  if (!mask) return null;
  const on = (x, y) => (mask.getUint8((y * side + x) >> 3) >> (7 - ((y * side + x) & 7))) & 1;
  const out = new Uint8Array(side * side);
  const thicken = (x, y, reach, value) => {
    for (let v = Math.max(0, y - reach); v <= Math.min(side - 1, y + reach); v++) {
      for (let u = Math.max(0, x - reach); u <= Math.min(side - 1, x + reach); u++) if (out[v * side + u] !== 1) out[v * side + u] = value;
    }
  };
  const edge = [];
  for (let y = 1; y < side; y++) for (let x = 1; x < side; x++) if (on(x, y) !== on(x - 1, y) || on(x, y) !== on(x, y - 1)) edge.push([x, y]);
  edge.forEach(([x, y]) => thicken(x, y, 2, 2));
  edge.forEach(([x, y]) => { out[y * side + x] = out[y * side + x - 1] = 1; });
  return out;
}

/** What pictures are drawn from: the image's pixels, the same in pale grey, and the lesion's edge. */
async function groundOf({ picture, mask }, side) {
  const bitmap = await createImageBitmap(new Blob([picture], { type: "image/jpeg" }));
  const canvas = new OffscreenCanvas(side, side).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  bitmap.close();
  const colours = canvas.getImageData(0, 0, side, side).data, grey = new Uint8Array(side * side);
  for (let i = 0; i < grey.length; i++) grey[i] = ((colours[4 * i] + colours[4 * i + 1] + colours[4 * i + 2]) / 3 + 100) * (255 / 355);
  return { colours, grey, edge: outlineOf(mask, side) };
}

function drawEdge(out, edge) {
  for (let i = 0; i < edge.length; i++) if (edge[i] !== 0) out[4 * i] = out[4 * i + 1] = out[4 * i + 2] = edge[i] === 1 ? 255 : 0;
}

/** The image as it is. */
function paintImage(canvas, { colours, edge }, outline) {
  const picture = new ImageData(new Uint8ClampedArray(colours), canvas.width, canvas.height);
  if (outline && edge) drawEdge(picture.data, edge);
  contextOf(canvas).putImageData(picture, 0, 0);
}

/** A map over the grey image, its colours at full strength where it reaches the limit. */
function paintMap(canvas, { grey, edge }, map, { limit, opacity, lines, outline, palette }) {
  const side = canvas.width, picture = new ImageData(side, side), out = picture.data;
  const shares = enlarge(map, side, map.size / (limit || 1)), pixels = new Uint32Array(out.buffer); // little-endian: 0xAABBGGRR
  const alphas = Float32Array.from({ length: 2 * STEPS + 1 }, (_, i) => (palette[4 * i + 3] * opacity) / 255);
  for (let i = 0; i < grey.length; i++) {
    const light = grey[i], at = (shares[i] + STEPS + 0.5) | 0, alpha = alphas[at];
    const red = light + alpha * (palette[4 * at] - light) + 0.5, green = light + alpha * (palette[4 * at + 1] - light) + 0.5;
    const blue = light + alpha * (palette[4 * at + 2] - light) + 0.5;
    pixels[i] = 0xff000000 | (blue << 16) | (green << 8) | red;
  }
  if (lines) drawLines(out, evened(shares, side), side);
  if (outline && edge) drawEdge(out, edge);
  contextOf(canvas).putImageData(picture, 0, 0);
}

/** Lines, two pixels wide, at half the scale: solid above zero, dashed below. */
function drawLines(out, shares, side) {
  const half = STEPS / 2;
  for (let y = 2; y < side; y++) {
    for (let x = 2; x < side; x++) {
      const i = y * side + x, here = shares[i], left = shares[i - 2], above = shares[i - 2 * side];
      const solid = here > half !== left > half || here > half !== above > half;
      const dashed = (here < -half !== left < -half || here < -half !== above < -half) && (x + y) % 12 < 7;
      if (solid || dashed) out[4 * i] = out[4 * i + 1] = out[4 * i + 2] = 0;
    }
  }
}

/** The colours from -1 to 1 on the grey of a picture. */
function paintBar(canvas, palette, opacity) {
  const picture = new ImageData(2 * STEPS + 1, 1);
  for (let i = 0; i <= 2 * STEPS; i++) {
    const alpha = (palette[4 * i + 3] / 255) * opacity;
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = 200 * (1 - alpha) + palette[4 * i + c] * alpha;
    picture.data[4 * i + 3] = 255;
  }
  contextOf(canvas).putImageData(picture, 0, 0);
}

/** Where a map is highest, in words; nothing positive is said as such. */
function peakWords({ values, rows, columns, size }) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  if (values[best] <= 0) return size ? "nothing positive" : "zero everywhere";
  const [x, y] = [(best % columns) + 0.5, Math.floor(best / columns) + 0.5];
  return `highest at ${percent(x / columns)} from the left and ${percent(y / rows)} from the top`;
}
