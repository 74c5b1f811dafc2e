// The session and its two ways, the web socket and the peer connection: how it begins, is watched, is lost and made again, and ends.

import { endRecording } from "./clip.js";
import { adopt, devices, openDevices, release } from "./devices.js";
import { blank, events, measure, panel } from "./figures.js";
import { sendPortrait } from "./portraits.js";
import { $, label, say, show } from "./screen.js";
import { shrinkLater } from "./selfview.js";
import { Line, Refusal } from "./server.js";
import { state } from "./state.js";
import { greet, halt, run } from "./strip.js";

const UPLINK_BPS = 300_000; // enough for 320x240, and little for the server to decode
const GATHER_MS = 2000; // for this browser to find its own addresses
const RELAY_MS = 5000; // and one of the relay, if there is one
const SILENCE_MS = 6000; // without an answer of the server, until the connection counts as lost
const PATIENCE_MS = 3000; // for a connection that says of itself that it is interrupted
const FULL_RETRY_S = 10;
const LONGEST_PAUSE_S = 10; // between two tries to connect again
const FADE_MS = 450; // of the listener into its portrait

let tries = 0;
let retry = 0;
let wakeLock = null;

async function connect() {
  if (!state.wanted || !state.stream || state.link) return; // stopped meanwhile, or begun again
  const peer = new RTCPeerConnection({ iceTransportPolicy: state.relayOnly ? "relay" : "all" });
  const mine = { peer, id: null, epoch: 1, line: null, answered: performance.now(), seen: null, told: new Set(), arrived: false, timer: 0 };
  state.link = mine;
  mine.line = new Line((message) => state.link === mine && hear(mine, message), (reason) => state.link === mine && mine.id && lose(reason));
  try {
    await meet(mine);
  } catch (error) {
    if (state.link === mine) throw error;
  }
}

// A place, then the offer: who is told that there is none has looked for no addresses.
async function meet(mine) {
  const { peer, line } = mine, wish = state.wish;
  const place = await line.ask("begin", { wish, replaces: state.last });
  if (state.link !== mine) return;
  Object.assign(mine, { id: place.id, epoch: place.epoch });
  state.granted = wish;
  remember(place.id);
  peer.setConfiguration({ ...peer.getConfiguration(), iceServers: place.ice_servers }); // with credentials of a relay that last for a while
  for (const track of state.stream.getTracks()) limit(peer.addTrack(track, state.stream));
  if (!state.stream.getVideoTracks().length) peer.addTransceiver("video", { direction: "recvonly" });
  peer.ontrack = ({ track, receiver }) => watch(mine, track, receiver);
  peer.onconnectionstatechange = () => state.link === mine && follow(mine);
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer, place.ice_servers.some(({ credential }) => credential));
  if (state.link !== mine) return;
  if (state.relayOnly && !hasRelay(peer)) {
    throw new Refusal("relay", "#relay is in the address, and this browser has found no relay: the server has none, or it cannot be reached from here.");
  }
  const answer = await line.ask("offer", { sdp: peer.localDescription.sdp });
  if (state.link !== mine) return;
  await sendPortrait(true); // before anything is shown
  await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
  mine.answered = performance.now();
  mine.timer = setInterval(() => look(mine), 1000);
}

function limit(sender) {
  if (sender.track.kind !== "video") return;
  const parameters = sender.getParameters();
  for (const encoding of parameters.encodings) encoding.maxBitrate = UPLINK_BPS;
  sender.setParameters(parameters).catch(() => {}); // a wish; some browsers take it only later
}

const hasRelay = (peer) => /^a=candidate:.* typ relay/m.test(peer.localDescription.sdp);

function gathered(peer, relayed) {
  return new Promise((done) => {
    const check = () => peer.iceGatheringState === "complete" && done();
    peer.addEventListener("icegatheringstatechange", check);
    setTimeout(() => (!relayed || hasRelay(peer)) && done(), GATHER_MS);
    setTimeout(done, RELAY_MS);
    check();
  });
}

// The next session takes the place of this one, which may go on for a while where this page froze or was thrown away.
function remember(id) {
  state.last = id;
  try {
    sessionStorage.setItem("pflx-session", id);
  } catch {
    // a browser that keeps nothing
  }
}

