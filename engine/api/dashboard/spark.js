// A small line of the last two minutes, with its name and its newest value.

import {colours, drawer, element, setText, sharp} from "./dom.js";

const POINTS = 120;
const POINTS_FEWEST = 30;   // the line is drawn over at least so many places

export class Spark {
  constructor(name, write, colour = "accent") {
    this.write = write;
    this.colour = colour;
    this.points = [];
    this.node = element("div", "figure");
    this.value = element("b", "", "–");
    this.note = element("small");
    this.canvas = element("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.node.append(element("span", "", name), this.value, this.note, this.canvas);
    this.draw = drawer(() => this.#show());
    new ResizeObserver(this.draw).observe(this.canvas);
  }

  add(value, note = "") {
    this.points = [...this.points, value].slice(-POINTS);
    const known = value !== null && value !== undefined;
    setText(this.value, known ? this.write(value) : "–");
    setText(this.note, note);
    this.draw();
  }

  #show() {
    const area = sharp(this.canvas);
    if (!area || this.points.length < 2) return;
    const {context, width, height} = area;
    const colour = colours()[this.colour];
    const most = Math.max(...this.points.map(Number), 1e-9);
    const last = this.points.length - 1;
    const x = at => width * (1 - (last - at) / Math.max(last, POINTS_FEWEST));
    const y = value => height - 2 - (height - 4) * Number(value) / most;
    context.beginPath();
    this.points.forEach((value, at) => context.lineTo(x(at), y(value)));
    context.strokeStyle = colour;
    context.lineWidth = 1.25;
    context.stroke();
    context.lineTo(x(last), height);
    context.lineTo(x(0), height);
    context.fillStyle = `${colour}22`;
    context.fill();
  }
}
