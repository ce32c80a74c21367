// A mask is drawn on a picture: shapes that are inspected or ignored, a later one over an earlier one, all over the mask
// that is edited where there is one. The server makes the mask of the shapes; here it is only shown. The shapes, the
// view and what the hand does are those of the review desk (../viewer), in pixels of the original.

const DARK = "rgb(0 0 0 / 65%)";
const MOST_LAYER = 2048; // pixels a side of the layer that shows the mask
const TOOLS = { r: "box", o: "circle", p: "polygon", w: "brush" };

class Drawing {
  constructor(parent) {
    this.root = parent.querySelector(".mask");
    this.part = Object.fromEntries([...this.root.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]));
    this.view = new View();
    this.inspect = true;
    this.regions = new Regions((changed) => this.show(changed), () => ({ inspect: this.inspect }));
    this.regions.brush = Number(this.part.brush.value);
    this.pane = new Pane("original", "Picture with the mask on it", () => {});
    this.pane.title.remove();
    this.part.stage.append(this.pane.element);
    this.listen();
  }

  listen() {
    this.stop = new AbortController();
    const { signal } = this.stop;
    listenToPane(this.pane, this, signal);
    const acts = { remove: () => this.regions.remove(), undo: () => this.undo(), clear: () => this.regions.change([], -1), fit: () => this.fit(), zoomIn: () => this.zoom(1.5), zoomOut: () => this.zoom(1 / 1.5) };
    for (const button of this.root.querySelectorAll("button")) {
      const { act, tool, inspect } = button.dataset;
      button.addEventListener("click", acts[act] ?? (tool ? () => this.choose(tool) : () => this.setInspect(inspect === "true")), { signal });
    }
    this.part.brush.addEventListener("input", () => (this.regions.brush = Number(this.part.brush.value)), { signal });
    document.addEventListener("keydown", (event) => this.onKey(event), { signal });
    this.resizes = new ResizeObserver(() => {
      this.pane.measure();
      this.draw();
    });
    this.resizes.observe(this.part.stage);
  }

  // ``of``: which picture and which mask: another address of the same ones begins nothing anew.
  update({ data, setStateValue }) {
    this.send = setStateValue;
    if (data.of === this.of) return;
    Object.assign(this, { of: data.of, picture: { width: data.width, height: data.height }, bitmap: null, base: null });
    this.regions.open([], this.picture);
    this.regions.tool = "box";
    this.view.fit();
    this.pane.say("loading");
    this.show();
    this.load(data);
  }

  async load({ of, picture, base }) {
    const [bitmap, mask] = await Promise.all([loaded(picture), base ? loaded(base) : null]).catch(() => [null]);
    if (of !== this.of) return;
    Object.assign(this, { bitmap, base: mask && darkened(mask) });
    this.pane.say(bitmap ? "" : "this browser cannot show the picture, or it is no longer there");
    this.show();
  }

  choose(tool) {
    this.regions.choose(tool);
  }

  setInspect(inspect) {
    this.inspect = inspect;
    if (this.regions.current) this.regions.set({ inspect });
    else this.show();
  }

  undo() {
    if (this.regions.drawing) this.regions.cancel();
    else this.regions.back();
  }

  show(changed) {
    if (!this.part || !this.picture) return;
    const { list, tool, current, past } = this.regions;
    const inspect = current ? current.inspect : this.inspect;
    for (const button of this.root.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    for (const button of this.root.querySelectorAll("[data-inspect]")) button.setAttribute("aria-pressed", String(button.dataset.inspect === String(inspect)));
    this.root.querySelector("[data-act=remove]").disabled = !current;
    this.root.querySelector("[data-act=undo]").disabled = !past.length;
    this.part.brushLabel.hidden = tool !== "brush";
    this.part.said.textContent = `${list.length} shape${list.length === 1 ? "" : "s"}${this.base ? " on the mask that is edited" : ""}`;
    if (changed) this.send("shapes", list.map((one) => ({ ...one })));
    this.draw();
  }

  // ---- what is seen ----

  draw() {
    if (!this.drawing) this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      this.pane.paint(this.pane.base, this.bitmap, this.view, this.picture);
      if (!this.bitmap) return;
      this.pane.paint(this.pane.over, this.layer(), this.view, this.picture);
      this.regions.draw(this.pane.clear(this.pane.marks), this.view.place(this.pane, this.picture), ({ inspect }) => (inspect ? "#5fd38d" : "#ff8a7a"));
    });
  }

  // What is ignored, dark: as anomaly.imaging.mask.of_shapes has it.
  layer() {
    const { width, height } = this.picture;
    const scale = Math.min(1, MOST_LAYER / Math.max(width, height));
    const canvas = (this.canvas ??= new OffscreenCanvas(1, 1));
    Object.assign(canvas, { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
    const pen = canvas.getContext("2d");
    const shapes = this.regions.shown();
    Object.assign(pen, { fillStyle: DARK, strokeStyle: DARK, lineCap: "round", lineJoin: "round" });
    if (this.base) pen.drawImage(this.base, 0, 0, canvas.width, canvas.height);
    else if (shapes[0]?.inspect) pen.fillRect(0, 0, canvas.width, canvas.height);
    for (const shape of shapes) {
      const path = pathOf(shape, ([x, y]) => [x * scale, y * scale]);
      pen.lineWidth = Math.max(1, (shape.width ?? 0) * scale);
      for (const how of shape.inspect ? ["destination-out"] : ["destination-out", "source-over"]) {
        pen.globalCompositeOperation = how;
        pen.strokeStyle = pen.fillStyle = how === "source-over" ? DARK : "#000";
        if (shape.kind === "brush") pen.stroke(path);
        else pen.fill(path);
      }
    }
    pen.globalCompositeOperation = "source-over";
    return canvas;
  }

  // ---- what gestures.js asks for ----

  mayDraw() {
    return Boolean(this.bitmap);
  }

  moved() {}

  readPixel() {}

  fit() {
    this.view.fit();
    this.draw();
  }

  realSize(pane) {
    this.zoom(1 / (this.view.place(pane, this.picture).scale * pane.ratio));
  }

  zoom(factor) {
    if (this.picture) this.view.zoomBy(factor, this.pane, this.picture);
    this.draw();
  }

  onKey(event) {
    const at = event.composedPath()[0];
    const typing = at instanceof HTMLElement && (at.isContentEditable || /^(TEXTAREA|SELECT)$/.test(at.tagName) || (at.tagName === "INPUT" && at.type !== "range"));
    if (typing || event.altKey || !this.picture) return;
    const { regions } = this;
    const key = event.key.toLowerCase();
    const held = event.ctrlKey || event.metaKey;
    const acts = held ? { z: () => this.undo() } : {
      delete: () => regions.remove(), backspace: () => regions.remove(), escape: () => (regions.drawing ? regions.cancel() : regions.select(-1)),
      "+": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => this.fit(),
      ...(regions.drawing ? { enter: () => regions.finish() } : {}), ...(TOOLS[key] ? { [key]: () => this.choose(TOOLS[key]) } : {}),
    };
    if (!acts[key]) return;
    event.preventDefault();
    acts[key]();
  }

  close() {
    this.stop.abort();
    this.resizes.disconnect();
  }
}

async function loaded(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return createImageBitmap(image);
}

// A mask as it lies over the picture: dark where it is black.
function darkened(mask) {
  const canvas = new OffscreenCanvas(mask.width, mask.height);
  const context = canvas.getContext("2d");
  context.drawImage(mask, 0, 0);
  const pixels = context.getImageData(0, 0, mask.width, mask.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const black = pixels.data[at] + pixels.data[at + 1] + pixels.data[at + 2] === 0;
    pixels.data.set([0, 0, 0, black ? 0.65 * 255 : 0], at);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

const drawings = new WeakMap();

export default function (component) {
  const { parentElement } = component;
  if (!drawings.has(parentElement)) drawings.set(parentElement, new Drawing(parentElement));
  drawings.get(parentElement).update(component);
  return () => {
    drawings.get(parentElement)?.close();
    drawings.delete(parentElement);
  };
}
