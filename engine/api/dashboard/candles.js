// The candle chart: history over HTTP, the current candle over the feed.

import {$, colours, element, get, memory, setText} from "./dom.js";
import {short} from "./decimal.js";
import {onTheme} from "./theme.js";

const INTERVALS = ["1s", "1m", "5m", "1h", "1d"];
const HISTORY = 500;

export class Candles {
  constructor(feed) {
    this.feed = feed;
    this.interval = INTERVALS.includes(memory.get("interval")) ? memory.get("interval") : "1m";
    this.buttons = INTERVALS.map((name, at) => this.#button(name, at));
    $("intervals").append(...this.buttons);
    this.legend = $("legend");
    this.turn = 0;
    this.ready = this.#make().catch(error => {
      setText($("chart-empty"), "The build did not bring the chart library");
      console.warn(error.message);
    });
    onTheme(() => this.#colour());
  }

  use(symbol, format) {
    this.symbol = symbol;
    this.format = format;
    this.#start();
  }

  choose(at) {
    if (INTERVALS[at]) this.#setInterval(INTERVALS[at]);
  }

  #button(name, at) {
    const button = element("button", "", name);
    button.type = "button";
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", String(name === this.interval));
    button.title = `Candles of ${name} (${at + 1})`;
    button.addEventListener("click", () => this.#setInterval(name));
    return button;
  }

  #setInterval(name) {
    this.interval = name;
    memory.set("interval", name);
    this.buttons.forEach(button => {
      button.setAttribute("aria-checked", String(button.textContent === name));
    });
    this.#start();
  }

  async #make() {
    this.library = await import("../vendor/lightweight-charts/lightweight-charts.js");
    const {createChart, CandlestickSeries, HistogramSeries, CrosshairMode} = this.library;
    this.chart = createChart($("chart"), {
      autoSize: true, crosshair: {mode: CrosshairMode.Normal},
      layout: {attributionLogo: false, fontSize: 11,
               fontFamily: getComputedStyle(document.body).fontFamily},
      rightPriceScale: {borderVisible: false, scaleMargins: {top: 0.12, bottom: 0.24}},
      timeScale: {borderVisible: false, timeVisible: true, rightOffset: 4, barSpacing: 7},
    });
    this.prices = this.chart.addSeries(CandlestickSeries, {borderVisible: false});
    this.volumes = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "volume", priceFormat: {type: "volume"}, lastValueVisible: false,
      priceLineVisible: false});
    this.chart.priceScale("volume").applyOptions({scaleMargins: {top: 0.82, bottom: 0}});
    this.chart.subscribeCrosshairMove(({time}) => this.#describe(this.rows?.get(time)));
    this.#colour();
  }

  #colour() {
    if (!this.chart) return;
    const colour = this.colour = colours();
    this.chart.applyOptions({
      layout: {background: {color: colour.panel}, textColor: colour.muted},
      grid: {vertLines: {color: colour.grid}, horzLines: {color: colour.grid}},
      crosshair: {vertLine: {color: colour.muted, labelBackgroundColor: colour.faint},
                  horzLine: {color: colour.muted, labelBackgroundColor: colour.faint}},
    });
    this.prices.applyOptions({upColor: colour.bid, downColor: colour.ask,
                              wickUpColor: colour.bid, wickDownColor: colour.ask});
    if (this.rows) this.#setAll();
  }

  async #start() {
    const turn = ++this.turn;
    const {symbol, interval, format} = this;
    this.subscription?.close();
    this.rows = new Map();
    await this.ready;
    if (!this.chart || turn !== this.turn) return;
    this.prices.applyOptions({priceFormat: {
      type: "price", precision: format.price_shown, minMove: 10 ** -format.price_shown}});
    this.chart.timeScale().applyOptions({secondsVisible: interval === "1s"});
    this.#setAll();
    this.subscription = this.feed.subscribe({channel: "candles", symbol, interval}, {
      message: message => {
        // What was before, at the start and after a break, is in the history only.
        if (message.type === "snapshot") this.#history(this.turn);
        if (message.open_time) this.#update(row(message));
      }});
  }

  async #history(turn) {
    const {symbol, interval} = this;
    const query = new URLSearchParams({symbol, interval, limit: HISTORY});
    const answer = await get(`v1/candles?${query}`).catch(() => ({candles: []}));
    if (turn !== this.turn) return;
    const fresh = answer.candles.map(row);
    // The feed may have told more of the newest candle meanwhile.
    const newest = fresh[fresh.length - 1] || {time: 0, volume: 0};
    const later = [...this.rows.values()].filter(({time, volume}) =>
      time > newest.time || (time === newest.time && volume > newest.volume));
    this.rows = new Map([...fresh, ...later].map(one => [one.time, one]));
    this.#setAll();
  }

  #setAll() {
    const rows = [...this.rows.values()];
    this.prices.setData(rows);
    this.volumes.setData(rows.map(one => this.#volume(one)));
    this.#describe();
  }

  #update(one) {
    const newest = [...this.rows.keys()].pop() || 0;
    if (one.time < newest) return;
    this.rows.set(one.time, one);
    this.prices.update(one);
    this.volumes.update(this.#volume(one));
    this.#describe();
  }

  #volume({time, volume, open, close}) {
    return {time, value: volume, color: `${close >= open ? this.colour.bid : this.colour.ask}59`};
  }

  #describe(one = [...this.rows.values()].pop()) {
    $("chart-empty").hidden = this.rows.size > 0;
    this.legend.dataset.direction = one ? (one.close >= one.open ? "up" : "down") : "";
    setText(this.legend, one ? ["open", "high", "low", "close"].map(name =>
      `${name[0].toUpperCase()} ${one[name].toFixed(this.format.price_shown)}`).join("  ")
      + `  V ${short(one.volume)}` : "");
  }
}

function row({open_time, open, high, low, close, volume}) {
  return {time: Math.floor(open_time / 1e9), open: Number(open), high: Number(high),
          low: Number(low), close: Number(close), volume: Number(volume)};
}
