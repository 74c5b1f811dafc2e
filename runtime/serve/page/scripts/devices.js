// Camera and microphone: opened, listed, switched, and in the picture of the visitor's own.

import { hearken } from "./meter.js";
import { $, label, say, show } from "./screen.js";
import { Refusal } from "./server.js";
import { state } from "./state.js";

const VIDEO = { width: { ideal: 320 }, height: { ideal: 240 }, frameRate: { ideal: 25, max: 30 } };
const AUDIO = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const PROMPT_MS = 500; // a browser that has not answered by then asks the visitor

// Sound is enough: who has no camera, or keeps it to themselves, is heard; who has no microphone is seen.
export async function openDevices() {
  if (!navigator.mediaDevices) {
    throw new Refusal("devices", "Browsers give camera and microphone to https pages and to localhost only. Open the page that way.");
  }
  const video = { ...VIDEO, ...picked("camera") }, audio = { ...AUDIO, ...picked("microphone") };
  const tries = state.voiceOnly ? [{ audio }] : [{ video, audio }, { audio }, { video }];
  let first;
  for (const constraints of tries) {
    try {
      const stream = await navigator.mediaDevices.getUserMedia(constraints);
      if (first) say(constraints.audio ? `${without("camera", first)} It listens to your voice.` : `${without("microphone", first)} It sees you, and hears nothing.`);
      return stream;
    } catch (error) {
      first ??= error;
    }
  }
  throw new Refusal("devices", remedy(first));
}

function picked(id) {
  return $(id).value && !$(id).disabled ? { deviceId: { ideal: $(id).value } } : {};
}

function without(device, { name }) {
  if (name === "NotAllowedError") return `The ${device} was not allowed.`;
  if (name === "NotFoundError") return `There is no ${device}.`;
  return `The ${device} is in use elsewhere, or does not work.`;
}

function remedy({ name }) {
  const devices = state.voiceOnly ? "the microphone" : "camera or microphone";
  if (name === "NotAllowedError") return `This page may not use ${devices}. Allow it by the symbol beside the address, and start again.`;
  if (name === "NotFoundError") return "No microphone was found. Plug one in, and start again.";
  if (name === "NotReadableError") return "Another program uses the microphone. Close it, and start again.";
  return `The microphone cannot be opened (${name}).`;
}

// `unplugged`, here and below, is called when a device that is in use is gone.
export async function devices(unplugged) {
  const [first] = state.stream?.getTracks() ?? [];
  if (first && first.readyState !== "ended") return;
  const asking = setTimeout(() => state.wanted && show("asking", "Waiting for you", prompt()), PROMPT_MS);
  try {
    const fresh = await openDevices();
    if (state.wanted) adopt(fresh, unplugged);
    else for (const track of fresh.getTracks()) track.stop(); // given up meanwhile
  } finally {
    clearTimeout(asking);
  }
}

function prompt() {
  const what = state.voiceOnly ? "the microphone" : "camera and microphone";
  const text = state.voiceOnly ? "Choose Allow, and it hears you." : "Choose Allow. Without a camera it still hears you.";
  return { title: `Your browser asks for ${what}`, text, button: "Not now", act: () => $("go").click() };
}


export function adopt(fresh, unplugged) {
  state.stream = fresh;
  for (const track of fresh.getTracks()) track.onended = () => state.stream?.getTracks().includes(track) && unplugged();
  mute($("mute").classList.contains("off"));
  $("self").srcObject = fresh;
  $("self-view").hidden = !fresh.getVideoTracks().length;
  $("mute").disabled = !fresh.getAudioTracks().length;
  $("see").setAttribute("aria-pressed", fresh.getVideoTracks().length > 0);
  hearken(fresh);
  listDevices();
}

export function release() {
  for (const track of state.stream?.getTracks() ?? []) track.stop();
  state.stream = null;
  $("self-view").hidden = true;
  $("self").srcObject = null;
  mute(false);
  offerOther();
  hearken(null);
}

// Beside the start: the other way to begin.
export function offerOther() {
  $("voice").textContent = state.voiceOnly ? "With camera" : "Voice only";
}

export function mute(off) {
  $("mute").classList.toggle("off", off);
  label("mute", off ? "Unmute" : "Mute");
  for (const track of state.stream?.getAudioTracks() ?? []) track.enabled = !off;
}

export async function listDevices() {
  const found = await navigator.mediaDevices.enumerateDevices();
  for (const [id, kind, name] of [["camera", "videoinput", "Camera"], ["microphone", "audioinput", "Microphone"]]) {
    const mine = found.filter((device) => device.kind === kind);
    const track = state.stream?.getTracks().find((each) => each.kind === kind.slice(0, 5));
    $(id).replaceChildren(...mine.map((device, n) => new Option(device.label || `${name} ${n + 1}`, device.deviceId)));
    if (!mine.length) $(id).replaceChildren(new Option("None found", ""));
    $(id).value = track?.getSettings().deviceId ?? $(id).value;
    $(id).disabled = !state.stream || mine.length < 2;
  }
}
