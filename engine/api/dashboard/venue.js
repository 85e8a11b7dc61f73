// How busy the venue is: orders per second, latencies, clients. Asked for once a second; what is
// shown is what happened since the last answer.

import {$, element, get, setText} from "./dom.js";
import {duration, short} from "./decimal.js";
import {Spark} from "./spark.js";

const EVERY_MS = 1000;

export class Venue {
  constructor(feed) {
    this.feed = feed;
    this.before = null;
    this.shut = false;
    this.sparks = {
      rate: new Spark("Orders per second", short),
      trades: new Spark("Trades per second", short),
      commit: new Spark("Commit latency", duration, "warn"),
      answer: new Spark("Order to answer", duration, "warn"),
      clients: new Spark("Clients", short, "bid"),
    };
    $("figures").append(...Object.values(this.sparks).map(spark => spark.node));
    setInterval(() => this.#ask(), EVERY_MS);
  }

  use(told) {
    setText($("venue-legend"), `${told.name} ${told.version}`);
    this.before = null;
    this.shut = false;
  }

  draw() {
    Object.values(this.sparks).forEach(spark => spark.draw());
  }

  async #ask() {
    if (document.body.dataset.state !== "live" || document.hidden) return;
    try {
      this.#show(await get("v1/venue/load"));
    } catch {
      this.before = null;   // the feed finds out by itself when the venue is away
    }
    if (!this.shut) await this.#askClients();
  }

  // Who is connected is not for everybody: without a key it is only told on loopback.
  async #askClients() {
    try {
      this.#clients((await get("clients")).clients);
    } catch (error) {
      this.shut = error.status === 401 || error.status === 403;
    }
    $("clients").parentNode.hidden = this.shut;
  }

  #show(now) {
    const {before, sparks} = this;
    this.before = now;
    const {feed, order_entry, http} = now.clients;
    sparks.clients.add(feed + order_entry, `feed ${feed} · orders ${order_entry} · http ${http}`);
    setText($("top-clients"), short(feed + order_entry));
    const seconds = before ? (now.time - before.time) / 1e9 : 0;
    if (seconds <= 0) return;
    const rate = (now.orders - before.orders) / seconds;
    sparks.rate.add(rate, `${short(now.orders)} in all`);
    setText($("top-rate"), short(Math.round(rate)));
    sparks.trades.add((now.trades - before.trades) / seconds, `${short(now.trades)} in all`);
    for (const name of ["commit", "answer"]) {
      const counts = now[name].counts.map((count, at) => count - before[name].counts[at]);
      const median = quantile(now[name].bounds, counts, 0.5);
      const slowest = quantile(now[name].bounds, counts, 0.99);
      sparks[name].add(median, slowest === null ? "" : `p99 ${duration(slowest)}`);
      if (name === "commit" && median !== null) setText($("top-commit"), duration(median));
    }
  }

  #clients(clients) {
    $("clients").replaceChildren(...clients.slice(0, 50).map(client => {
      const row = element("tr");
      const ping = client.latency_ms === null ? "–" : duration(client.latency_ms * 1e6);
      const texts = [client.address, String(count(client.subscriptions)),
                     short(client.messages_sent), ping];
      row.append(...texts.map(text => element("td", "", text)));
      return row;
    }));
  }
}

function count(value) {
  return Array.isArray(value) ? value.length : value;
}

// The value that a `part` of the counts does not exceed, straight between a bucket's bounds.
function quantile(bounds, counts, part) {
  const wanted = part * counts.reduce((sum, count) => sum + count, 0);
  if (!wanted) return null;
  let seen = 0;
  for (let at = 0; at < bounds.length; at++) {
    if (counts[at] && seen + counts[at] >= wanted) {
      const low = at ? bounds[at - 1] : 0;
      return low + (bounds[at] - low) * (wanted - seen) / counts[at];
    }
    seen += counts[at];
  }
  return bounds[bounds.length - 1];
}
