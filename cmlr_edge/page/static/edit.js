// What is looked at of one source, changed over its picture and saved into the configuration.

import { element, find, put } from "/small.js";
import { Shapes } from "/shapes.js";

const dialog = find("#edit"), form = find("form", dialog), refusal = find(".refusal", dialog);
const shapes = new Shapes(dialog, () => put(refusal, ""));
let open = null;             // { id, card, model, version, rows } while somebody edits

export async function edit(id, card, model) {
  const answer = await fetch(`/api/sources/${id}/settings`);
  const found = await answer.json();
  const { settings, version } = found;
  const reason = answer.ok ? found.reason : found.detail;
  open = { id, card, model, version, rows: [] };
  put(find("h2", dialog), `Edit ${find(".name", card.root).textContent}`);
  put(refusal, reason);
  find(".main", dialog).disabled = Boolean(reason);
  if (answer.ok) fill(settings);
  if (!dialog.open) dialog.showModal();
  paint();
}

function fill(settings) {
  shapes.start(structuredClone(settings.masks ?? []), structuredClone(settings.region ?? []));
  form.elements.max_fps.value = settings.max_fps ?? "";
  form.elements.tiles.value = settings.tiles ?? "";
  form.elements.active.value = (settings.active ?? []).join("\n");
  find("[type=search]", dialog).value = "";
  const wanted = new Set(settings.labels?.length ? settings.labels : open.model.labels);
  open.rows = open.model.labels.map((label, i) => labelRow(label, wanted.has(label), settings.thresholds?.[label], open.model.thresholds[i]));
  find(".labels", dialog).replaceChildren(...open.rows.map(({ root }) => root));
}

function labelRow(label, isWanted, threshold, usual) {
  const root = element("li"), name = element("label"), box = element("input"), number = element("input"), score = element("output", "", "–");
  box.type = "checkbox";
  box.checked = isWanted;
  name.append(box, label);
  number.type = "number";
  number.min = 0;
  number.max = 1;
  number.step = "any";
  number.value = threshold ?? "";
  number.placeholder = usual.toFixed(2);
  number.setAttribute("aria-label", `Threshold of ${label}; the model's is ${usual.toFixed(2)}`);
  score.title = "score now";
  root.append(name, number, score);
  return { root, label, box, number, score, usual };
}

// What would be said with these settings, frame by frame: scores that reach what is typed stand out.
export function showScores(card, scores) {
  if (!dialog.open || open?.card !== card) return;
  paint();
  open.rows.forEach(({ root, box, number, score, usual }, i) => {
    if (scores[i] === undefined) return;
    put(score, scores[i].toFixed(2));
    root.classList.toggle("reached", box.checked && scores[i] >= (number.value === "" ? usual : Number(number.value)));
  });
}

function paint() {
  if (open) shapes.paint(open.card.canvas);
}

function collect() {
  const chosen = open.rows.filter(({ box }) => box.checked);
  const thresholds = open.rows.filter(({ number }) => number.value !== "").map(({ label, number }) => [label, Number(number.value)]);
  return {
    labels: chosen.length === open.rows.length ? [] : chosen.map(({ label }) => label),
    thresholds: Object.fromEntries(thresholds),
    masks: shapes.masks,
    region: shapes.region,
    tiles: form.elements.tiles.value.trim(),
    max_fps: form.elements.max_fps.value === "" ? null : Number(form.elements.max_fps.value),
    active: form.elements.active.value.split("\n").map((line) => line.trim()).filter(Boolean),
  };
}

async function save() {
  const settings = collect();
  if (!open.rows.some(({ box }) => box.checked)) return put(refusal, "Choose one label at least.");
  const button = find(".main", dialog);
  button.disabled = true;
  put(refusal, "");
  try {
    const answer = await fetch(`/api/sources/${open.id}/settings?version=${open.version}`, {
      method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(settings),
    });
    if (answer.ok) return dialog.close();
    const { detail } = await answer.json();
    put(refusal, `Nothing was changed: ${typeof detail === "string" ? detail : detail[0].msg}`);
  } catch {
    put(refusal, "Nothing is known of the change: this page does not reach its server.");
  } finally {
    button.disabled = false;
  }
}

form.addEventListener("submit", (event) => {
  if (event.submitter?.value === "cancel") return;
  event.preventDefault();
  save();
});
form.addEventListener("keydown", (event) => {  // Enter in a field saves nothing by chance
  if (event.key === "Enter" && event.target.tagName === "INPUT") event.preventDefault();
});
find("[type=search]", dialog).addEventListener("input", ({ target }) => {
  for (const { root, label } of open.rows) root.hidden = !label.toLowerCase().includes(target.value.trim().toLowerCase());
});
find(".choose", dialog).addEventListener("click", ({ target }) => {
  if (!target.dataset.choose) return;
  for (const { root, box } of open.rows) if (!root.hidden) box.checked = target.dataset.choose === "all";
});
dialog.addEventListener("close", () => { open = null; });
