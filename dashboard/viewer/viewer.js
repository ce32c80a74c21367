// The review desk: one image at a time, a verdict by one key, the next image at once. The next images are leased and
// loaded ahead, so that a key press only draws; the verdict goes out behind it and is shown as saved when it is.

const AHEAD = 5; // findings leased and loaded before they are needed
const BEHIND = 3; // pictures kept for going back
const MOST_PIXELS = 150e6; // of all pictures held, at 4 bytes each
const MOST_LISTED = 500; // findings that the server is told not to hand out again
const SETTING = { opacity: 0.4, heatmap: true, contours: false, brightness: 1, contrast: 1, box: true, grid: false, expected: false, large: "original", keep: false, view: null };
const TOGGLES = ["heatmap", "contours", "box", "grid", "keep", "expected"];
const RENEW = 60_000; // milliseconds between renewals of the leases
const VERDICTS = [
  { verdict: "anomalous", key: "a", label: "Anomalous" },
  { verdict: "normal", key: "n", label: "Normal" },
  { verdict: "unsure", key: "u", label: "Unsure" },
  { verdict: "skip", key: "s", label: "Skip" },
];
const PANES = { original: "Image", good: "Nearest good", expected: "Expected", difference: "Difference" };
const MADE = ["good", "heatmap", "expected", "difference"]; // by the server, from the original
const HELP = [
  ["A", "anomalous"], ["N", "normal"], ["U", "unsure: somebody else looks too"], ["S", "skip: leave it to others"],
  ["Z", "undo the last verdict"], ["J", "next, without a verdict"], ["K", "previous"],
  ["1 to 9", "type of the defect (or of the selected region), then A"],
  ["R, P, W", "mark the place: rectangle, polygon, brush"], ["E", "take the detector's region, to correct it"],
  ["Delete", "remove the selected region (Ctrl+Z brings back)"], ["Esc, Enter", "end drawing; close the polygon"],
  ["M", "write a comment (Esc leaves it)"],
  ["H", "heatmap on or off"], ["[ and ]", "heatmap weaker, stronger"], ["F", "hold: the nearest good image in place of this one"], ["X", "hold: the expected picture"],
  ["C", "contours of the heatmap"], ["B", "box round the hottest region"], ["G", "one large pane, or four alike"],
  ["+ and -", "zoom (wheel too)"], ["0", "fit"], ["arrows", "move the picture (drag too), or the selected region; Shift: its size"], ["?", "this help"],
];

class Review {
  constructor(parent) {
    this.root = parent.querySelector(".review");
    this.server = new Server();
    this.server.onSignedOut = () => this.askForToken();
    this.outbox = new Outbox(this.server, () => this.showSaving());
    this.drafts = new Drafts();
    this.looking = new Looking(() => this.part && this.showMine(this.current));
    this.list = []; // findings in the order they were handed out
    this.index = 0;
    this.pictures = new Map();
    this.judged = []; // ids, in the order of my verdicts
    this.recent = [];
    this.view = new View();
    this.setting = { ...SETTING };
    this.regions = new Regions((changed) => this.showRegions(changed), () => ({ type: this.type ?? null }));
    this.build();
    this.listen();
  }

  // Called at every run of the page: with a new token each time, with another queue when the filters have changed.
  update({ data, setTriggerValue }) {
    this.trigger = setTriggerValue;
    // the address names the image on screen by now: that is no other image to go to
    const here = this.queue !== undefined && data.finding === (this.current?.id ?? null);
    const asked = here ? this.asked : [data.finding, data.gone];
    const queue = JSON.stringify([data.filters, data.order, asked, data.user]);
    this.data = data;
    this.server.token = data.token;
    this.outbox.open(data.user);
    this.drafts.open(data.user);
    this.openSetting(data.user);
    this.showTypes();
    [100, 500, 1500].forEach((wait) => setTimeout(() => this.remeasure(), wait)); // the page's head may come after it
    if (queue === this.queue) {
      this.outbox.retry(); // with a new token, and perhaps a new role or list of types
      return;
    }
    this.asked = [data.finding, data.gone];
    this.queue = JSON.stringify([data.filters, data.order, this.asked, data.user]);
    this.restart();
  }

  async restart() {
    this.release(this.list.slice(this.index).map((finding) => finding.id));
    this.pictures.forEach((pictures) => pictures.close());
    this.pictures.clear();
    const { finding, gone } = this.data;
    Object.assign(this, { list: [], index: 0, over: false, problem: null, notice: "", gone, after: finding });
    this.show();
    this.refreshRecent();
    if (gone) return; // what the address names is not here: another image is shown only when it is asked for
    if (!finding || (await this.insert(finding, this.queue))) await this.more();
  }

  get current() {
    return this.list[this.index];
  }

  // ---- the queue ----

