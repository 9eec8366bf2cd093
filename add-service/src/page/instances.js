// The table of instances, or of groups of them, and the counts of their states.

import { duration, icon, make, millis, number, rate, reason, set, shows, svg, t } from "./text.js";

const STATES = ["serving", "warming", "trial", "ejected", "protected", "connecting", "unreachable", "idle"];
/** Time for which an instance that has left the frame stays in the table, marked as gone. */
const GONE_MS = 8000;
const MOST_NOTABLE = 16;

const body = document.getElementById("rows");
/** Rows by the kind and the name of what they show. */
const rows = new Map();

/** Shows a frame. Returns the rows with what flows to them: `{ key, element, state, ended, failed, rate }`. */
export function show(frame) {
  const grouped = frame.groups.length > 0;
  set(document.getElementById("first-column"), grouped ? t("zone") : t("instance"));
  counts(frame.states);
  const wanted = [];
  for (const group of frame.groups) wanted.push([`g ${group.name ?? ""}`, group, fillGroup, groupState(group)]);
  for (const instance of frame.rows) wanted.push([`i ${instance.id}`, instance, fillInstance, instance.state]);
  const now = performance.now();
  const flows = [];
  let before = null;
  for (const [key, data, fill, state] of wanted) {
    const row = rows.get(key) ?? add(key);
    row.data = data;
    row.seen = now;
    row.state = state;
    row.alone = frame.groups.length === 1;
    row.element.classList.remove("is-gone");
    fill(row, data);
    place(row, before);
    before = row.element;
    flows.push({ key, element: row.element, state, ended: data.ended, failed: data.failed, rate: data.per_second });
  }
  for (const [key, row] of rows) {
    if (row.seen === now) continue;
    if (grouped || now - row.seen > GONE_MS || !row.data.id) {
      row.element.remove();
      rows.delete(key);
      continue;
    }
    row.element.classList.add("is-gone");
    state(row.cells[1], "gone", "");
    set(row.cells[2], "–");
    set(row.cells[3], "–");
    set(row.cells[4], "–");
    flows.push({ key, element: row.element, state: "gone", ended: 0, failed: 0, rate: 0 });
  }
  const none = document.getElementById("none");
  none.hidden = frame.instances > 0;
  if (!none.hidden) set(none, frame.registry.answered ? t("no_instances") : t("no_answer"));
  document.getElementById("stage").hidden = flows.length === 0;
  const more = document.getElementById("more");
  more.hidden = !grouped;
  if (grouped) set(more, t("grouped", { count: number(frame.instances), most: MOST_NOTABLE }));
  return flows;
}

function counts(states) {
  const list = document.getElementById("states");
  for (const name of STATES) {
    let item = list.querySelector(`[data-state="${name}"]`);
    const count = states[name] ?? 0;
    if (count === 0) {
      item?.remove();
      continue;
    }
    if (!item) {
      item = make("li", "", icon(name), make("span"));
      item.dataset.state = name;
      list.append(item);
    }
    set(item.lastChild, `${number(count)} ${t(`state.${name}`)}`);
  }
}

function add(key) {
  const element = make("tr");
  element.setAttribute("role", "row");
  const head = make("th");
  head.scope = "row";
  head.setAttribute("role", "rowheader");
  const cells = [head, make("td"), make("td", "number"), make("td", "number"), make("td", "number")];
  for (const cell of cells.slice(1)) cell.setAttribute("role", "cell");
  element.append(...cells);
  const row = { element, cells, data: {}, seen: 0, state: "" };
  rows.set(key, row);
  return row;
}

function place(row, before) {
  const at = before ? before.nextSibling : body.firstChild;
  if (row.element !== at) body.insertBefore(row.element, at);
}

