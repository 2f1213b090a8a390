// Line plots over time as SVG, drawn by hand: two at most, a few hundred points each.

import { since } from "./format.js";

const NS = "http://www.w3.org/2000/svg";
const LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20;

function shape(tag, attributes, text) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The least of 1, 2, 5 × 10^n that is not below `value`.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value * 0.999);
}

// `series`: [{name, area, values: Map second → number}]; where a second has none, `gap` is drawn,
// or, if that is null, nothing. Returns the top of the scale.
export function draw(box, { series, from, to, gap, least, format, label }) {
  const width = Math.max(200, box.clientWidth), height = box.clientHeight || 150;
  const top = roundUp(Math.max(least, ...series.flatMap((one) => [...one.values.values()])));
  const x = (second) => LEFT + (second - from) / (to - from) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - value / top * (height - TOP - BOTTOM);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const part of [0, 0.5, 1]) {
    const at = y(top * part);
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    svg.append(shape("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, format(top * part)));
  }
  svg.append(shape("text", { x: LEFT, y: height - 4 }, `${since(to - from + 1)} ago`));
  svg.append(shape("text", { x: width - RIGHT, y: height - 4, "text-anchor": "end" }, "now"));
  for (const one of series) {
    for (const run of runs(one.values, from, to, gap)) {
      const points = run.map(([second, value]) => `${x(second).toFixed(1)},${y(value).toFixed(1)}`);
      if (one.area) {
        const [first, last] = [x(run[0][0]), x(run[run.length - 1][0])];
        svg.append(shape("polygon", { class: "area",
          points: `${first},${y(0)} ${points.join(" ")} ${last},${y(0)}` }));
      }
      if (run.length === 1 && gap === null) {  // between seconds without calls
        const [cx, cy] = points[0].split(",");
        svg.append(shape("circle", { class: `dot ${one.name}`, cx, cy, r: 2 }));
      }
      svg.append(shape("polyline", { class: `line ${one.name}`, points: points.join(" ") }));
    }
  }
  box.replaceChildren(svg);
}

function runs(values, from, to, gap) {
  const found = [];
  let run = [];
  for (let second = from; second <= to; second += 1) {
    const value = values.get(second) ?? gap;
    if (value !== null) run.push([second, value]);
    else if (run.length) { found.push(run); run = []; }
  }
  if (run.length) found.push(run);
  return found;
}
