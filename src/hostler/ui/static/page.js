// The page: follows the node's events, and draws what they say.

import { showCalls } from "./calls.js";
import { byId, make, setText } from "./dom.js";
import { bytes, count, duration, rate, since } from "./format.js";
import { draw } from "./plot.js";
import { showFunctions, showRunners } from "./tables.js";

const KEPT_SECONDS = 300;
const LEAST_SECONDS = 60;
const SHOWN_CALLS = 50;
const RETRY_MS = 3000;
const RATE_SECONDS = 5;

// Rates of counters that the node only sums up, over the last seconds.
class Rates {
  constructor() { this.seen = new Map(); }

  note(key, now, value) {
    const points = this.seen.get(key) || [];
    points.push([now, value]);
    while (points.length > 2 && points[0][0] < now - RATE_SECONDS) points.shift();
    this.seen.set(key, points);
  }

  of(key) {
    const points = this.seen.get(key) || [];
    if (points.length < 2) return null;
    const [[t0, v0], [t1, v1]] = [points[0], points[points.length - 1]];
    return t1 > t0 ? Math.max(0, (v1 - v0) / (t1 - t0)) : null;
  }
}

let state = null;
let seconds = new Map();
let calls = [];
let rates = new Rates();
let source = null;
let retry = 0;

function accept(fresh, isWhole) {
  if (isWhole) {
    seconds = new Map();
    calls = [];
    rates = new Rates();
  }
  state = fresh;
  for (const second of fresh.seconds || []) seconds.set(second[0], second);
  const oldest = fresh.now - KEPT_SECONDS - 2;
  for (const at of seconds.keys()) if (at < oldest) seconds.delete(at);
  calls = [...(fresh.recent || []).slice().reverse(), ...calls].slice(0, SHOWN_CALLS);
  for (const fn of fresh.functions) rates.note(fn.id, fresh.now, fn.calls);
  for (const runner of fresh.runners || []) rates.note(runner.address, fresh.now, runner.calls);
  show();
}

function readiness() {
  if (state.ready) return "ready";
  return state.trouble ? `not ready: ${state.trouble}` : "not ready";
}

function show() {
  byId("main").hidden = false;
  setText(byId("node"), state.node);
  document.title = `hostler ${state.node}`;
  setText(byId("about"), `${readiness()} · up ${
    since(state.now - state.started)} · ${state.version}`);
  showFigures();
  byId("plots").hidden = byId("calls-part").hidden = state.seconds === null;
  if (state.seconds !== null) showPlots();
  byId("functions-table").classList.toggle("listed", state.seconds === null);
  showRunners(state, rates);
  for (const cell of document.querySelectorAll("#functions-table .where")) {
    cell.hidden = !state.functions.some((fn) => fn.containers);
  }
  showFunctions(state, rates);
  if (byId("hold").getAttribute("aria-pressed") === "false") showCalls(calls);
}

// Of the last seconds that are over, those without calls among them.
function lately() {
  const now = Math.floor(state.now) - 1;
  const last = [];
  for (let at = now - RATE_SECONDS + 1; at <= now; at += 1) {
    if (seconds.has(at)) last.push(seconds.get(at));
  }
  return last;
}

