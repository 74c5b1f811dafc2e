// The strip under the face: the voice and what the listener did, on one line of time.

import { $ } from "./screen.js";

const SPAN_MS = 20_000;
const FRAME_MS = 40;
const CALM_MS = 1000; // between pictures for who wants less motion
const PAUSE_MS = 300; // the shortest that a listener answers
const CAUSE_MS = 6000; // what lies further back is not what an answer is to

const DOES = { nod: "Nodded", smile: "Smiled", attention: "Looked up" };
const WHY = {
  pause: "you paused", "low pitch": "your voice fell", face: "you smiled", cue: "it was told to",
  voice: { attention: "you began to speak", smile: "you sound lively", nod: "you spoke" },
};

const levels = []; // { at, level, voiced }, of the last SPAN_MS
export const marks = []; // { at, kind, cause }
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let drawn = 0;
let running = false;

export function addLevel(at, level, voiced) {
  levels.push({ at, level, voiced });
  while (levels[0].at < at - SPAN_MS) levels.shift();
}

// Marks an event that is seen at a moment; returns how long after its cause that is, where the cause could be heard.
export function addEvent({ kind, because }, at) {
  const cause = because === "pause" ? pauseBefore(at) : because === "voice" ? wordBefore(at) : null;
  marks.push({ at, kind, cause });
  if (!DOES[kind]) return null;
  $("answer").textContent = words(kind, because);
  met();
  return cause === null ? null : at - cause;
}

function words(kind, because) {
  if (because === "long turn") return `${DOES[kind]} along`;
  const why = WHY[because]?.[kind] ?? WHY[because];
  return why ? `${DOES[kind]}: ${why}` : DOES[kind];
}

// When the last silence began that was long enough to be answered.
function pauseBefore(at) {
  let ended = null;
  for (let n = levels.length - 1; n > 0 && levels[n].at > at - CAUSE_MS; n--) {
    if (!levels[n].voiced) ended ??= levels[n].at;
    else if (ended !== null && ended - levels[n].at >= PAUSE_MS) return levels[n].at;
    else ended = null;
  }
  return null;
}

// When the last words began that came after such a silence.
function wordBefore(at) {
  let began = null;
  for (let n = levels.length - 1; n >= 0 && levels[n].at > at - CAUSE_MS; n--) {
    if (levels[n].voiced) began = levels[n].at;
    else if (began !== null && began - levels[n].at >= PAUSE_MS) return began;
  }
  return began;
}

// The line for who is here for the first time, until the listener has done something.
export function greet() {
  let known = false;
  try {
    known = localStorage.getItem("pflx-met") !== null;
  } catch {
    // a browser that keeps nothing
  }
  $("answer").textContent = known ? "" : "Say something, then pause: it nods.";
}

function met() {
  try {
    localStorage.setItem("pflx-met", "");
  } catch {
    // likewise
  }
}

export function run() {
  if (running) return;
  running = true;
  requestAnimationFrame(step);
}

export function halt() {
  running = false;
  levels.length = marks.length = 0;
}

function step(now) {
  if (!running) return;
  requestAnimationFrame(step);
  if (now - drawn < (calm.matches ? CALM_MS : FRAME_MS)) return;
  drawn = now;
  while (marks.length && marks[0].at < now - SPAN_MS) marks.shift();
  draw(now);
}

function draw(now) {
  const canvas = $("timeline"), { clientWidth: width, clientHeight: height } = canvas;
  const [w, h] = [width, height].map((side) => Math.round(side * devicePixelRatio));
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name);
  const pen = canvas.getContext("2d");
  pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const x = (at) => width - 12 - ((now - at) / SPAN_MS) * (width - 24);
  const voice = height - 22, lane = 16;
  pen.lineCap = "round";
  pen.lineWidth = 2;
  let last = -Infinity;
  for (const { at, level, voiced } of levels) {
    const place = Math.round(x(at) / 4) * 4;
    if (place === last || place < 8) continue;
    last = place;
    pen.strokeStyle = colour(voiced ? "--edge" : "--rule");
    line(pen, place, voice - level * 18, place, voice + level * 18);
  }
  pen.strokeStyle = pen.fillStyle = colour("--accent");
  for (const { at, kind, cause } of marks) {
    if (kind === "blink") {
      pen.lineWidth = 1.5;
      line(pen, x(at), lane - 3, x(at), lane + 3);
      continue;
    }
    pen.lineWidth = 1.25;
    pen.globalAlpha = 0.6;
    if (cause !== null) line(pen, x(cause), voice, x(at), lane);
    pen.globalAlpha = 1;
    pen.beginPath();
    pen.arc(x(at), lane, 5, 0, 2 * Math.PI);
    pen.fill();
  }
}

function line(pen, fromX, fromY, toX, toY) {
  pen.beginPath();
  pen.moveTo(fromX, fromY);
  pen.lineTo(toX, toY);
  pen.stroke();
}
