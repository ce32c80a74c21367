// Where exactly: regions that are drawn on the image, in pixels of the original. A box is left, top, right, bottom; a
// polygon x, y of its corners; a brush stroke x, y along it, and its width. They go with the verdict, and are kept in the
// draft before it. A place [x, y] and a reach (how near is meant) come in pixels of the original too.

const MOST_REGIONS = 50;
const MOST_NUMBERS = 5800; // of the points of all regions: the server takes 6000
const MOST_HANDLES = 60; // a polygon that was drawn freely has no handles, it is moved as a whole
const MOST_BACK = 50;

class Regions {
  // `given`: what else a new region holds, its type for one.
  constructor(onChange, given) {
    Object.assign(this, { onChange, given });
    this.tool = null;
    this.brush = 24; // width of the next stroke
    this.open([], null);
  }

  // Another image, and what was drawn on it.
  open(list, size) {
    Object.assign(this, { list: structuredClone(list ?? []), size, selected: -1, past: [] });
    this.cancel();
  }

  get current() {
    return this.list[this.selected] ?? null;
  }

  get busy() {
    return Boolean(this.gesture);
  }

  choose(tool) {
    this.cancel();
    this.tool = this.tool === tool ? null : tool;
    if (this.tool) this.selected = -1;
    this.onChange();
  }

  select(at) {
    this.selected = at;
    this.onChange();
  }

  // ---- changes: each can be taken back ----

  change(list, selected) {
    this.past = [...this.past.slice(-MOST_BACK), this.list];
    Object.assign(this, { list, selected });
    this.onChange(true);
  }

  add(region) {
    const numbers = this.list.reduce((sum, one) => sum + one.points.length, region.points.length);
    if (this.list.length >= MOST_REGIONS || numbers > MOST_NUMBERS) return this.onChange();
    this.change([...this.list, { ...this.given(), ...region }], this.list.length);
  }

  remove(at = this.selected) {
    if (this.drawing) return this.cancel();
    if (this.list[at]) this.change(this.list.filter((_, other) => other !== at), -1);
  }

  replace(points, more = {}) {
    this.change(this.list.map((one, at) => (at === this.selected ? { ...one, points, ...more } : one)), this.selected);
  }

  back() {
    if (!this.past.length) return;
    Object.assign(this, { list: this.past.at(-1), past: this.past.slice(0, -1), selected: -1 });
    this.onChange(true);
  }

  // Changes what else the selected region holds.
  set(more) {
    this.replace(this.current.points, more);
  }

  // Moves the selected region, or with `grow` its right and lower edge.
  nudge(dx, dy, grow) {
    const { kind, points } = this.current;
    if (!grow) return this.replace(this.moved(points, dx, dy));
    if (kind !== "box") return;
    const [left, top, right, bottom] = points;
    this.replace(this.tidy([left, top, Math.max(left + 1, right + dx), Math.max(top + 1, bottom + dy)]));
  }

  // ---- drawing ----

  down(spot, reach) {
    const { tool } = this;
    const handle = this.handleAt(spot, reach);
    if (handle >= 0) this.gesture = { kind: "handle", handle, points: this.current.points };
    else if (!tool && this.current && inside(this.current, spot, reach)) this.gesture = { kind: "move", from: spot, points: this.current.points };
    else if (tool === "polygon") this.corner(spot, reach);
    else if (tool) this.gesture = { kind: tool, from: spot, points: [...this.within(spot)] };
    return this.busy;
  }

  corner(spot, reach) {
    const corners = this.drawing?.points ?? [];
    const closes = corners.length >= 6 && near(spot, corners, reach);
    this.gesture = { kind: "polygon", from: spot, closes };
    if (!closes) this.drawing = { kind: "polygon", points: [...corners, ...this.within(spot)] };
  }

  move(spot, reach) {
    const { gesture } = this;
    const place = this.within(spot);
    if (gesture.kind === "handle") gesture.points = this.pulled(this.current, gesture.handle, place);
    else if (gesture.kind === "move") gesture.points = this.moved(this.current.points, spot[0] - gesture.from[0], spot[1] - gesture.from[1]);
    else if (gesture.kind === "box") gesture.points = [...gesture.points.slice(0, 2), ...place];
    else if (gesture.kind === "circle") gesture.points = circle(gesture.from, Math.hypot(spot[0] - gesture.from[0], spot[1] - gesture.from[1])).flatMap((corner) => this.within(corner));
    else if (gesture.kind === "brush") extend(gesture.points, place, this.brush / 4);
    else if (gesture.free || !near(spot, gesture.from, reach)) { // dragged round it in one go
      gesture.free = true;
      extend(this.drawing.points, place, reach / 2);
    }
  }