  async more() {
    const ahead = this.list.length - 1 - this.index;
    if (this.asking || this.over || this.gone || ahead >= AHEAD) return;
    this.asking = this.queue;
    let wrapped = false;
    try {
      const held = this.list.slice(-MOST_LISTED).map((finding) => finding.id);
      const { filters, order } = this.data;
      const answer = await this.server.post("/api/next", { filters, order, count: AHEAD - ahead, held, after: this.after });
      if (this.asking !== this.queue) return;
      const known = new Set(this.list.map((finding) => finding.id));
      const fresh = answer.findings.filter((finding) => !known.has(finding.id));
      const waiting = !this.current;
      this.list.push(...fresh);
      this.left = answer.left;
      wrapped = !fresh.length && this.after != null; // the rest of the queue is what lies before the image that was opened
      if (wrapped) this.after = null;
      this.over = !fresh.length && !wrapped;
      this.problem = null;
      if (waiting) this.show();
      else this.showPosition();
      this.loadAhead();
    } catch (error) {
      this.problem = error.message;
      if (!this.current) this.show();
      if (!error.final) setTimeout(() => this.more(), 2000);
    } finally {
      const again = this.asking !== this.queue || wrapped;
      this.asking = null;
      if (again) this.more();
    }
  }

  // Puts an image that was named before the current one; whether it is there. The queue's next one never takes its place.
  async insert(id, queue = this.queue) {
    try {
      const finding = await this.server.ask(`/api/finding/${Number(id)}`);
      if (queue !== this.queue) return false;
      this.list.splice(this.index, 0, { ...finding, named: true });
      this.problem = null;
    } catch (error) {
      if (queue !== this.queue) return false;
      this.notice = `Image ${id} is not shown: ${error.message}.`;
      if (!this.list.length && error.final) this.gone = this.notice;
      if (!this.list.length && !error.final) {
        this.problem = error.message;
        setTimeout(() => queue === this.queue && !this.list.length && this.insert(id, queue).then((there) => there && this.more()), 2000);
      }
      this.list.length ? this.draw() : this.show();
      return false;
    }
    this.show();
    return true;
  }

  loadAhead() {
    const near = this.withinBudget();
    for (const finding of near) {
      if (this.pictures.has(finding.id)) continue;
      this.pictures.set(finding.id, new Pictures(finding.links, async () => (await this.server.ask(`/api/finding/${finding.id}`)).links));
    }
    const keep = new Set(near.map((finding) => finding.id));
    for (const [id, pictures] of this.pictures) {
      if (keep.has(id)) continue;
      pictures.close();
      this.pictures.delete(id);
    }
    this.loadInOrder(near.filter((finding) => this.list.indexOf(finding) >= this.index));
  }

  // The findings whose pictures are held: this one, the next ones, the last ones, as far as the memory for them goes.
  withinBudget() {
    const { index, list } = this;
    const wanted = [...list.slice(index, index + AHEAD + 1), ...list.slice(Math.max(0, index - BEHIND), index).reverse()];
    let pixels = 0;
    return wanted.filter((finding, at) => {
      pixels += (finding.width ?? 0) * (finding.height ?? 0);
      return at === 0 || pixels <= MOST_PIXELS;
    });
  }

  // A page that was open for a whole shift gets a new token by running again.
  askForToken() {
    if (performance.now() - (this.askedForToken ?? -Infinity) < 5000) return;
    this.askedForToken = performance.now();
    this.trigger("renew", Date.now());
  }

  // The one on screen first, then the originals of the next ones: they are what the eye needs, and heatmaps cost the
  // server more.
  async loadInOrder(findings) {
    const turn = (this.turn = (this.turn || 0) + 1);
    const [first, ...others] = findings;
    if (!first) return;
    await this.load(first, ["original"]);
    this.load(first, this.made(first));
    for (const kinds of [["original"], MADE]) {
      for (const finding of others) {
        if (turn !== this.turn) return; // another one is on screen by now
        await this.load(finding, kinds === MADE ? this.made(finding) : kinds);
      }
    }
  }

  // What is made of an image besides: the model draws no expected picture where nobody looks at it.
  made(finding) {
    return MADE.filter((kind) => this.isShown(kind, finding));
  }

  isShown(kind, finding = this.current) {
    return !["expected", "difference"].includes(kind) || this.setting.expected || finding?.expectedHelps !== false;
  }

  async load(finding, kinds) {
    const pictures = this.pictures.get(finding.id);
    const wanted = kinds.filter((kind) => finding.links[kind]);
    await Promise.all(wanted.map((kind) => pictures?.want(kind).then(() => finding === this.current && this.draw())));
    if (kinds.includes("original") && pictures?.offline && finding === this.current) {
      setTimeout(() => finding === this.current && !pictures.closed && this.load(finding, kinds), 2000);
    }
  }

  release(findings) {
    if (!findings.length || !this.server.token) return;
    this.server.post("/api/release", { findings }, { keepalive: true }).catch(() => {}); // leases run out by themselves
  }

  renew() {
    const findings = this.list.slice(this.index).map((finding) => finding.id);
    if (findings.length) this.server.post("/api/renew", { findings }).catch(() => {});
  }

  // ---- verdicts ----

  judge(verdict, pressed = performance.now()) {
    const finding = this.current;
    if (!finding || !this.data.mayJudge) return;
    if (!this.looking.allows(verdict)) return this.tell("Not counted: the image has to be shown first, for a moment");
    this.began = pressed;
    const seconds = (performance.now() - this.shownAt) / 1000;
    this.regions.finish();
    const regions = this.regions.list;
    const type = this.type ?? regions.find((one) => one.type)?.type ?? null;
    const said = { finding: finding.id, verdict, seconds, type: verdict === "anomalous" ? type : null, comment: this.comment.value.trim() };
    finding.mine = { ...said, regions };
    finding.history = null; // to be asked for again: what others said may be seen now
    this.judged.push(finding.id);
    this.recent.unshift({ ...said, name: finding.name, links: finding.links, saving: true });
    this.recent = this.recent.slice(0, 10);
    this.drafts.drop(finding.id);
    this.outbox.put("/api/verdict", { ...said, regions: verdict === "anomalous" ? regions : [], seen: this.looking.digest ?? "" }, finding.name, () => this.refreshRecent());
    this.tell(`${verdict}${said.type ? `, ${said.type}` : ""}: ${finding.name}`);
    this.step(1);
  }

