// The depth chart: how much can be had up to each price, bids to the left, asks to the right.

import {$, colours, drawer, setText, sharp} from "./dom.js";
import {short} from "./decimal.js";

const AXIS = 18;
const COVERED = 0.9;   // the chart is as wide as that share of the resting quantity lies

export class Depth {
  constructor() {
    this.node = $("depth");
    this.canvas = this.node.querySelector("canvas");
    this.legend = $("depth-legend");
    this.pointer = null;
    this.draw = drawer(() => this.#show());
    new ResizeObserver(this.draw).observe(this.node);
    this.canvas.addEventListener("pointermove", event => {
      this.pointer = event.offsetX;
      this.draw();
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.draw();
    });
  }

  use(book) {
    this.book = book;
    this.draw();
  }

  #show() {
    const {book} = this;
    const {bestBid: bid, bestAsk: ask} = book || {};
    this.node.classList.toggle("none", book?.seq > 0 && !bid && !ask);
    const area = sharp(this.canvas);
    if (!area || (!bid && !ask)) return setText(this.legend, "");
    const middle = bid && ask ? (bid.price + ask.price) / 2 : (bid || ask).price;
    const reach = Math.max(10 * book.format.tick, distance(book.bids.levels, middle),
                           distance(book.asks.levels, middle));
    const bids = steps(book.bids.levels, middle - reach);
    const asks = steps(book.asks.levels, middle + reach);
    const most = Math.max(total(bids), total(asks), 1) * 1.08;
    const plot = {...area, bottom: area.height - AXIS, colour: colours(),
                  x: price => (price - middle + reach) / (2 * reach) * area.width,
                  y: lots => (area.height - AXIS) * (1 - lots / most)};
    this.#axis(plot, middle, reach, most);
    fill(plot, bids, bid, 0, plot.colour.bid);
    fill(plot, asks, ask, area.width, plot.colour.ask);
    this.#legend(plot, bids, asks, middle, reach);
  }

  #axis({context, width, bottom, colour, x, y}, middle, reach, most) {
    const {format} = this.book;
    context.font = `11px ${getComputedStyle(this.node).fontFamily}`;
    context.fillStyle = colour.muted;
    context.strokeStyle = colour.line;
    context.lineWidth = 1;
    const step = Math.max(format.tick, round(2 * reach / Math.max(2, width / 95)));
    context.textAlign = "center";
    const first = Math.ceil((middle - reach) / step) * step;
    for (let price = first; price < middle + reach; price += step) {
      const place = Math.round(x(price)) + 0.5;
      line(context, place, 0, place, bottom);
      if (place < 30 || place > width - 30) continue;   // its text would be cut
      context.fillText(format.price(price), place, bottom + 13);
    }
    const lots = round(most / Math.max(2, bottom / 45));
    context.textAlign = "left";
    for (let at = lots; at < most * 0.97; at += lots) {
      const place = Math.round(y(at)) + 0.5;
      line(context, 0, place, width, place);
      context.fillText(short(format.quantityValue(at)), 6, place - 4);
    }
  }

  #legend(plot, bids, asks, middle, reach) {
    const {format} = this.book;
    if (this.pointer === null) {
      setText(this.legend, `bids ${short(format.quantityValue(total(bids)))} · asks ${
        short(format.quantityValue(total(asks)))} within ${(reach / middle * 100).toFixed(2)} %`);
      return;
    }
    const {context, width, bottom, colour} = plot;
    const price = middle + (this.pointer / width * 2 - 1) * reach;
    const lots = price < middle ? upTo(bids, level => level >= price)
      : upTo(asks, level => level <= price);
    context.strokeStyle = colour.muted;
    context.setLineDash([3, 3]);
    line(context, this.pointer, 0, this.pointer, bottom);
    context.setLineDash([]);
    setText(this.legend, `${format.price(Math.round(price / format.tick) * format.tick)} · ${
      short(format.quantityValue(lots))} · ${((price / middle - 1) * 100).toFixed(2)} %`);
  }
}

// The next of 1, 2, 5, 10, 20, ... that is not below `value`.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].find(times => times * power >= value) * power;
}

function distance(levels, middle) {
  const all = levels.reduce((sum, level) => sum + level.lots, 0);
  let lots = 0;
  for (const level of levels) {
    lots += level.lots;
    if (lots >= all * COVERED) return Math.abs(level.price - middle) * 1.05;
  }
  return 0;
}

function steps(levels, limit) {
  const found = [];
  let lots = 0;
  for (const {price, lots: more} of levels) {
    if (found.length && (levels[0].price < limit ? price > limit : price < limit)) break;
    found.push({price, lots: lots += more});
  }
  return found;
}

function total(points) {
  return points.length ? points[points.length - 1].lots : 0;
}

function upTo(points, within) {
  let lots = 0;
  for (const point of points) {
    if (!within(point.price)) break;
    lots = point.lots;
  }
  return lots;
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

function fill({context, x, y, bottom}, points, best, edge, colour) {
  if (!best) return;
  context.beginPath();
  context.moveTo(x(best.price), bottom);
  let lots = 0;
  for (const point of points) {
    context.lineTo(x(point.price), y(lots));
    context.lineTo(x(point.price), y(lots = point.lots));
  }
  context.lineTo(edge, y(lots));
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.stroke();
  context.lineTo(edge, bottom);
  context.closePath();
  const shade = context.createLinearGradient(0, y(lots), 0, bottom);
  shade.addColorStop(0, `${colour}55`);
  shade.addColorStop(1, `${colour}14`);
  context.fillStyle = shade;
  context.fill();
}
