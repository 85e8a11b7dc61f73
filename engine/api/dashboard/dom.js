// Small helpers of the panels.

export const $ = id => document.getElementById(id);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// Writing the same text again would still cost the browser a layout.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A quantity whose last zeros are pale, so that its size is seen at a glance.
export function setQuantity(node, text) {
  if (node.shown === text) return;
  node.shown = text;
  const digits = text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  if (!node.lastElementChild) node.append("", document.createElement("s"));
  node.firstChild.nodeValue = digits;
  node.lastChild.textContent = text.slice(digits.length);
}

// Calls `draw` at most once a frame, however often it is asked for, and not while nobody looks.
export function drawer(draw) {
  let waiting = 0;
  return () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      draw();
    });
  };
}

// The colours of the theme in use, as style.css names them.
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, {get: (_, name) => style.getPropertyValue(`--${name}`).trim()});
}

// A canvas as sharp as the screen. Returns its context, with one unit to a CSS pixel, and its size;
// null while it has none.
export function sharp(canvas) {
  const {clientWidth: width, clientHeight: height} = canvas;
  if (!width || !height) return null;
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height};
}

export function get(path) {
  return fetch(path, {headers: {accept: "application/json"}}).then(answer => {
    if (!answer.ok) {
      throw Object.assign(new Error(`${path}: ${answer.status}`), {status: answer.status});
    }
    return answer.json();
  });
}

// What the page remembers of a user; a browser that forbids it only forgets.
export const memory = {
  get(name) {
    try { return localStorage.getItem(`matchd.${name}`); } catch { return null; }
  },
  set(name, value) {
    try { localStorage.setItem(`matchd.${name}`, value); } catch { /* private window */ }
  },
};
