// How loud the visitor is: what the bar shows, whether a voice is heard, and the level that the timeline draws.

import { $ } from "./screen.js";
import { addLevel } from "./strip.js";

const EVERY_MS = 50;
const QUIETEST_DB = -60;
const VOICE_DB = -45; // of a voice at a table, after the browser's own gain control; rooms are below
const FALL = 0.85; // of the bar, each time: it follows a voice up at once, and down in a moment
const HELD_MS = 800; // a voice pauses between words
const SILENT_MS = 8000; // until it is asked whether the microphone is on

let context = null;
let source = null;
let analyser = null;
let timer = 0;
let bar = 0;
let heard = { voice: -Infinity, any: 0 };

export function hearken(stream) {
  clearInterval(timer);
  source?.disconnect();
  source = analyser = null;
  $("meter").style.setProperty("--level", 0);
  if (!stream?.getAudioTracks().length) {
    tell(stream ? "No microphone" : "The microphone is off");
    return;
  }
  context ??= new AudioContext();
  context.resume();
  analyser = new AnalyserNode(context, { fftSize: 2048 });
  source = context.createMediaStreamSource(stream);
  source.connect(analyser);
  heard = { voice: -Infinity, any: performance.now() };
  const samples = new Float32Array(analyser.fftSize);
  timer = setInterval(() => listen(samples, stream.getAudioTracks()[0].enabled), EVERY_MS);
}

function listen(samples, on) {
  analyser.getFloatTimeDomainData(samples);
  const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
  const db = on ? 10 * Math.log10(power + 1e-12) : QUIETEST_DB;
  const level = Math.min(1, Math.max(0, (db - QUIETEST_DB) / -QUIETEST_DB));
  const now = performance.now();
  if (db > VOICE_DB) heard.voice = heard.any = now;
  bar = Math.max(level, bar * FALL);
  $("meter").style.setProperty("--level", bar.toFixed(2));
  addLevel(now, level, db > VOICE_DB);
  if (!on) tell("You are muted");
  else if (now - heard.voice < HELD_MS) tell("I hear you");
  else tell(now - heard.any < SILENT_MS ? "I am listening" : "I hear nothing. Is the microphone on?");
}

function tell(text) {
  if ($("heard").textContent !== text) $("heard").textContent = text;
}
