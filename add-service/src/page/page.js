// The live page. It draws what the stream `debug/live` sends and keeps no state of its own beside the last
// frame, the events and the charts.

import * as charts from "./charts.js";
import * as flow from "./flow.js";
import * as instances from "./instances.js";
import "./try.js";
import { clock, duration, icon, make, number, preferred, rate, reason, remember, remembered, set, t, use } from "./text.js";

const EVENTS = 50;
/** Events that a screen reader announces, and the symbols of all. */
const SYMBOLS = {
  added: "serving",
  removed: "gone",
  connected: "serving",
  disconnected: "connecting",
  unreachable: "unreachable",
  ejected: "ejected",
  probation: "trial",
  admitted: "warming",
  not_serving: "unreachable",
  serving: "serving",
  protected: "protected",
  returned: "serving",
  registry_lost: "registry",
  registry_back: "registry",
  config_changed: "policy",
  missed: "gone",
};
const ANNOUNCED = ["added", "removed", "unreachable", "ejected", "admitted", "not_serving", "serving", "registry_lost", "registry_back", "config_changed"];
const ANNOUNCE_MS = 2000;

const connection = document.getElementById("connection");
const eventList = document.getElementById("events");
const language = document.getElementById("language");
const theme = document.getElementById("theme");

let frame = null;
let events = [];
let connected = "connecting";
let opened = 0;
let announced = 0;

function showConnection() {
  connection.dataset.state = connected;
  const texts = { connecting: t("connection_connecting"), live: t("connection_live"), lost: t("connection_lost") };
  set(connection, texts[connected]);
}

function connect() {
  const stream = new EventSource("debug/live");
  stream.addEventListener("open", () => {
    connected = "live";
    opened = Date.now() / 1000;
    // The stream begins with the last events.
    events = [];
    showConnection();
    showEvents();
  });
  stream.addEventListener("error", () => {
    connected = "lost";
    showConnection();
    // A refusal, such as too many viewers, ends the stream for good.
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  });
  stream.addEventListener("frame", (message) => {
    frame = JSON.parse(message.data);
    showFrame();
  });
  stream.addEventListener("happened", (message) => happened(JSON.parse(message.data)));
  stream.addEventListener("missed", (message) => {
    happened({ event: "missed", events: JSON.parse(message.data), time: Date.now() / 1000 });
  });
}

function showFrame() {
  if (!frame) return;
  const calls = frame.seconds > 0 ? (frame.calls.ok + frame.calls.failed) / frame.seconds : 0;
  set(document.getElementById("service"), frame.service);
  document.title = `add-service → ${frame.service}`;
  set(
    document.getElementById("summary"),
    t("summary", { count: number(frame.instances), rate: rate(calls), registry: registryState() }),
  );
  const flows = instances.show(frame);
  flow.show(flows, frame.seconds, calls);
  charts.show(frame);
  showFacts();
}

function registryState() {
  if (frame.registry.error) return t("registry_failing");
  return frame.registry.answered ? t("registry_current") : t("registry_silent");
}

function showFacts() {
  const { registry, policy, calls } = frame;
  const age = registry.age === null ? registryState() : t("registry_age", { state: registryState(), age: duration(registry.age) });
  const facts = [
    [t("registry"), registry.url],
    [t("registry_state"), registry.error ? `${age}: ${registry.error}` : age],
    [t("listed"), t("listed_value", { listed: number(registry.listed), unusable: number(registry.unusable) })],
    [t("balancer"), policy.balancer],
    [t("attempts"), t("attempts_value", { n: number(policy.max_attempts), time: duration(policy.timeout) })],
    [t("budget"), t("budget_value", { share: number(policy.budget_share * 100), reserve: number(calls.reserve) })],
    [t("hedging"), policy.hedging ? t("on") : t("off")],
    [t("ejection"), policy.ejection ? t("ejection_value", { time: duration(policy.ejection_time) }) : t("off")],
  ];
  const list = document.getElementById("facts");
  if (list.children.length === 0) list.append(...facts.map(() => make("div", "", make("dt"), make("dd"))));
  facts.forEach(([term, value], index) => {
    set(list.children[index].firstChild, term);
    set(list.children[index].lastChild, value);
  });
}

function happened(event) {
  events.unshift(event);
  events.length = Math.min(events.length, EVENTS);
  showEvents();
  const now = Date.now();
  // Not those from before the page, and not many at a time.
  if (ANNOUNCED.includes(event.event) && event.time >= opened && now - announced > ANNOUNCE_MS) {
    announced = now;
    set(document.getElementById("announcements"), [eventText(event), eventReason(event)].filter(Boolean).join(". "));
  }
}

function eventText(event) {
  return t(`event.${event.event}`, {
    instance: event.instance?.id,
    instances: event.instances,
    events: event.events,
    time: event.seconds === undefined ? "" : duration(event.seconds),
  });
}

function eventReason(event) {
  if (event.withdrawal) return t(`withdrawal.${event.withdrawal}`);
  return event.reason ? reason(event.reason) : "";
}

function showEvents() {
  document.getElementById("no-events").hidden = events.length > 0;
  eventList.hidden = events.length === 0;
  const items = events.map((event) => {
    const what = make("span", "what", eventText(event));
    const why = eventReason(event);
    if (why) what.append(make("span", "why", why));
    const item = make("li", "", make("time", "", clock(event.time)), icon(SYMBOLS[event.event] ?? "idle"), what);
    item.dataset.event = event.event;
    return item;
  });
  eventList.replaceChildren(...items);
}

async function speak(name) {
  await use(name);
  language.value = name;
  showConnection();
  showFrame();
  showEvents();
}

function paintTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  theme.value = name;
  flow.recolour();
}

language.addEventListener("change", () => {
  remember("language", language.value);
  speak(language.value);
});
theme.addEventListener("change", () => {
  remember("theme", theme.value);
  paintTheme(theme.value);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", flow.recolour);

await speak(preferred());
paintTheme(["light", "dark"].includes(remembered("theme")) ? remembered("theme") : "auto");
connect();
