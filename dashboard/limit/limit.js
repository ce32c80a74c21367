// Histograms under each other on one scale, with the threshold (and the one for review) to be dragged over them.
// What a place means is worked out by the server: here a fraction of the scale becomes pixels, and back.

const PAUSE = 70; // milliseconds between two values that the server is told while dragging

class Thresholds {
  constructor(parent) {
    this.root = parent.querySelector(".thresholds");
    this.chart = this.root.querySelector("[data-part=chart]");
    this.live = this.root.querySelector("[data-part=live]");
  }

  update({ data, setStateValue }) {
    this.data = data;
    this.send = setStateValue;
    if (this.dragging) {
      // what is under the hand is newer than what comes from the server, but for the number
      this.chart.querySelectorAll(".handle").forEach((handle) => (handle.firstChild.textContent = data.shown[handle.dataset.name]));
      return;
    }
    this.draw();
  }

  draw() {
    const data = this.data;
    const focused = this.root.getRootNode().activeElement?.dataset?.name;
    this.chart.replaceChildren(...data.strips.map((strip) => this.strip(strip)), this.scale(), ...this.marks());
    if (focused) this.chart.querySelector(`[data-name="${focused}"]`)?.focus();
  }

  strip({ name, detail, kind, bars, below, above }) {
    const made = node("div", { class: "strip" });
    const chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const set = (target, attributes) => Object.entries(attributes).forEach(([key, value]) => target.setAttribute(key, value));
    set(chart, { viewBox: `0 0 ${bars.length} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}: ${detail}, ${below} below and ${above} above what is drawn` });
    bars.forEach((high, at) => {
      if (!high) return;
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      set(bar, { class: kind, x: at + 0.08, width: 0.84, y: 100 - 100 * high, height: 100 * high });
      chart.append(bar);
    });
    made.append(chart, node("div", { class: "name" }, node("b", {}, name), detail));
    if (below) made.append(node("span", { class: "beyond", "aria-hidden": "true" }, `\u25c2 ${below.toLocaleString("en")}`));
    if (above) made.append(node("span", { class: "beyond right", "aria-hidden": "true" }, `${above.toLocaleString("en")} \u25b8`));
    return made;
  }

  scale() {
    const made = node("div", { class: "scale", "aria-hidden": "true" });
    for (const { at, text } of this.data.ticks) {
      const tick = node("span", {}, text);
      tick.style.left = `${100 * at}%`;
      made.append(tick);
    }
    return made;
  }

  marks() {
    const { threshold, review, old, mayMove } = this.data;
    const marks = [];
    if (old != null) marks.push(this.at(node("div", { class: "old", title: "the threshold in use" }), this.fraction(old)));
    if (review != null) {
      const looked = this.at(node("div", { class: "looked" }), this.fraction(review));
      looked.style.width = `calc((100% - 132px) * ${Math.max(0, this.fraction(threshold) - this.fraction(review))})`;
      marks.push(looked, this.handle("review", review, "Review threshold", mayMove));
    }
    marks.push(this.handle("threshold", threshold, "Threshold", mayMove));
    return marks;
  }

  handle(name, value, label, mayMove) {
    const { low, high } = this.data;
    const handle = node("button", { type: "button", class: "handle", "data-name": name, role: "slider", "aria-label": label, "aria-valuemin": low, "aria-valuemax": high, "aria-valuenow": value }, node("span", {}, this.data.shown[name]));
    handle.disabled = !mayMove;
    this.at(handle, this.fraction(value));
    handle.addEventListener("pointerdown", (event) => this.grab(handle, event));
    handle.addEventListener("pointermove", (event) => this.drag(handle, event));
    handle.addEventListener("pointerup", () => this.drop());
    handle.addEventListener("keydown", (event) => this.key(name, event));
    return handle;
  }

  at(mark, fraction) {
    mark.style.left = `calc(132px + (100% - 132px) * ${Math.min(1, Math.max(0, fraction))})`;
    return mark;
  }

  fraction(value) {
    return (value - this.data.low) / (this.data.high - this.data.low);
  }

  grab(handle, event) {
    handle.setPointerCapture(event.pointerId);
    this.dragging = handle.dataset.name;
  }

  drag(handle, event) {
    if (this.dragging !== handle.dataset.name) return;
    const box = this.chart.getBoundingClientRect();
    const fraction = Math.min(1, Math.max(0, (event.clientX - box.left - 132) / (box.width - 132)));
    this.at(handle, fraction);
    this.wanted = [handle.dataset.name, this.data.low + fraction * (this.data.high - this.data.low)];
    this.timer ??= setTimeout(() => this.flush(), PAUSE);
  }

  drop() {
    clearTimeout(this.timer);
    this.dragging = null;
    // where the server will put it: an answer like the last one is not told again
    if (this.wanted) {
      const [name, value] = this.wanted;
      const stops = this.data.stops[name];
      if (stops[0] <= value && value <= stops.at(-1)) this.data[name] = stops[this.nearest(name, value)];
    }
    this.flush();
    this.draw();
  }

  nearest(name, value) {
    const away = this.data.stops[name].map((stop) => Math.abs(stop - value));
    return away.indexOf(Math.min(...away));
  }

  flush() {
    this.timer = null;
    if (!this.wanted) return;
    this.send(...this.wanted);
    this.wanted = null;
  }

  key(name, event) {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (!step) return;
    event.preventDefault();
    // from one good image to the next: between two of them the server would put it back
    const stops = this.data.stops[name];
    const value = stops[Math.min(stops.length - 1, Math.max(0, this.nearest(name, this.data[name]) + step))];
    if (value === undefined || value === this.data[name]) return;
    this.data[name] = value;
    this.at(event.currentTarget, this.fraction(value));
    this.live.textContent = `${name} ${this.data.shown[name]}`;
    this.wanted = [name, value];
    this.timer ??= setTimeout(() => this.flush(), PAUSE);
  }
}

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const charts = new WeakMap();

export default function (component) {
  const { parentElement } = component;
  if (!charts.has(parentElement)) charts.set(parentElement, new Thresholds(parentElement));
  charts.get(parentElement).update(component);
}
