"use strict";
// What lies over an image: its heat map or the decisions on its pixels, and the outline of the true defect.
visaBrowser.overlay = (() => {
  const COLOURS = { found: [0, 158, 255], false: [230, 97, 0], missed: [255, 214, 10] }; // apart for all eyes
  const KEPT = 1200; // decoded maps; the oldest go first
  const decoded = new Map();
  const reader = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  /** Grey values of a PNG in a data address, which unlike a file's may be read by a page on the disk. */
  async function pixelsOf(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    const { canvas } = reader;
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    reader.drawImage(image, 0, 0);
    const { data } = reader.getImageData(0, 0, canvas.width, canvas.height);
    const values = new Uint8Array(data.length / 4);
    for (let i = 0; i < values.length; i += 1) values[i] = data[4 * i];
    return { width: canvas.width, height: canvas.height, values };
  }

  /** As `pixelsOf`, remembered under a name. */
  function remembered(name, address) {
    if (!decoded.has(name)) decoded.set(name, address().then(pixelsOf));
    if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
    return decoded.get(name);
  }

  function levelsOf(scoring, index) {
    const name = `${scoring.folder}/${index}.js`;
    return remembered(name, () => visaBrowser.load(name));
  }

  function maskOf(image) {
    return image.mask ? remembered(image.mask, async () => image.mask) : Promise.resolve(null);
  }

  /** Draw levels (or null) and mask (or null) of one image. look: mode, truth, middle, threshold. */
  function paint(canvas, levels, mask, look) {
    const shape = levels ?? mask ?? { width: 1, height: 1 };
    canvas.width = shape.width;
    canvas.height = shape.height;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(shape.width, shape.height);
    if (levels && look.mode === "heat") paintHeat(picture.data, levels.values, look.middle);
    if (levels && look.mode === "decisions") paintDecisions(picture.data, levels.values, mask?.values, look);
    context.putImageData(picture, 0, 0);
  }

  function paintHeat(data, values, middle) {
    const all = new Uint32Array(data.buffer);
    const colours = visaBrowser.heat(middle);
    for (let i = 0; i < all.length; i += 1) all[i] = colours[values[i]];
  }

  function paintDecisions(data, values, mask, { threshold, known }) {
    const all = new Uint32Array(data.buffer);
    const colours = Object.fromEntries(Object.entries(COLOURS).map(([kind, rgb]) => [kind, packed(rgb, 225)]));
    for (let i = 0; i < all.length; i += 1) {
      const called = values[i] >= threshold;
      if (mask?.[i]) all[i] = called ? colours.found : colours.missed;
      else if (called) all[i] = known ? colours.false : colours.found;
    }
  }

  /** Draw the outline of a mask, or none, on a canvas of its own: it must not fade with the map. */
  function outline(canvas, mask) {
    if (canvas.shows === mask && canvas.width > 1) return;
    canvas.shows = mask;
    canvas.width = mask?.width ?? 1;
    canvas.height = mask?.height ?? 1;
    if (!mask) return;
    mask.outline ??= outlineOf(mask);
    canvas.getContext("2d").putImageData(mask.outline, 0, 0);
  }

  /** White along the mask's inner border, black along its outer one: seen on any image. */
  function outlineOf({ width, height, values }) {
    const picture = new ImageData(width, height);
    const all = new Uint32Array(picture.data.buffer);
    const [white, black] = [packed([255, 255, 255], 255), packed([0, 0, 0], 255)];
    for (let i = 0; i < values.length; i += 1) {
      const x = i % width;
      const inside = values[i] > 0;
      const differs = (k) => k >= 0 && k < values.length && values[k] > 0 !== inside;
      const border = differs(i - width) || differs(i + width) || (x > 0 && differs(i - 1)) || (x < width - 1 && differs(i + 1));
      if (border) all[i] = inside ? white : black;
    }
    return picture;
  }

  /** tp, fp, fn and tn among the pixels of one image. */
  function countsOf(levels, mask, threshold) {
    const counts = { tp: 0, fp: 0, fn: 0, tn: 0 };
    for (let i = 0; i < levels.values.length; i += 1) {
      const called = levels.values[i] >= threshold;
      if (mask?.values[i]) counts[called ? "tp" : "fn"] += 1;
      else counts[called ? "fp" : "tn"] += 1;
    }
    return counts;
  }

  /** Colours of the levels as 32-bit pixels: clear up to the middle one, ever denser above. */
  function heatColours(rgb) {
    const made = new Map();
    return (middle) => {
      if (!made.has(middle)) {
        made.set(middle, Uint32Array.from({ length: 256 }, (_, level) => {
          const density = Math.max(0, (level - middle) / Math.max(1, 255 - middle));
          const colour = Math.round(255 * density);
          return packed(rgb.slice(3 * colour, 3 * colour + 3), Math.round(255 * Math.sqrt(density)));
        }));
      }
      return made.get(middle);
    };
  }

  function packed([red, green, blue], opacity) {
    return ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0; // every browser's machine is little-endian
  }

  return { levelsOf, maskOf, paint, outline, countsOf, heatColours };
})();
