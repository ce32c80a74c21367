// A picture on which rectangles are dragged: what is inspected, and what in it is not. The server makes the mask of them;
// here they are fractions of the picture's sides, [left, top, right, bottom, inspect], a later one over an earlier one.

class Drawing {
  constructor(parent) {
    this.root = parent.querySelector(".mask");
    this.part = (name) => this.root.querySelector(`[data-part=${name}]`);
    this.shapes = [];
    this.inspect = true;
    this.root.querySelectorAll("button").forEach((button) => (button.onclick = () => this.press(button.dataset.what)));
    const canvas = this.part("canvas");
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.from = this.place(event);
    };
    canvas.onpointermove = (event) => this.from && this.draw(this.rectangle(event));
    canvas.onpointerup = (event) => {
      if (!this.from) return;
      const made = this.rectangle(event);
      this.from = null;
      if (made[2] - made[0] > 0.003 && made[3] - made[1] > 0.003) this.change([...this.shapes, made]);
      else this.draw();
    };
    this.part("picture").onload = () => this.draw();
  }

  update({ data, setStateValue }) {
    this.send = setStateValue;
    if (data.picture === this.picture) return;
    this.picture = data.picture;
    this.shapes = [];
    this.part("picture").src = data.picture;
  }

  press(what) {
    if (what === "undo" || what === "clear") return this.change(what === "undo" ? this.shapes.slice(0, -1) : []);
    this.inspect = what === "inspect";
    this.root.querySelectorAll("[aria-pressed]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.what === what));
  }

  place({ clientX, clientY }) {
    const box = this.part("canvas").getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return [within((clientX - box.left) / box.width), within((clientY - box.top) / box.height)];
  }

  rectangle(event) {
    const [x, y] = this.place(event);
    const [a, b] = this.from;
    return [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y), this.inspect];
  }

  change(shapes) {
    this.shapes = shapes;
    this.draw();
    this.send("shapes", shapes);
  }

  draw(moving) {
    const canvas = this.part("canvas");
    canvas.width = canvas.clientWidth;
    canvas.height = canvas.clientHeight;
    const pen = canvas.getContext("2d");
    const shapes = moving ? [...this.shapes, moving] : this.shapes;
    const dark = (left, top, right, bottom, inspect) => {
      const box = [left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height];
      pen.clearRect(...box);
      if (!inspect) pen.fillRect(...box);
    };
    pen.fillStyle = "rgb(0 0 0 / 65%)";
    // Who begins with what is to be ignored wants all the rest.
    dark(0, 0, 1, 1, !shapes.length || !shapes[0][4]);
    shapes.forEach((shape) => dark(...shape));
    this.part("said").textContent = `${this.shapes.length} rectangle${this.shapes.length === 1 ? "" : "s"}`;
  }
}

const drawings = new WeakMap();

export default function (component) {
  const { parentElement } = component;
  if (!drawings.has(parentElement)) drawings.set(parentElement, new Drawing(parentElement));
  drawings.get(parentElement).update(component);
}
