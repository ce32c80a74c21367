// Whether the image in question has been looked at: a verdict counts only after the file that was scored was painted
// here, and no sooner than a moment later, so that the second half of a double click is not a verdict on the next image.

const GUARD = 200; // milliseconds

// What is said where a file is not the one that was scored, by what the server says of it.
const NOT_AS_SCORED = {
  changed: "This file has changed since it was scored: the score is of other pixels. It cannot be judged: score it again.",
  missing: "The file is no longer where it was when it was scored. It cannot be judged.",
  moved: "The file is no longer where it was when it was scored. It cannot be judged.",
  unverified: "This file could not be read when it was scored: nothing says that it is the same one. It cannot be judged: score it again.",
};

class Looking {
  constructor(onChange) {
    this.onChange = onChange;
    this.at(null);
  }

  // Another image is to be shown.
  at(id) {
    Object.assign(this, { id, since: performance.now(), digest: null, ready: false });
    clearTimeout(this.timer);
    this.onChange();
  }

  // The image's own pixels were drawn: two frames on they are on the screen.
  drawn(id, digest) {
    if (this.id !== id || this.digest || this.waiting === id || !digest) return;
    this.waiting = id;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      this.waiting = null;
      if (this.id !== id || document.visibilityState !== "visible") return;
      this.digest = digest;
      this.timer = setTimeout(() => {
        this.ready = true;
        this.onChange();
      }, GUARD);
    }));
  }

  // Whether a press now may count; a skip needs no picture, but is no second half of a double press either.
  allows(verdict) {
    return verdict === "skip" ? performance.now() - this.since >= GUARD : this.ready;
  }
}

// Why an image cannot be judged, from what came of its picture; empty where it can, or is still on its way.
function whyNot(pictures) {
  const error = pictures?.errors.original;
  if (NOT_AS_SCORED[pictures?.state]) return NOT_AS_SCORED[pictures.state];
  if (!error) return "";
  if (pictures.offline) return "The image has not arrived: the server does not answer. A verdict counts once it is shown; trying again.";
  return `The image cannot be shown (${error}). It cannot be judged.`;
}

// Whether a pane lies where it can be seen.
function isInView(element) {
  const box = element.getBoundingClientRect();
  return box.width > 0 && box.height > 0 && box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
}
