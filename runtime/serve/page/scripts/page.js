// The page of `pflx serve`: a face that listens, what it costs in time, and the settings of the session behind it.

import { writeAddress } from "./address.js";
import { canRecord, toggleRecording } from "./clip.js";
import { again, failed, recall, replace, start, stayAwake, stop, switchCamera } from "./connection.js";
import { listDevices, mute } from "./devices.js";
import { addOwn, choosePortrait, watchDrops } from "./portraits.js";
import { $, label, show } from "./screen.js";
import { watchSelf } from "./selfview.js";
import { ask } from "./server.js";
import { build, choose, label as labelDials } from "./settings.js";
import { state } from "./state.js";

function begin(voiceOnly) {
  state.voiceOnly = voiceOnly;
  writeAddress();
  start();
}

$("go").onclick = () => (state.wanted ? stop() : begin(state.voiceOnly));
$("voice").onclick = () => begin(!state.voiceOnly);
$("mute").onclick = () => mute(!$("mute").classList.contains("off"));
$("see").onclick = () => state.stream && switchCamera().then(writeAddress);
$("record").onclick = toggleRecording;
$("full-screen").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : $("view").requestFullscreen());
document.addEventListener("fullscreenchange", () => label("full-screen", document.fullscreenElement ? "Smaller" : "Enlarge"));
$("choice").onchange = () => choose({ listener: Number($("choice").value) });
$("person").onchange = () => choose({ person: Number($("person").value) });
$("samples-options").onchange = ({ target }) => choose({ samples: Number(target.value) });
$("lookahead").oninput = $("playout").oninput = labelDials;
$("lookahead").onchange = () => choose({ lookahead: Number($("lookahead").value) });
$("playout").onchange = () => choose({ playout_ms: Number($("playout").value) });
$("portraits").onchange = ({ target }) => choosePortrait(Number(target.value)).catch(failed);
$("portrait").onchange = ({ target }) => {
  const [file] = target.files;
  target.value = ""; // the same file may be chosen again
  if (file) addOwn(file).catch(failed);
};
$("camera").onchange = $("microphone").onchange = replace;
addEventListener("pagehide", () => state.wanted && stop());
addEventListener("online", () => state.wanted && !state.link && again());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !state.wanted) return;
  stayAwake();
  if (!state.link || state.link.peer.connectionState === "failed") again(); // woken up
});
navigator.mediaDevices?.addEventListener("devicechange", listDevices);
$("full-screen").hidden = !document.fullscreenEnabled;
$("record").hidden = !canRecord();
watchSelf();
watchDrops();
recall();

try {
  state.choices = await ask("GET", "/api/choices");
  build();
} catch (error) {
  $("go").disabled = $("voice").disabled = true;
  const notice = { title: "This page cannot begin", text: error.message, button: "Try again", act: () => location.reload() };
  show("failed", "Not connected", notice);
}
