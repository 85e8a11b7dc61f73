// Decimal texts and integers of the wire. A price of "60010.00" with 2 decimals is 6001000 units.

export function toUnits(text, decimals) {
  const [whole, fraction = ""] = text.split(".");
  return Number(whole + fraction.padEnd(decimals, "0"));
}

// `shown` cuts decimals that an instrument's tick never uses.
export function fromUnits(units, decimals, shown = decimals) {
  const digits = String(Math.abs(units)).padStart(decimals + 1, "0");
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = digits.slice(digits.length - decimals, digits.length - decimals + shown);
  return (units < 0 ? "−" : "") + (fraction ? `${whole}.${fraction}` : whole);
}

export function decimalsOf(text) {
  return (text.split(".")[1] || "").replace(/0+$/, "").length;
}

// 1234567 becomes 1.23M: for figures, not for prices.
export function short(value) {
  const size = Math.abs(value);
  for (const [limit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit) return (value / limit).toPrecision(3) + letter;
  }
  return size >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(3);
}

export function duration(ns) {
  if (ns < 1e3) return `${ns.toFixed(0)} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toPrecision(3)} µs`;
  if (ns < 1e9) return `${(ns / 1e6).toPrecision(3)} ms`;
  return `${(ns / 1e9).toPrecision(3)} s`;
}

export function clock(ms, fraction = 0) {
  const end = fraction ? 20 + fraction : 19;
  return new Date(ms).toISOString().slice(11, end);
}

// What an instrument's numbers look like, from its row in /v1/venue.
export class Format {
  constructor(instrument) {
    this.price_decimals = instrument.price_decimals;
    this.quantity_decimals = instrument.quantity_decimals;
    this.tick = toUnits(instrument.tick, this.price_decimals);
    this.lot = toUnits(instrument.lot, this.quantity_decimals);
    this.price_shown = decimalsOf(instrument.tick);
    this.quantity_shown = decimalsOf(instrument.lot);
  }

  priceUnits(text) { return toUnits(text, this.price_decimals); }
  price(units) { return fromUnits(units, this.price_decimals, this.price_shown); }
  priceText(text) { return this.price(this.priceUnits(text)); }
  lots(text) { return Math.round(toUnits(text, this.quantity_decimals) / this.lot); }
  quantity(lots) {
    return fromUnits(lots * this.lot, this.quantity_decimals, this.quantity_shown);
  }
  quantityText(text) { return this.quantity(this.lots(text)); }
  quantityValue(lots) { return lots * this.lot / 10 ** this.quantity_decimals; }
}
