// The face that listens: sent to the server, and shown on the page.

import { $ } from "./screen.js";
import { ask } from "./server.js";
import { state } from "./state.js";

export async function sendPortrait() {
  try {
    await ask("PUT", `/api/sessions/${state.link.id}/portrait`, state.portrait, state.portrait.type || "application/octet-stream");
    $("portrait-help").textContent = "This face listens to you now.";
  } catch (error) {
    if (error.kind !== "portrait" && error.kind !== "large") throw error;
    forgetPortrait();
    $("portrait-help").textContent = error.message;
  }
}

export function forgetPortrait() {
  state.portrait = null;
  picture("/portrait.png");
}

export function picture(url) {
  const old = $("thumb").src;
  for (const image of [$("thumb"), ...$("stills").querySelectorAll("img")]) image.src = url;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}
