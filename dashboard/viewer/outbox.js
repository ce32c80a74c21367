// What the inspector has said and the server has not yet acknowledged. It is kept in the browser's storage, so that
// neither a reload nor a server that is killed loses it, and sent in order; each item carries a key of its own, under
// which the server counts it once however often it arrives.

const WAITS = [200, 500, 1000, 2000, 5000]; // milliseconds before the next try

class Outbox {
  constructor(server, onChange) {
    this.server = server;
    this.onChange = onChange;
    this.items = [];
    this.failures = 0;
    this.refused = null;
    this.sending = false;
  }

  // Each person has outboxes of their own: what one left unsent is not said in another's name. What earlier pages
  // left is taken over; that a page which is still open sends the same does no harm.
  open(user) {
    if (this.user === user) return;
    this.user = user;
    this.name = `review.outbox.${user}.${crypto.randomUUID()}`;
    try {
      const left = Object.keys(localStorage).filter((name) => name.startsWith(`review.outbox.${user}.`));
      this.items = left.flatMap((name) => JSON.parse(localStorage.getItem(name)));
      this.keep();
      left.forEach((name) => localStorage.removeItem(name));
    } catch {
      this.items = [];
    }
    this.send();
  }

  put(path, body, onDone) {
    const item = { path, body: { ...body, key: crypto.randomUUID() } };
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
    while (this.items.length && !this.closed) {
      const item = this.items[0];
      try {
        const answer = await this.server.post(item.path, item.body);
        this.failures = 0;
        this.settle(item, answer);
      } catch (error) {
        if (error.final) {
          this.refused = error.message;
          this.settle(item, null);
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

  settle(item, answer) {
    this.items = this.items.filter((other) => other !== item);
    const then = this.done.get(item.body.key);
    this.done.delete(item.body.key);
    this.keep();
    if (then && answer) then(answer);
  }
}

// The routes of our own. The token travels in a header that no other site can make a browser send.
class Server {
  post(path, body, options = {}) {
    return this.ask(path, { method: "POST", body: JSON.stringify(body), ...options });
  }

  async ask(path, options = {}) {
    const headers = { "X-Review-Token": this.token, "Content-Type": "application/json" };
    const response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.ok) return response.json();
    if (response.status === 401) this.onSignedOut?.();
    const said = await response.json().catch(() => ({ error: `the server answers ${response.status}` }));
    const error = new Error(said.error);
    // 401 mends itself when the page runs again and brings a new token; 5xx when the server is back
    error.final = response.status >= 400 && response.status < 500 && ![401, 408, 429].includes(response.status);
    throw error;
  }
}
