// The list of instruments, with last price and change, and the strip about the one chosen.

import {$, drawer, element, setText} from "./dom.js";
import {short} from "./decimal.js";

export class Markets {
  constructor(choose) {
    this.node = $("markets");
    this.filter = $("filter");
    this.choose = choose;
    this.rows = new Map();
    this.changed = new Set();
    this.chosen = null;
    this.draw = drawer(() => this.#show());
    this.filter.addEventListener("input", () => this.#filter());
    this.filter.addEventListener("keydown", event => {
      if (event.key === "Enter") this.#shown()[0]?.button.click();
    });
  }

  // Instruments as /v1/venue lists them; those that are there already stay as they are.
  use(instruments, formats) {
    for (const {symbol} of instruments) {
      if (!this.rows.has(symbol)) this.rows.set(symbol, this.#row(symbol));
      this.rows.get(symbol).format = formats.get(symbol);
      this.#change(this.rows.get(symbol));
    }
  }

  setChosen(symbol) {
    this.chosen = symbol;
    for (const [name, {button}] of this.rows) {
      button.setAttribute("aria-current", String(name === symbol));
    }
    this.rows.get(symbol).node.scrollIntoView({block: "nearest"});
    this.#change(this.rows.get(symbol));
  }

  move(by) {
    const shown = this.#shown();
    const at = shown.findIndex(row => row.symbol === this.chosen) + by;
    if (shown[at]) {
      this.choose(shown[at].symbol);
      if (this.node.contains(document.activeElement)) shown[at].button.focus();
    }
  }

  take(message) {
    const row = this.rows.get(message.symbol);
    if (!row) return;
    if (message.channel === "ticker") row.ticker = message;
    else if (message.channel === "bbo") row.bbo = message;
    else if (message.channel === "status") row.status = message;
    this.#change(row);
  }

  // Trades come before the ticker tells of them.
  traded(symbol, trades) {
    const row = this.rows.get(symbol);
    const {price} = trades[trades.length - 1];
    const before = row.traded?.price ?? price;
    const up = price === before ? row.traded?.up : Number(price) > Number(before);
    row.traded = {price, up};
    this.#change(row);
  }

  #row(symbol) {
    const node = element("li");
    const button = element("button", "market");
    const cells = ["name", "price", "change"].map(name => element("span", name));
    cells[0].textContent = symbol;
    button.type = "button";
    button.append(...cells);
    button.addEventListener("click", () => this.choose(symbol));
    node.append(button);
    this.node.append(node);
    return {symbol, node, button, cells};
  }

  #shown() {
    return [...this.rows.values()].filter(row => !row.node.hidden);
  }

  #filter() {
    const wanted = this.filter.value.trim().toUpperCase();
    for (const [symbol, {node}] of this.rows) node.hidden = !symbol.toUpperCase().includes(wanted);
  }

  #change(row) {
    this.changed.add(row);
    this.draw();
  }

  #show() {
    for (const row of this.changed) {
      setText(row.cells[1], lastOf(row));
      const change = changeOf(row);
      setText(row.cells[2], change === null ? "–" : percent(change));
      row.cells[2].dataset.direction = direction(change);
      row.button.classList.toggle("halted", row.status?.state === "halted");
    }
    this.changed.clear();
    if (this.chosen) this.#strip(this.rows.get(this.chosen));
  }

  #strip(row) {
    const {ticker, bbo, format, status} = row;
    const change = changeOf(row);
    setText($("symbol"), row.symbol);
    setText($("last"), lastOf(row));
    $("last").dataset.direction = row.traded?.up === undefined ? direction(change)
      : row.traded.up ? "up" : "down";
    setText($("change"), change === null ? "–" : percent(change));
    $("change").dataset.direction = direction(change);
    setText($("high"), ticker?.high ? format.priceText(ticker.high) : "–");
    setText($("low"), ticker?.low ? format.priceText(ticker.low) : "–");
    setText($("volume"), ticker?.volume ? short(Number(ticker.volume)) : "–");
    for (const side of ["bid", "ask"]) {
      const best = bbo?.[side];
      setText($(side), best ? format.priceText(best[0]) : "–");
      $(side).title = best ? `${format.quantityText(best[1])} at ${best[0]}` : "";
    }
    const halted = status && status.state !== "trading";
    $("halted").hidden = !halted;
    setText($("halted"), halted ? [status.state, status.reason].filter(Boolean).join(": ") : "");
    document.title = `${lastOf(row)} ${row.symbol} · matchd`;
  }
}

function lastOf({traded, ticker, format}) {
  const price = traded?.price || ticker?.last;
  return price ? format.priceText(price) : "–";
}

function changeOf({ticker, traded}) {
  const last = traded?.price || ticker?.last;
  return ticker?.open && last ? (Number(last) / Number(ticker.open) - 1) * 100 : null;
}

function direction(change) {
  return change === null || Math.abs(change) < 0.005 ? "" : change > 0 ? "up" : "down";
}

function percent(value) {
  const text = Math.abs(value).toFixed(2);
  return `${text === "0.00" ? "" : value > 0 ? "+" : "−"}${text} %`;
}
