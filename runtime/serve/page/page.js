// The page of `pflx serve`: one peer connection, one latency panel, and the settings of the session behind it.

const VIDEO = { width: { ideal: 320 }, height: { ideal: 240 }, frameRate: { ideal: 25, max: 30 } };
const AUDIO = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const UPLINK_BPS = 300_000; // enough for 320x240, and little for the server to decode
const GATHER_MS = 2000; // for this browser to find its own addresses
const SILENCE_MS = 6000; // without an answer of the server, until the connection counts as lost
const PATIENCE_MS = 3000; // for a connection that says of itself that it is interrupted
const FULL_RETRY_S = 10;
const LONGEST_PAUSE_S = 10; // between two tries to connect again
const CHART_S = 60;
const RUNGS = { FULL: "Full", FEWER_STEPS: "Fewer steps", HALF_RATE: "Half rate", HOLD: "Hold", WARPED: "Warped" };
const RUNG_HELP = {
  FULL: "every picture as an offline run makes it",
  FEWER_STEPS: "segments with fewer denoising steps",
  HALF_RATE: "one picture for two frames",
  HOLD: "the last picture once more",
  WARPED: "the last picture, its head moved to where it should be",
};

const $ = (id) => document.getElementById(id);

class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

let choices; // what the server offers
let wish; // what is chosen of it
let portrait = null; // a File that was chosen, until the page is closed
let stream = null; // camera and microphone
let link = null; // the connection of the moment
let wanted = false; // whether the visitor wants to be connected
let tries = 0;
let retry = 0;
let wakeLock = null;
const ages = [];

// Server

async function ask(method, path, body, type = "application/json") {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: body === undefined ? {} : { "Content-Type": type } });
  } catch {
    throw new Refusal("network", "The server cannot be reached.");
  }
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const error = (await answer.json().catch(() => ({}))).error ?? {};
  if (error.kind === "token") location.assign("/sign-in");
  throw new Refusal(error.kind ?? "server", error.message ?? `The server answered ${answer.status}.`);
}

// Connection

async function openDevices(constraints = { video: VIDEO, audio: AUDIO }) {
  if (!navigator.mediaDevices) {
    throw new Refusal("camera", "Browsers give the camera to https pages and to localhost only. Open the page that way.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    if (error.name === "NotFoundError" && constraints.audio && constraints.video) {
      return openDevices({ video: VIDEO }); // no microphone: a speaker without sound
    }
    throw new Refusal("camera", cameraSentence(error));
  }
}

function cameraSentence(error) {
  if (error.name === "NotAllowedError") return "The camera was not allowed. Allow it in the address bar, and start again.";
  if (error.name === "NotFoundError") return "No camera was found. Plug one in, and start again.";
  if (error.name === "NotReadableError") return "Another program uses the camera. Close it, and start again.";
  return `The camera cannot be opened (${error.name}).`;
}

async function connect() {
  const peer = new RTCPeerConnection({ iceServers: choices.ice_servers });
  const mine = { peer, id: null, channel: null, answered: performance.now(), seen: null, arrived: false, timer: 0 };
  link = mine;
  for (const track of stream.getTracks()) limit(peer.addTrack(track, stream));
  mine.channel = peer.createDataChannel("panel", { ordered: false, maxRetransmits: 0 });
  mine.channel.onmessage = ({ data }) => link === mine && hear(mine, JSON.parse(data));
  mine.channel.onclose = () => link === mine && lose("The connection was closed.");
  peer.ontrack = ({ track, receiver }) => watch(mine, track, receiver);
  peer.onconnectionstatechange = () => link === mine && follow(mine);
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
  const answer = await ask("POST", "/api/sessions", JSON.stringify({ sdp: peer.localDescription.sdp, wish }));
  mine.id = answer.id;
  if (link !== mine) return drop(mine); // stopped meanwhile
  if (portrait) await sendPortrait(); // before anything is shown
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
  if (link !== mine || mine.arrived) return;
  mine.arrived = true;
  tries = 0;
  show("live", "Listening to you");
}

