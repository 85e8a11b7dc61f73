// The trades, newest first.

import {$, drawer, element, get, setQuantity, setText} from "./dom.js";
import {clock} from "./decimal.js";

const KEPT = 200;

export class Tape {
  constructor() {
    this.node = $("tape");
    this.rows = [];
    this.draw = drawer(() => this.#show());
  }

  use(format) {
    this.format = format;
    this.trades = [];
    this.seen = new Set();
    this.draw();
  }

  // Trades in the order of the log; one that is there already (a resume, the history) is left out.
  add(trades) {
    for (const trade of trades) {
      if (this.seen.has(trade.match)) continue;
      this.seen.add(trade.match);
      this.trades.push(trade);
    }
    while (this.trades.length > KEPT) this.seen.delete(this.trades.shift().match);
    this.draw();
  }

  // The trades before those of the feed; a subscription's first message has none.
  async loadHistory(symbol) {
    const {format} = this;
    const answer = await get(`v1/trades/${encodeURIComponent(symbol)}?limit=${KEPT}`)
      .catch(() => ({trades: []}));
    if (format !== this.format) return;   // another instrument was chosen meanwhile
    this.trades.unshift(...answer.trades.filter(({match}) => !this.seen.has(match)));
    this.trades.sort((one, other) => one.seq - other.seq || one.match - other.match);
    this.trades.forEach(({match}) => this.seen.add(match));
    this.add([]);
  }

  #show() {
    while (this.rows.length < this.trades.length) {
      const row = element("li");
      row.cells = ["price", "size", "time"].map(name => element("span", name));
      row.append(...row.cells);
      this.rows.push(row);
      this.node.append(row);
    }
    while (this.rows.length > this.trades.length) this.rows.pop().remove();
    const newest = this.trades.length - 1;
    this.rows.forEach((row, at) => {
      const trade = this.trades[newest - at];
      row.className = sideOf(trade);
      const [price, size, time] = row.cells;
      setText(price, this.format.priceText(trade.price));
      setQuantity(size, this.format.quantityText(trade.quantity));
      setText(time, clock(trade.time / 1e6));
    });
    this.node.classList.toggle("none", !this.trades.length);
  }
}

export function sideOf(trade) {
  return trade.side === "buy" || trade.side === "B" ? "bid" : "ask";
}
