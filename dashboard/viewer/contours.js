// The lines along which a heatmap crosses the threshold, and twice the distance from a good image to it. The heatmap
// comes as a picture whose opacity says how far a place is towards the threshold (anomaly.imaging.colours.STOPS).

const LEVELS = [[0.6 * 255, "#ffdd33"], [0.9 * 255, "#ff5a3c"]]; // opacity, colour of the line
const contoursMade = new WeakMap();

// Paths, in parts of the picture's sides, with their colours.
function contoursOf(bitmap) {
  if (!contoursMade.has(bitmap)) {
    const { width, height } = bitmap;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const opacity = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : data[4 * (y * width + x) + 3]);
    contoursMade.set(bitmap, LEVELS.map(([level, colour]) => [linesAt(opacity, width, height, level), colour]));
  }
  return contoursMade.get(bitmap);
}

// Marching squares (Lorensen and Cline 1987, in the plane): a square has a value at each corner; a line crosses the sides
// whose ends lie on different sides of the level. Outside of the picture all is 0, so that every line is closed.
function linesAt(valueAt, width, height, level) {
  const path = new Path2D();
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const [a, b, c, d] = [valueAt(x, y), valueAt(x + 1, y), valueAt(x + 1, y + 1), valueAt(x, y + 1)];
      if ((a > level) === (b > level) && (b > level) === (c > level) && (c > level) === (d > level)) continue;
      const part = (one, other) => (level - one) / (other - one);
      const crossings = [];
      if ((a > level) !== (b > level)) crossings.push([x + part(a, b), y]);
      if ((b > level) !== (c > level)) crossings.push([x + 1, y + part(b, c)]);
      if ((c > level) !== (d > level)) crossings.push([x + part(d, c), y + 1]);
      if ((d > level) !== (a > level)) crossings.push([x, y + part(a, d)]);
      for (let at = 0; at + 1 < crossings.length; at += 2) {
        const [from, to] = [crossings[at], crossings[at + 1]].map(([u, v]) => [(u + 0.5) / width, (v + 0.5) / height]);
        path.moveTo(...from);
        path.lineTo(...to);
      }
    }
  }
  return path;
}

// Draws them over a place of the canvas.
function drawContours(context, bitmap, left, top, width, height) {
  for (const [lines, colour] of contoursOf(bitmap)) {
    const path = new Path2D();
    path.addPath(lines, new DOMMatrix([width, 0, 0, height, left, top]));
    for (const [stroke, wide] of [["#000a", 3], [colour, 1.5]]) {
      Object.assign(context, { strokeStyle: stroke, lineWidth: wide, lineCap: "round" });
      context.stroke(path);
    }
  }
}
