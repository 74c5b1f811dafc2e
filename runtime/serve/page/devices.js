// Camera and microphone: opened, listed, and in the picture of the visitor's own.

import { $ } from "./screen.js";
import { Refusal } from "./server.js";
import { state } from "./state.js";

const VIDEO = { width: { ideal: 320 }, height: { ideal: 240 }, frameRate: { ideal: 25, max: 30 } };
const AUDIO = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

// Who has no microphone is seen all the same, who has no camera heard.
async function openDevices({ video, audio } = { video: VIDEO, audio: AUDIO }) {
  if (!navigator.mediaDevices) {
    throw new Refusal("camera", "Browsers give the camera to https pages and to localhost only. Open the page that way.");
  }
  for (const constraints of [{ video, audio }, { video }, { audio }]) {
    try {
      return await navigator.mediaDevices.getUserMedia(constraints);
    } catch (error) {
      if (error.name !== "NotFoundError" || !constraints.video) throw new Refusal("camera", cameraSentence(error));
    }
  }
}

function cameraSentence(error) {
  if (error.name === "NotAllowedError") return "The camera was not allowed. Allow it in the address bar, and start again.";
  if (error.name === "NotFoundError") return "Neither a camera nor a microphone was found. Plug one in, and start again.";
  if (error.name === "NotReadableError") return "Another program uses the camera. Close it, and start again.";
  return `The camera cannot be opened (${error.name}).`;
}

export function openPicked() {
  const pick = (id) => (($(id).value && { deviceId: { ideal: $(id).value } }) || {});
  return openDevices({ video: { ...VIDEO, ...pick("camera") }, audio: { ...AUDIO, ...pick("microphone") } });
}

// `unplugged`, here and below, is called when a device that is in use is gone.
export async function devices(unplugged) {
  const [first] = [...(state.stream?.getVideoTracks() ?? []), ...(state.stream?.getAudioTracks() ?? [])];
  if (!first || first.readyState === "ended") adopt(await openDevices(), unplugged);
}

export function adopt(fresh, unplugged) {
  const mute = $("mute").getAttribute("aria-pressed") === "true";
  state.stream = fresh;
  for (const track of state.stream.getTracks()) {
    track.onended = () => state.stream?.getTracks().includes(track) && unplugged();
    if (track.kind === "audio") track.enabled = !mute;
  }
  $("self").srcObject = state.stream;
  $("self").hidden = !state.stream.getVideoTracks().length;
  $("mute").disabled = !state.stream.getAudioTracks().length;
  listDevices();
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
