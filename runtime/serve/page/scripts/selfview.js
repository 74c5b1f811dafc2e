// The visitor's own picture: in a corner, smaller after a while, and wherever it is dragged to.

import { $ } from "./screen.js";

const CORNERS = ["bottom-left", "bottom-right", "top-right", "top-left"];
const SMALLER_MS = 5000;
const DRAGGED_PX = 6; // less is a press

const view = $("self-view");
let from = null;
let dragged = false;

export function shrinkLater() {
  view.classList.remove("small");
  setTimeout(() => view.classList.add("small"), SMALLER_MS);
}

export function watchSelf() {
  view.addEventListener("pointerdown", (event) => {
    from = [event.clientX, event.clientY];
    dragged = false;
    view.setPointerCapture(event.pointerId);
  });
  view.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = [event.clientX - from[0], event.clientY - from[1]];
    dragged ||= Math.hypot(x, y) > DRAGGED_PX;
    view.classList.toggle("held", dragged);
    if (dragged) view.style.transform = `translate(${x}px, ${y}px)`;
  });
  for (const ending of ["pointerup", "pointercancel"]) view.addEventListener(ending, drop);
  view.addEventListener("click", () => {
    if (!dragged) place(CORNERS[(CORNERS.indexOf(view.dataset.corner) + 1) % CORNERS.length]);
    dragged = false;
  });
}

function drop() {
  from = null;
  if (!dragged) return;
  const mine = view.getBoundingClientRect(), all = $("screen").getBoundingClientRect();
  const down = mine.top + mine.height / 2 > all.top + all.height / 2, right = mine.left + mine.width / 2 > all.left + all.width / 2;
  view.classList.remove("held");
  view.style.transform = "";
  place(`${down ? "bottom" : "top"}-${right ? "right" : "left"}`);
}

function place(corner) {
  view.dataset.corner = corner;
}