/** Numbers of a row, with the name of the column for narrow screens. */
function numbers(row, data) {
  const failed = data.failed_per_second >= 0.05 ? t("failed_rate", { n: rate(data.failed_per_second) }) : "";
  part(row.cells[2], "", rate(data.per_second));
  part(row.cells[2], "sub bad", failed);
  set(row.cells[3], data.p50 === null ? "–" : `${millis(data.p50)} / ${millis(data.p99)}`);
  set(row.cells[4], number(data.in_flight));
  row.cells[2].dataset.column = t("rate");
  row.cells[3].dataset.column = t("latency");
  row.cells[4].dataset.column = t("in_flight");
}

/** The part of a cell with this class; none if the text is empty. */
function part(cell, className, text) {
  let element = [...cell.children].find((child) => child.className === className);
  if (!element && cell.children.length === 0) cell.replaceChildren();
  if (text === "") {
    element?.remove();
    return;
  }
  if (!element) {
    element = make("span", className);
    cell.append(element);
  }
  set(element, text);
}

function state(cell, name, detail) {
  if (cell.dataset.state !== name) {
    cell.dataset.state = name;
    cell.replaceChildren(make("span", `state-name s-${name}`, icon(name), make("span")));
  }
  set(cell.firstChild.lastChild, t(`state.${name}`));
  part(cell, "detail", detail);
}

function fillInstance(row, data) {
  const [head, status] = row.cells;
  part(head, "id", data.id);
  const about = [
    shows(data.id, data.address) ? "" : data.address,
    data.tags.join(", "),
    [data.datacenter, data.zone].filter(Boolean).join(" / "),
    data.weight === 1 ? "" : t("weight", { n: number(data.weight) }),
  ];
  part(head, "sub", about.filter(Boolean).join(" · "));
  state(status, data.state, detail(data));
  numbers(row, data);
}

/** What there is to say about a state. */
function detail(data) {
  switch (data.state) {
    case "ejected":
      return t("detail_until", {
        time: duration(Math.max(0, data.ejection.until_seconds ?? 0)),
        reason: reason(data.ejection.reason),
      });
    case "trial":
      return t("detail_trial", { reason: reason(data.ejection.reason) });
    case "warming":
      return t("detail_share", { share: number(data.share * 100) });
    case "protected":
      return t("detail_kept", {
        time: duration(data.protection.seconds),
        reason: t(`withdrawal.${data.protection.withdrawal}`),
      });
    case "unreachable":
      return reason(data.error ?? "");
    default:
      return failing(data);
  }
}

/** The share of failed calls, where it is not a small one. */
function failing(data) {
  const share = data.per_second > 0 ? data.failed_per_second / data.per_second : 0;
  return share >= 0.05 ? t("detail_failing", { share: number(share * 100) }) : "";
}

/** The state that most instances of a group have. */
function groupState(group) {
  const most = Object.entries(group.states).sort((a, b) => b[1] - a[1])[0];
  return most ? most[0] : "idle";
}

function fillGroup(row, group) {
  const [head, status] = row.cells;
  part(head, "id", group.name ?? (row.alone ? t("all_instances") : t("no_zone")));
  part(head, "sub", t("group_size", { n: number(group.instances) }));
  if (!status.firstChild?.classList.contains("chips")) {
    status.replaceChildren(make("ul", "chips"), svg("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }));
  }
  const [chips, meter] = status.children;
  const present = STATES.filter((name) => group.states[name]);
  if (chips.dataset.states !== present.join()) {
    chips.dataset.states = present.join();
    chips.replaceChildren(...present.map((name) => make("li", "", icon(name), make("span"))));
    meter.replaceChildren(...present.map((name) => svg("rect", { class: `s-${name}`, y: 0, height: 6 })));
  }
  let from = 0;
  present.forEach((name, index) => {
    const share = (group.states[name] / group.instances) * 100;
    set(chips.children[index].lastChild, `${number(group.states[name])} ${t(`state.${name}`)}`);
    meter.children[index].setAttribute("x", from);
    meter.children[index].setAttribute("width", Math.max(0, share - 0.4));
    from += share;
  });
  numbers(row, group);
}
