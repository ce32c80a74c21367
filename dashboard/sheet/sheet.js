// A sheet of findings: small pictures with their score against the threshold. A click opens one; every card is a link too,
// so that it can be copied. Many are selected by their ticks, shift or Ctrl and a click, a lasso, or the keyboard, and
// judged by one request. Such a verdict counts only for pictures that were painted here at size L, whole, for a moment.

const SIZES = ["S", "M", "L"];
const PAINTED = 200; // milliseconds that a picture has to be in view
const DRAG = 6; // pixels that the pointer moves before a press becomes a lasso
const MOST_SELECTED = 500;
const VERDICTS = { a: "anomalous", n: "normal", u: "unsure" };
const CONTOUR_SIDE = 320; // pixels of the canvas that contours are drawn on
const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text nodes
  return made;
}

function twoFrames() {
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}

// One finding: its element, and what of its picture has been seen.
class Card {
  constructor(row) {
    this.row = row;
    this.said = JSON.stringify(row);
    this.digest = null; // of the file, once its large picture is drawn
    this.image = node("img", { alt: "", decoding: "async", draggable: "false" });
    this.image.addEventListener("error", () => this.image.replaceWith(node("span", { class: "none" }, "no picture")));
    this.picture = node("div", { class: "picture" }, this.image);
    if (row.box && row.width && row.height) this.picture.append(boxOf(row));
    if (row.verdict) this.picture.append(node("span", { class: "chip", "data-verdict": row.verdict }, row.verdict));
    if (row.busy) this.picture.append(node("span", { class: "busy" }, row.busy));
    const bar = node("div", { class: "bar", "data-result": row.result ?? "ranked" });
    if (row.at != null) bar.append(Object.assign(node("i"), { style: `width:${100 * row.at}%` }));
    if (row.thresholdAt != null) bar.append(Object.assign(node("b"), { style: `left:${100 * row.thresholdAt}%` }));
    const text = node("div", { class: "text" }, node("div", { class: "name", title: row.name }, node("bdi", {}, row.name)),
      node("div", { class: "said" }, node("b", {}, row.score), node("span", { title: row.note }, row.note)));
    this.link = node("a", { class: "card", href: row.href, draggable: "false" }, this.picture, bar, text);
    // for the mouse and the finger; the keyboard has Space on the card itself
    this.tick = node("button", { type: "button", class: "tick", tabindex: "-1", "aria-pressed": "false", "aria-label": `Select ${row.name}` });
    this.element = node("li", {}, this.link, this.tick);
  }

  // The small picture, or the large one: that comes with the digest of the file, which says what was seen.
  async show(size) {
    if (size !== "L") {
      if (this.image.src !== new URL(this.row.thumb, location.href).href) Object.assign(this.image, { loading: "lazy", src: this.row.thumb });
      return;
    }
    if (this.large) return void (this.image.src = this.large);
    if (this.asked || !this.near) return;
    this.asked = true;
    const response = await fetch(this.row.large).catch(() => null);
    if (!response?.ok) {
      this.asked = false;
      return void (this.image.src = this.row.thumb);
    }
    this.large = URL.createObjectURL(await response.blob());
    this.image.src = this.large;
    await this.image.decode().catch(() => {});
    await twoFrames();
    if (response.headers.get("X-Image-State") === "same") this.digest = response.headers.get("X-Image-Digest");
  }

  // The contours of the heatmap, which the server makes of this image when it is asked.
  async contour() {
    if (this.lines || !this.near || !this.row.heatmap || !this.row.width || !this.row.height) return;
    this.lines = node("canvas", { class: "contours", "aria-hidden": "true" });
    const response = await fetch(this.row.heatmap).catch(() => null);
    if (!response?.ok) return void (this.lines = null);
    const scale = CONTOUR_SIDE / Math.max(this.row.width, this.row.height);
    const [width, height] = [this.row.width * scale, this.row.height * scale].map(Math.ceil);
    Object.assign(this.lines, { width, height });
    const heatmap = await createImageBitmap(await response.blob());
    drawContours(this.lines.getContext("2d"), heatmap, 0, 0, width, height);
    heatmap.close();
    this.image.after(this.lines);
  }

  select(on) {
    this.element.dataset.selected = on;
    this.tick.setAttribute("aria-pressed", on);
  }

  close() {
    if (this.large) URL.revokeObjectURL(this.large);
  }
}

