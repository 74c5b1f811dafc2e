// The settings of the session: what there is to choose from, what is chosen, and what the server is told of it.

import { readAddress, writeAddress } from "./address.js";
import { failed, lose } from "./connection.js";
import { offerOther } from "./devices.js";
import { buildGallery, cutAgain, showStills } from "./portraits.js";
import { $, say } from "./screen.js";
import { state } from "./state.js";

export function build() {
  readAddress();
  const { listeners, limits } = state.choices;
  $("choice").replaceChildren(...listeners.map((each, n) => new Option(`${each.generator} and ${each.renderer} (${each.name})`, n)));
  $("choice").disabled = listeners.length < 2;
  const options = Array.from({ length: limits.samples }, (_, n) => {
    const option = document.createElement("label");
    option.innerHTML = '<input type="radio" name="samples"><span></span>';
    option.firstChild.value = n + 1;
    option.lastChild.textContent = n + 1;
    return option;
  });
  $("samples-options").replaceChildren(...options);
  buildGallery();
  offerOther();
  reflect();
}

function reflect() {
  const { wish } = state, listener = state.choices.listeners[wish.listener];
  $("choice").value = wish.listener;
  $("person").replaceChildren(...["Nobody in particular", ...listener.persons].map((name, n) => new Option(name, n)));
  $("person").value = wish.person;
  $("person-field").hidden = !listener.persons.length;
  for (const radio of document.getElementsByName("samples")) radio.checked = Number(radio.value) === wish.samples;
  $("lookahead").max = listener.lookahead;
  $("lookahead").disabled = !listener.lookahead;
  $("lookahead-help").textContent = listener.lookahead
    ? "Frames that rendering waits for: more is smoother, and later."
    : "This renderer waits for no later frames.";
  $("lookahead").value = wish.lookahead;
  $("playout").max = Math.max(500, wish.playout_ms);
  $("playout").value = wish.playout_ms;
  label();
  $("untrained").hidden = !listener.untrained;
  $("stills").parentElement.classList.toggle("several", wish.samples > 1);
  $("view").parentElement.style.setProperty("--across", wish.samples);
  showStills(wish.samples);
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
  const cut = change.listener !== undefined && change.listener !== state.wish.listener;
  if (change.listener !== undefined) change = { person: 0, ...change }; // another listener takes other persons
  state.wish = { ...state.wish, ...change };
  reflect();
  writeAddress();
  clearTimeout(tuning);
  tuning = setTimeout(() => tune(cut), 250); // a dial that is moved by keys changes many times
}

async function tune(cut) {
  const mine = state.link;
  try {
    if (mine?.id) await mine.line.ask("tune", { wish: state.wish });
    state.granted = state.wish;
    if (cut) await cutAgain();
    if (mine?.id) $("status-text").textContent = "Listening to you, with the new settings";
  } catch (error) {
    if (state.link !== mine) return;
    if (error.kind === "gone") lose(error.message);
    else if (error.kind === "busy" && state.granted !== state.wish) takeBack(cut);
    else failed(error);
  }
}

// The server has no time for what was asked of it, and goes on as before.
function takeBack(cut) {
  state.wish = state.granted;
  reflect();
  writeAddress();
  if (cut) cutAgain();
  say("This computer has no time for that. It goes on as before.");
}
