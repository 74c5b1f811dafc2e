// The page of `pflx serve`: one peer connection, one latency panel, and the settings of the session behind it.

import { again, replace, start, stayAwake, stop } from "./connection.js";
import { listDevices } from "./devices.js";
import { $, show } from "./screen.js";
import { ask } from "./server.js";
import { build, choose, choosePortrait, label } from "./settings.js";
import { state } from "./state.js";

$("go").onclick = () => (state.wanted ? stop() : start());
$("notice-button").onclick = () => (state.wanted ? again() : start());
$("mute").onclick = () => {
  const mute = $("mute").getAttribute("aria-pressed") !== "true";
  $("mute").setAttribute("aria-pressed", mute);
  for (const track of state.stream?.getAudioTracks() ?? []) track.enabled = !mute;
};
$("choice").onchange = () => choose({ listener: Number($("choice").value) });
$("samples-options").onchange = ({ target }) => choose({ samples: Number(target.value) });
$("lookahead").oninput = $("playout").oninput = label;
$("lookahead").onchange = () => choose({ lookahead: Number($("lookahead").value) });
$("playout").onchange = () => choose({ playout_ms: Number($("playout").value) });
$("portrait").onchange = choosePortrait;
$("camera").onchange = $("microphone").onchange = replace;
addEventListener("pagehide", () => state.wanted && stop());
addEventListener("online", () => state.wanted && !state.link && again());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !state.wanted) return;
  stayAwake();
  if (!state.link || state.link.peer.connectionState === "failed") again(); // woken up
});
navigator.mediaDevices?.addEventListener("devicechange", listDevices);

try {
  state.choices = await ask("GET", "/api/choices");
  state.wish = state.choices.wish;
  build();
} catch (error) {
  $("go").disabled = true;
  show("failed", "Not connected", { title: "This page cannot begin", text: error.message, button: "Try again" });
  $("notice-button").onclick = () => location.reload();
}
