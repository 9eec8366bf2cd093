// The texts of the page in the chosen language, and numbers as it writes them.

let table = {};
let language = "en";

const ATTRIBUTES = { "data-text": null, "data-label": "aria-label" };

/** The language to begin with: the reader's last choice, or the browser's. */
export function preferred() {
  const kept = remembered("language");
  if (kept === "en" || kept === "zh") return kept;
  const first = (navigator.languages || [navigator.language]).find((name) => /^(en|zh)\b/i.test(name));
  return first && /^zh/i.test(first) ? "zh" : "en";
}

/** Loads a language and puts its texts into the page. */
export async function use(name) {
  const answer = await fetch(`page/${name}.json`);
  if (!answer.ok) throw new Error(`page/${name}.json: ${answer.status}`);
  table = await answer.json();
  language = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  for (const [attribute, target] of Object.entries(ATTRIBUTES)) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      const text = t(element.getAttribute(attribute));
      if (target) element.setAttribute(target, text);
      else element.textContent = text;
    }
  }
}

/** The text of a key, with values in place of the names in braces. */
export function t(key, values = {}) {
  const text = table[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The text of a reason that the library gives in English; others are shown as they are. */
export function reason(text) {
  return table[`reason.${text}`] ?? text;
}

export function number(value, digits = 0) {
  return value.toLocaleString(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A rate: with a digit after the point where it is small. */
export function rate(value) {
  return number(value, value > 0 && value < 9.95 ? 1 : 0);
}

/** A latency in milliseconds, without the unit. */
export function millis(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  return number(ms, ms < 9.95 ? 1 : 0);
}

/** A time in words: `0.4 s`, `12 s`, `3 min`, `2 h`. */
export function duration(seconds) {
  if (seconds < 0.0995) return t("ms", { n: number(seconds * 1000) });
  if (seconds < 9.95) return t("seconds", { n: number(seconds, 1) });
  if (seconds < 120) return t("seconds", { n: number(seconds) });
  if (seconds < 7200) return t("minutes", { n: number(seconds / 60) });
  return t("hours", { n: number(seconds / 3600) });
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString(locale(), { hour12: false });
}

function locale() {
  return language === "zh" ? "zh-CN" : "en";
}

/** A choice of the reader. Some browsers refuse storage. */
export function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // It holds until the page is closed.
  }
}

/** True if an ID has the address in it, as `SERVICE-IP-PORT` has. */
export function shows(id, address) {
  const at = address.lastIndexOf(":");
  return id.includes(address.slice(0, at)) && id.endsWith(address.slice(at + 1));
}

/** An element with a class, a text and children. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The symbol of a state. */
export function icon(name) {
  const image = svg("svg", { class: `icon s-${name}`, "aria-hidden": "true" });
  image.append(svg("use", { href: `#i-${name}` }));
  return image;
}

/** Sets a text only if it differs, so that screen readers and selections are left alone. */
export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
