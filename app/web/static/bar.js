// The bar that is always in sight: what is being done, how far, how to stop; then the verdict.

import { verdictInWords } from "./results.js";
import { duration, number, say } from "./words.js";

const at = (id) => document.getElementById(id);
const ANNOUNCED = [0, 0.25, 0.5, 0.75];
const title = document.title;
let announced = null; // the work and the step of it that was announced last

// Shows the state of a work; of null, nothing.
export function showState(work, others = 0) {
  const state = work?.state ?? "none";
  document.body.dataset.state = state;
  const busy = state === "waiting" || state === "working";
  at("bar").hidden = !work;
  at("working").hidden = !busy;
  at("outcome").hidden = state !== "done";
  at("problem").hidden = state !== "failed";
  at("cancelled").hidden = state !== "cancelled";
  if (busy) showProgress(work, others);
  if (state === "failed") at("problem").textContent = work.problem.message;
  const parts = busy ? [progressOf(work), title] : state === "done" ? ["✓", title] : [title];
  document.title = parts.join(" · ");
  announce(work);
}

// Says what went wrong without a work.
export function complain(problem) {
  at("problem").textContent = problem.message;
  at("problem").hidden = at("bar").hidden = false;
}

function showProgress(work, others) {
  at("status").textContent = work.doing;
  at("progress").value = work.part;
  const more = others ? say("more_pictures", { count: number(others) }) : "";
  at("left").textContent = [progressOf(work), more].filter(Boolean).join(" · ");
}

// As "34 % · about 12 s left".
function progressOf({ part, secondsLeft }) {
  const left = secondsLeft ? say("time_left", { time: duration(secondsLeft) }) : "";
  return [`${number(100 * part)} %`, left].filter(Boolean).join(" · ");
}

// At a few steps alone: a screen reader would read every one of them.
function announce(work) {
  if (!work || work.state === "failed") return; // an alert, which is read by itself
  const step =
    work.state === "working" ? ANNOUNCED.findLast((part) => work.part >= part) : work.state;
  if (announced?.work === work && announced.step === step) return;
  announced = { work, step };
  if (work.state === "working") {
    const percent = number(100 * step);
    at("announced").textContent = say("announced", { doing: work.doing, percent });
  } else if (work.state === "done") {
    at("announced").textContent = verdictInWords(work.result);
  }
}