// A tab that is loaded again still has its session; one that was copied has that of the other.
export function recall() {
  const [entry] = performance.getEntriesByType("navigation");
  try {
    if (entry?.type === "reload") state.last = sessionStorage.getItem("pflx-session");
  } catch {
    // likewise
  }
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
  $("record").disabled = false;
  show("live", "Listening to you");
  shrinkLater();
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
  mine.line.say({ type: "ping", ping: "" });
  measure(mine);
}

function hear(mine, message) {
  mine.answered = performance.now();
  if (message.type === "panel") panel(mine, message);
  if (message.type === "events") events(mine, message.events);
  if (message.figures) arrive(mine); // a page in the background plays nothing
  if (message.type === "ended" && (message.reason || mine.timer)) lose(message.reason || "The connection was closed."); // else a reply says why
}

function drop(mine, forGood) {
  clearInterval(mine.timer);
  mine.peer.close();
  if (forGood) mine.line.say({ type: "leave", ask: 0 }); // of which no reply is waited for
  mine.line.close();
}

function disconnect(forGood = false) {
  clearTimeout(retry);
  const { link } = state;
  state.link = null;
  if (link) drop(link, forGood);
  $("record").disabled = true;
  endRecording();
}

export function lose(reason) {
  disconnect();
  if (!state.wanted) return;
  const pause = Math.min(2 ** tries++, LONGEST_PAUSE_S);
  show("lost", "Reconnecting", { title: reason, text: `Trying again in ${pause} s.`, button: "Try now", act: again });
  retry = setTimeout(again, pause * 1000);
}

export async function again() {
  if (!state.wanted) return;
  disconnect();
  show("busy", "Connecting");
  try {
    await devices(replace);
    if (!state.wanted) return;
    show("busy", "Connecting");
    await connect();
  } catch (error) {
    failed(error);
  }
}

const WAITS = {
  full: { title: "Everybody is listening to somebody", status: "Full" },
  busy: { title: "This computer is too busy", status: "Busy" },
};

export function failed(error) {
  if (!state.wanted) return;
  if (error.kind in WAITS) return wait(WAITS[error.kind], error.message);
  if (error.kind === "network" || !(error instanceof Refusal)) return lose(error.message);
  stop();
  const title = error.kind === "devices" ? "It can neither hear nor see you" : "This did not work";
  show("failed", "Not connected", { title, text: error.message, button: "Try again", act: start });
}

function wait({ title, status }, message) {
  disconnect();
  show("full", status, { title, text: `${message} You are let in as soon as there is room.`, button: "Try now", act: again });
  retry = setTimeout(again, FULL_RETRY_S * 1000);
}

export async function start() {
  state.wanted = true;
  tries = 0;
  label("go", "Stop");
  $("controls").classList.add("wanted");
  greet();
  run();
  await again();
  stayAwake();
}

export function stop() {
  state.wanted = false;
  disconnect(true);
  release();
  halt();
  label("go", "Start");
  $("controls").classList.remove("wanted");
  $("mute").disabled = true;
  wakeLock?.release().catch(() => {});
  wakeLock = null;
  show("idle", "Not connected");
  setTimeout(() => $("screen").dataset.state === "idle" && ($("listener").srcObject = null), FADE_MS);
  blank();
}

// Takes the devices that are picked, over the same connection; also where one was unplugged.
export async function replace() {
  const old = state.stream;
  try {
    adopt(await openDevices(), replace);
  } catch (error) {
    return failed(error);
  }
  for (const track of old?.getTracks() ?? []) track.stop();
  for (const sender of state.link?.peer.getSenders() ?? []) {
    const track = state.stream.getTracks().find((each) => each.kind === sender.track?.kind);
    if (track) await sender.replaceTrack(track);
  }
}

// With the camera, or without: the listener is told which by a new session.
export async function switchCamera() {
  state.voiceOnly = state.stream.getVideoTracks().length > 0;
  for (const track of state.stream.getTracks()) track.stop();
  await again();
  if (state.voiceOnly) say("Your camera is off. It listens to your voice.");
}

export async function stayAwake() {
  try {
    if (state.wanted && document.visibilityState === "visible") wakeLock = await navigator.wakeLock?.request("screen");
  } catch {
    // a battery that is low; the screen may then go off
  }
}