  up(reach) {
    const { gesture } = this;
    this.gesture = null;
    const { kind, points } = gesture;
    if (kind === "handle" || kind === "move") {
      const tidy = this.tidy(points, this.current.kind);
      return tidy.join() === this.current.points.join() ? this.onChange() : this.replace(tidy);
    }
    if (kind === "polygon") return gesture.free || gesture.closes ? this.finish() : this.onChange();
    if (kind === "brush") return this.add({ kind, points: points.map(tenth), width: this.brush });
    if (kind === "circle") {
      if (area({ points }) < reach * reach) return this.onChange();
      this.tool = null;
      return this.add({ kind: "polygon", points: points.map(tenth) });
    }
    const box = this.tidy(points);
    if (points.length < 4 || box[2] - box[0] < reach / 4 || box[3] - box[1] < reach / 4) return this.onChange();
    this.tool = null; // to be corrected at once
    this.add({ kind, points: box });
  }

  // Ends a polygon; one of fewer than three corners is none.
  finish() {
    const points = this.drawing?.points;
    this.drawing = null;
    if (!points) return;
    this.tool = null;
    if (points.length >= 6) this.add({ kind: "polygon", points: points.map(tenth) });
    else this.onChange();
  }

  cancel() {
    const had = this.busy || this.drawing;
    Object.assign(this, { gesture: null, drawing: null });
    if (had) this.onChange();
  }

  // A press that was no drag: the smallest region under it.
  pick(spot, reach) {
    const found = this.list.map((one, at) => [at, area(one)]).filter(([at]) => inside(this.list[at], spot, reach));
    this.select(found.length ? found.sort((one, other) => one[1] - other[1])[0][0] : -1);
  }

  // ---- places ----

  within([x, y]) {
    return [Math.min(Math.max(0, x), this.size.width), Math.min(Math.max(0, y), this.size.height)];
  }

  // Points of a box in order, on the edges of pixels.
  tidy(points, kind = "box") {
    if (kind !== "box") return points.map(tenth);
    const [a, b, c, d] = points.map(Math.round);
    return [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];
  }

  // As far as the image goes.
  moved(points, dx, dy) {
    const xs = points.filter((_, at) => at % 2 === 0);
    const ys = points.filter((_, at) => at % 2 === 1);
    const { width, height } = this.size;
    const by = [Math.min(Math.max(dx, -Math.min(...xs)), width - Math.max(...xs)), Math.min(Math.max(dy, -Math.min(...ys)), height - Math.max(...ys))];
    return points.map((value, at) => value + by[at % 2]);
  }

  handles() {
    const { kind, points } = this.current ?? {};
    if (kind === "polygon" && points.length <= 2 * MOST_HANDLES) return pairs(points);
    if (kind !== "box") return [];
    const [left, top, right, bottom] = points;
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    return [[left, top], [x, top], [right, top], [right, y], [right, bottom], [x, bottom], [left, bottom], [left, y]];
  }

  handleAt(spot, reach) {
    if (this.drawing) return -1;
    const distances = this.handles().map(([x, y]) => Math.hypot(x - spot[0], y - spot[1]));
    const nearest = Math.min(...distances);
    return nearest <= reach ? distances.indexOf(nearest) : -1;
  }

  pulled({ kind, points }, handle, [x, y]) {
    if (kind === "polygon") return points.with(2 * handle, x).with(2 * handle + 1, y);
    const [left, top, right, bottom] = points;
    const least = (value, other, sign) => (sign * (value - other) < 1 ? other + sign : value);
    return [
      [0, 6, 7].includes(handle) ? least(x, right, -1) : left, [0, 1, 2].includes(handle) ? least(y, bottom, -1) : top,
      [2, 3, 4].includes(handle) ? least(x, left, 1) : right, [4, 5, 6].includes(handle) ? least(y, top, 1) : bottom,
    ];
  }

