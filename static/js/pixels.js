// Stored values of a radiograph, as POST /pixels sends them, and their way to grey levels.
// The format is described in spinexr/reporting/pixels.py.

// From the body of the answer: {head, pixels, levels, values}. `pixels` holds, for each pixel, the
// number of its entry in `levels` and `values`, which is its stored value less `head.lowest`.
export async function decode(body) {
  const length = new DataView(body).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(body, 4, length)));
  const inflated = new Response(
    new Blob([new Uint8Array(body, 4 + length)]).stream().pipeThrough(new DecompressionStream("deflate")),
  );
  const bytes = await inflated.arrayBuffer();
  const count = head.rows * head.columns;
  const entries = head.highest - head.lowest + 1;
  return {
    head,
    pixels: undifferenced(new Uint8Array(bytes, 0, 2 * count), count, head.lowest),
    levels: new Uint8Array(bytes, 2 * count, entries),
    values: head.rescale
      ? Float64Array.from({ length: entries }, (_, n) => head.rescale.intercept + head.rescale.slope * n)
      : new Float32Array(bytes.slice(2 * count + entries)),
  };
}

function undifferenced(planes, count, lowest) {
  const result = new Uint16Array(count);
  let value = -lowest;
  for (let n = 0; n < count; n++) {
    const folded = planes[n] | (planes[count + n] << 8);
    value += (folded >>> 1) ^ -(folded & 1);
    result[n] = value; // modulo 2¹⁶, as it was written
  }
  return result;
}

// Windows to choose from: those of the file, the first as the file shows itself, then everything.
export function presets({ head, values }) {
  const found = head.windows.map(({ name, center, width }) => ({ name, center, width, function: head.function }));
  const [low, high] = range(values);
  const full = { name: "", full: true, center: (low + high) / 2, width: high - low || 1, function: "LINEAR_EXACT" };
  if (head.table) {
    found.unshift({ ...full, full: false, table: true });
  }
  return [...found, full];
}

export function range(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

// Uint8Array: the grey level of each entry through a window (PS3.3 C.11.2.1.2 and C.11.2.1.3).
export function greys({ head, levels, values }, window, inverted) {
  const result = new Uint8Array(values.length);
  for (let n = 0; n < values.length; n++) {
    let grey = levels[n];
    if (!window.table) {
      const share = windowed(values[n], window);
      grey = Math.round(255 * (head.inverse ? 1 - share : share));
    }
    result[n] = inverted ? 255 - grey : grey;
  }
  return result;
}

function windowed(value, { center, width, function: kind }) {
  if (kind === "SIGMOID") {
    return 1 / (1 + Math.exp((-4 * (value - center)) / width));
  }
  if (kind === "LINEAR") {
    if (width <= 1) {
      return value > center - 0.5 ? 1 : 0;
    }
    return clamp((value - (center - 0.5)) / (width - 1) + 0.5, 0, 1);
  }
  return clamp((value - center) / width + 0.5, 0, 1);
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// Draw through a table of grey levels; the canvas has the image's size.
export function draw(canvas, { head, pixels }, table) {
  const context = canvas.getContext("2d", { alpha: false });
  const image = context.createImageData(head.columns, head.rows);
  const colours = new Uint32Array(image.data.buffer);
  const opaque = Uint32Array.from(table, (grey) => (0xff000000 | (grey * 0x010101)) >>> 0);
  for (let n = 0; n < pixels.length; n++) {
    colours[n] = opaque[pixels[n]];
  }
  context.putImageData(image, 0, 0);
}
