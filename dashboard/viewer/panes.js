// The pictures of a finding, and the panes that show them: one view (zoom and centre) for all, so that they move in
// step; canvases of the pane's own size, so that a picture of any size is drawn at full resolution where one looks.

const LARGEST_ZOOM = 64; // screen pixels for a pixel of the picture

class Pictures {
  constructor(links, freshLinks) {
    this.links = links;
    this.freshLinks = freshLinks; // asks for new ones, where a page was open for longer than its links hold
    this.bitmaps = {};
    this.errors = {};
    this.names = {}; // of pictures of other images
    this.state = null; // of the file: "same" as it was scored, or what became of it
    this.digest = null; // of the file's bytes: with a verdict it says what was looked at
    this.offline = false; // the server did not answer when it was asked for
    this.wanted = {};
  }

  // The promise of one picture; it never fails: what is wrong is said in the pane.
  want(kind) {
    this.wanted[kind] ??= this.load(kind);
    return this.wanted[kind];
  }

  async load(kind) {
    delete this.errors[kind];
    try {
      let response = await fetch(this.links[kind]);
      if (response.status === 403 && !this.renewed) {
        this.renewed = true;
        this.links = await this.freshLinks();
        response = await fetch(this.links[kind]);
      }
      if (kind === "original") this.state = response.headers.get("X-Image-State");
      this.names[kind] = decodeURIComponent(response.headers.get("X-Image-Name") ?? "");
      if (!response.ok) {
        this.errors[kind] = (await response.json()).error ?? `the server answers ${response.status}`;
        return;
      }
      const bitmap = await createImageBitmap(await response.blob());
      if (this.closed) return bitmap.close();
      this.bitmaps[kind] = bitmap;
      if (kind !== "original") return;
      this.offline = false;
      this.digest = this.state === "same" ? response.headers.get("X-Image-Digest") : null;
      if (!this.state) this.errors[kind] = "it did not come from this server";
    } catch (error) {
      const broken = error instanceof DOMException && error.name !== "AbortError";
      this.errors[kind] = broken ? "this browser cannot show the picture" : "the server does not answer";
      if (kind === "original") this.offline = !broken;
      delete this.wanted[kind]; // to be tried again when it is shown
    }
  }

  close() {
    this.closed = true;
    Object.values(this.bitmaps).forEach((bitmap) => bitmap.close());
    this.bitmaps = {};
  }
}

class View {
  constructor() {
    this.fit();
  }

  fit() {
    Object.assign(this, { zoom: 1, x: 0.5, y: 0.5 });
  }

  // Where the picture's top left corner lies in a pane, and the size of one of its pixels there.
  place(pane, picture) {
    const scale = Math.min(pane.width / picture.width, pane.height / picture.height) * this.zoom;
    return {
      scale,
      left: pane.width / 2 - this.x * picture.width * scale,
      top: pane.height / 2 - this.y * picture.height * scale,
    };
  }

  // Zooms so that the point under (x, y) of the pane stays there.
  zoomBy(factor, pane, picture, x = pane.width / 2, y = pane.height / 2) {
    const before = this.place(pane, picture);
    const [u, v] = [(x - before.left) / before.scale, (y - before.top) / before.scale];
    const fit = before.scale / this.zoom;
    this.zoom = Math.min(Math.max(1, this.zoom * factor), Math.max(1, LARGEST_ZOOM / fit));
    const scale = fit * this.zoom;
    this.x = (u - (x - pane.width / 2) / scale) / picture.width;
    this.y = (v - (y - pane.height / 2) / scale) / picture.height;
    this.keepInside();
  }

  panBy(dx, dy, pane, picture) {
    const { scale } = this.place(pane, picture);
    this.x -= dx / (scale * picture.width);
    this.y -= dy / (scale * picture.height);
    this.keepInside();
  }

  keepInside() {
    if (this.zoom === 1) this.x = this.y = 0.5;
    this.x = Math.min(1, Math.max(0, this.x));
    this.y = Math.min(1, Math.max(0, this.y));
  }
}

class Pane {
  constructor(kind, title, onUse) {
    this.kind = kind;
    this.element = element("figure", { class: "pane", "data-kind": kind });
    this.base = element("canvas", { role: "img", "aria-label": title });
    this.over = element("canvas", { "aria-hidden": "true", class: "over" });
    this.marks = element("canvas", { "aria-hidden": "true", class: "over" });
    this.note = element("p", { class: "note" });
    this.title = element("button", { class: "title", type: "button", title: `Show ${title.toLowerCase()} large` }, title);
    this.element.append(this.base, this.over, this.marks, this.note, this.title);
    this.title.addEventListener("click", () => onUse(kind));
    this.width = this.height = 0;
  }

  measure() {
    const { clientWidth, clientHeight } = this.element;
    this.ratio = window.devicePixelRatio || 1;
    [this.width, this.height] = [clientWidth, clientHeight];
    for (const canvas of [this.base, this.over, this.marks]) {
      canvas.width = Math.round(clientWidth * this.ratio);
      canvas.height = Math.round(clientHeight * this.ratio);
    }
  }

  // Draws a bitmap stretched over the picture's place: what the model sees is squashed to its own size.
  paint(canvas, bitmap, view, picture) {
    const context = this.clear(canvas);
    if (!bitmap || !picture || !this.width) return null;
    const { scale, left, top } = view.place(this, picture);
    context.imageSmoothingEnabled = bitmap.width !== picture.width || scale * this.ratio < 3;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, left, top, picture.width * scale, picture.height * scale);
    return { context, scale, left, top };
  }

  // An empty canvas, drawn on in the screen's own pixels.
  clear(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    return context;
  }

  entitle(text) {
    if (this.title.textContent !== text) this.title.textContent = text;
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text nodes: names and comments are never read as HTML
  return made;
}
