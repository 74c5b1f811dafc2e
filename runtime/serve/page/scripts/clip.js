// A clip of the conversation: the listener, the visitor in a corner, and the visitor's voice. It stays in this browser.

import { $, label, say } from "./screen.js";
import { state } from "./state.js";

const TYPES = ["video/mp4;codecs=avc1.42E01F,mp4a.40.2", "video/webm;codecs=vp8,opus", "video/webm", "video/mp4"];
const LONGEST_S = 60;
const SHORT_SIDE = 512; // px; smaller pictures are enlarged, for players do it worse
const FRAME_MS = 40;

let recorder = null;

export const canRecord = () => "MediaRecorder" in window && TYPES.some((type) => MediaRecorder.isTypeSupported(type));

export function toggleRecording() {
  if (recorder) recorder.stop();
  else record();
}

export function endRecording() {
  recorder?.stop();
}

function record() {
  const video = $("listener"), canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  const scale = Math.max(1, Math.ceil(SHORT_SIDE / video.videoHeight));
  [canvas.width, canvas.height] = [video.videoWidth * scale, video.videoHeight * scale];
  const stream = canvas.captureStream(1000 / FRAME_MS), parts = [], begun = performance.now();
  for (const track of state.stream.getAudioTracks()) stream.addTrack(track);
  const type = TYPES.find((each) => MediaRecorder.isTypeSupported(each));
  recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 2_500_000 });
  recorder.ondataavailable = ({ data }) => parts.push(data);
  const drawing = setInterval(() => {
    paint(pen, canvas, video);
    const seconds = Math.floor((performance.now() - begun) / 1000);
    $("recording-time").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (seconds >= LONGEST_S) recorder.stop();
  }, FRAME_MS);
  recorder.onstop = () => {
    clearInterval(drawing);
    recorder = null;
    reflect(false);
    show(new Blob(parts, { type: type.split(";")[0] }));
  };
  recorder.start(1000);
  reflect(true);
}

function reflect(on) {
  $("recording").hidden = !on;
  $("record").classList.toggle("on", on);
  label("record", on ? "End clip" : "Record");
  if (on) say("Recording in this browser. Nobody else gets it.");
}

function paint(pen, canvas, video) {
  pen.drawImage(video, 0, 0, canvas.width, canvas.height);
  if (!$("self-view").hidden) {
    const self = $("self"), width = Math.min(canvas.width, canvas.height) / 5, height = (width * self.videoHeight) / (self.videoWidth || 1), gap = width / 8;
    pen.save();
    pen.translate(gap + width, canvas.height - gap - height);
    pen.scale(-1, 1);
    pen.drawImage(self, 0, 0, width, height);
    pen.restore();
  }
  if ($("untrained").hidden) return;
  pen.font = `${canvas.height / 28}px system-ui`;
  pen.fillStyle = "#fff";
  pen.fillText($("untrained").textContent, 10, canvas.height / 20);
}

function show(clip) {
  const extension = clip.type.split("/")[1], stamp = new Date().toISOString().slice(0, 16).replace(/[-:]/g, "").replace("T", "-");
  const file = new File([clip], `listener-${stamp}.${extension}`, { type: clip.type }), url = URL.createObjectURL(file);
  $("clip-video").src = url;
  Object.assign($("clip-save"), { href: url, download: file.name });
  $("clip-share").hidden = !navigator.canShare?.({ files: [file] });
  $("clip-share").onclick = () => navigator.share({ files: [file] }).catch((error) => error.name !== "AbortError" && say("The clip could not be shared. Save it."));
  $("clip-close").onclick = () => $("clip").close();
  $("clip").onclose = () => {
    $("clip-video").removeAttribute("src");
    URL.revokeObjectURL(url);
  };
  $("clip").showModal();
}
