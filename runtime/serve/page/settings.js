// The settings of the session: what there is to choose from, what is chosen, and what the server is told of it.

import { failed, lose } from "./connection.js";
import { forgetPortrait, picture, sendPortrait } from "./portrait.js";
import { $ } from "./screen.js";
import { ask } from "./server.js";
import { state } from "./state.js";

export function build() {
  $("choice").replaceChildren(...state.choices.listeners.map((each, n) => new Option(`${each.generator} and ${each.renderer} (${each.name})`, n)));
  $("choice").disabled = state.choices.listeners.length < 2;
  const options = Array.from({ length: state.choices.limits.samples }, (_, n) => {
    const option = document.createElement("label");
    option.innerHTML = '<input type="radio" name="samples"><span></span>';
    option.firstChild.value = n + 1;
    option.firstChild.checked = n + 1 === state.wish.samples;
    option.lastChild.textContent = n + 1;
    return option;
  });
  $("samples-options").replaceChildren(...options);
  reflect();
}

function reflect() {
  const listener = state.choices.listeners[state.wish.listener];
  $("lookahead").max = listener.lookahead;
  $("lookahead").disabled = !listener.lookahead;
  $("lookahead-help").textContent = listener.lookahead
    ? "Frames that rendering waits for: more is smoother, and later."
    : "This renderer waits for no later frames.";
  $("lookahead").value = state.wish.lookahead;
  $("playout").value = state.wish.playout_ms;
  label();
  $("untrained").hidden = !listener.untrained;
  $("screen").style.setProperty("--across", state.wish.samples);
  $("screen").classList.toggle("several", state.wish.samples > 1);
  const still = $("stills").querySelector("img");
  $("stills").replaceChildren(...Array.from({ length: state.wish.samples }, () => still.cloneNode()));
}

export function label() {
  const frames = Number($("lookahead").value);
  $("lookahead-value").textContent = `${frames} ${frames === 1 ? "frame" : "frames"}, ${frames * 40} ms`;
  $("lookahead").setAttribute("aria-valuetext", $("lookahead-value").textContent);
  $("playout-value").textContent = `${$("playout").value} ms`;
  $("playout").setAttribute("aria-valuetext", $("playout-value").textContent);
}

let tuning = 0;
export function choose(change) {
  state.wish = { ...state.wish, ...change };
  reflect();
  clearTimeout(tuning);
  tuning = setTimeout(tune, 250); // a dial that is moved by keys changes many times
}

async function tune() {
  const mine = state.link;
  if (!mine?.id) return;
  try {
    await ask("PATCH", `/api/sessions/${mine.id}`, JSON.stringify(state.wish));
    $("status-text").textContent = "Listening to you, with the new settings";
  } catch (error) {
    if (state.link === mine) error.kind === "gone" ? lose(error.message) : failed(error);
  }
}

export async function choosePortrait() {
  [state.portrait] = $("portrait").files;
  if (!state.portrait) return forgetPortrait();
  picture(URL.createObjectURL(state.portrait));
  if (state.link?.id) await sendPortrait().catch(failed);
}
