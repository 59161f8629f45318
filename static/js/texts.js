// The page's words for scripts: one JSON block in the page, so that they are translated with it.

const texts = JSON.parse(document.getElementById("texts").textContent);

// The text of a key, its {names} replaced by values.
export function say(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
