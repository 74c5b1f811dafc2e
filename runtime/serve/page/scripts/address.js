// Settings in the address: behind the #, which no server is told and which stays when one signs in.

import { state } from "./state.js";

export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const { listeners, limits } = state.choices;
  const within = (name, most) => {
    const value = given.get(name);
    return value !== null && /^\d{1,4}$/.test(value) && Number(value) <= most ? Number(value) : undefined;
  };
  const wish = {
    listener: listeners.findIndex((each) => each.name === given.get("listener")),
    samples: within("samples", limits.samples),
    lookahead: within("lookahead", 13),
    playout_ms: within("playout", limits.playout_ms),
  };
  if (wish.listener < 0) delete wish.listener;
  wish.person = 1 + listeners[wish.listener ?? state.choices.wish.listener].persons.indexOf(given.get("person"));
  if (!wish.samples) delete wish.samples;
  for (const name of ["lookahead", "playout_ms"]) if (wish[name] === undefined) delete wish[name];
  state.wish = { ...state.choices.wish, ...wish };
  state.voiceOnly = given.has("voice");
  state.relayOnly = given.has("relay");
  state.portrait = Math.max(0, state.choices.portraits.indexOf(given.get("portrait")));
}

// Only what is not as the server has it by itself; a portrait of the visitor's own is in no address.
export function writeAddress() {
  const { choices, wish, gallery, portrait } = state;
  const told = new URLSearchParams();
  const put = (name, value, usual) => value !== usual && told.set(name, value);
  put("listener", choices.listeners[wish.listener].name, choices.listeners[choices.wish.listener].name);
  put("samples", wish.samples, choices.wish.samples);
  put("lookahead", wish.lookahead, choices.wish.lookahead);
  put("playout", wish.playout_ms, choices.wish.playout_ms);
  if (wish.person) told.set("person", choices.listeners[wish.listener].persons[wish.person - 1]);
  if (portrait && !gallery[portrait].file) told.set("portrait", gallery[portrait].name);
  if (state.voiceOnly) told.set("voice", "");
  if (state.relayOnly) told.set("relay", "");
  const hash = told.toString().replace(/=(?=&|$)/g, "");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
}
