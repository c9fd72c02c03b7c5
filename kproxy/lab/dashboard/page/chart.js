"use strict";
// Lines over time as SVG: colours of the report's palette, dashes so that no colour means
// anything alone, figures of the moment (or under the pointer) in the key.
const Chart = (() => {
  const PALETTE = ["#1f7fc4", "#d55e00", "#009e73", "#c46a99", "#a6761d", "#7a7f87"];
  const DASHES = ["none", "2 3", "7 4", "7 3 2 3"];
  const HEIGHT = 190, LEFT = 46, RIGHT = 8, TOP = 10, BOTTOM = 22;
  const SVG = "http://www.w3.org/2000/svg";

  function shape(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function figure(value, unit) {
    if (value === null || value === undefined) return "–";
    const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 1 : 2;
    const text = value === 0 ? "0" : value.toFixed(digits);
    return unit === "/s" ? text + unit : `${text} ${unit}`;
  }

  function step(most) { // the least round step with which four lines reach the top
    const rough = most / 4, power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 2.5, 5, 10].map(n => n * power).find(n => n >= rough - 1e-12);
  }

  function since(seconds) {
    if (seconds < 1) return "now";
    return seconds < 120 ? `−${Math.round(seconds)} s` : `−${+(seconds / 60).toFixed(1)} min`;
  }

  class Chart {
    constructor(title) {
      this.element = document.createElement("figure");
      this.caption = document.createElement("figcaption");
      this.caption.textContent = title;
      this.plot = document.createElement("div");
      this.plot.className = "plot";
      this.key = document.createElement("ul");
      this.key.className = "key";
      this.empty = document.createElement("p");
      this.empty.className = "empty";
      this.element.append(this.caption, this.plot, this.key, this.empty);
      this.at = null;
      new ResizeObserver(() => this.data && this.draw()).observe(this.plot);
      this.plot.addEventListener("pointermove", event => this.point(event.offsetX));
      this.plot.addEventListener("pointerleave", () => this.point(null));
    }

    show(data, now) {
      this.data = data;
      this.now = now;
      this.draw();
    }

    point(x) {
      if (!this.data || !this.inverse) return;
      this.at = x === null ? null : this.inverse(x);
      this.draw();
    }

    draw() {
      const width = Math.max(this.plot.clientWidth, 160);
      const lines = this.data.series.filter(one => one.points.some(p => p[1] !== null));
      this.plot.hidden = this.key.hidden = lines.length === 0;
      this.empty.hidden = lines.length !== 0;
      this.empty.textContent = this.data.empty || "Nothing yet.";
      if (!lines.length) return;
      const points = lines.flatMap(one => one.points.filter(p => p[1] !== null));
      const first = Math.min(...points.map(p => p[0]), this.now - 30);
      const unit = step(Math.max(...points.map(p => p[1]), 0) || 1);
      const top = unit * Math.max(1, Math.ceil(Math.max(...points.map(p => p[1])) / unit));
      const x = at => LEFT + (at - first) / (this.now - first) * (width - LEFT - RIGHT);
      const y = value => HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
      this.inverse = px => first + (px - LEFT) / (width - LEFT - RIGHT) * (this.now - first);
      const svg = shape("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, role: "img"});
      for (let value = 0; value <= top + unit / 2; value += unit) {
        svg.append(shape("path", {class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}`}));
        svg.append(shape("text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, +value.toPrecision(6)));
      }
      const anchors = ["start", "middle", "end"];
      [0, .5, 1].forEach((part, number) => {
        const at = first + part * (this.now - first);
        svg.append(shape("text", {x: x(at), y: HEIGHT - 6, "text-anchor": anchors[number]}, since(this.now - at)));
      });
      lines.forEach((one, number) => svg.append(this.line(one, number, x, y)));
      if (this.at !== null) svg.append(shape("path", {class: "cursor", d: `M${x(this.at)} ${TOP}V${HEIGHT - BOTTOM}`}));
      this.plot.replaceChildren(svg);
      const told = lines.map((one, number) => this.entry(one, number));
      this.key.replaceChildren(...told);
      svg.setAttribute("aria-label", `${this.data.title}: ${told.map(one => one.textContent).join(", ")}`);
    }

    line(one, number, x, y) {
      let path = "", pen = false;
      for (const [at, value] of one.points) {
        if (value === null) { pen = false; continue; }
        path += `${pen ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = true;
      }
      return shape("path", {
        d: path, fill: "none", stroke: PALETTE[number % 6], "stroke-width": 2,
        "stroke-dasharray": DASHES[number % 4], "stroke-linejoin": "round",
      });
    }

    entry(one, number) {
      const item = document.createElement("li"), value = document.createElement("b");
      const mark = shape("svg", {width: 24, height: 8, "aria-hidden": "true"});
      mark.append(shape("path", {
        d: "M0 4h24", stroke: PALETTE[number % 6], "stroke-width": 2, "stroke-dasharray": DASHES[number % 4],
      }));
      value.textContent = figure(this.value(one), this.data.unit);
      item.append(mark, `${one.name} `, value);
      return item;
    }

    value(one) { // at the pointer, else the last one
      if (this.at === null) return one.points[one.points.length - 1]?.[1];
      let best = null;
      for (const point of one.points)
        if (best === null || Math.abs(point[0] - this.at) < Math.abs(best[0] - this.at)) best = point;
      return best && best[1];
    }
  }
  return Chart;
})();
