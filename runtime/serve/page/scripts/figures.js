// Figures in plain words: how soon the visitor sees an answer, network and browser included; behind Details, the rest.

import { $, ms } from "./screen.js";
import { state } from "./state.js";
import { addEvent } from "./strip.js";

const CHART_S = 60;
const UNFED_MS = 500;
const RUNGS = {
  FULL: "in full", FEWER_STEPS: "with fewer denoising steps", HALF_RATE: "one for two frames", HOLD: "not now: the last once more",
  WARPED: "by moving the head of the last",
};
const SHORT = { FEWER_STEPS: "in fewer steps", HALF_RATE: "at half the rate", HOLD: "a little late", WARPED: "in simpler pictures" };

const here = { reaction: null, network: null, buffer: null }; // in ms: the parts of the first figure
const totals = []; // of the last minute: when, and how long

export function panel(mine, message) {
  events(mine, message.events ?? []);
  const figures = message.figures;
  if (!figures) return;
  tellRung(figures.rung);
  here.reaction = figures.reaction_ms;
  $("reaction").textContent = ms(figures.reaction_ms);
  $("reaction-p95").textContent = ms(figures.reaction_p95_ms);
  const unfed = message.unfed_ms > UNFED_MS; // then it goes on with a speaker who sits still
  $("age").textContent = unfed ? `nothing came of you for ${seconds(message.unfed_ms)}` : ms(figures.age_ms);
  $("age").classList.toggle("warn", unfed);
  $("missed").textContent = `${figures.missed ?? "–"} of ${figures.frames}; ${message.missed} since you began`;
  const late = figures.missed > 0;
  $("missed-more").textContent = late ? `${figures.missed} of ${figures.frames} late` : "none late";
  $("missed-more").classList.toggle("warn", late);
  $("rung").textContent = RUNGS[figures.rung] ?? figures.rung;
  $("algorithmic").textContent = ms(message.algorithmic_ms);
  $("playout-used").textContent = ms(message.playout_ms);
  $("generator-cost").textContent = tenths(message.cost_ms.generator);
  $("render-cost").textContent = tenths(message.cost_ms.render);
  $("waiting-speaker").textContent = ms(message.waiting_ms.speaker);
  $("waiting-frames").textContent = ms(message.waiting_ms.frames);
  $("unsent").textContent = message.unsent;
  $("unread").textContent = message.unread;
  chart(total());
}

function network(roundTripMs) {
  here.network = roundTripMs;
  $("network").textContent = ms(roundTripMs);
  total();
}

// From what the visitor does to the first picture that depends on it, on this screen.
function total() {
  const parts = Object.values(here);
  const sum = parts.includes(null) ? null : parts.reduce((one, other) => one + other);
  $("total").textContent = seconds(sum);
  return sum;
}

function seconds(value) {
  return value === null ? "–" : `${(value / 1000).toFixed(2)} s`;
}

// What the listener begins to do is told at once, and again with the figures, for a message may be lost.
export function events(mine, list) {
  for (const event of list.filter(({ id }) => !mine.told.has(id))) {
    mine.told.add(event.id);
    const after = addEvent(event, performance.now() + (here.buffer ?? 0));
    if (after === null) continue;
    $("visible").textContent = seconds(after);
    $("visible-more").textContent = event.because === "pause" ? "from the end of your words" : "from your first word";
  }
}

// The figures change twice a second; only a change of the rung is told aloud, and not too often.
let told = { rung: "FULL", at: 0 };
function tellRung(rung) {
  const now = performance.now();
  if (rung === told.rung || now - told.at < 10_000) return;
  told = { rung, at: now };
  $("status-text").textContent = rung === "FULL" ? "Listening to you" : `Listening, ${SHORT[rung] ?? rung}`;
}

function tenths(value) {
  return `${value.toFixed(1)} ms`;
}

export function blank() {
  for (const id of ["total", "visible", "fps", "reaction", "reaction-p95", "age", "missed", "rung", "algorithmic", "playout-used",
    "generator-cost", "render-cost", "waiting-speaker", "waiting-frames", "unsent", "unread", "network", "buffer"]) $(id).textContent = "–";
  $("visible-more").textContent = "from your pause or first word to its nod";
  $("missed-more").textContent = "";
  here.reaction = here.network = here.buffer = null;
  totals.length = 0;
  chart(null);
}

function chart(sum) {
  const now = performance.now();
  if (sum !== null) totals.push([now, sum]);
  while (totals.length && now - totals[0][0] > CHART_S * 1000) totals.shift();
  const top = Math.max(500, ...totals.map(([, value]) => value * 1.15));
  const points = totals.map(([at, value]) => `${(300 - ((now - at) / CHART_S / 1000) * 300).toFixed(1)},${(56 - (value / top) * 56).toFixed(1)}`);
  const line = points.length ? `M${points.join("L")}` : "";
  $("chart").querySelector(".line").setAttribute("d", line);
  $("chart").querySelector(".area").setAttribute("d", line && `${line}V56H${points[0].split(",")[0]}Z`);
}

export async function measure(mine) {
  const report = await mine.peer.getStats();
  for (const entry of report.values()) {
    if (entry.type === "candidate-pair" && entry.nominated && entry.currentRoundTripTime) network(entry.currentRoundTripTime * 1000);
    if (entry.type !== "inbound-rtp" || entry.kind !== "video") continue;
    const before = mine.seen;
    mine.seen = entry;
    if (!before || state.link !== mine) continue;
    const elapsed = (entry.timestamp - before.timestamp) / 1000;
    const emitted = entry.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
    $("fps").textContent = ((entry.framesDecoded - before.framesDecoded) / elapsed).toFixed(1);
    if (emitted) here.buffer = ((entry.jitterBufferDelay - before.jitterBufferDelay) / emitted) * 1000;
    $("buffer").textContent = ms(here.buffer);
    total();
  }
}