// The address names what is selected, so that a link and a reload show it; the page does not run for it.
function rememberSelected(ids) {
  const url = new URL(location.href);
  if (ids.size) url.searchParams.set("selected", [...ids].join("-"));
  else url.searchParams.delete("selected");
  history.replaceState(history.state, "", url);
}

function selectedHere() {
  const ids = new URL(location.href).searchParams.get("selected")?.split("-") ?? [];
  return ids.map(Number).filter(Number.isSafeInteger).slice(0, MOST_SELECTED);
}

function boxOf({ box: [x, y, width, height], ...row }) {
  const svg = document.createElementNS(SVG, "svg");
  const marks = { class: "marks", viewBox: `0 0 ${row.width} ${row.height}`, "aria-hidden": "true" };
  Object.entries(marks).forEach(([name, value]) => svg.setAttribute(name, value));
  for (const kind of ["under", "line"]) {
    const rect = document.createElementNS(SVG, "rect");
    Object.entries({ class: kind, x, y, width, height }).forEach(([name, value]) => rect.setAttribute(name, value));
    svg.append(rect);
  }
  return svg;
}

class Sheet {
  constructor(parent) {
    this.root = parent.querySelector(".many");
    this.part = Object.fromEntries([...this.root.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]));
    this.cards = new Map(); // finding -> Card, in the order of the sheet
    this.selected = new Set();
    this.seen = new Map(); // finding -> digest of the file that was painted
    this.headings = {};
    this.given = []; // verdicts on many that can be taken back
    this.size = read("review.size", "M");
    this.server = new Server();
    this.outbox = new Outbox(this.server, () => this.showSaving());
    this.server.onSignedOut = () => this.trigger("judged", Date.now());
    this.listen();
    this.setSize(this.size);
  }

  update({ data, setTriggerValue }) {
    this.data = data;
    this.trigger = setTriggerValue;
    this.server.token = data.token;
    this.outbox.open(data.user);
    if (this.outbox.refused.length) this.outbox.retry(); // with a new token, and perhaps a new role
    this.showRows(data.rows);
    this.showActs();
    this.showBar();
  }

  // What is as it was keeps its element: its picture, and the focus.
  showRows(rows) {
    const before = this.cards;
    this.cards = new Map(rows.map((row) => {
      const old = before.get(row.id);
      return [row.id, old?.said === JSON.stringify(row) ? old : new Card(row)];
    }));
    const focused = [...before.values()].find((card) => card.link === this.root.getRootNode().activeElement)?.row.id;
    for (const [id, card] of before) if (this.cards.get(id) !== card) this.drop(card);
    const elements = this.withHeadings([...this.cards.values()]);
    if (elements.some((element, at) => this.part.sheet.children[at] !== element) || elements.length !== this.part.sheet.children.length) this.part.sheet.replaceChildren(...elements);
    for (const [id, card] of this.cards) {
      if (before.get(id) === card) continue;
      this.views.observe(card.picture);
      this.whole.observe(card.picture);
      card.picture.card = card;
      card.show(this.size);
    }
    if (focused && this.root.getRootNode().activeElement?.tagName !== "A") this.cards.get(focused)?.link.focus();
    const chosen = before.size ? [...this.selected] : selectedHere(); // at first, what the address names
    this.selected = new Set(chosen.filter((id) => this.cards.has(id)));
    if (this.selected.size) this.since ??= performance.now();
    for (const [id, card] of this.cards) card.select(this.selected.has(id));
  }

  // A heading before each section, where there is more than one.
  withHeadings(cards) {
    const sections = new Set(cards.map((card) => card.row.section));
    if (sections.size < 2) return cards.map((card) => card.element);
    return cards.flatMap((card, at) => {
      if (card.row.section === cards[at - 1]?.row.section) return [card.element];
      this.headings[card.row.section] ??= node("li", { class: "heading" }, card.row.section);
      return [this.headings[card.row.section], card.element];
    });
  }

  drop(card) {
    this.views.unobserve(card.picture);
    this.whole.unobserve(card.picture);
    card.close();
  }

  // ---- what is seen ----

  setSize(size) {
    this.size = SIZES.includes(size) ? size : "M";
    write("review.size", this.size);
    this.part.sheet.dataset.size = this.size;
    this.part.sizes.replaceChildren(...SIZES.map((one) => {
      const button = node("button", { type: "button", "aria-pressed": String(one === this.size), title: one === "L" ? "Large: verdicts on many count at this size" : "" }, one);
      button.addEventListener("click", () => this.setSize(one));
      return button;
    }));
    for (const card of this.cards.values()) card.show(this.size).then(() => this.look(card));
  }

  // The whole picture is in view at size L: after a moment it has been seen.
  look(card) {
    clearTimeout(card.timer);
    if (this.size !== "L" || !card.whole || !card.digest || this.seen.has(card.row.id)) return;
    card.timer = setTimeout(() => {
      if (document.visibilityState !== "visible" || !card.whole || this.size !== "L") return;
      this.seen.set(card.row.id, card.digest);
      card.element.dataset.seen = "true";
      this.showBar();
    }, PAINTED);
  }

  get unseen() {
    return [...this.selected].filter((id) => !this.seen.has(id));
  }

  // ---- selecting ----

  choose(ids, anchor = this.anchor) {
    this.selected = new Set(ids.slice(0, MOST_SELECTED));
    this.anchor = anchor;
    this.told = "";
    if (!this.selected.size) this.since = null;
    else this.since ??= performance.now();
    for (const [id, card] of this.cards) card.select(this.selected.has(id));
    rememberSelected(this.selected);
    this.showBar();
  }

  toggle(id) {
    const ids = this.selected.has(id) ? [...this.selected].filter((one) => one !== id) : [...this.selected, id];
    this.choose(ids, id);
  }

  // Everything between the last one that was chosen and this one, besides what is selected already.
  extend(id) {
    const all = [...this.cards.keys()];
    const [from, to] = [Math.max(0, all.indexOf(this.anchor ?? id)), all.indexOf(id)].sort((a, b) => a - b);
    this.choose([...new Set([...this.selected, ...all.slice(from, to + 1)])]);
  }

  click(event) {
    const card = this.cardAt(event);
    if (!card || event.button) return;
    const { id } = card.row;
    event.preventDefault();
    if (this.lassoed) return;
    const ticked = event.target.closest(".tick");
    if (event.shiftKey) this.extend(id);
    else if (ticked || event.ctrlKey || event.metaKey || this.selected.size) this.toggle(id);
    else this.trigger("open", id);
  }

  cardAt(event) {
    const element = event.target.closest?.("li");
    return [...this.cards.values()].find((card) => card.element === element);
  }

  press(event) {
    if (event.button || event.pointerType !== "mouse") return; // a finger scrolls
    const start = { x: event.clientX, y: event.clientY + scrolled(this.root) };
    const kept = event.shiftKey || event.ctrlKey || event.metaKey ? [...this.selected] : [];
    const stop = new AbortController();
    window.addEventListener("pointermove", (move) => this.drag(start, move, kept), { signal: stop.signal });
    for (const end of ["pointerup", "pointercancel"]) {
      window.addEventListener(end, () => {
        stop.abort();
        this.lasso?.remove();
        this.lasso = null;
        setTimeout(() => (this.lassoed = false)); // the click that follows is none
      }, { signal: stop.signal });
    }
  }

  drag(start, event, kept) {
    const { clientX: x, clientY: y } = event;
    const startY = start.y - scrolled(this.root);
    if (!this.lassoed && Math.hypot(x - start.x, y - startY) < DRAG) return;
    this.lassoed = true;
    this.lasso ??= this.root.appendChild(node("div", { class: "lasso" }));
    const box = { left: Math.min(x, start.x), right: Math.max(x, start.x), top: Math.min(y, startY), bottom: Math.max(y, startY) };
    const at = this.root.getBoundingClientRect();
    Object.assign(this.lasso.style, { left: `${box.left - at.left}px`, top: `${box.top - at.top}px`, width: `${box.right - box.left}px`, height: `${box.bottom - box.top}px` });
    const inside = [...this.cards].filter(([, card]) => meets(card.element.getBoundingClientRect(), box)).map(([id]) => id);
    this.choose([...new Set([...kept, ...inside])], inside[0] ?? this.anchor);
  }

  // ---- the keyboard ----

  onKey(event) {
    const at = event.composedPath()[0];
    const here = event.composedPath().includes(this.root);
    if (event.key === "Enter" && here) return event.stopPropagation(); // it is the page's key for the first image, too
    const typing = at instanceof HTMLElement && (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName));
    if (typing || event.altKey || (!here && at !== document.body)) return;
    const act = event.ctrlKey || event.metaKey ? this.chord(event) : this.keyAction(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  chord(event) {
    return event.key.toLowerCase() === "a" && this.cards.size ? () => this.choose([...this.cards.keys()]) : null;
  }

  keyAction(event) {
    const key = event.key.toLowerCase();
    const focused = [...this.cards.values()].find((card) => card.link === this.root.getRootNode().activeElement);
    if (focused && key === " ") return () => (event.shiftKey ? this.extend(focused.row.id) : this.toggle(focused.row.id));
    const by = { arrowleft: -1, arrowright: 1, arrowup: -this.columns, arrowdown: this.columns }[key];
    if (focused && by) return () => this.move(focused, by, event.shiftKey);
    if (event.repeat) return null;
    if (key === "escape" && this.selected.size) return () => this.choose([]);
    if (key === "z" && this.given.length) return () => this.undo();
    if (!this.selected.size || !this.data.mayJudge) return null;
    if (VERDICTS[key]) return () => this.judge(VERDICTS[key]);
    const type = /^[1-9]$/.test(key) && this.data.types[Number(key) - 1];
    return type ? () => this.chooseType(type.name) : null;
  }

  get columns() {
    return getComputedStyle(this.part.sheet).gridTemplateColumns.split(" ").length;
  }

  move(card, by, extend) {
    const all = [...this.cards.keys()];
    const next = all[all.indexOf(card.row.id) + by];
    if (next === undefined) return;
    if (extend) {
      if (!this.selected.size) this.choose([card.row.id], card.row.id);
      this.extend(next);
    }
    this.cards.get(next).link.focus();
  }

  // ---- verdicts ----

  chooseType(name) {
    this.type = this.type === name ? null : name;
    this.showActs();
  }

  judge(verdict) {
    const findings = [...this.selected];
    if (!findings.length || !this.data.mayJudge) return;
    const unseen = this.unseen.length;
    if (unseen) {
      const how = this.size === "L" ? "scroll to them" : "choose size L";
      return this.tell(`Not counted: ${unseen} of ${findings.length} selected were not shown at size L yet (${how})`);
    }
    const body = {
      findings, verdict, seen: findings.map((id) => this.seen.get(id)),
      type: verdict === "anomalous" ? this.type ?? null : null,
      seconds: (performance.now() - this.since) / 1000,
    };
    const key = this.outbox.put("/api/verdicts", body, `${findings.length} images`, (answer) => this.judged(answer, key, verdict));
    this.type = null;
    this.choose([]);
    this.showActs();
  }

  judged({ judged, leftOut }, of, verdict) {
    if (judged.length) this.given.push({ findings: judged, of });
    const reasons = Object.values(leftOut);
    const more = reasons.length ? `; ${reasons.length} left out (${[...new Set(reasons)].join("; ")})` : "";
    this.choose(Object.keys(leftOut).map(Number).filter((id) => this.cards.has(id)));
    this.tell(`${judged.length} ${verdict}${more}`);
    this.trigger("judged", Date.now());
  }

  undo() {
    const last = this.given.pop();
    if (!last) return;
    this.outbox.put("/api/verdicts/undo", last, `${last.findings.length} images`, ({ undone }) => {
      this.choose(undone.filter((id) => this.cards.has(id)));
      this.tell(`${undone.length} taken back`);
      this.trigger("judged", Date.now());
    });
    this.showBar();
  }

  // ---- the bar ----

  showActs() {
    const { types, mayJudge } = this.data;
    const button = (key, label, attributes, act) => {
      const made = node("button", { type: "button", "aria-keyshortcuts": key, ...attributes }, node("kbd", {}, key.toUpperCase()), label);
      made.addEventListener("click", act);
      return made;
    };
    const verdicts = Object.entries(VERDICTS).map(([key, verdict]) =>
      button(key, verdict[0].toUpperCase() + verdict.slice(1), { class: "verdict", "data-verdict": verdict }, () => this.judge(verdict)));
    const kinds = types.slice(0, 9).map(({ name }, at) =>
      button(`${at + 1}`, name, { "aria-pressed": String(this.type === name) }, () => this.chooseType(name)));
    const clear = node("button", { type: "button", "aria-keyshortcuts": "Escape" }, "Clear");
    clear.addEventListener("click", () => this.choose([]));
    const acts = [...(mayJudge ? [...verdicts, ...kinds] : []), clear];
    const said = acts.map((one) => one.outerHTML).join("");
    if (this.acts === said) return; // drawn anew it would lose the focus
    this.acts = said;
    this.part.acts.replaceChildren(...acts);
  }

  showBar() {
    const { size } = this.selected;
    const unseen = this.unseen.length;
    const rest = unseen && this.data?.mayJudge ? `, ${unseen} not yet seen at size L` : "";
    const said = [this.told, size ? `${size} selected${rest}` : ""].filter(Boolean).join("; ");
    if (this.part.count.textContent !== said) this.part.count.textContent = said;
    this.part.acts.hidden = !size;
    // at the lower edge, where it stays in view while the sheet is scrolled
    this.part.tools.dataset.floating = Boolean(size);
    this.part.undo.hidden = !this.given.length;
  }

  tell(text) {
    this.told = text;
    this.showBar();
  }

  showSaving() {
    const { waiting, refused, failures } = this.outbox;
    const { saving } = this.part;
    saving.dataset.state = refused.length ? "refused" : failures ? "failing" : waiting.length ? "saving" : "saved";
    saving.textContent = refused.length ? `Not accepted: ${refused[0].name} (${refused[0].refused})`
      : failures ? "Not saved yet: the server does not answer, trying again"
      : waiting.length ? "saving" : "";
    if (!refused.length) return;
    const drop = node("button", { type: "button" }, "Give it up");
    drop.addEventListener("click", () => this.outbox.giveUp(refused[0].body.finding));
    saving.append(drop);
  }

  listen() {
    this.stop = new AbortController();
    const { signal } = this.stop;
    const near = (entries) => entries.forEach(({ target, isIntersecting }) => {
      if (!isIntersecting) return;
      target.card.near = true;
      target.card.show(this.size).then(() => this.look(target.card));
      this.drawLines([target.card]);
    });
    this.views = new IntersectionObserver(near, { rootMargin: "400px" });
    this.whole = new IntersectionObserver((entries) => entries.forEach(({ target, intersectionRatio }) => {
      target.card.whole = intersectionRatio > 0.95;
      this.look(target.card);
    }), { threshold: [0, 0.96], rootMargin: "-40px 0px -60px 0px" });
    const { sheet, boxes, contours, undo } = this.part;
    sheet.addEventListener("click", (event) => this.click(event), { signal });
    sheet.addEventListener("pointerdown", (event) => this.press(event), { signal });
    sheet.addEventListener("dragstart", (event) => event.preventDefault(), { signal });
    boxes.addEventListener("click", () => this.setBoxes(sheet.dataset.boxes === "false"), { signal });
    contours.addEventListener("click", () => this.setContours(sheet.dataset.contours === "false"), { signal });
    undo.addEventListener("click", () => this.undo(), { signal });
    this.root.addEventListener("keydown", (event) => event.key === "Enter" && event.stopPropagation(), { signal });
    document.addEventListener("keydown", (event) => this.onKey(event), { signal });
    window.addEventListener("beforeunload", (event) => this.outbox.waiting.length && event.preventDefault(), { signal });
    this.setBoxes(read("review.boxes", "true") !== "false");
    this.setContours(read("review.contours", "false") === "true");
  }

  setContours(on) {
    write("review.contours", String(on));
    this.part.sheet.dataset.contours = on;
    this.part.contours.setAttribute("aria-pressed", String(on));
    this.drawLines([...this.cards.values()]);
  }

  // One after the other: each is a run of the model.
  drawLines(cards) {
    for (const card of cards) {
      this.drawn = (this.drawn ?? Promise.resolve()).then(() => this.part.sheet.dataset.contours === "true" && !this.stop.signal.aborted && card.contour()).catch(() => {});
    }
  }

  setBoxes(on) {
    write("review.boxes", String(on));
    this.part.sheet.dataset.boxes = on;
    this.part.boxes.setAttribute("aria-pressed", String(on));
  }

  close() {
    this.stop.abort();
    this.views.disconnect();
    this.whole.disconnect();
    this.outbox.closed = true;
    this.cards.forEach((card) => card.close());
  }
}

// What this browser remembers; where it may not, it begins anew.
function read(name, otherwise) {
  try {
    return localStorage.getItem(name) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // forbidden or full
  }
}

function scrolled(element) {
  return -element.getBoundingClientRect().top; // whatever scrolls round it
}

function meets(a, b) {
  return a.left < b.right && a.right > b.left && a.top < b.bottom && a.bottom > b.top;
}

const sheets = new WeakMap();

export default function (component) {
  const { parentElement } = component;
  let sheet = sheets.get(parentElement);
  if (!sheet) {
    sheet = new Sheet(parentElement);
    sheets.set(parentElement, sheet);
  }
  sheet.update(component);
  return () => {
    sheet.close();
    sheets.delete(parentElement);
  };
}
