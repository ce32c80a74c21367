// What the hand does on a pane: wheel and two fingers zoom, one drags, and where regions are drawn it draws. The host has
// `picture` (width and height), `view`, `regions`, `mayDraw(pane)`, `draw()`, `moved()` once the view was changed, and
// `readPixel(pane, event)`.

const REACH = { mouse: 8, pen: 12, touch: 22 }; // screen pixels round a place that still mean it
const DRAGGED = 4; // screen pixels from which a press is a drag

function listenToPane(pane, host, signal) {
  const { element: figure } = pane;
  const fingers = new Map(); // pointer -> where it is
  let moved = 0; // screen pixels, since the first finger or button went down
  const zoom = (factor, x, y) => {
    const box = figure.getBoundingClientRect();
    host.view.zoomBy(factor, pane, host.picture, x - box.left, y - box.top);
    host.draw();
  };
  const listen = (names, act, options = {}) => names.split(" ").forEach((name) => figure.addEventListener(name, act, { signal, ...options }));
  listen("wheel", (event) => {
    if (!host.picture) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    host.moved();
  }, { passive: false });
  listen("pointerdown", (event) => {
    if (event.target.tagName !== "CANVAS") return;
    figure.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size > 1) return host.regions.cancel();
    moved = 0;
    if (host.mayDraw(pane) && event.button === 0 && host.regions.down(...spotOf(pane, host, event))) host.draw();
  });
  listen("pointermove", (event) => {
    if (fingers.size === 2 && fingers.has(event.pointerId)) {
      moved = Infinity; // what ends a pinch is no press
      const before = span(fingers);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      const now = span(fingers);
      if (host.picture && before.apart) zoom(now.apart / before.apart, now.x, now.y);
      return;
    }
    host.readPixel(pane, event);
    if (!figure.hasPointerCapture(event.pointerId) || !host.picture) return;
    moved += Math.abs(event.movementX) + Math.abs(event.movementY);
    if (host.regions.busy) host.regions.move(...spotOf(pane, host, event));
    else if (moved !== Infinity) host.view.panBy(event.movementX, event.movementY, pane, host.picture);
    host.draw();
  });
  listen("pointerup pointercancel", (event) => {
    const ended = fingers.delete(event.pointerId) && !fingers.size && event.type === "pointerup";
    if (host.regions.busy) return ended ? host.regions.up(spotOf(pane, host, event)[1]) : host.regions.cancel();
    if (ended && moved < DRAGGED && event.button === 0 && host.mayDraw(pane)) host.regions.pick(...spotOf(pane, host, event));
    if (moved >= DRAGGED) host.moved();
  });
  listen("dblclick", () => {
    if (host.regions.drawing) return host.regions.finish();
    if (!host.regions.tool) host.view.zoom > 1 ? host.fit() : host.realSize(pane);
  });
}

// A place of a pane in the picture's pixels, and how many of them round it still mean it.
function spotOf(pane, host, event) {
  const box = pane.element.getBoundingClientRect();
  const { scale, left, top } = host.view.place(pane, host.picture);
  return [[(event.clientX - box.left - left) / scale, (event.clientY - box.top - top) / scale], (REACH[event.pointerType] ?? REACH.mouse) / scale];
}

// How far two fingers are apart, and what lies between them.
function span(fingers) {
  const [[x, y], [otherX, otherY]] = fingers.values();
  return { apart: Math.hypot(x - otherX, y - otherY), x: (x + otherX) / 2, y: (y + otherY) / 2 };
}