  // Takes the last verdict back, and brings back the type, the comment and the regions that went with it.
  async undo() {
    if (!this.data.mayJudge || performance.now() - (this.undoneAt ?? -GUARD) < GUARD) return;
    const id = this.judged.pop() ?? this.recent.find((event) => !event.saving)?.finding;
    if (!id) return;
    this.undoneAt = performance.now();
    const listed = this.list.find((finding) => finding.id === id);
    const { type = null, comment = "", regions = [] } = listed?.mine ?? this.recent.find((event) => event.finding === id) ?? {};
    if (!this.drafts.get(id)) this.drafts.set(id, { type, comment: comment ?? "", regions });
    const before = this.outbox.giveUp(id); // what the server refused was never counted
    if (!before) this.outbox.put("/api/undo", { finding: id }, listed?.name, () => this.refreshMine(id));
    this.recent = this.recent.filter((event) => event.finding !== id);
    this.tell("Undone");
    if (listed) listed.mine = null;
    await this.goTo(id);
    if (this.current?.id === id) this.current.mine = null;
    this.show();
    if (before) this.refreshMine(id);
  }

  // After an undo the verdict before it counts again, and one image more is left.
  async refreshMine(id) {
    this.refreshRecent();
    const { mine } = await this.server.ask(`/api/finding/${id}`).catch(() => ({ mine: undefined }));
    const finding = this.list.find((one) => one.id === id);
    if (!finding || mine === undefined || this.outbox.items.some((item) => item.body.finding === id)) return;
    finding.mine = mine;
    if (finding === this.current) this.showMine(finding);
  }

  async goTo(id) {
    const at = this.list.findIndex((finding) => finding.id === id);
    if (at < 0) return void (await this.insert(id));
    this.index = at;
    this.list[at].named = true;
    this.show();
  }

  step(by, pressed = this.began) {
    this.began = pressed;
    if (this.gone && by > 0) Object.assign(this, { gone: "", after: null });
    if (this.index + by >= this.list.length) this.over = false; // others may have left some since
    this.index = Math.min(Math.max(0, this.index + by), this.list.length);
    this.show();
    this.more();
  }

  async refreshRecent() {
    try {
      const { filters, order } = this.data;
      const { events, left } = await this.server.post("/api/recent", { filters, order });
      Object.assign(this, { recent: events, left });
      this.showRecent();
      this.showPosition();
    } catch {
      // the next verdict asks again
    }
  }

  // ---- what is seen ----

  show() {
    const finding = this.current;
    const draft = finding && (this.drafts.get(finding.id) ?? this.saidBefore(finding));
    this.type = draft?.type ?? null;
    this.comment.value = draft?.comment ?? "";
    this.comment.disabled = !finding;
    this.regions.open(draft?.regions, finding && { width: finding.width, height: finding.height });
    this.view.fit();
    if (this.setting.keep && this.setting.view) Object.assign(this.view, this.setting.view);
    this.shownAt = performance.now();
    if (this.looking.id !== (finding?.id ?? null)) this.notice = "";
    this.looking.at(finding?.id ?? null);
    this.loadAhead();
    this.draw();
    this.showFinding(finding);
    this.showRegions();
    this.showLikely(finding);
    this.showPosition();
    this.showRecent();
    if (!finding) return;
    this.address(finding.id);
    this.lookUp(finding);
  }

  // What may come a moment later: other detectors, similar findings, what others said.
  async lookUp(finding) {
    if (finding.history) return;
    await new Promise((wake) => setTimeout(wake, 150)); // who judges quickly asks for none of it
    if (finding !== this.current) return;
    try {
      Object.assign(finding, await this.server.ask(`/api/finding/${finding.id}`), { mine: finding.mine });
      if (finding === this.current) this.showDetails(finding);
    } catch {
      // the image can be judged without it
    }
  }

