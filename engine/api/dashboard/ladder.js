// The price ladder: asks above, bids below, bars as long as what can be had up to that price.

import {$, drawer, element, setQuantity, setText} from "./dom.js";
import {grouped} from "./book.js";

const STEPS = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 10000];

class Row {
  constructor(side) {
    this.node = element("div", `level ${side}`);
    this.bar = element("i");
    this.cells = ["price", "size", "total", "orders"].map(name => element("span", name));
    this.node.append(this.bar, ...this.cells);
  }

  show(row, format, most) {
    this.node.classList.toggle("none", !row);
    if (!row) {
      [setText, setQuantity, setQuantity, setText].forEach((set, at) => set(this.cells[at], ""));
      this.bar.style.transform = "scaleX(0)";
      return;
    }
    const [price, size, total, orders] = this.cells;
    setText(price, format.price(row.price));
    setQuantity(size, format.quantity(row.lots));
    setQuantity(total, format.quantity(row.total));
    setText(orders, String(row.orders));
    this.bar.style.transform = `scaleX(${(row.total / most).toFixed(4)})`;
  }
}

export class Ladder {
  constructor() {
    this.node = $("ladder");
    this.select = $("group");
    this.asks = element("div", "side asks");
    this.middle = element("div", "middle");
    this.mid = element("b");
    this.spread = element("span");
    this.middle.append(this.mid, this.spread);
    this.bids = element("div", "side bids");
    this.node.append(this.asks, this.middle, this.bids);
    this.rows = {bids: [], asks: []};
    this.step = 1;
    this.draw = drawer(() => this.#show());
    this.select.addEventListener("change", () => this.#setStep(Number(this.select.value)));
    new ResizeObserver(() => this.#resize()).observe(this.node);
  }

  use(book) {
    this.book = book;
    const {format} = book;
    this.select.replaceChildren(...STEPS.map(times => {
      const option = element("option", "", format.price(times * format.tick));
      option.value = times * format.tick;
      return option;
    }));
    this.#setStep(format.tick);
  }

  wider(by) {
    const at = this.select.selectedIndex + by;
    if (at >= 0 && at < this.select.length) this.#setStep(Number(this.select.options[at].value));
  }

  #setStep(step) {
    this.step = step;
    this.select.value = step;
    this.draw();
  }

  #resize() {
    const height = parseFloat(getComputedStyle(this.node).getPropertyValue("--level")) || 20;
    const room = this.node.clientHeight - this.middle.offsetHeight - 8;
    const count = Math.max(3, Math.floor(room / 2 / height));
    for (const [name, side] of [["bid", "bids"], ["ask", "asks"]]) {
      this.rows[side] = Array.from({length: count}, () => new Row(name));
      const nodes = this.rows[side].map(row => row.node);
      this[side].replaceChildren(...(side === "asks" ? nodes.reverse() : nodes));
    }
    this.draw();
  }

  #show() {
    if (!this.book) return;
    const {book, rows, step} = this;
    const count = rows.bids.length;
    const bids = grouped(book.bids.levels, step, -1, count);
    const asks = grouped(book.asks.levels, step, 1, count);
    const most = Math.max(bids[bids.length - 1]?.total || 0, asks[asks.length - 1]?.total || 0, 1);
    rows.bids.forEach((row, at) => row.show(bids[at], book.format, most));
    rows.asks.forEach((row, at) => row.show(asks[at], book.format, most));
    this.#showMiddle();
    // For whoever reads the page by program: the best prices shown, and the event they are of.
    Object.assign(this.node.dataset, {
      seq: book.seq, bid: priceOf(book, book.bestBid), ask: priceOf(book, book.bestAsk)});
  }

  #showMiddle() {
    const {bestBid: bid, bestAsk: ask, format} = this.book;
    if (!bid || !ask) {
      const only = bid || ask;
      const known = only ? format.price(only.price) : "No orders";
      setText(this.mid, this.book.seq ? known : "…");
      setText(this.spread, bid ? "no asks" : ask ? "no bids" : "");
      return;
    }
    const gap = ask.price - bid.price;
    const basis_points = gap / (ask.price + bid.price) * 2e4;
    setText(this.mid, format.price(Math.round((ask.price + bid.price) / 2)));
    setText(this.spread, `spread ${format.price(gap)} · ${basis_points.toFixed(1)} bp`);
  }
}

function priceOf({format}, level) {
  return level ? format.price(level.price) : "";
}
