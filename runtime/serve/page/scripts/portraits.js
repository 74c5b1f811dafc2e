// Who listens: the portraits of the server, and pictures of the visitor's own, chosen or dropped on the page.

import { writeAddress } from "./address.js";
import { $, say } from "./screen.js";
import { ask } from "./server.js";
import { state } from "./state.js";

export function buildGallery() {
  state.gallery = state.choices.portraits.map((name) => ({ name, file: null, url: "" }));
  refer();
  list();
}

// The squares that the chosen listener shows of the server's portraits.
function refer() {
  state.gallery.forEach((each, n) => {
    if (!each.file) each.url = `/stills/${state.wish.listener}/${n}.png`;
  });
}

function list() {
  const options = state.gallery.map(({ name, url }, n) => {
    const option = document.createElement("label"), radio = document.createElement("input"), image = new Image();
    Object.assign(radio, { type: "radio", name: "portraits", value: n, checked: n === state.portrait });
    radio.setAttribute("aria-label", name);
    Object.assign(image, { src: url, alt: "" });
    option.title = name;
    option.append(radio, image);
    return option;
  });
  $("portraits").replaceChildren(...options);
  still();
}

function still() {
  for (const image of $("stills").querySelectorAll("img")) image.src = state.gallery[state.portrait].url;
}

export function showStills(count) {
  const first = $("stills").querySelector("img");
  $("stills").replaceChildren(...Array.from({ length: count }, () => first.cloneNode()));
}

// Another listener may cut the portraits in another way.
export async function cutAgain() {
  refer();
  list();
  const { file } = state.gallery[state.portrait];
  if (file) await addOwn(file, state.portrait);
}

export async function choosePortrait(n) {
  state.portrait = n;
  $("portraits").querySelectorAll("input")[n].checked = true;
  still();
  writeAddress();
  await sendPortrait();
}

// Shows the chosen portrait in the session of the moment; `begun` says that it shows the first of all until told.
export async function sendPortrait(begun = false) {
  const { link, gallery, portrait } = state;
  if (!link?.id || (begun && !portrait && link.epoch === 1)) return;
  const { file } = gallery[portrait];
  if (file) await link.line.ask("own_portrait", {}, file);
  else await link.line.ask("portrait", { number: portrait });
}

// A picture of the visitor's own, in the place of the n-th portrait or as a new one.
export async function addOwn(file, n = state.gallery.length) {
  help("Looking for the face…");
  try {
    const square = await ask("PUT", `/api/stills/${state.wish.listener}`, file, file.type || "application/octet-stream");
    state.gallery[n] = { name: file.name, file, url: URL.createObjectURL(square) };
    state.portrait = n;
    list();
    writeAddress();
    await sendPortrait();
    help("This face listens to you. The server forgets it when you stop.");
  } catch (error) {
    help(error.message, true);
    if (state.gallery[n]) await choosePortrait(0);
  }
}

function help(text, bad = false) {
  $("portrait-help").textContent = text;
  $("portrait-help").classList.toggle("bad", bad);
}

export function watchDrops() {
  let depth = 0; // dragging over what lies inside leaves what lies outside
  const over = (change) => {
    depth = change ? depth + change : 0;
    document.body.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", (event) => event.dataTransfer.types.includes("Files") && over(1));
  addEventListener("dragleave", (event) => event.dataTransfer.types.includes("Files") && depth && over(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(0);
    const [file] = event.dataTransfer.files;
    if (file) addOwn(file).catch((error) => say(error.message));
  });
}