  // The address names the image on screen, so that it can be sent to a colleague; the page does not run for it.
  address(id) {
    const url = new URL(location.href);
    url.searchParams.set("finding", id);
    history.replaceState(history.state, "", url);
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      this.drawNow();
    });
  }

  // What this inspector chose to see by is there again at the next image, and tomorrow.
  openSetting(user) {
    if (this.settingOf === user) return;
    this.settingOf = user;
    try {
      Object.assign(this.setting, JSON.parse(localStorage.getItem(`review.setting.${user}`) ?? "{}"));
    } catch {
      // what is stored is no longer understood, or storage is forbidden
    }
    this.layout();
  }

  moved() {
    this.keepSetting();
  }

  keepSetting() {
    const { zoom, x, y } = this.view;
    this.setting.view = { zoom, x, y };
    try {
      if (this.settingOf) localStorage.setItem(`review.setting.${this.settingOf}`, JSON.stringify(this.setting));
    } catch {
      // storage is full or forbidden: it lives as long as the page
    }
  }

  drawNow() {
    const finding = this.current;
    const pictures = finding && this.pictures.get(finding.id);
    const original = pictures?.bitmaps.original;
    const picture = original ?? (finding?.width ? { width: finding.width, height: finding.height } : null);
    this.picture = picture;
    if (this.showPanes()) Object.values(this.panes).forEach((pane) => pane.measure());
    for (const pane of Object.values(this.panes)) this.drawPane(pane, finding, pictures, picture);
    this.showState(pictures);
    if (original && this.began) this.measureLatency();
  }

  // Panes of which nothing is to be seen make room for the others; whether anything moved.
  showPanes() {
    const shown = Object.values(this.panes).filter((pane) => this.isShown(pane.kind));
    const large = shown.some((pane) => pane.kind === this.setting.large) ? this.setting.large : "original";
    this.part.expected.hidden = this.current?.expectedHelps !== false;
    const arranged = `${large} ${shown.length}`;
    if (this.arranged === arranged) return false;
    this.arranged = arranged;
    this.part.panes.dataset.beside = shown.length - 1;
    for (const pane of Object.values(this.panes)) {
      pane.element.hidden = !shown.includes(pane);
      pane.element.dataset.large = pane.kind === large;
    }
    return true;
  }

  drawPane(pane, finding, pictures, picture) {
    const kind = pane.kind === "original" && this.flip ? this.flip : pane.kind;
    if (!this.isShown(pane.kind, finding)) return;
    const drawn = pane.paint(pane.base, pictures?.bitmaps[kind], this.view, picture);
    pane.base.style.filter = `brightness(${this.setting.brightness}) contrast(${this.setting.contrast})`;
    if (drawn && kind === "original" && isInView(pane.element)) this.looking.drawn(finding.id, pictures.digest);
    const withHeatmap = pictures?.bitmaps.original && kind === "original" && this.setting.heatmap;
    pane.paint(pane.over, withHeatmap ? pictures?.bitmaps.heatmap : null, this.view, picture);
    pane.over.style.opacity = this.setting.opacity;
    pane.element.dataset.flip = kind !== pane.kind;
    this.drawMarks(pane, kind, finding, pictures);
    pane.say(this.paneNote(kind, finding, pictures));
    pane.entitle([PANES[kind], pictures?.names[kind]].filter(Boolean).join(": "));
  }

  // Lines over the picture, which neither brightness nor opacity change.
  drawMarks(pane, kind, finding, pictures) {
    const context = pane.clear(pane.marks);
    if (!this.picture || !pane.width || kind !== "original") return;
    const place = this.view.place(pane, this.picture);
    const { scale, left, top } = place;
    const heatmap = this.setting.contours && pictures?.bitmaps.original && pictures.bitmaps.heatmap;
    if (heatmap) drawContours(context, heatmap, left, top, this.picture.width * scale, this.picture.height * scale);
    if (this.setting.box && finding.box && pictures?.bitmaps.original) {
      const [x, y, width, height] = finding.box;
      for (const [colour, wide] of [["#000a", 3], ["#fff", 1]]) {
        Object.assign(context, { strokeStyle: colour, lineWidth: wide });
        context.strokeRect(left + x * scale - 2, top + y * scale - 2, width * scale + 4, height * scale + 4);
      }
    }
    this.regions.draw(context, place, ({ type }) => this.colourOf(type));
  }

  paneNote(kind, finding, pictures) {
    if (!finding) return "";
    if (!finding.links[kind]) return finding.status === "ok" ? "not available for this detector" : "not judged";
    if (pictures?.errors[kind]) return pictures.errors[kind];
    return pictures?.bitmaps[kind] ? "" : "loading";
  }

  measureLatency() {
    const began = this.began;
    this.began = null;
    // two frames on, the picture that was drawn is on the screen
    requestAnimationFrame(() => requestAnimationFrame((now) => {
      performance.measure("key to next image", { start: began, end: now, detail: this.current?.id });
    }));
  }

  showFinding(finding) {
    const { part } = this;
    part.name.textContent = finding?.name ?? "";
    part.name.title = finding?.name ?? "";
    part.words.textContent = finding?.words ?? this.emptyWords();
    part.words.dataset.judged = finding ? finding.result ?? "ranked" : "";
    part.facts.replaceChildren(...this.facts(finding));
    part.place.replaceChildren(...(finding?.place ? [placeChart(finding.place)] : []));
    this.showDetails(finding);
    this.showMine(finding);
  }

  showDetails(finding) {
    const { part } = this;
    this.showUnit(finding?.unit);
    part.others.replaceChildren(...(finding?.others ?? []).map((other) => this.otherRow(other)));
    part.othersBlock.hidden = !finding?.others?.length;
    part.similar.replaceChildren(...(finding?.similar ?? []).map((other) => this.thumbnail(other)));
    part.similarBlock.hidden = !finding?.similar?.length;
    if (finding) part.allSimilar.href = `./?${new URLSearchParams({ run: finding.runId, like: finding.id })}`;
    part.history.replaceChildren(...(finding?.history ?? []).map((event) => this.historyRow(event)));
    part.historyBlock.hidden = !finding?.history?.length && !finding?.hidden;
    if (finding?.hidden) part.history.replaceChildren(element("p", { class: "caption" }, finding.hidden));
  }

  // The unit that the image shows: its verdict, and all its views, this one marked.
  showUnit(shown) {
    const { part } = this;
    part.unitBlock.hidden = !shown;
    part.unitName.textContent = shown ? `Unit ${shown.name}` : "";
    part.unitWords.textContent = shown?.words ?? "";
    part.unitWords.dataset.judged = shown ? shown.result ?? "ranked" : "";
    part.views.replaceChildren(...(shown?.views ?? []).map((view) => {
      const button = this.thumbnail(view, `${view.here ? "This view" : "View"}: ${view.name}, ${view.said}`);
      if (view.here) button.setAttribute("aria-current", "true");
      button.append(element("span", { class: "caption" }, view.said.split(",")[0]));
      return button;
    }));
  }

  emptyWords() {
    if (this.gone) return `${this.gone} J goes on with the queue.`;
    if (this.problem) return `Not loaded: ${this.problem}. Trying again.`;
    if (!this.over) return "Loading the queue";
    const passed = this.list.filter((finding) => !finding.mine).length;
    if (passed) return `Nothing else is left in this queue; ${passed} here ${passed === 1 ? "has" : "have"} no verdict of yours: K goes back.`;
    return "Nothing is left in this queue. Other filters, or the audit sample, may have more: see Queue.";
  }

  facts(finding) {
    if (!finding) return [];
    const rows = [["run", finding.run], ["detector", finding.detectorName], ["size", finding.size], ["drawn", finding.why]];
    return rows.filter(([, value]) => value).flatMap(([label, value]) => [element("dt", {}, label), element("dd", { title: value }, value)]);
  }

  otherRow(other) {
    const row = element("button", { type: "button", class: "row" }, element("span", {}, other.detectorName), element("span", { class: "number" }, other.said));
    row.addEventListener("click", () => this.goTo(other.id));
    return row;
  }

  historyRow(event) {
    return element("p", { class: "event" }, element("span", { class: "chip", "data-verdict": event.verdict }, event.verdict), ` ${event.who} ${event.when}${event.where ? `, in ${event.where}` : ""}${event.type ? `, ${event.type}` : ""}${event.regions?.length ? `, ${counted(event.regions.length, "region")}` : ""}${event.comment ? `: ${event.comment}` : ""}`);
  }

  thumbnail(other, label = `Similar: ${other.name}`) {
    const image = element("img", { src: other.thumb, alt: "", loading: "lazy" });
    const button = element("button", { type: "button", class: "thumb", title: other.name, "aria-label": label }, image);
    button.addEventListener("click", () => this.goTo(other.id));
    return button;
  }

  showMine(finding) {
    const may = Boolean(finding && this.data?.mayJudge);
    for (const [verdict, button] of Object.entries(this.part.verdicts)) {
      button.setAttribute("aria-pressed", String(finding?.mine?.verdict === verdict));
      button.disabled = !may;
      // only for the eye and for screen readers: a disabled button would lose the focus between two images
      button.setAttribute("aria-disabled", String(!may || (verdict !== "skip" && !this.looking.ready)));
    }
    this.part.bar.dataset.ready = String(may && this.looking.ready);
  }

  showTypes() {
    const types = this.data?.types ?? [];
    const chosen = this.regions.current ? this.regions.current.type : this.type;
    this.part.types.replaceChildren(...types.slice(0, 9).map((type, at) => {
      const dot = element("i", {});
      dot.style.background = type.colour;
      const chip = element("button", { type: "button", class: "type", "aria-pressed": String(chosen === type.name), "aria-keyshortcuts": `${at + 1}` }, element("kbd", {}, `${at + 1}`), dot, type.name);
      chip.addEventListener("click", () => this.choose(type.name));
      return chip;
    }));
  }

  // My verdict, or what the detector holds for likely: it is chosen before anybody chooses, and another key, or the same
  // one, changes that. Names compare as folders and lists write them: missing_part is Missing part.
  saidBefore(finding) {
    const plain = (name) => name.toLowerCase().replace(/[\s_-]+/g, " ");
    const likely = finding.likely && this.data.types.find((type) => plain(type.name) === plain(finding.likely));
    return finding.mine ?? (likely ? { type: likely.name, comment: "" } : null);
  }

  showLikely(finding) {
    this.part.likely.textContent = finding?.likelyWords ?? "";
    this.part.likely.hidden = !finding?.likelyWords;
  }

  choose(name) {
    if (!this.current) return;
    if (this.regions.current) return this.regions.set({ type: this.regions.current.type === name ? null : name });
    this.type = this.type === name ? null : name;
    this.keepDraft();
    this.showTypes();
    this.tell(this.type ? `Type ${this.type}` : "No type");
  }

  keepDraft() {
    const draft = { type: this.type, comment: this.comment.value, regions: this.regions.list };
    if (this.current) this.drafts.set(this.current.id, draft, this.saidBefore(this.current));
  }

  // ---- regions ----

  colourOf(type) {
    return this.data?.types.find((one) => one.name === type)?.colour ?? "#ffffff";
  }

  showRegions(changed) {
    if (!this.part || !this.data) return;
    const { list, tool, selected } = this.regions;
    if (changed) this.keepDraft();
    for (const name of ["box", "polygon", "brush"]) this.part[`draw-${name}`].setAttribute("aria-pressed", String(tool === name));
    const may = Boolean(this.current && this.data.mayJudge);
    this.part.marking.hidden = !this.data.mayJudge;
    for (const button of this.part.marking.querySelectorAll("button")) button.disabled = !may;
    this.part.adopt.disabled = !may || !this.current.box;
    this.part.remove.disabled = !may || selected < 0;
    this.part.brushLabel.hidden = tool !== "brush";
    this.part.panes.dataset.tool = tool ?? "";
    this.part.regions.replaceChildren(...list.map((region, at) => this.regionRow(region, at)));
    this.part.regionsBlock.hidden = !list.length;
    this.showTypes();
    this.draw();
  }

  regionRow(region, at) {
    const dot = element("i", {});
    dot.style.background = this.colourOf(region.type);
    const [left, top, right, bottom] = region.points;
    const what = region.kind === "box" ? `rectangle ${right - left} x ${bottom - top}` : region.kind === "brush" ? `brush, ${Math.round(region.width)} wide` : `polygon, ${counted(region.points.length / 2, "corner")}`;
    const row = element("button", { type: "button", class: "row", "aria-pressed": String(at === this.regions.selected) }, dot, element("span", { class: "path" }, what), element("span", { class: "dim" }, region.type ?? "no type"));
    row.addEventListener("click", () => this.regions.select(at === this.regions.selected ? -1 : at));
    const away = element("button", { type: "button", class: "away", title: "Remove this region", "aria-label": `Remove ${what}` }, "\u00d7");
    away.addEventListener("click", () => this.regions.remove(at));
    return element("li", {}, row, ...(this.data.mayJudge ? [away] : []));
  }

  draws(tool) {
    if (this.current && this.data.mayJudge && this.current.width) this.regions.choose(tool);
  }

  // The detector's region as one of the inspector's own, to be corrected.
  adopt() {
    const { box } = this.current ?? {};
    if (!box || !this.data.mayJudge) return;
    const [x, y, width, height] = box;
    this.regions.add({ kind: "box", points: [x, y, x + width, y + height] });
  }

  showPosition() {
    const { left } = this;
    this.part.position.textContent = [this.data?.said, left].filter(Boolean).join(" / ");
  }

  showState(pictures) {
    const finding = this.current;
    const other = finding?.named && String(finding.runId) !== this.data.filters.run ? `This image is of another run (${finding.run}) than the queue.` : "";
    const why = whyNot(pictures);
    const said = [this.notice, finding && why, other].filter(Boolean).join(" ");
    if (this.part.state.textContent !== said) this.part.state.textContent = said;
    this.part.state.hidden = !said;
    this.part.bar.dataset.judgeable = String(!why);
  }

  showSaving() {
    const { waiting, refused, failures } = this.outbox;
    const { saving } = this.part;
    const state = refused.length ? "refused" : failures ? "failing" : waiting.length ? "saving" : "saved";
    const text = refused.length ? refusedText(refused)
      : failures ? `${waiting.length} not saved yet: the server does not answer, trying again`
      : `${this.data.user}: ${waiting.length ? "saving" : "all saved"}`;
    if (saving.dataset.state === state && this.savingText === text) return;
    saving.dataset.state = state;
    this.savingText = text;
    saving.replaceChildren(text, ...(refused.length ? this.refusedButtons(refused[0]) : []));
  }

  refusedButtons({ body, name }) {
    const acts = {
      "Try again": () => this.outbox.retry(),
      "Show it": () => this.goTo(body.finding),
      "Give it up": () => window.confirm(`Give up what was said of ${name ?? "this image"}?`) && this.outbox.giveUp(body.finding),
    };
    return Object.entries(acts).map(([label, act]) => {
      const button = element("button", { type: "button" }, label);
      button.addEventListener("click", act);
      return button;
    });
  }

  showRecent() {
    this.part.recent.replaceChildren(...this.recent.map((event) => {
      const row = element("button", { type: "button", class: "row", title: `${event.name}: show it again, to change the verdict` },
        element("span", { class: "chip", "data-verdict": event.verdict }, event.verdict[0].toUpperCase()),
        element("span", { class: "path" }, event.name),
        element("span", { class: "dim" }, event.type ?? event.comment ?? ""));
      row.addEventListener("click", () => this.goTo(event.finding));
      return element("li", {}, row);
    }));
    this.part.recentBlock.hidden = !this.recent.length;
  }

  tell(text) {
    this.part.live.textContent = text;
  }

  // ---- building, once ----

  build() {
    const find = (name) => this.root.querySelector(`[data-part="${name}"]`);
    this.part = Object.fromEntries([...this.root.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node]));
    this.comment = find("comment");
    this.panes = {};
    for (const [kind, title] of Object.entries(PANES)) {
      const pane = new Pane(kind, title, (chosen) => this.set("large", chosen));
      this.panes[kind] = pane;
      find("panes").append(pane.element);
    }
    this.part.verdicts = {};
    for (const { verdict, key, label } of VERDICTS) {
      const button = element("button", { type: "button", class: "verdict", "data-verdict": verdict, "aria-keyshortcuts": key }, element("kbd", {}, key.toUpperCase()), label);
      button.addEventListener("click", () => this.judge(verdict));
      // Enter held down would press it again and again
      button.addEventListener("keydown", (event) => event.repeat && event.preventDefault());
      this.part.verdicts[verdict] = button;
      find("bar").append(button);
    }
    find("help-keys").replaceChildren(...HELP.flatMap(([key, says]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, says)]));
    this.layout();
  }

  set(name, value) {
    this.setting[name] = value;
    if (name === "expected") this.loadAhead();
    this.layout();
    this.draw();
    this.keepSetting();
  }

  layout() {
    const { grid, opacity, brightness, contrast } = this.setting;
    this.part.panes.dataset.grid = grid;
    this.showPanes();
    for (const name of TOGGLES) this.part[name].setAttribute("aria-pressed", String(this.setting[name]));
    for (const [name, value] of Object.entries({ opacity, brightness, contrast })) this.part[name].value = value;
    this.measure();
  }

  measure() {
    this.root.style.height = this.height();
    Object.values(this.panes).forEach((pane) => pane.measure());
    this.draw();
  }

  // Once more, where the place of the desk on the page is another one by now.
  remeasure() {
    if (this.root.isConnected && this.root.style.height !== this.height()) this.measure();
  }

  height() {
    const top = this.root.getBoundingClientRect().top + window.scrollY;
    return `${Math.max(480, window.innerHeight - top - 10)}px`;
  }

  listen() {
    const { part } = this;
    this.stop = new AbortController();
    const { signal } = this.stop;
    for (const name of ["opacity", "brightness", "contrast"]) {
      part[name].addEventListener("input", () => this.set(name, Number(part[name].value)), { signal });
    }
    for (const name of TOGGLES) part[name].addEventListener("click", () => this.set(name, !this.setting[name]), { signal });
    const clicks = {
      undo: () => this.undo(), next: () => this.step(1), previous: () => this.step(-1), help: () => part.dialog.showModal(),
      closeHelp: () => part.dialog.close(), fit: () => this.fit(), real: () => this.realSize(), reset: () => this.reset(),
      zoomIn: () => this.zoom(1.5), zoomOut: () => this.zoom(1 / 1.5), adopt: () => this.adopt(), remove: () => this.regions.remove(),
      "draw-box": () => this.draws("box"), "draw-polygon": () => this.draws("polygon"), "draw-brush": () => this.draws("brush"),
    };
    for (const [name, act] of Object.entries(clicks)) part[name].addEventListener("click", act, { signal });
    part.flicker.addEventListener("pointerdown", () => this.setFlip("good"), { signal });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) part.flicker.addEventListener(end, () => this.setFlip(null), { signal });
    window.addEventListener("blur", () => this.setFlip(null), { signal }); // the key comes up elsewhere
    part.brush.addEventListener("input", () => (this.regions.brush = Number(part.brush.value)), { signal });
    document.addEventListener("keydown", (event) => this.onKey(event), { signal });
    document.addEventListener("keyup", (event) => "fx".includes(event.key.toLowerCase()) && this.setFlip(null), { signal });
    window.addEventListener("pagehide", () => this.release(this.list.slice(this.index).map((finding) => finding.id)), { signal });
    window.addEventListener("beforeunload", (event) => this.outbox.waiting.length && event.preventDefault(), { signal });
    this.comment.addEventListener("input", () => this.keepDraft(), { signal });
    document.addEventListener("visibilitychange", () => this.draw(), { signal });
    document.addEventListener("scroll", () => this.draw(), { signal, capture: true, passive: true });
    for (const pane of Object.values(this.panes)) listenToPane(pane, this, signal);
    this.resizes = new ResizeObserver(() => this.measure());
    this.resizes.observe(part.panes);
    window.addEventListener("resize", () => this.measure(), { signal });
    this.renewing = setInterval(() => this.renew(), RENEW);
  }

  // Whether regions are drawn on a pane.
  mayDraw(pane) {
    return pane.kind === "original" && this.picture && this.current && this.data.mayJudge;
  }

  // The place and the value under the pointer, of the file's own pixels.
  readPixel(pane, event) {
    const bitmap = this.current && this.pictures.get(this.current.id)?.bitmaps.original;
    if (!bitmap) return;
    const box = pane.element.getBoundingClientRect();
    const { scale, left, top } = this.view.place(pane, this.picture);
    const x = Math.floor((event.clientX - box.left - left) / scale);
    const y = Math.floor((event.clientY - box.top - top) / scale);
    const inside = x >= 0 && y >= 0 && x < bitmap.width && y < bitmap.height;
    this.part.pixel.textContent = inside ? `${x}, ${y}  ${pixelAt(bitmap, x, y).join(" ")}` : "";
  }

  onKey(event) {
    if (event.altKey || this.part.dialog.open) return;
    const at = event.composedPath()[0];
    const typing = at instanceof HTMLElement && (at.isContentEditable || /^(TEXTAREA|SELECT)$/.test(at.tagName) || (at.tagName === "INPUT" && at.type !== "range"));
    if (typing) {
      if (event.key === "Escape" && at === this.comment) this.comment.blur();
      return;
    }
    const held = event.ctrlKey || event.metaKey;
    const act = held ? event.key.toLowerCase() === "z" && this.regions.past.length && (() => this.regions.back()) : this.regionAction(event, at) || this.keyAction(event, at);
    if (!act) return;
    event.preventDefault();
    act();
  }

  // Keys that mean the region which is drawn or selected, before they mean the picture.
  regionAction({ key, shiftKey }, at) {
    const { regions } = this;
    if (key === "Escape" && (regions.drawing || regions.tool || regions.current)) return () => (regions.drawing ? regions.cancel() : regions.tool ? regions.choose(null) : regions.select(-1));
    if (key === "Enter" && regions.drawing) return () => regions.finish();
    if (!regions.current || !this.data.mayJudge) return null;
    if (key === "Delete" || key === "Backspace") return () => regions.remove();
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (!step || at instanceof HTMLInputElement) return null;
    const by = Math.max(1, Math.round(4 / this.view.place(this.mainPane, this.picture).scale));
    return () => regions.nudge(step[0] * by, step[1] * by, shiftKey);
  }

  keyAction(event, at) {
    const key = event.key.toLowerCase();
    const verdict = VERDICTS.find((one) => one.key === key);
    if (verdict) return event.repeat ? () => {} : () => this.judge(verdict.verdict, event.timeStamp); // a key held down judges one image
    if (/^[1-9]$/.test(key)) {
      const type = this.data.types[Number(key) - 1];
      return type && (() => this.choose(type.name));
    }
    const slider = at instanceof HTMLInputElement; // its arrows move it
    const pan = { arrowleft: [60, 0], arrowright: [-60, 0], arrowup: [0, 60], arrowdown: [0, -60] }[key];
    if (pan && !slider && this.view.zoom > 1) return () => this.pan(...pan);
    return {
      z: event.repeat ? () => {} : () => this.undo(),
      j: () => this.step(1, event.timeStamp), k: () => this.step(-1, event.timeStamp),
      "?": () => this.part.dialog.showModal(),
      h: () => this.set("heatmap", !this.setting.heatmap), b: () => this.set("box", !this.setting.box), g: () => this.set("grid", !this.setting.grid),
      "[": () => this.set("opacity", Math.max(0, this.setting.opacity - 0.1)), "]": () => this.set("opacity", Math.min(1, this.setting.opacity + 0.1)),
      c: () => this.set("contours", !this.setting.contours), e: () => this.adopt(),
      r: () => this.draws("box"), p: () => this.draws("polygon"), w: () => this.draws("brush"),
      f: () => this.setFlip("good"), x: () => this.setFlip("expected"), m: () => this.comment.focus(), "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5),
      0: () => this.fit(),
    }[key];
  }

  setFlip(kind) {
    if ((this.flip ?? null) === kind) return;
    this.flip = kind;
    if (kind && this.current) this.load(this.current, [kind]);
    this.draw();
  }

  get mainPane() {
    return this.panes[this.isShown(this.setting.large) ? this.setting.large : "original"];
  }

  zoom(factor) {
    if (this.picture) this.view.zoomBy(factor, this.mainPane, this.picture);
    this.draw();
    this.keepSetting();
  }

  pan(dx, dy) {
    if (this.picture) this.view.panBy(dx, dy, this.mainPane, this.picture);
    this.draw();
    this.keepSetting();
  }

  fit() {
    this.view.fit();
    this.draw();
    this.keepSetting();
  }

  realSize(pane = this.mainPane) {
    if (!this.picture) return;
    const { scale } = this.view.place(pane, this.picture);
    this.view.zoomBy(1 / (scale * pane.ratio), pane, this.picture);
    this.draw();
    this.keepSetting();
  }

  reset() {
    Object.assign(this.setting, { brightness: 1, contrast: 1, opacity: 0.4 });
    this.layout();
    this.keepSetting();
  }

  close() {
    this.release(this.list.slice(this.index).map((finding) => finding.id));
    this.stop.abort();
    this.resizes.disconnect();
    clearInterval(this.renewing);
    this.outbox.closed = true;
    this.pictures.forEach((pictures) => pictures.close());
  }
}

