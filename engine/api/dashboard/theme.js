// Colours: as the system has them, or light, or dark.

import {$, memory} from "./dom.js";

const NAMES = {auto: "Auto", light: "Light", dark: "Dark"};
const system = matchMedia("(prefers-color-scheme: light)");
const listeners = [];

let chosen = NAMES[memory.get("theme")] ? memory.get("theme") : "auto";

function show() {
  const light = chosen === "light" || (chosen === "auto" && system.matches);
  document.documentElement.dataset.theme = light ? "light" : "dark";
  $("theme").textContent = NAMES[chosen];
  $("theme").setAttribute("aria-label", `Colours: ${NAMES[chosen]}`);
  listeners.forEach(listener => listener());
}

export function onTheme(listener) {
  listeners.push(listener);
}

export function nextTheme() {
  const names = Object.keys(NAMES);
  chosen = names[(names.indexOf(chosen) + 1) % names.length];
  memory.set("theme", chosen);
  show();
}

system.addEventListener("change", show);
$("theme").addEventListener("click", nextTheme);
show();
