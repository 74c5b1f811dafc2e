// The peer connection: how it begins, is watched, is lost and made again, and ends.

import { adopt, devices, openPicked } from "./devices.js";
import { blank, measure, panel } from "./panel.js";
import { sendPortrait } from "./portrait.js";
import { $, ms, show } from "./screen.js";
import { Refusal, ask } from "./server.js";
import { state } from "./state.js";

const UPLINK_BPS = 300_000; // enough for 320x240, and little for the server to decode
const GATHER_MS = 2000; // for this browser to find its own addresses
const SILENCE_MS = 6000; // without an answer of the server, until the connection counts as lost
const PATIENCE_MS = 3000; // for a connection that says of itself that it is interrupted
const FULL_RETRY_S = 10;
const LONGEST_PAUSE_S = 10; // between two tries to connect again

let tries = 0;
let retry = 0;
let wakeLock = null;

async function connect() {
  const peer = new RTCPeerConnection({ iceServers: state.choices.ice_servers });
  const mine = { peer, id: null, channel: null, answered: performance.now(), seen: null, arrived: false, timer: 0 };
  state.link = mine;
  for (const track of state.stream.getTracks()) limit(peer.addTrack(track, state.stream));
  if (!state.stream.getVideoTracks().length) peer.addTransceiver("video", { direction: "recvonly" });
  mine.channel = peer.createDataChannel("panel", { ordered: false, maxRetransmits: 0 });
  mine.channel.onmessage = ({ data }) => state.link === mine && hear(mine, JSON.parse(data));
  mine.channel.onclose = () => state.link === mine && lose("The connection was closed.");
  peer.ontrack = ({ track, receiver }) => watch(mine, track, receiver);
  peer.onconnectionstatechange = () => state.link === mine && follow(mine);
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
  const answer = await ask("POST", "/api/sessions", JSON.stringify({ sdp: peer.localDescription.sdp, wish: state.wish }));
  mine.id = answer.id;
  if (state.link !== mine) return drop(mine); // stopped meanwhile
  if (state.portrait) await sendPortrait(); // before anything is shown
  await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
  mine.timer = setInterval(() => look(mine), 1000);
}

function limit(sender) {
  if (sender.track.kind !== "video") return;
  const parameters = sender.getParameters();
  for (const encoding of parameters.encodings) encoding.maxBitrate = UPLINK_BPS;
  sender.setParameters(parameters).catch(() => {}); // a wish; some browsers take it only later
}

function gathered(peer) {
  return new Promise((done) => {
    const check = () => peer.iceGatheringState === "complete" && done();
    peer.addEventListener("icegatheringstatechange", check);
    setTimeout(done, GATHER_MS);
    check();
  });
}

function watch(mine, track, receiver) {
  if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
  const video = $("listener");
  video.srcObject = new MediaStream([track]);
  video.onplaying = () => arrive(mine);
}

function arrive(mine) {
  if (state.link !== mine || mine.arrived) return;
  mine.arrived = true;
  tries = 0;
  show("live", "Listening to you");
}

function follow(mine) {
  const { connectionState } = mine.peer;
  if (connectionState === "failed") lose("The connection was lost.");
  if (connectionState === "disconnected") {
    setTimeout(() => state.link === mine && mine.peer.connectionState !== "connected" && lose("The connection was lost."), PATIENCE_MS);
  }
}

function look(mine) {
  if (performance.now() - mine.answered > SILENCE_MS) return lose("The server does not answer.");
  if (mine.channel.readyState === "open") mine.channel.send(String(performance.now()));
  measure(mine);
}

function hear(mine, message) {
  mine.answered = performance.now();
  if (message.type === "pong") $("network").textContent = ms(performance.now() - Number(message.ping));
  if (message.type === "panel") panel(message);
  if (message.figures) arrive(mine); // a page in the background plays nothing
  if (message.type === "ended") lose(message.reason);
}

function drop(mine) {
  clearInterval(mine.timer);
  mine.peer.close();
  if (mine.id) fetch(`/api/sessions/${mine.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

function disconnect() {
  clearTimeout(retry);
  if (state.link) drop(state.link);
  state.link = null;
}

export function lose(reason) {
  disconnect();
  if (!state.wanted) return;
  const pause = Math.min(2 ** tries++, LONGEST_PAUSE_S);
  show("lost", "Reconnecting", { title: reason, text: `Trying again in ${pause} s.`, button: "Try now" });
  retry = setTimeout(again, pause * 1000);
}

export async function again() {
  if (!state.wanted) return;
  disconnect();
  show("busy", "Connecting");
  try {
    await devices(replace);
    await connect();
  } catch (error) {
    failed(error);
  }
}

export function failed(error) {
  if (error.kind === "full") return full(error.message);
  if (error.kind === "network" || !(error instanceof Refusal)) return lose(error.message);
  stop();
  show("failed", "Not connected", { title: "This did not work", text: error.message, button: "Try again" });
}

function full(message) {
  disconnect();
  const notice = { title: "Everybody is listening to somebody", text: `${message} You are let in as soon as there is room.`, button: "Try now" };
  show("full", "Full", notice);
  retry = setTimeout(again, FULL_RETRY_S * 1000);
}

export async function start() {
  state.wanted = true;
  tries = 0;
  $("go").textContent = "Stop";
  $("go").classList.add("stop");
  await again();
  stayAwake();
}

export function stop() {
  state.wanted = false;
  disconnect();
  for (const track of state.stream?.getTracks() ?? []) track.stop();
  state.stream = null;
  $("self").hidden = true;
  $("listener").srcObject = null;
  $("go").textContent = "Start";
  $("go").classList.remove("stop");
  $("mute").disabled = true;
  wakeLock?.release().catch(() => {});
  wakeLock = null;
  show("idle", "Not connected");
  blank();
}

// Takes the devices that are picked, over the same connection; also where one was unplugged.
export async function replace() {
  const old = state.stream;
  try {
    adopt(await openPicked(), replace);
  } catch (error) {
    return failed(error);
  }
  for (const track of old?.getTracks() ?? []) track.stop();
  for (const sender of state.link?.peer.getSenders() ?? []) {
    const track = state.stream.getTracks().find((each) => each.kind === sender.track?.kind);
    if (track) await sender.replaceTrack(track);
  }
}

export async function stayAwake() {
  try {
    if (state.wanted && document.visibilityState === "visible") wakeLock = await navigator.wakeLock?.request("screen");
  } catch {
    // a battery that is low; the screen may then go off
  }
}
