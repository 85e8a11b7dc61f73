// The keyboard: everything that is often done has a key.

import {$} from "./dom.js";
import {nextTheme} from "./theme.js";

export function listenToKeys({markets, candles, ladder}) {
  const keys = {
    ArrowUp: () => markets.move(-1), k: () => markets.move(-1),
    ArrowDown: () => markets.move(1), j: () => markets.move(1),
    "/": () => $("filter").focus(),
    "+": () => ladder.wider(1), "=": () => ladder.wider(1), "-": () => ladder.wider(-1),
    t: nextTheme,
    "?": () => $("help").showModal(),
  };
  for (let number = 1; number <= 5; number++) keys[number] = () => candles.choose(number - 1);

  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const {target} = event;
    if (target === $("filter")) {
      if (event.key === "Escape") clearFilter();
      if (!event.key.startsWith("Arrow")) return;
    } else if (target.matches("input, select")) return;
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  $("help-open").addEventListener("click", keys["?"]);
}

function clearFilter() {
  $("filter").value = "";
  $("filter").dispatchEvent(new Event("input"));
  $("filter").blur();
}
