// Calls, failures, retries, hedges and the retry budget over the last two minutes.

import { make, number, rate, set, svg, t } from "./text.js";

const SECONDS = 120;
const WIDTH = 120;
const HEIGHT = 40;

const list = document.getElementById("charts");

/** Each chart: its title, what it takes from a frame, and how its value is written. */
const CHARTS = [
  { name: "calls", title: () => t("chart_calls"), value: (calls, per) => per(calls.ok + calls.failed), write: rate },
  { name: "failed", title: () => t("chart_failed"), value: (calls, per) => per(calls.failed), write: rate, warn: true },
  {
    name: "retries",
    title: () => t("chart_retries"),
    value: (calls, per) => per(calls.retries),
    write: rate,
    warn: true,
    note: (calls) => (calls.denied > 0 ? t("denied", { n: number(calls.denied) }) : ""),
  },
  { name: "hedges", title: () => t("chart_hedges"), value: (calls, per) => per(calls.hedges), write: rate },
  { name: "budget", title: () => t("chart_budget"), value: (calls) => calls.budget, write: number, level: true },
];

const charts = CHARTS.map((chart) => {
  const label = make("span", "label");
  const value = make("span", "value");
  const note = make("span", "extra");
  const area = svg("path", { class: "area" });
  const stroke = svg("path", { class: "stroke" });
  const image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  image.append(area, stroke);
  const peak = make("span", "extra");
  const item = make("li", chart.warn ? "warn" : "", label, value, note, image, peak);
  item.dataset.chart = chart.name;
  list.append(item);
  return { ...chart, parts: { label, value, note, area, stroke, peak }, points: [] };
});

/** Adds a frame to the charts. */
export function show(frame) {
  const now = performance.now() / 1000;
  const per = (count) => count / frame.seconds;
  for (const chart of charts) {
    set(chart.parts.label, chart.title());
    if (frame.seconds === 0 && !chart.level) {
      set(chart.parts.value, chart.write(0));
      continue;
    }
    chart.points.push([now, chart.value(frame.calls, per)]);
    while (chart.points[0][0] < now - SECONDS) chart.points.shift();
    paint(chart, now, frame.calls);
  }
}

function paint(chart, now, calls) {
  const parts = chart.parts;
  // The mean of the last two seconds: at a few calls a second, half a second says little.
  const last = chart.points.slice(-4).map((point) => point[1]);
  const value = chart.level ? last[last.length - 1] : last.reduce((sum, one) => sum + one, 0) / last.length;
  set(parts.value, chart.write(value));
  if (chart.note) set(parts.note, chart.note(calls));
  const peak = Math.max(...chart.points.map((point) => point[1]));
  set(parts.peak, t("chart_peak", { n: chart.write(peak) }));
  const top = Math.max(peak, 1);
  const x = (time) => (WIDTH * (1 - (now - time) / SECONDS)).toFixed(2);
  const y = (amount) => (HEIGHT - 1 - (HEIGHT - 3) * (amount / top)).toFixed(2);
  const path = chart.points.map(([time, amount], index) => `${index ? "L" : "M"}${x(time)} ${y(amount)}`).join("");
  parts.stroke.setAttribute("d", path);
  parts.area.setAttribute("d", `${path}L${WIDTH} ${HEIGHT}L${x(chart.points[0][0])} ${HEIGHT}Z`);
}