// What is said of things that the server did not accept: the first one, and how many there are.
function refusedText(refused) {
  const [{ path, body, name, refused: why }] = refused;
  const what = path === "/api/undo" ? "Undo" : body.verdict;
  const more = refused.length > 1 ? `, and ${refused.length - 1} more` : "";
  return `Not accepted: ${what} of ${name ?? `image ${body.finding}`} (${why})${more}`;
}

function counted(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function pixelAt(bitmap, x, y) {
  const canvas = (pixelAt.canvas ??= new OffscreenCanvas(1, 1));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, x, y, 1, 1, 0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

// The calibration's histogram with the threshold and this image's place in it, all given by the server as fractions.
function placeChart({ bars, threshold, here, label, beyond }) {
  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const chart = svg("svg", { viewBox: "0 0 300 64", role: "img", "aria-label": label, preserveAspectRatio: "none" });
  const wide = 300 / bars.length;
  bars.forEach((high, at) => chart.append(svg("rect", { class: "good", x: at * wide, y: 60 - 52 * high, width: Math.max(0.5, wide - 0.75), height: 52 * high })));
  chart.append(svg("line", { class: "axis", x1: 0, x2: 300, y1: 60.5, y2: 60.5 }));
  if (threshold != null) chart.append(svg("line", { class: "threshold", x1: 300 * threshold, x2: 300 * threshold, y1: 4, y2: 62 }));
  chart.append(svg("path", { class: "here", d: `M${300 * here - 5} 0h10l-5 9z M${300 * here - 0.75} 6h1.5v55h-1.5z` }));
  const caption = element("p", { class: "caption" }, label + (beyond ? " (off the scale)" : ""));
  const block = element("div", {});
  block.append(chart, caption);
  return block;
}

const reviews = new WeakMap();

export default function (component) {
  const { parentElement } = component;
  let review = reviews.get(parentElement);
  if (!review) {
    review = new Review(parentElement);
    reviews.set(parentElement, review);
  }
  review.update(component);
  return () => {
    review.close();
    reviews.delete(parentElement);
  };
}
