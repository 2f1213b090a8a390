// The list of recent calls, each with its timeline.

import { byId, keyed, make, setText } from "./dom.js";
import { clock, duration } from "./format.js";

const STAGES = ["queue", "pull", "create", "init", "execution", "transit"];
const FEW = 12;  // of them that are shown at first: page.css
const MEANING = {
  queue: "waiting for a container", pull: "fetching the image", create: "making the container",
  init: "the function starting", execution: "the function running",
  transit: "the way there and back",
};

export function nameOf(call) {
  const name = call.fn || call.name;
  return name ? `${call.app} / ${name}` : call.fn_id || call.id || "unknown";
}

export function showCalls(calls) {
  byId("calls-empty").hidden = calls.length > 0;
  byId("calls").hidden = calls.length === 0;
  byId("more").hidden = calls.length <= FEW;
  keyed(byId("calls"), calls, (call) => call.id, createCall, updateCall);
}

function updateCall(element, call) {
  // A name may become known after the call.
  setText(element.querySelector(".what"), nameOf(call));
}

function createCall(call) {
  const details = make("details");
  const summary = make("summary");
  const good = call.outcome === "success";
  const outcome = make("span", good ? "outcome quiet" : "outcome bad", good ? "ok" : call.outcome);
  summary.append(make("span", "time quiet", clock(call.at)), make("span", "what", nameOf(call)),
    outcome, make("span", "took number", duration(call.ms)), bar(call));
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector(".detail")) details.append(detail(call));
  });
  return details;
}

function bar(call) {
  const element = make("span", "bar");
  element.setAttribute("aria-hidden", "true");
  for (const stage of STAGES) {
    if (call.stages[stage] <= 0) continue;
    const part = make("i", stage);
    part.style.flexGrow = String(1000 * call.stages[stage]);
    element.append(part);
  }
  return element;
}

function detail(call) {
  const element = make("div", "detail");
  const facts = [`Call ${call.id}`];
  if (call.detached) facts.push("detached");
  if (call.runner) facts.push(`on ${call.runner}`);
  if (call.attempts > 1) facts.push(`${call.attempts} attempts`);
  element.append(make("p", "", facts.join(" · ")));
  if (call.message) element.append(make("p", "message", call.message));
  element.append(steps(call));
  return element;
}

function steps(call) {
  const list = make("dl", "steps");
  const total = Math.max(call.ms, 0.001);
  let begin = 0;
  for (const stage of STAGES) {
    const ms = call.stages[stage];
    const term = make("dt", "", stage);
    term.title = MEANING[stage];
    const track = make("dd", "track");
    track.setAttribute("aria-hidden", "true");
    if (ms > 0) {
      const piece = make("i", `mark ${stage}`);
      piece.style.left = `${Math.min(99.5, 100 * begin / total)}%`;
      piece.style.width = `${100 * ms / total}%`;
      piece.style.height = "auto";
      track.append(piece);
    }
    begin += ms;
    list.append(term, track, make("dd", ms > 0 ? "number" : "number zero",
      ms > 0 ? duration(ms) : "–"));
  }
  return list;
}
