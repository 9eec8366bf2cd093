// The box to try a method: the result, the instances that answered and the attempts that were made.

import { duration, icon, make, shows, t } from "./text.js";

const form = document.getElementById("try");
const result = document.getElementById("result");
const button = form.querySelector("button");
const EXAMPLES = { concat: ["1 0", "2 0"], sum: ["1", "2"] };

form.elements.method.addEventListener("change", () => {
  const [a, b] = EXAMPLES[form.elements.method.value];
  form.elements.a.value = a;
  form.elements.b.value = b;
  form.elements.a.inputMode = form.elements.b.inputMode = form.elements.method.value === "sum" ? "numeric" : "text";
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  result.replaceChildren(t("calling"));
  try {
    await call(form.elements.method.value, form.elements.a.value, form.elements.b.value);
  } catch {
    result.replaceChildren(t("try_unsent"));
  } finally {
    button.disabled = false;
  }
});

async function call(method, a, b) {
  // Numbers are written as they are typed: JavaScript's do not have 64 bits.
  const body = method === "sum" ? `{"a":${a || 0},"b":${b || 0}}` : JSON.stringify({ a, b });
  const answer = await fetch(`debug/try/${method}`, { method: "POST", body });
  const json = await answer.json();
  if (!answer.ok) {
    result.replaceChildren(t("try_refused", { status: answer.status, reason: json.err ?? "" }));
    return;
  }
  const shown = [];
  if (json.v !== null) shown.push(make("p", "value", json.v));
  else shown.push(make("p", "value", json.err ?? t("try_failed")));
  const time = duration(json.seconds);
  shown.push(make("p", "sub", json.calls.length === 0 ? t("try_local", { time }) : t("try_took", { time })));
  if (json.calls.length > 0) shown.push(make("ul", "tries", ...json.calls.map(trimCall)));
  result.replaceChildren(...shown);
}

function trimCall(call) {
  const head = make("span", "", t("try_text", { text: JSON.stringify(call.text), time: duration(call.seconds) }));
  const item = make("li", "", head, make("ol", "", ...call.attempts.map(attempt)));
  // The reason of an instance's status stands beside its attempt.
  const last = call.attempts[call.attempts.length - 1];
  if (call.error && call.error !== last?.reason) item.append(make("span", "sub bad", call.error));
  return item;
}

function named(id, address) {
  return shows(id, address) ? id : `${id} (${address})`;
}

function attempt(attempt) {
  const name = named(attempt.instance, attempt.address);
  if (attempt.ok) return make("li", "", icon("serving"), " ", t("try_answered", { instance: name }));
  const time = attempt.seconds === null ? "" : duration(attempt.seconds);
  const text = time
    ? t("try_attempt", { instance: name, code: attempt.code, time })
    : t("try_status", { instance: name, code: attempt.code });
  return make("li", "", icon("unreachable"), " ", text, make("span", "sub", attempt.reason));
}
