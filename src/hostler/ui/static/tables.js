// Functions and runners.

import { nameOf } from "./calls.js";
import { byId, keyed, make, setText } from "./dom.js";
import { bytes, count, duration, rate, since } from "./format.js";

function cells(row, heading, columns) {
  const head = make("th");
  head.scope = "row";
  head.setAttribute("role", "rowheader");
  head.append(make("span", "name"), make("small"));
  row.append(head, make("td", "states wide"));
  for (const label of columns) {
    const cell = make("td", "number");
    cell.dataset.label = label;
    row.append(cell);
  }
  // The narrow layout changes their display, which would take the table's meaning away.
  row.setAttribute("role", "row");
  for (const cell of row.querySelectorAll("td")) cell.setAttribute("role", "cell");
  return row;
}

function setNumbers(row, values) {
  row.querySelectorAll("td.number").forEach((cell, index) => {
    const [text, className] = values[index];
    setText(cell, text);
    cell.className = `number ${className || (text === "0" || text === "–" ? "zero" : "")}`;
  });
}

function setStates(row, states) {
  const cell = row.querySelector(".states");
  const wanted = states.map(([name, text]) => `${name}:${text}`).join();
  if (cell.dataset.shown === wanted) return;
  cell.dataset.shown = wanted;
  cell.replaceChildren(...states.map(([name, text]) => {
    const span = make("span", name);
    span.append(make("i"), text);
    return span;
  }));
}

export function showFunctions(state, rates) {
  keyed(byId("functions-rows"), state.functions, (fn) => fn.id,
    () => cells(make("tr"), "Function", ["Calls/s", "Median", "Calls", "Failed", "Last call"]),
    (row, fn) => updateFunction(row, fn, state, rates));
  const none = state.functions.length === 0;
  byId("functions-table").hidden = none;
  byId("functions-empty").hidden = !none;
  setText(byId("functions-empty"), state.listing === "none"
    ? "No function has been called here yet." : "There is no function yet. Make one: hostler deploy DIR --app APP");
  setText(byId("functions-count"), none ? "" : count(state.functions_total));
  showNotice(state);
}

function showNotice(state) {
  const notices = [];
  if (state.listing === "stale") {
    notices.push("The list of functions could not be read: names and functions may be missing.");
  }
  const left = state.functions_total - state.functions.length;
  if (left > 0 || state.listing === "partial") {
    notices.push("Not all functions are shown, but those that were called last.");
  }
  byId("functions-notice").hidden = notices.length === 0;
  setText(byId("functions-notice"), notices.join(" "));
}

function updateFunction(row, fn, state, rates) {
  setText(row.querySelector(".name"), nameOf(fn));
  setText(row.querySelector("small"), fn.image);
  const has = fn.containers;
  const states = !has ? [] : ["busy", "idle", "paused", "starting"]
    .filter((name) => has[name] > 0).map((name) => [name, `${has[name]} ${WORDS[name]}`]);
  row.querySelector(".states").hidden = !has;
  setStates(row, has && !states.length ? [["none", "none"]] : states);
  setNumbers(row, [
    [rate(rates.of(fn.id))], [duration(fn.median)], [count(fn.calls)],
    [count(fn.failed), fn.failed ? "bad" : ""],
    [fn.last === null ? "–" : since(state.now - fn.last)],
  ]);
}

const WORDS = { busy: "busy", idle: "hot", paused: "paused", starting: "starting" };
const HEALTH = { "in use": "good", returning: "half", refuses: "half", ejected: "ill",
  unreachable: "ill" };

export function showRunners(state, rates) {
  byId("runners-part").hidden = state.runners === null;
  if (state.runners === null) return;
  const none = state.runners.length === 0;
  byId("runners-empty").hidden = !none;
  byId("runners").closest("table").hidden = none;
  setText(byId("runners-count"), none ? "" : count(state.runners.length));
  keyed(byId("runners"), state.runners, (runner) => runner.address,
    () => cells(make("tr"), "Runner", ["Calls/s", "Active", "Idle hot", "Free memory"]),
    (row, runner) => updateRunner(row, runner, rates));
}

function healthText(runner) {
  if (runner.state === "ejected") return `ejected: ${runner.cause}`;
  if (runner.state === "refuses") return "takes no calls";
  if (runner.state === "returning") return `returning, ${Math.round(runner.share * 100)} %`;
  return runner.state;
}

function updateRunner(row, runner, rates) {
  setText(row.querySelector(".name"), runner.address);
  setStates(row, [[HEALTH[runner.state] || "half", healthText(runner)]]);
  setNumbers(row, [
    [rate(rates.of(runner.address))], [count(runner.active)], [count(runner.idle_containers)],
    [bytes(runner.free_memory)],
  ]);
}
