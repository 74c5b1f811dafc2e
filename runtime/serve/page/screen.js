// The elements of the page, the status in its head, and the notice over the picture.

export const $ = (id) => document.getElementById(id);

export function show(state, text, notice = null) {
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

export function ms(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value)} ms`;
}
