// The book of one instrument, rebuilt from a snapshot and the deltas that follow it.

import {crc32} from "./crc32.js";

const CRC_LEVELS = 10;

// Price levels, best first. `sign` is 1 when a lower price is better (asks), else -1.
class Side {
  constructor(sign) {
    this.sign = sign;
    this.levels = [];
  }

  set(price, lots, orders) {
    const at = this.#find(price);
    const there = at < this.levels.length && this.levels[at].price === price;
    if (lots === 0) {
      if (there) this.levels.splice(at, 1);
    } else if (there) {
      this.levels[at] = {price, lots, orders};
    } else {
      this.levels.splice(at, 0, {price, lots, orders});
    }
  }

  #find(price) {
    let low = 0, high = this.levels.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.levels[middle].price - price) * this.sign < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export class Book {
  constructor(format) {
    this.format = format;
    this.clear();
  }

  clear() {
    this.bids = new Side(-1);
    this.asks = new Side(1);
    this.seq = 0;
  }

  // Returns whether the book is now what the venue says it is.
  apply(message) {
    if (message.type === "snapshot") this.clear();
    for (const [side, rows] of [[this.bids, message.bids], [this.asks, message.asks]]) {
      for (const [price, quantity, orders] of rows) {
        side.set(this.format.priceUnits(price), this.format.lots(quantity), orders);
      }
    }
    this.seq = message.seq;
    return message.crc === undefined || message.crc === this.crc();
  }

  crc() {
    const best = [this.asks, this.bids].flatMap(({levels}) => levels.slice(0, CRC_LEVELS));
    return crc32(best.map(level => `${level.price}:${level.lots}`).join(","));
  }

  get bestBid() { return this.bids.levels[0] || null; }
  get bestAsk() { return this.asks.levels[0] || null; }
}

// Levels joined into steps of `step` units: bids fall to the step below, asks rise to the one
// above.
export function grouped(levels, step, sign, count) {
  const rows = [];
  let total = 0;
  for (const level of levels) {
    const price = (sign > 0 ? Math.ceil : Math.floor)(level.price / step) * step;
    let row = rows[rows.length - 1];
    if (!row || row.price !== price) {
      if (rows.length === count) break;
      rows.push(row = {price, lots: 0, orders: 0, total: 0});
    }
    total += level.lots;
    row.lots += level.lots;
    row.orders += level.orders;
    row.total = total;
  }
  return rows;
}
