// The list of events, with their pictures and clips. What is in the list stays the same element while it
// changes, so that a picture is fetched once and the keyboard keeps its place.

import { duration, element, find, labelColor, put } from "/small.js";

const SHOWN_EVENTS = 40;
const TRIES = 4;             // a picture is told a moment before it is written
const items = new Map();     // by visit id

function addressOf(visit, what) {
  return `/api/events/${visit.id}/${what}`;
}

function thumbnail(visit) {
  const picture = element("img");
  picture.alt = "";
  picture.width = 64;
  picture.height = 36;
  let tries = 0;
  picture.addEventListener("error", () => {
    picture.hidden = true;
    if (++tries < TRIES) setTimeout(() => { picture.src = `${addressOf(visit, "picture")}?${tries}`; }, 500 * tries);
  });
  picture.addEventListener("load", () => { picture.hidden = false; });
  picture.src = addressOf(visit, "picture");
  return picture;
}

function evidence(visit) {
  if (!visit.picture && !visit.clip) return element("span", "evidence");
  const shown = element("button", "evidence");
  shown.type = "button";
  shown.setAttribute("aria-label", `Show ${visit.label} of ${visit.source}`);
  if (visit.picture) shown.append(thumbnail(visit));
  shown.append(element("i"));
  shown.addEventListener("click", () => show(visit.id));
  return shown;
}

function makeItem(visit) {
  const root = element("li"), dot = element("span", "dot"), what = element("span", "what", visit.label);
  dot.style.setProperty("--hue", labelColor(visit.label));
  what.append(element("small"));
  const item = { root, visit, ended: false };
  root.append(dot, evidence(visit), what, element("span", "when"));
  return item;
}

function update(item, visit, now, clock) {
  item.visit = visit;
  const lasts = visit.end_at === null;
  item.root.classList.toggle("lasting", lasts);
  item.root.classList.toggle("clip", Boolean(visit.clip) && !lasts);
  put(find("small", item.root), `${visit.source}, best score ${visit.max_score.toFixed(2)}`);
  const lasted = duration((visit.end_at ?? now) - visit.start_at);
  put(find(".when", item.root), `${clock(visit.start_at)} · ${lasts ? "for " : ""}${lasted}`);
  const picture = find("img", item.root);
  if (!lasts && !item.ended && picture) picture.src = `${addressOf(visit, "picture")}?end`;  // a better one
  item.ended = !lasts;
}

export function drawEvents(visits, now, clock) {
  const newest = [...visits.values()].sort(
    (a, b) => (a.end_at === null ? 0 : 1) - (b.end_at === null ? 0 : 1) || b.start_at - a.start_at,
  ).slice(0, SHOWN_EVENTS);
  const wanted = new Set(newest.map((visit) => visit.id));
  for (const id of items.keys()) if (!wanted.has(id)) items.delete(id);
  for (const visit of newest) {
    if (!items.has(visit.id)) items.set(visit.id, makeItem(visit));
    update(items.get(visit.id), visit, now, clock);
  }
  const roots = newest.map((visit) => items.get(visit.id).root);
  if (!roots.length) roots.push(element("p", "empty", "None yet."));
  const list = find("#events"), there = [...list.children];
  if (roots.length === there.length && roots.every((root, i) => root === there[i])) return;
  const focused = document.activeElement;
  list.replaceChildren(...roots);
  if (list.contains(focused)) focused.focus({ preventScroll: true });
}

// ---- one event, large ----

function show(id) {
  const visit = items.get(id)?.visit;
  const dialog = find("#evidence"), film = find("video", dialog), picture = find("img", dialog);
  if (!visit) return;
  const hasClip = Boolean(visit.clip) && visit.end_at !== null;
  put(find("h2", dialog), `${visit.label}, ${visit.source}`);
  put(find("p", dialog), visit.clip && !hasClip ? "Its clip is there some seconds after its end." : "");
  film.hidden = !hasClip;
  picture.hidden = hasClip || !visit.picture;
  if (!picture.hidden) picture.src = addressOf(visit, "picture");
  const file = find("a", dialog);
  file.href = addressOf(visit, hasClip ? "clip" : "picture");
  file.hidden = !hasClip && !visit.picture;
  if (hasClip) film.src = addressOf(visit, "clip");
  dialog.showModal();
}

const dialog = find("#evidence"), film = find("video", dialog);
film.addEventListener("error", async () => {
  if (!film.getAttribute("src")) return;
  const answer = await fetch(film.src, { headers: { Range: "bytes=0-0" } }).catch(() => null);
  put(find("p", dialog), answer?.ok ? "This browser does not play the codec of the camera: open the file with a player."
    : "The clip is not there: not yet, or no longer.");
});
dialog.addEventListener("close", () => film.removeAttribute("src"));
find("button", dialog).addEventListener("click", () => dialog.close());
dialog.addEventListener("click", ({ target }) => { if (target === dialog) dialog.close(); });
