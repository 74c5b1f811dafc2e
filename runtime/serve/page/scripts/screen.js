// The elements of the page, the status in its head, the notice over the picture, and what is said aloud.

export const $ = (id) => document.getElementById(id);

const SAID_MS = 6000;
const LOOKS = { live: "live", busy: "busy", asking: "busy", lost: "busy", full: "bad", failed: "bad", idle: "" };

export function show(state, text, notice = null) {
  $("screen").dataset.state = state === "busy" && $("screen").dataset.state === "lost" ? "lost" : state;
  $("status").className = `status ${LOOKS[state]}`;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
  $("notice").hidden = !notice;
  if (!notice) return;
  $("notice-title").textContent = notice.title;
  $("notice-text").textContent = notice.text;
  $("notice-button").textContent = notice.button;
  $("notice-button").onclick = notice.act;
}

// A sentence at the lower edge for a while; screen readers read it.
let saying = 0;
export function say(text) {
  clearTimeout(saying);
  $("said").textContent = text;
  $("said").classList.add("shown");
  saying = setTimeout(() => $("said").classList.remove("shown"), SAID_MS);
}

export function label(id, text) {
  $(id).querySelector("span").textContent = text;
}

export function ms(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value)} ms`;
}