  // ---- what is seen ----

  // All regions as they are at this moment: the one that is pulled or moved too, and the one that is being drawn.
  shown() {
    const { gesture, drawing, selected } = this;
    const pulled = ["handle", "move"].includes(gesture?.kind);
    const list = this.list.map((one, at) => (pulled && at === selected ? { ...one, points: gesture.points } : one));
    if (drawing) return [...list, { ...this.given(), ...drawing, open: true }];
    if (!gesture || pulled) return list;
    return [...list, { ...this.given(), kind: gesture.kind === "circle" ? "polygon" : gesture.kind, points: gesture.points, width: this.brush }];
  }

  draw(context, { scale, left, top }, colourOf) {
    const at = ([x, y]) => [left + x * scale, top + y * scale];
    this.shown().forEach((one, number) => {
      const path = pathOf(one, at);
      const colour = colourOf(one);
      Object.assign(context, { lineCap: "round", lineJoin: "round" });
      if (one.kind === "brush") {
        context.save();
        Object.assign(context, { globalAlpha: number === this.selected ? 0.6 : 0.4, strokeStyle: colour, lineWidth: Math.max(2, one.width * scale) });
        context.stroke(path);
        context.restore();
      }
      for (const [stroke, wide] of one.kind === "brush" && number !== this.selected ? [] : [["#000b", 4], [colour, number === this.selected ? 2.5 : 1.5]]) {
        Object.assign(context, { strokeStyle: stroke, lineWidth: wide });
        context.stroke(path);
      }
    });
    if (this.busy && this.gesture.kind !== "handle") return;
    const dots = this.drawing ? [this.drawing.points.slice(0, 2)] : this.handles();
    for (const [x, y] of dots.map(at)) {
      Object.assign(context, { fillStyle: "#fff", strokeStyle: "#000", lineWidth: 1 });
      context.beginPath();
      context.rect(x - 4, y - 4, 8, 8);
      context.fill();
      context.stroke();
    }
  }
}

function pathOf({ kind, points, open }, at) {
  const path = new Path2D();
  if (kind === "box") {
    if (points.length < 4) return path;
    const [[x, y], [right, bottom]] = pairs(points).map(at);
    path.rect(x, y, right - x, bottom - y);
    return path;
  }
  pairs(points).forEach((corner, number) => (number ? path.lineTo(...at(corner)) : path.moveTo(...at(corner))));
  if (points.length === 2) path.lineTo(...at(points));
  if (kind === "polygon" && !open) path.closePath();
  return path;
}

const CORNERS = 48; // of a circle

function circle([x, y], radius) {
  return Array.from({ length: CORNERS }, (_, at) => [x + radius * Math.cos((2 * Math.PI * at) / CORNERS), y + radius * Math.sin((2 * Math.PI * at) / CORNERS)]);
}

function pairs(points) {
  return points.flatMap((x, at) => (at % 2 ? [] : [[x, points[at + 1]]]));
}

function tenth(value) {
  return Math.round(value * 10) / 10;
}

function near([x, y], [a, b], reach) {
  return Math.hypot(x - a, y - b) <= reach;
}

function extend(points, [x, y], least) {
  const [a, b] = points.slice(-2);
  if (Math.hypot(x - a, y - b) >= least && points.length < MOST_NUMBERS) points.push(x, y);
}

function area({ kind, points, width }) {
  if (kind === "brush") return width * width * points.length;
  const xs = points.filter((_, at) => at % 2 === 0);
  const ys = points.filter((_, at) => at % 2 === 1);
  return (Math.max(...xs) - Math.min(...xs)) * (Math.max(...ys) - Math.min(...ys));
}

// Whether a place is meant by a region: in it, or nearly.
function inside({ kind, points, width }, [x, y], reach) {
  if (kind === "box") return x >= points[0] - reach && x <= points[2] + reach && y >= points[1] - reach && y <= points[3] + reach;
  const context = (inside.context ??= new OffscreenCanvas(1, 1).getContext("2d"));
  const path = pathOf({ kind, points }, (corner) => corner);
  context.lineWidth = Math.max(2 * reach, width ?? 0);
  return context.isPointInStroke(path, x, y) || (kind === "polygon" && context.isPointInPath(path, x, y));
}
