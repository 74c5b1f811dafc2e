// The latency panel: the figures of the server, those of this browser, and the chart of ages.

import { $, ms } from "./screen.js";
import { state } from "./state.js";

const CHART_S = 60;
const RUNGS = { FULL: "Full", FEWER_STEPS: "Fewer steps", HALF_RATE: "Half rate", HOLD: "Hold", WARPED: "Warped" };
const RUNG_HELP = {
  FULL: "every picture as an offline run makes it",
  FEWER_STEPS: "segments with fewer denoising steps",
  HALF_RATE: "one picture for two frames",
  HOLD: "the last picture once more",
  WARPED: "the last picture, its head moved to where it should be",
};

const ages = []; // of what was shown in the last minute: when, and how old

export function panel(message) {
  const figures = message.figures;
  if (!figures) return;
  tellRung(figures.rung);
  $("reaction").textContent = ms(figures.reaction_ms);
  more("reaction", figures.reaction_p95_ms, "median; 95 % are within");
  $("age").textContent = ms(figures.age_ms);
  more("age", figures.age_p95_ms, "median; 95 % are below");
  $("missed").textContent = figures.missed ?? "–";
  $("missed").classList.toggle("warn", figures.missed > 0);
  $("missed-more").textContent = `of ${figures.frames} frames; ${message.missed} since you began`;
  $("rung").textContent = RUNGS[figures.rung] ?? figures.rung;
  $("rung-more").textContent = RUNG_HELP[figures.rung] ?? "";
  $("algorithmic").textContent = ms(message.algorithmic_ms);
  $("playout-used").textContent = ms(message.playout_ms);
  $("generator-cost").textContent = tenths(message.cost_ms.generator);
  $("render-cost").textContent = tenths(message.cost_ms.render);
  $("waiting-speaker").textContent = ms(message.waiting_ms.speaker);
  $("waiting-frames").textContent = ms(message.waiting_ms.frames);
  $("unsent").textContent = message.unsent;
  $("unread").textContent = message.unread;
  chart(figures.age_ms);
}

// The line under a figure: the rarer case where it is known, else what the figure is.
function more(id, value, words) {
  const line = $(`${id}-more`);
  line.dataset.meaning ??= line.textContent;
  line.textContent = value === null ? line.dataset.meaning : `${words} ${ms(value)}`;
}

// The figures change twice a second; only a change of the rung is told aloud, and not too often.
let told = { rung: "FULL", at: 0 };
function tellRung(rung) {
  const now = performance.now();
  if (rung === told.rung || now - told.at < 10_000) return;
  told = { rung, at: now };
  $("status-text").textContent = rung === "FULL" ? "Listening to you" : `Listening to you; ${RUNG_HELP[rung] ?? rung}`;
}

function tenths(value) {
  return `${value.toFixed(1)} ms`;
}

export function blank() {
  for (const id of ["reaction", "age", "missed", "rung", "algorithmic", "playout-used", "generator-cost", "render-cost",
    "waiting-speaker", "waiting-frames", "unsent", "unread", "network", "buffer", "fps"]) $(id).textContent = "–";
  more("reaction", null);
  more("age", null);
  $("missed").classList.remove("warn");
  ages.length = 0;
  chart(null);
}

function chart(age) {
  const now = performance.now();
  if (age !== null) ages.push([now, age]);
  while (ages.length && now - ages[0][0] > CHART_S * 1000) ages.shift();
  const top = Math.max(500, ...ages.map(([, value]) => value * 1.15));
  const points = ages.map(([at, value]) => `${(300 - ((now - at) / CHART_S / 1000) * 300).toFixed(1)},${(56 - (value / top) * 56).toFixed(1)}`);
  const line = points.length ? `M${points.join("L")}` : "";
  $("chart").querySelector(".line").setAttribute("d", line);
  $("chart").querySelector(".area").setAttribute("d", line && `${line}V56H${points[0].split(",")[0]}Z`);
}

export async function measure(mine) {
  const report = await mine.peer.getStats();
  for (const entry of report.values()) {
    if (entry.type !== "inbound-rtp" || entry.kind !== "video") continue;
    const before = mine.seen;
    mine.seen = entry;
    if (!before || state.link !== mine) continue;
    const seconds = (entry.timestamp - before.timestamp) / 1000;
    const emitted = entry.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
    $("fps").textContent = ((entry.framesDecoded - before.framesDecoded) / seconds).toFixed(1);
    if (emitted) $("buffer").textContent = ms(((entry.jitterBufferDelay - before.jitterBufferDelay) / emitted) * 1000);
  }
}
