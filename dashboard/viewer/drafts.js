// What the inspector has typed, chosen or drawn on an image and not yet given with a verdict: the comment, the type of the
// defect, the regions. It is kept in the browser's storage with every stroke, so that no step to another image, no undo and no
// reload loses it.

const MOST_DRAFTS = 200;

class Drafts {
  constructor() {
    this.held = new Map();
  }

  open(user) {
    if (this.user === user) return;
    this.user = user;
    this.name = `review.drafts.${user}`;
    try {
      this.held = new Map(JSON.parse(localStorage.getItem(this.name) ?? "[]"));
    } catch {
      this.held = new Map();
    }
  }

  get(id) {
    return this.held.get(id);
  }

  // Keeps a draft; one that says what the verdict says already is none.
  set(id, draft, mine) {
    this.held.delete(id);
    const same = (draft.type ?? null) === (mine?.type ?? null) && draft.comment.trim() === (mine?.comment ?? "") && JSON.stringify(draft.regions ?? []) === JSON.stringify(mine?.regions ?? []);
    if (!same) this.held.set(id, draft);
    while (this.held.size > MOST_DRAFTS) this.held.delete(this.held.keys().next().value);
    this.keep();
  }

  drop(id) {
    if (this.held.delete(id)) this.keep();
  }

  keep() {
    try {
      if (this.held.size) localStorage.setItem(this.name, JSON.stringify([...this.held]));
      else localStorage.removeItem(this.name);
    } catch {
      // storage is full or forbidden: drafts live as long as the page
    }
  }
}
