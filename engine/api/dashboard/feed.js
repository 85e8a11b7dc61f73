// One WebSocket to the venue's feed: subscriptions that survive the connection.
//
// Every message states the seq of the one before it, so a hole shows at once. After a break each
// subscription asks to go on where it was; the venue sends what was missed, or `reset` and a
// snapshot. A subscription that finds a hole, or whose book differs from the venue's checksum,
// subscribes anew.

const PING_EVERY_MS = 2000;
const STALE_AFTER_MS = 6000;
const GIVE_UP_AFTER_MS = 15000;
const RETRY_FIRST_MS = 250;
const RETRY_MOST_MS = 5000;

class Subscription {
  constructor(feed, request, handler) {
    this.feed = feed;
    this.request = request;
    this.handler = handler;
    this.log = undefined;
    this.last = new Map();   // symbol -> seq of its last message; empty until a snapshot came
  }

  send() {
    const seq = this.last.get(this.request.symbol);
    const resume = seq === undefined ? {} : {resume_from: seq, log: this.log};
    this.feed.request({op: "subscribe", ...this.request, ...resume}, answer => {
      if (answer.ok) this.log = answer.log;
      else if (answer.code === "rate_limited") setTimeout(() => this.retry(), RETRY_MOST_MS);
      else this.feed.refusal = answer.message;
    });
  }

  take(message) {
    const {symbol, type, seq} = message;
    if (type === "reset") {
      this.last.delete(symbol);
      return;
    }
    if (type !== "snapshot") {
      if (!this.last.has(symbol)) return;   // left over from before a new subscription
      if (message.prev_seq !== this.last.get(symbol)) return this.again("hole");
    }
    this.last.set(symbol, seq);
    if (this.handler.message(message) === false) this.again("checksum");
  }

  again(reason) {
    this.feed.repairs += 1;
    console.info(`${this.request.channel} ${this.request.symbol}: ${reason}, subscribing anew`);
    this.last.clear();
    this.send();
  }

  retry() {
    if (this.feed.has(this)) this.send();
  }

  close() {
    this.feed.drop(this);
  }
}

export class Feed {
  // `address` is asked before each connection and gives the URL (or throws); `onState(state, text)`
  // hears "connecting", "live", "stale" and "reconnecting".
  constructor(address, onState) {
    this.address = address;
    this.onState = onState;
    this.repairs = 0;
    this.refusal = "";   // why the venue did not take a subscription
    this.round_trip_ms = null;
    this.#retry_ms = RETRY_FIRST_MS;
    setInterval(() => this.#watch(), 500);
    addEventListener("online", () => this.#connectNow());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#connectNow();
    });
  }

  #subscriptions = new Map();   // channel -> list of subscriptions
  #answers = new Map();
  #next_id = 1;
  #socket = null;
  #heard_ms = 0;
  #pinged_ms = 0;
  #retry_ms;
  #retry_at_ms = 0;
  #timer = 0;
  #connecting = false;

  async connect() {
    if (this.#connecting || this.#socket) return;
    this.#connecting = true;
    clearTimeout(this.#timer);
    try {
      this.#open(await this.address());
    } catch {
      this.#retry();
    } finally {
      this.#connecting = false;
    }
  }

  subscribe(request, handler) {
    const made = new Subscription(this, request, handler);
    const list = this.#subscriptions.get(request.channel) || [];
    this.#subscriptions.set(request.channel, [...list, made]);
    if (this.#isOpen()) made.send();
    return made;
  }

  has(subscription) {
    return this.#isOpen() && this.#subscriptions.get(subscription.request.channel)
      .includes(subscription);
  }

  drop(subscription) {
    const {channel, symbol, interval} = subscription.request;
    const list = this.#subscriptions.get(channel) || [];
    this.#subscriptions.set(channel, list.filter(other => other !== subscription));
    if (this.#isOpen()) this.request({op: "unsubscribe", channel, symbol, interval});
  }

  request(body, answered = () => {}) {
    const id = this.#next_id++;
    this.#answers.set(id, answered);
    this.#socket.send(JSON.stringify({...body, id}));
  }

  #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #open(url) {
    const socket = this.#socket = new WebSocket(url);
    this.#heard_ms = performance.now();
    socket.onopen = () => {
      this.#retry_ms = RETRY_FIRST_MS;
      this.refusal = "";
      this.#heard_ms = performance.now();
      this.#ping();
      for (const list of this.#subscriptions.values()) list.forEach(one => one.send());
      this.onState("live");
    };
    socket.onmessage = event => this.#take(JSON.parse(event.data));
    socket.onclose = () => this.#closed(socket);
  }

  #take(message) {
    this.#heard_ms = performance.now();
    if (message.channel === undefined || message.ok !== undefined) {
      this.#answers.get(message.id)?.(message);
      this.#answers.delete(message.id);
      return;
    }
    for (const one of this.#subscriptions.get(message.channel) || []) {
      const {symbol, interval} = one.request;
      if ((symbol === "*" || symbol === message.symbol)
          && (interval === undefined || interval === message.interval)) one.take(message);
    }
  }

  #closed(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    this.#answers.clear();
    this.#retry();
  }

  #retry() {
    const wait_ms = this.#retry_ms * (0.75 + Math.random() / 2);
    this.#retry_at_ms = performance.now() + wait_ms;
    this.#retry_ms = Math.min(this.#retry_ms * 2, RETRY_MOST_MS);
    this.#timer = setTimeout(() => this.connect(), wait_ms);
    this.onState("reconnecting", this.#waiting());
  }

  #waiting() {
    const left_s = Math.ceil((this.#retry_at_ms - performance.now()) / 1000);
    return left_s > 1 ? `Reconnecting in ${left_s} s` : "Reconnecting";
  }

  #connectNow() {
    if (!this.#socket) this.connect();
  }

  #ping() {
    const sent_ms = this.#pinged_ms = performance.now();
    this.request({op: "ping"}, () => { this.round_trip_ms = performance.now() - sent_ms; });
  }

  #watch() {
    if (!this.#socket) {
      if (this.#retry_at_ms) this.onState("reconnecting", this.#waiting());
      return;
    }
    const silent_ms = performance.now() - this.#heard_ms;
    if (silent_ms > GIVE_UP_AFTER_MS) {
      const socket = this.#socket;
      socket.onclose = null;
      socket.close();
      this.#closed(socket);
    } else if (this.#isOpen()) {
      if (silent_ms > STALE_AFTER_MS) {
        this.onState("stale", `Stale: silent for ${Math.floor(silent_ms / 1000)} s`);
      } else this.onState("live");
      if (performance.now() - this.#pinged_ms >= PING_EVERY_MS) this.#ping();
    }
  }
}
