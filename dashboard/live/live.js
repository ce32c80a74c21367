// A station that runs. The page asks its route twice a second and takes the word for it only while it answers: what is old
// is grey, never green.

const EVERY = 500, SILENT = 3000; // milliseconds
const SAID = {
  "flagged": ["\u2717", "FLAGGED"], "not flagged": ["\u2713", "NOT FLAGGED"], "review": ["?", "REVIEW"], "not judged": ["\u2013", "NOT JUDGED"],
  "silent": ["\u25A0", "NO SIGN OF LIFE"], "waiting": ["\u2026", "WAITING"],
};

function made(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value != null) node.setAttribute(key, value);
  node.append(...children); // strings become text nodes
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text; // who listens to the page is told of changes only
}

function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

class Live {
  constructor(root) {
    this.root = root;
    this.part = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node]));
    this.thumbs = new Map();
    this.answered = performance.now();
    this.stop = new AbortController();
    this.part.back.addEventListener("click", () => this.choose(null), { signal: this.stop.signal });
    window.addEventListener("resize", () => this.measure(), { signal: this.stop.signal });
    this.part.image.addEventListener("error", () => (this.part.image.hidden = true), { signal: this.stop.signal });
    this.clock = setInterval(() => this.tick(), EVERY);
    this.measure();
    this.ask();
  }

  close() {
    this.stop.abort();
    clearInterval(this.clock);
    clearTimeout(this.next);
  }

  measure() {
    const top = this.root.getBoundingClientRect().top + window.scrollY;
    this.root.style.minHeight = `${Math.max(520, window.innerHeight - top - 10)}px`;
    if (window.innerWidth > 900) this.root.style.height = this.root.style.minHeight;
    else this.root.style.height = "";
  }

  async ask() {
    const { station, token } = this.data ?? {};
    try {
      if (token) {
        const signal = AbortSignal.any([this.stop.signal, AbortSignal.timeout(SILENT)]);
        const response = await fetch(`/api/live/${station}`, { headers: { "X-Review-Token": token }, cache: "no-store", signal });
        const said = await response.json();
        if (!response.ok) throw new Error(said.error);
        this.answered = performance.now();
        this.show(said);
      }
    } catch (error) {
      this.problem = error.name === "Error" ? error.message : "the page's server does not answer";
    }
    if (!this.stop.signal.aborted) this.next = setTimeout(() => this.ask(), EVERY);
  }

  // The clock of the page itself: it goes on where nothing answers.
  tick() {
    const silent = performance.now() - this.answered;
    if (silent > SILENT) this.banner("silent", "", `nothing new for ${Math.round(silent / 1000)} s: ${this.problem ?? "no answer"}`);
    else if (this.said) this.newest();
  }

  banner(state, name, why) {
    const [sign, word] = SAID[state] ?? SAID["not judged"];
    this.root.dataset.state = state;
    say(this.part.sign, sign);
    say(this.part.word, word);
    say(this.part.name, name);
    say(this.part.why, why);
    if (state === "silent") say(this.part.when, "");
  }

  newest() {
    const { state, why, last } = this.said;
    const [first] = last;
    const named = first && state !== "silent" ? first.name : "";
    this.banner(state, named, why);
    const age = first ? first.age + (performance.now() - this.answered) / 1000 : 0;
    if (state !== "silent") say(this.part.when, first ? `${first.at}, ${ago(age)}${first.score ? `, score ${first.score}` : ""}` : "");
  }

  show(said) {
    this.said = said;
    this.newest();
    const { part } = this;
    say(part.station, said.station);
    part.alarm.hidden = !said.alarm;
    say(part.alarm, said.alarm ?? "");
    this.results(said.last);
    if (!said.counts) return; // its state cannot be read: what was shown is greyed by the banner
    this.rows(part.counts, said.counts);
    say(part.ordinary, said.ordinary);
    part.ordinary.dataset.many = String(said.many);
    const since = new Date(said.since).toLocaleString();
    this.rows(part.lines, [
      ["cycle", said.cycle], ["waiting, lost", `${said.waiting}, ${said.lost}`], ["counted since", since], ["judged by", `${said.detector.split(" ")[0]}, ${said.thresholds}`],
    ]);
    for (const kind of ["sources", "sinks"]) {
      const rows = said[kind].map((one) => made("li", { "data-state": one.state }, made("b", {}, one.name), made("span", {}, `${one.state === "ok" ? "" : `${one.state}: `}${one.said}`)));
      this.replace(part[kind], rows, JSON.stringify(said[kind]));
    }
  }

  rows(list, rows) {
    this.replace(list, rows.flatMap(([name, value]) => [made("dt", {}, name), made("dd", {}, value)]), JSON.stringify(rows));
  }

  replace(node, children, said) {
    if (node.said === said) return;
    node.said = said;
    node.replaceChildren(...children);
  }

  results(last) {
    const known = this.thumbs;
    this.thumbs = new Map(last.map((one) => [one.seq, this.thumb(one, known.get(one.seq))]));
    const wanted = [...this.thumbs.values()];
    const there = [...this.part.last.children];
    if (wanted.length !== there.length || wanted.some((node, at) => node !== there[at])) this.part.last.replaceChildren(...wanted);
    if (this.chosen != null && !this.thumbs.has(this.chosen)) this.chosen = null;
    this.picture(last.find((one) => one.seq === this.chosen) ?? last.find((one) => one.heatmap ?? one.thumbnail) ?? last[0]);
  }

  // One small picture; kept as it is, unless its picture has been drawn since.
  thumb(one, before) {
    if (before && before.thumbnail === one.thumbnail) return before;
    const title = `${one.at} ${one.name}: ${one.outcome}${one.score && `, score ${one.score}`}`;
    const inside = one.thumbnail ? made("img", { src: one.thumbnail, alt: "" }) : one.outcome;
    const button = made("button", { type: "button", title, "aria-label": title, "aria-pressed": "false", "data-outcome": one.outcome }, inside);
    button.addEventListener("click", () => this.choose(this.chosen === one.seq ? null : one.seq));
    return Object.assign(made("li", {}, button), { thumbnail: one.thumbnail });
  }

  choose(seq) {
    this.chosen = seq;
    for (const [number, node] of this.thumbs) node.firstChild.setAttribute("aria-pressed", String(number === seq));
    if (this.said) this.results(this.said.last);
  }

  picture(one) {
    const { figure, image, none, caption, back } = this.part;
    back.hidden = this.chosen == null;
    const source = one && (one.heatmap ?? one.thumbnail);
    none.hidden = Boolean(source);
    if (source && image.getAttribute("src") !== source) {
      image.src = source;
      image.hidden = false;
    }
    if (!source) image.hidden = true;
    figure.dataset.outcome = one?.outcome ?? "";
    say(none, one ? "no picture of it: the station was busy" : "no picture yet");
    say(caption, one ? `${one.at}  ${one.name}: ${one.outcome}${one.score && `, score ${one.score}`}${one.why && `: ${one.why}`}` : "");
  }
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".live");
  root.live ??= new Live(root);
  root.live.data = data;
  return () => {
    root.live?.close();
    root.live = undefined;
  };
}
