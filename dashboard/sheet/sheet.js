// A sheet of findings: small pictures with their score against the threshold. A click opens one; every card is a link too,
// so that it opens in a new tab and can be copied.

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text nodes
  return made;
}

function card(row, open) {
  const image = node("img", { src: row.thumb, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(node("span", { class: "none" }, "no picture")));
  const picture = node("div", { class: "picture" }, image);
  if (row.verdict) picture.append(node("span", { class: "chip", "data-verdict": row.verdict }, row.verdict));
  if (row.busy) picture.append(node("span", { class: "busy" }, row.busy));
  const bar = node("div", { class: "bar", "data-result": row.result ?? "ranked" });
  if (row.at != null) bar.append(Object.assign(node("i"), { style: `width:${100 * row.at}%` }));
  if (row.thresholdAt != null) bar.append(Object.assign(node("b"), { style: `left:${100 * row.thresholdAt}%` }));
  const text = node("div", { class: "text" }, node("div", { class: "name", title: row.name }, node("bdi", {}, row.name)),
    node("div", { class: "said" }, node("b", {}, row.score), node("span", { title: row.note }, row.note)));
  const link = node("a", { class: "card", href: row.href, "aria-label": `${row.name}, score ${row.score}, ${row.note}${row.verdict ? `, ${row.verdict}` : ""}` }, picture, bar, text);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    open(row.id);
  });
  return node("li", {}, link);
}

export default function ({ data, parentElement, setTriggerValue }) {
  const sheet = parentElement.querySelector(".sheet");
  const said = JSON.stringify(data.rows);
  if (sheet.said === said) return; // nothing new: keep the pictures that are there, and the focus
  sheet.said = said;
  sheet.replaceChildren(...data.rows.map((row) => card(row, (id) => setTriggerValue("open", id))));
}