function showFigures() {
  const rows = [];
  if (state.seconds !== null) {
    const last = lately();
    const sum = (index) => last.reduce((total, second) => total + second[index], 0);
    const worst = (index) => last.length ? Math.max(...last.map((second) => second[index])) : null;
    const failed = sum(2) / RATE_SECONDS;
    const median = last.length ? last.map((s) => s[3]).sort((a, b) => a - b)[last.length >> 1] : null;
    rows.push(["Calls/s", rate(sum(1) / RATE_SECONDS)], ["Median", duration(median)],
      ["99th percentile", duration(worst(4))],
      ["Failed/s", rate(failed), "", failed > 0 ? "bad" : ""]);
  }
  const load = state.load;
  if (load) {
    rows.push(["Running", count(load.running)], ["Queued", count(load.queued)]);
    if (load.memory_total !== null) {
      rows.push(["Memory", bytes(load.memory_used), `of ${bytes(load.memory_total)}`]);
    }
  }
  const list = byId("figures");
  list.hidden = !rows.length;
  while (list.children.length > rows.length) list.lastElementChild.remove();
  rows.forEach(([name, value, extra, className], index) => {
    let box = list.children[index];
    if (!box) {
      box = make("div");
      box.append(make("dt"), make("dd"));
      box.lastElementChild.append(make("span"), " ", make("small"));
      list.append(box);
    }
    box.className = className || "";
    setText(box.querySelector("dt"), name);
    setText(box.querySelector("dd span"), value);
    setText(box.querySelector("dd small"), extra || "");
  });
}

function showPlots() {
  const to = Math.floor(state.now) - 1;
  // A node that has just started is not drawn as five minutes of nothing.
  const lived = Math.max(LEAST_SECONDS, to - Math.floor(state.started) + 1);
  const from = to - Math.min(KEPT_SECONDS, lived) + 1;
  const span = since(to - from + 1);
  const column = (index) =>
    new Map([...seconds.values()].filter((s) => s[0] >= from && s[0] <= to).map((s) => [s[0], s[index]]));
  const [all, failed] = [column(1), column(2)];
  const peak = Math.max(0, ...all.values());
  draw(byId("rate"), {
    series: [{ name: "calls", area: true, values: all },
      ...([...failed.values()].some(Boolean) ? [{ name: "failed", values: failed }] : [])],
    from, to, gap: 0, least: 5, format: count,
    label: `Calls per second in the last ${span}, at most ${count(peak)}`,
  });
  const [p50, p99] = [column(3), column(4)];
  draw(byId("latency"), {
    series: [{ name: "p99", values: p99 }, { name: "p50", values: p50 }],
    from, to, gap: null, least: 1, format: duration,
    label: `Latency in the last ${span}, 99th percentile at most ${
      duration(p99.size ? Math.max(...p99.values()) : null)}`,
  });
}

function link(status, text) {
  const element = byId("link");
  if (element.dataset.state === status && element.textContent === text) return;
  element.dataset.state = status;
  setText(element, text);
  document.body.classList.toggle("lost", status === "lost");
}

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  source = new EventSource("events");
  source.addEventListener("state", (event) => {
    accept(JSON.parse(event.data), true);
    link("live", "Live");
  });
  source.addEventListener("tick", (event) => accept(JSON.parse(event.data), false));
  source.onerror = () => {
    // Reconnecting is done here, not by the browser, which gives up after an answer like 503.
    source.close();
    // Who is not logged in any more gets the form.
    fetch("state.json", { method: "HEAD" }).then(
      (answer) => { if (answer.status === 401) location.reload(); }, () => {});
    link("lost", state ? "Disconnected, trying again. What is shown is old."
      : "The node does not answer, trying again.");
    retry = setTimeout(connect, RETRY_MS);
  };
}

byId("more").addEventListener("click", (event) => {
  const all = byId("calls").classList.toggle("all");
  event.target.setAttribute("aria-expanded", String(all));
  setText(event.target, all ? "Show fewer" : "Show more");
});
byId("hold").addEventListener("click", (event) => {
  const held = event.target.getAttribute("aria-pressed") === "false";
  event.target.setAttribute("aria-pressed", String(held));
  if (!held) showCalls(calls);
});
document.addEventListener("visibilitychange", () => {
  // A page that nobody sees costs the node nothing.
  if (document.hidden) {
    clearTimeout(retry);
    if (source) source.close();
    link("wait", "Paused while hidden");
  } else connect();
});
window.addEventListener("resize", () => { if (state && state.seconds !== null) showPlots(); });
setText(byId("base"), location.origin);
connect();
