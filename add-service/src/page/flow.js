// The calls that flow from the service to its instances: a line to each row, and a mark for each call.

import { rate, set } from "./text.js";

const TRAVEL_MS = 700;
/** Marks of one row in one frame, and of all rows together. A line that carries more is drawn thicker. */
const MOST_EACH = 8;
const MOST = 240;

const canvas = document.getElementById("flow");
const stage = document.getElementById("stage");
const source = document.getElementById("source");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const narrow = matchMedia("(max-width: 640px)");

/** Lines by key: where they end, and how they look. */
let lines = new Map();
let marks = [];
let drawing = false;
let colours = {};

/** Each state has a pattern of its own, so that colour is not needed to tell them apart. */
const PATTERNS = {
  serving: [],
  warming: [9, 4],
  trial: [4, 4],
  ejected: [2, 6],
  unreachable: [1, 7],
  connecting: [3, 6],
  idle: [],
  protected: [14, 3],
  gone: [1, 9],
};

/** Shows what has flowed in the time of a frame. */
export function show(flows, seconds, perSecond) {
  set(document.getElementById("source-rate"), `${rate(perSecond)}/s`);
  lines = new Map(flows.map((flow) => [flow.key, flow]));
  if (!still.matches && !document.hidden && seconds > 0) {
    const now = performance.now();
    const span = Math.min(seconds, 1) * 1000;
    flows.forEach((flow, index) => {
      const count = Math.min(flow.ended, MOST_EACH);
      const bad = Math.min(flow.failed, count, Math.ceil((flow.failed / Math.max(1, flow.ended)) * count));
      for (let n = 0; n < count && marks.length < MOST; n += 1) {
        // In turn over the rows, as a rotation sends them.
        const at = now + (span * (n + index / flows.length)) / count;
        marks.push({ key: flow.key, at, failed: n < bad });
      }
    });
  }
  draw();
}

export function recolour() {
  const style = getComputedStyle(document.documentElement);
  colours = {};
  for (const name of Object.keys(PATTERNS)) colours[name] = style.getPropertyValue(`--${name}`).trim();
  draw();
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(paint);
}

function paint(now) {
  drawing = false;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const scale = window.devicePixelRatio || 1;
  if (width === 0 || height === 0) return;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const curves = geometry(width, height);
  for (const [key, line] of lines) {
    const curve = curves.get(key);
    if (curve) stroke(context, curve, line);
  }
  marks = marks.filter((mark) => now - mark.at < TRAVEL_MS && curves.has(mark.key));
  for (const mark of marks) {
    const part = (now - mark.at) / TRAVEL_MS;
    if (part >= 0) dot(context, point(curves.get(mark.key), part), lines.get(mark.key), mark.failed);
  }
  if (marks.length > 0) draw();
}

/** The curve to each row: four points. On narrow screens, a trunk with branches. */
function geometry(width, height) {
  const top = stage.getBoundingClientRect().top;
  const ends = [...lines.values()].map((line) => {
    const box = line.element.getBoundingClientRect();
    return [line.key, box.top - top + Math.min(box.height / 2, 20)];
  });
  const curves = new Map();
  if (narrow.matches) {
    for (const [key, y] of ends) {
      const x = 9;
      curves.set(key, [x, source.offsetHeight, x, y - 6, x, y, width - 4, y]);
    }
    return curves;
  }
  const first = ends[0]?.[1] ?? 0;
  const last = ends[ends.length - 1]?.[1] ?? height;
  // In the middle of the rows, as far as it stays in sight of the first ones.
  const middle = Math.min((first + last) / 2, first + 220);
  const sourceTop = Math.max(0, middle - source.offsetHeight / 2);
  source.style.top = `${Math.round(sourceTop)}px`;
  const x = source.offsetWidth;
  const y = sourceTop + source.offsetHeight / 2;
  const bend = (width - x) / 2;
  for (const [key, end] of ends) curves.set(key, [x, y, x + bend, y, width - 6 - bend, end, width - 6, end]);
  return curves;
}

function stroke(context, curve, line) {
  const colour = colours[line.state] ?? "#777";
  context.strokeStyle = colour;
  context.globalAlpha = line.state === "serving" || line.state === "idle" ? 0.55 : 0.9;
  context.lineWidth = Math.min(5, 1.2 + Math.log10(1 + line.rate));
  context.setLineDash(PATTERNS[line.state] ?? []);
  context.beginPath();
  context.moveTo(curve[0], curve[1]);
  context.bezierCurveTo(curve[2], curve[3], curve[4], curve[5], curve[6], curve[7]);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
  if (line.state === "ejected") gate(context, curve, colour);
  if (line.state === "unreachable" || line.state === "gone") cross(context, point(curve, 0.8), colour, 4);
}

/** Two bars across the line of an ejected instance. */
function gate(context, curve, colour) {
  const [x, y] = point(curve, 0.8);
  context.strokeStyle = colour;
  context.lineWidth = 3;
  context.beginPath();
  for (const shift of [-3, 3]) {
    context.moveTo(x + shift, y - 7);
    context.lineTo(x + shift, y + 7);
  }
  context.stroke();
}

function cross(context, [x, y], colour, size) {
  context.strokeStyle = colour;
  context.lineWidth = 2.2;
  context.beginPath();
  context.moveTo(x - size, y - size);
  context.lineTo(x + size, y + size);
  context.moveTo(x + size, y - size);
  context.lineTo(x - size, y + size);
  context.stroke();
}

function dot(context, at, line, failed) {
  if (failed) {
    cross(context, at, colours.ejected, 3.5);
    return;
  }
  context.fillStyle = colours[line.state] ?? "#777";
  context.beginPath();
  context.arc(at[0], at[1], 3.4, 0, 2 * Math.PI);
  context.fill();
}

function point([x0, y0, x1, y1, x2, y2, x3, y3], part) {
  const rest = 1 - part;
  const a = rest * rest * rest;
  const b = 3 * rest * rest * part;
  const c = 3 * rest * part * part;
  const d = part * part * part;
  return [a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3];
}

addEventListener("resize", draw);
narrow.addEventListener("change", () => {
  source.style.top = "";
  draw();
});