function follow(mine) {
  const state = mine.peer.connectionState;
  if (state === "failed") lose("The connection was lost.");
  if (state === "disconnected") {
    setTimeout(() => link === mine && mine.peer.connectionState !== "connected" && lose("The connection was lost."), PATIENCE_MS);
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
  if (link) drop(link);
  link = null;
}

function lose(reason) {
  disconnect();
  if (!wanted) return;
  const pause = Math.min(2 ** tries++, LONGEST_PAUSE_S);
  show("lost", "Reconnecting", { title: reason, text: `Trying again in ${pause} s.`, button: "Try now" });
  retry = setTimeout(again, pause * 1000);
}

async function again() {
  if (!wanted) return;
  disconnect();
  show("busy", "Connecting");
  try {
    await devices();
    await connect();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
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

async function start() {
  wanted = true;
  tries = 0;
  $("go").textContent = "Stop";
  $("go").classList.add("stop");
  await again();
  stayAwake();
}

function stop() {
  wanted = false;
  disconnect();
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
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

async function stayAwake() {
  try {
    if (wanted && document.visibilityState === "visible") wakeLock = await navigator.wakeLock?.request("screen");
  } catch {
    // a battery that is low; the screen may then go off
  }
}

// Devices

async function devices() {
  if (!stream || stream.getVideoTracks()[0].readyState === "ended") adopt(await openDevices());
}

function adopt(fresh) {
  const mute = $("mute").getAttribute("aria-pressed") === "true";
  stream = fresh;
  for (const track of stream.getTracks()) {
    track.onended = () => stream?.getTracks().includes(track) && replace(); // unplugged
    if (track.kind === "audio") track.enabled = !mute;
  }
  $("self").srcObject = stream;
  $("self").hidden = false;
  $("mute").disabled = !stream.getAudioTracks().length;
  listDevices();
}

async function replace() {
  const pick = (id) => (($(id).value && { deviceId: { ideal: $(id).value } }) || {});
  const old = stream;
  try {
    adopt(await openDevices({ video: { ...VIDEO, ...pick("camera") }, audio: { ...AUDIO, ...pick("microphone") } }));
  } catch (error) {
    return failed(error);
  }
  for (const track of old?.getTracks() ?? []) track.stop();
  for (const sender of link?.peer.getSenders() ?? []) {
    const track = stream.getTracks().find((each) => each.kind === sender.track?.kind);
    if (track) await sender.replaceTrack(track);
  }
}

async function listDevices() {
  const found = await navigator.mediaDevices.enumerateDevices();
  for (const [id, kind, name] of [["camera", "videoinput", "Camera"], ["microphone", "audioinput", "Microphone"]]) {
    const mine = found.filter((device) => device.kind === kind);
    const track = stream?.getTracks().find((each) => each.kind === kind.slice(0, 5));
    $(id).replaceChildren(...mine.map((device, n) => new Option(device.label || `${name} ${n + 1}`, device.deviceId)));
    if (!mine.length) $(id).replaceChildren(new Option("None found", ""));
    $(id).value = track?.getSettings().deviceId ?? $(id).value;
    $(id).disabled = !stream || mine.length < 2;
  }
}

// What is shown

function show(state, text, notice = null) {
  $("screen").dataset.state = state === "busy" && $("screen").dataset.state === "lost" ? "lost" : state;
  const look = { live: "live", busy: "busy", lost: "busy", full: "bad", failed: "bad", idle: "" }[state];
  $("status").className = `status ${look}`;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
  $("notice").hidden = !notice;
  if (!notice) return;
  $("notice-title").textContent = notice.title;
  $("notice-text").textContent = notice.text;
  $("notice-button").textContent = notice.button;
}

function ms(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value)} ms`;
}

function panel(message) {
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

function blank() {
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

async function measure(mine) {
  const report = await mine.peer.getStats();
  for (const entry of report.values()) {
    if (entry.type !== "inbound-rtp" || entry.kind !== "video") continue;
    const before = mine.seen;
    mine.seen = entry;
    if (!before || link !== mine) continue;
    const seconds = (entry.timestamp - before.timestamp) / 1000;
    const emitted = entry.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
    $("fps").textContent = ((entry.framesDecoded - before.framesDecoded) / seconds).toFixed(1);
    if (emitted) $("buffer").textContent = ms(((entry.jitterBufferDelay - before.jitterBufferDelay) / emitted) * 1000);
  }
}

// Settings

function reflect() {
  const listener = choices.listeners[wish.listener];
  $("lookahead").max = listener.lookahead;
  $("lookahead").disabled = !listener.lookahead;
  $("lookahead-help").textContent = listener.lookahead
    ? "Frames that rendering waits for: more is smoother, and later."
    : "This renderer waits for no later frames.";
  $("lookahead").value = wish.lookahead;
  $("playout").value = wish.playout_ms;
  label();
  $("untrained").hidden = !listener.untrained;
  $("screen").style.setProperty("--across", wish.samples);
  $("screen").classList.toggle("several", wish.samples > 1);
  const still = $("stills").querySelector("img");
  $("stills").replaceChildren(...Array.from({ length: wish.samples }, () => still.cloneNode()));
}

function label() {
  const frames = Number($("lookahead").value);
  $("lookahead-value").textContent = `${frames} ${frames === 1 ? "frame" : "frames"}, ${frames * 40} ms`;
  $("lookahead").setAttribute("aria-valuetext", $("lookahead-value").textContent);
  $("playout-value").textContent = `${$("playout").value} ms`;
  $("playout").setAttribute("aria-valuetext", $("playout-value").textContent);
}

let tuning = 0;
function choose(change) {
  wish = { ...wish, ...change };
  reflect();
  clearTimeout(tuning);
  tuning = setTimeout(tune, 250); // a dial that is moved by keys changes many times
}

async function tune() {
  const mine = link;
  if (!mine?.id) return;
  try {
    await ask("PATCH", `/api/sessions/${mine.id}`, JSON.stringify(wish));
    $("status-text").textContent = "Listening to you, with the new settings";
  } catch (error) {
    if (link === mine) error.kind === "gone" ? lose(error.message) : failed(error);
  }
}

async function sendPortrait() {
  try {
    await ask("PUT", `/api/sessions/${link.id}/portrait`, portrait, portrait.type || "application/octet-stream");
    $("portrait-help").textContent = "This face listens to you now.";
  } catch (error) {
    if (error.kind !== "portrait" && error.kind !== "large") throw error;
    forgetPortrait();
    $("portrait-help").textContent = error.message;
  }
}

function forgetPortrait() {
  portrait = null;
  picture("/portrait.png");
}

function picture(url) {
  const old = $("thumb").src;
  for (const image of [$("thumb"), ...$("stills").querySelectorAll("img")]) image.src = url;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

async function choosePortrait() {
  [portrait] = $("portrait").files;
  if (!portrait) return forgetPortrait();
  picture(URL.createObjectURL(portrait));
  if (link?.id) await sendPortrait().catch(failed);
}

function build() {
  $("choice").replaceChildren(...choices.listeners.map((each, n) => new Option(`${each.generator} and ${each.renderer} (${each.name})`, n)));
  $("choice").disabled = choices.listeners.length < 2;
  const options = Array.from({ length: choices.limits.samples }, (_, n) => {
    const option = document.createElement("label");
    option.innerHTML = '<input type="radio" name="samples"><span></span>';
    option.firstChild.value = n + 1;
    option.firstChild.checked = n + 1 === wish.samples;
    option.lastChild.textContent = n + 1;
    return option;
  });
  $("samples-options").replaceChildren(...options);
  reflect();
}

$("go").onclick = () => (wanted ? stop() : start());
$("notice-button").onclick = () => (wanted ? again() : start());
$("mute").onclick = () => {
  const mute = $("mute").getAttribute("aria-pressed") !== "true";
  $("mute").setAttribute("aria-pressed", mute);
  for (const track of stream?.getAudioTracks() ?? []) track.enabled = !mute;
};
$("choice").onchange = () => choose({ listener: Number($("choice").value) });
$("samples-options").onchange = ({ target }) => choose({ samples: Number(target.value) });
$("lookahead").oninput = $("playout").oninput = label;
$("lookahead").onchange = () => choose({ lookahead: Number($("lookahead").value) });
$("playout").onchange = () => choose({ playout_ms: Number($("playout").value) });
$("portrait").onchange = choosePortrait;
$("camera").onchange = $("microphone").onchange = replace;
addEventListener("pagehide", () => wanted && stop());
addEventListener("online", () => wanted && !link && again());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !wanted) return;
  stayAwake();
  if (!link || link.peer.connectionState === "failed") again(); // woken up
});
navigator.mediaDevices?.addEventListener("devicechange", listDevices);

try {
  choices = await ask("GET", "/api/choices");
  wish = choices.wish;
  build();
} catch (error) {
  $("go").disabled = true;
  show("failed", "Not connected", { title: "This page cannot begin", text: error.message, button: "Try again" });
  $("notice-button").onclick = () => location.reload();
}
