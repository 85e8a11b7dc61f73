// Puts the panels together: one feed, one chosen instrument.

import {$, get, memory, setText} from "./dom.js";
import {Format, clock} from "./decimal.js";
import {Book} from "./book.js";
import {Candles} from "./candles.js";
import {Depth} from "./depth.js";
import {Feed} from "./feed.js";
import {Ladder} from "./ladder.js";
import {Markets} from "./markets.js";
import {Tape} from "./tape.js";
import {Venue} from "./venue.js";
import {listenToKeys} from "./keys.js";
import {onTheme} from "./theme.js";

const DEPTH = 500;
// A venue with more instruments shows prices of the chosen one only.
const WATCHED_MOST = 250;
// Who runs down the list with a key pressed subscribes where he stops.
const CHOICE_MS = 120;
const STATES = {connecting: "Connecting", live: "Live"};

const formats = new Map();
const feed = new Feed(findFeed, showState);
const ladder = new Ladder();
const depth = new Depth();
const tape = new Tape();
const candles = new Candles(feed);
const markets = new Markets(choose);
const venue = new Venue(feed);
let chosen = [];      // subscriptions of the chosen instrument
let watched = null;   // those of all instruments, or of the chosen one
let choosing = 0;

// Asked before each connection: the venue may come back with another port and other instruments.
async function findFeed() {
  const told = await get("v1/venue");
  for (const instrument of told.instruments) formats.set(instrument.symbol, new Format(instrument));
  markets.use(told.instruments, formats);
  venue.use(told);
  if (!markets.chosen && told.instruments.length) {
    if (told.instruments.length <= WATCHED_MOST) watched = watch("*");
    const wanted = decodeURIComponent(location.hash.slice(1)) || memory.get("symbol");
    choose(formats.has(wanted) ? wanted : told.instruments[0].symbol);
  }
  if (!told.feed_port) throw new Error("the feed does not listen");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.hostname}:${told.feed_port}/`;
}

function showState(state, text = STATES[state]) {
  if (state === "live" && feed.refusal) [state, text] = ["stale", feed.refusal];
  document.body.dataset.state = $("state").dataset.state = state;
  setText($("state").lastChild, text);
  const {round_trip_ms, repairs} = feed;
  $("state").dataset.repairs = repairs;
  $("state").title = `feed answers in ${round_trip_ms?.toFixed(1) ?? "–"} ms, ${repairs} repairs`;
}

function watch(symbol) {
  return ["ticker", "bbo", "status"].map(channel => feed.subscribe(
    {channel, symbol}, {message: message => markets.take(message)}));
}

function choose(symbol) {
  const first = !markets.chosen;
  chosen.forEach(one => one.close());
  chosen = [];
  memory.set("symbol", symbol);
  history.replaceState(null, "", `#${encodeURIComponent(symbol)}`);
  markets.setChosen(symbol);
  if (document.body.dataset.view === "markets") show("chart");
  clearTimeout(choosing);
  if (first) open(symbol);
  else choosing = setTimeout(() => open(symbol), CHOICE_MS);
}

function open(symbol) {
  const format = formats.get(symbol);
  const book = new Book(format);
  ladder.use(book);
  depth.use(book);
  tape.use(format);
  candles.use(symbol, format);
  if (formats.size > WATCHED_MOST) {
    watched?.forEach(one => one.close());
    watched = watch(symbol);
  }
  chosen = [
    feed.subscribe({channel: "book", symbol, depth: DEPTH}, {message: message => {
      const right = book.apply(message);
      ladder.draw();
      depth.draw();
      return right;
    }}),
    feed.subscribe({channel: "trades", symbol}, {message: message => {
      if (message.type === "snapshot") tape.loadHistory(symbol);
      tape.add(message.trades);
      if (message.trades.length) markets.traded(symbol, message.trades);
    }}),
  ];
}

// Which panel a phone shows.
function show(view) {
  document.body.dataset.view = view;
  for (const button of $("tabs").children) {
    button.setAttribute("aria-current", String(button.dataset.view === view));
  }
}

onTheme(() => [ladder, depth, venue].forEach(panel => panel.draw()));
listenToKeys({markets, candles, ladder});
$("tabs").addEventListener("click", event => {
  if (event.target.dataset.view) show(event.target.dataset.view);
});
$("symbol").addEventListener("click", () => {
  if (getComputedStyle($("tabs")).display === "none") $("filter").focus();
  else show("markets");
});
setInterval(() => setText($("clock"), clock(Date.now())), 250);
addEventListener("hashchange", () => {
  const symbol = decodeURIComponent(location.hash.slice(1));
  if (formats.has(symbol)) choose(symbol);
});
feed.connect();
