// What the inspector has said and the server has not yet acknowledged. It is kept in the browser's storage, so that
// neither a reload nor a server that is killed loses it, and sent in order; each item carries a key of its own, under
// which the server counts it once however often it arrives. What the server refuses is kept too, with the reason, until
// it is accepted at another try, said anew, taken back or given up.

const WAITS = [200, 500, 1000, 2000, 5000]; // milliseconds before the next try

class Outbox {
  constructor(server, onChange) {
    this.server = server;
    this.onChange = onChange;
    this.items = [];
    this.failures = 0;
    this.sending = false;
  }

  // Each person has outboxes of their own: what one left unsent is not said in another's name. What earlier pages
  // left is taken over; that a page which is still open sends the same does no harm.
  open(user) {
    if (this.user === user) return;
    this.user = user;
    this.name = `review.outbox.${user}.${newKey()}`;
    try {
      const left = Object.keys(localStorage).filter((name) => name.startsWith(`review.outbox.${user}.`));
      this.items = left.flatMap((name) => JSON.parse(localStorage.getItem(name)));
      this.keep();
      left.forEach((name) => localStorage.removeItem(name));
    } catch {
      this.items = [];
    }
    this.retry();
  }

  get waiting() {
    return this.items.filter((item) => !item.refused);
  }

  get refused() {
    return this.items.filter((item) => item.refused);
  }

  // ``name``: of the image, for what is said of it. What is said anew of an image takes the place of what was refused.
  put(path, body, name, onDone) {
    const item = { path, name, body: { ...body, key: newKey() } };
    this.items = this.items.filter((other) => !(other.refused && body.finding !== undefined && other.body.finding === body.finding));
    this.items.push(item);
    if (onDone) this.done.set(item.body.key, onDone);
    this.keep();
    this.send();
    return item.body.key;
  }

  done = new Map(); // key -> what to do with the answer; lost with the page, which is fine

  keep() {
    try {
      if (this.items.length) localStorage.setItem(this.name, JSON.stringify(this.items));
      else localStorage.removeItem(this.name);
    } catch {
      // storage is full or forbidden: the items live as long as the page
    }
    this.onChange();
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    while (this.waiting.length && !this.closed) {
      const item = this.waiting[0];
      try {
        const answer = await this.server.post(item.path, item.body);
        this.failures = 0;
        this.settle(item, answer);
      } catch (error) {
        if (error.final) {
          this.failures = 0;
          this.refuse(item, error.message);
        } else {
          this.failures += 1;
          this.onChange();
          await new Promise((wake) => setTimeout(wake, WAITS[Math.min(this.failures, WAITS.length) - 1]));
        }
      }
    }
    this.sending = false;
    this.onChange();
  }

  // An undo that follows was of this very verdict: both are gone then, and no earlier verdict is taken back.
  refuse(item, message) {
    const undo = this.items.find((other) => other.path === "/api/undo" && other.body.finding === item.body.finding && this.items.indexOf(other) > this.items.indexOf(item));
    if (undo && item.path === "/api/verdict") this.items = this.items.filter((other) => other !== item && other !== undo);
    else item.refused = message;
    this.keep();
  }

  // Tries again what was refused: the reason may be gone.
  retry() {
    this.items.forEach((item) => delete item.refused);
    this.keep();
    this.send();
  }

  // Gives up what was refused of an image; whether there was any.
  giveUp(finding) {
    const before = this.items.length;
    this.items = this.items.filter((item) => !(item.refused && item.body.finding === finding));
    if (this.items.length === before) return false;
    this.keep();
    return true;
  }

  settle(item, answer) {
    this.items = this.items.filter((other) => other !== item);
    const then = this.done.get(item.body.key);
    this.done.delete(item.body.key);
    this.keep();
    if (then && answer) then(answer);
  }
}

// crypto.randomUUID is there on https and on one's own machine only.
function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The routes of our own. The token travels in a header that no other site can make a browser send.
class Server {
  post(path, body, options = {}) {
    return this.ask(path, { method: "POST", body: JSON.stringify(body), ...options });
  }

  async ask(path, options = {}) {
    const headers = { "X-Review-Token": this.token, "Content-Type": "application/json" };
    const response = await fetch(path, { ...options, headers, cache: "no-store" }).catch(() => {
      throw new Error("the server does not answer"); // the browser's own words say less, and differ
    });
    if (response.ok) return response.json();
    if (response.status === 401) this.onSignedOut?.();
    const said = await response.json().catch(() => ({ error: `the server answers ${response.status}` }));
    const error = new Error(said.error);
    // 401 mends itself when the page runs again and brings a new token; 5xx when the server is back
    error.final = response.status >= 400 && response.status < 500 && ![401, 408, 429].includes(response.status);
    throw error;
  }
}
