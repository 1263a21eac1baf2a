// The live page. One web socket brings everything: text is the state and the visits of labels, binary
// is a frame with its scores. A frame is answered with its source's number once it is painted, so the
// server sends no faster than this page paints, and nothing while the page is hidden.

const BAR_REM = 1.75;        // as in style.css
const REORDER_MS = 700;      // bars change places no more often, so that they can be read
const SMOOTHING_MS = 1200;   // of the order, not of the scores shown
const SHOWN_ROWS = 14;
const SHOWN_OTHERS = 4;      // labels that are named of those which say something about another
const KEPT_VISITS = 2000;
const STATES = {
  ok: "live", connecting: "connecting", timeout: "no frames", reconnecting: "reconnecting",
  ended: "ended", failed: "failed", lost: "connection lost", late: "no results", frozen: "frozen", stale: "stale", damaged: "damaged", invalid: "invalid",
};
const LATE_MS = 5000;        // without a new picture, while the source gives frames
const SILENT_MS = 10000;     // the server says how it is twice a second
const REASONS = {  // of what a frame says of itself; a source gives its own
  frozen: "the source repeats one picture",
  stale: "frames wait too long: the model does not keep up with the sources",
  damaged: "parts of the picture were lost on the way",
  invalid: "the model returned no number",
  lost: "this page does not reach its server",
  late: "no picture comes: the model or the connection to this page does not keep up",
};
const STAGES = ["capture", "preprocess", "inference", "postprocess", "total", "capture_to_label"];

import { edit, showScores as showEdited } from "/edit.js";
import { drawEvents } from "/events.js";
import { duration, element, find, labelColor, put } from "/small.js";

const CAN_HOVER = matchMedia("(hover: hover)");
const cards = new Map();     // by source id
const visits = new Map();    // by visit id
let model = null;
let clockOffsetS = 0;        // the server's clock minus ours
let spanS = 300;
let lastState = null;
let isLinked = false;
let heardMs = performance.now();  // when the server said anything, or was called
let hangUp = () => {};            // ends the connection that there is
let server = null;           // the web socket

const nowS = () => Date.now() / 1000 + clockOffsetS;

const clock = (seconds) => new Date((seconds - clockOffsetS) * 1000).toLocaleTimeString([], { hour12: false });

const signed = (amount) => `${amount < 0 ? "\u2212" : "+"}${Math.abs(amount).toFixed(1)}`;

const milliseconds = (value) => value === undefined ? "–" : value.toFixed(value < 9.95 ? 1 : 0);

function count(value) {
  if (value === undefined || value === null) return "–";
  return value < 10000 ? String(value) : `${(value / 1000).toFixed(value < 100000 ? 1 : 0)}k`;
}

// ---- one source ----

class Card {
  constructor(id) {
    this.root = find("#card").content.firstElementChild.cloneNode(true);
    this.root.dataset.source = id;
    this.canvas = find("canvas", this.root);
    this.bars = new Map();
    this.order = [];
    this.smoothed = null;
    this.wanted = this.thresholds = null;
    this.orderedMs = -Infinity;
    this.scoredMs = 0;
    this.frameStatus = "ok";
    this.capturedAt = null;
    this.arrived = this.painted = 0;
    this.newsMs = performance.now();
    this.id = id;
    this.asked = null;
    this.heat = find(".heat", this.root);
    find(".why button", this.root).addEventListener("click", () => this.ask(null));
    for (const list of [".bars", ".chips"]) {
      find(list, this.root).addEventListener("click", ({ target }) => this.choice(target));
      find(list, this.root).addEventListener("keydown", (event) => {
        if ((event.key === "Enter" || event.key === " ") && this.choice(event.target)) event.preventDefault();
      });
    }
    find("button.edit", this.root).addEventListener("click", () => edit(id, this, model));
    find("#sources").append(this.root);
  }

  // ---- why ----

  choice(target) {  // whether a label was chosen, by a tap or a key
    const label = target.closest("[data-label]")?.dataset.label;
    if (!model?.explains || label === undefined) return false;
    const i = model.labels.indexOf(label);
    this.ask(i === this.asked ? null : i);
    return true;
  }

  ask(i) {
    this.asked = i;
    for (const [number, bar] of this.bars) bar.setAttribute("aria-pressed", number === i);
    if (i === null) this.showWhy(null);
    if (server?.readyState === WebSocket.OPEN) server.send(i === null ? `why ${this.id}` : `why ${this.id} ${i}`);
  }

  showWhy(why) {
    const panel = find(".why", this.root);
    panel.hidden = this.heat.hidden = why === null;
    if (why === null) return;
    const label = model.labels[why.label];
    panel.style.setProperty("--hue", labelColor(label));
    put(find("h3", panel), `${label} ${why.score.toFixed(2)}`);
    find(".flag", panel).hidden = !why.because_of_surroundings;
    const terms = [["own evidence", why.own], ["surroundings", why.surroundings]];
    for (const [other, amount] of Object.entries(why.others).slice(0, SHOWN_OTHERS)) terms.push([`with ${other}`, amount]);
    const named = terms.slice(2).reduce((sum, [, amount]) => sum + amount, 0);
    const rest = Object.values(why.others).reduce((sum, amount) => sum + amount, 0) + why.others_rest - named;
    if (Math.abs(rest) >= 0.05) terms.push(["other labels", rest]);
    terms.push(["bias", why.bias]);
    const largest = Math.max(1, ...terms.map(([, amount]) => Math.abs(amount)));
    find(".terms", panel).replaceChildren(...terms.map(([name, amount]) => drawTerm(name, amount, largest)));
    put(find(".sum", panel), `together ${signed(why.logit)} in logits, which is ${why.score.toFixed(2)}`);
    this.drawHeat(why, label);
  }

  drawHeat(why, label) {
    const { width, height } = this.canvas, heat = this.heat, paint = heat.getContext("2d");
    if (heat.width !== width || heat.height !== height) Object.assign(heat, { width, height });
    paint.clearRect(0, 0, width, height);
    const most = Math.max(0, ...(why.map ?? []).flat());
    if (most === 0) return;
    const [left, top, right, bottom] = why.map_box;
    const box = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    const cells = document.createElement("canvas");
    cells.width = why.map[0].length;
    cells.height = why.map.length;
    const small = cells.getContext("2d"), shares = small.createImageData(cells.width, cells.height);
    why.map.flat().forEach((share, i) => { shares.data[4 * i + 3] = 170 * share / most; });
    small.putImageData(shares, 0, 0);
    small.globalCompositeOperation = "source-in";
    small.fillStyle = labelColor(label);
    small.fillRect(0, 0, cells.width, cells.height);
    paint.fillStyle = "rgb(0 0 0 / 0.4)";
    paint.fillRect(...box);
    paint.imageSmoothingQuality = "high";
    paint.drawImage(cells, ...box);
  }

  async paint(about, jpeg) {
    const number = ++this.arrived;
    const picture = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    if (number < this.painted) return picture.close();  // a newer one was decoded sooner
    this.painted = number;
    this.newsMs = performance.now();
    if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
      this.canvas.width = picture.width;
      this.canvas.height = picture.height;
    }
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    this.capturedAt = about.captured_at;
    this.frameStatus = about.status !== "ok" ? about.status : about.valid ? "ok" : "invalid";
    this.showScores(about);
    showEdited(this, about.scores);
    this.showChips(about.present, about.flagged ?? []);
    if (this.asked !== null && about.why?.label === this.asked) this.showWhy(about.why);
    this.showState();
  }

  showScores({ scores, present }) {
    if (!scores.length || !model || !this.wanted) return;
    const ms = performance.now();
    const weight = this.smoothed ? 1 - Math.exp(-(ms - this.scoredMs) / SMOOTHING_MS) : 1;
    this.smoothed = scores.map((s, i) => this.smoothed ? this.smoothed[i] + weight * (s - this.smoothed[i]) : s);
    this.scoredMs = ms;
    if (ms - this.orderedMs > REORDER_MS) {
      this.orderedMs = ms;
      this.reorder(new Set(present));
    }
    for (const i of this.order) this.showBar(i, scores[i], present.includes(model.labels[i]));
  }

  reorder(present) {
    const rank = (i) => this.smoothed[i] + (present.has(model.labels[i]) ? 1 : 0);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const places = Math.floor(find(".bars", this.root).clientHeight / (BAR_REM * rem) + 0.01);
    const shown = [...model.labels.keys()].filter((i) => this.wanted.has(model.labels[i]));
    this.order = shown.sort((a, b) => rank(b) - rank(a)).slice(0, places);
    for (const [i, bar] of this.bars) {
      if (!this.order.includes(i)) {
        bar.remove();
        this.bars.delete(i);
      }
    }
    this.order.forEach((i, place) => { this.bar(i).style.transform = `translateY(${place * BAR_REM}rem)`; });
  }

  bar(i) {
    if (!this.bars.has(i)) {
      const bar = element("div", "bar");
      bar.setAttribute("role", "listitem");
      bar.dataset.label = model.labels[i];
      bar.style.setProperty("--hue", labelColor(model.labels[i]));
      const track = element("span", "track");
      track.append(element("i"), element("u"));
      track.lastChild.style.left = `${this.thresholds[i] * 100}%`;
      if (model.explains) {
        bar.tabIndex = 0;
        bar.setAttribute("aria-pressed", i === this.asked);
      }
      bar.title = `threshold ${this.thresholds[i].toFixed(2)}`;
      bar.append(element("span", "dot"), element("span", "label", model.labels[i]), track, element("output"));
      find(".bars", this.root).append(bar);
      this.bars.set(i, bar);
    }
    return this.bars.get(i);
  }

  showBar(i, score, isPresent) {
    const bar = this.bar(i);
    bar.classList.toggle("reached", score >= this.thresholds[i] && this.thresholds[i] < 1);  // 1 switches it off
    bar.classList.toggle("present", isPresent);
    find("i", bar).style.width = `${Math.min(1, score) * 100}%`;
    put(find("output", bar), score.toFixed(2));
  }

  choose(wanted, thresholds) {  // a reload may change both
    if (String([...wanted, ...thresholds]) === this.chosen) return;
    this.chosen = String([...wanted, ...thresholds]);
    this.wanted = wanted;
    find(".bars", this.root).style.setProperty("--rows", Math.min(8, wanted.size || 8));
    this.thresholds = thresholds;
    find(".bars", this.root).replaceChildren();
    this.bars.clear();
    if (this.asked !== null) this.ask(null);  // it may be another label now
    this.orderedMs = -Infinity;
  }

  showChips(labels, flagged = []) {
    const list = find(".chips", this.root);
    const shown = new Map([...list.children].map((chip) => [chip.dataset.label, chip]));
    for (const [label, chip] of shown) if (!labels.includes(label)) chip.remove();
    for (const label of labels) {
      if (shown.has(label)) continue;
      const chip = element("li", "", label);
      chip.dataset.label = label;
      chip.style.setProperty("--hue", labelColor(label));
      list.append(chip);
    }
    for (const chip of list.children) {
      chip.classList.toggle("flagged", flagged.includes(chip.dataset.label));
      chip.title = chip.classList.contains("flagged") ? "said because of its surroundings" : "";
    }
  }

  update({ status, labels, thresholds }) {
    this.status = status;
    find(".why-hint", this.root).hidden = !model?.explains;
    this.root.classList.toggle("explains", Boolean(model?.explains));
    if (model) this.choose(new Set(labels.length ? labels : model.labels), model.labels.map((label, i) => thresholds[label] ?? model.thresholds[i]));
    put(find(".name", this.root), status.name);
    const whole = status.latency_ms.capture_to_label ?? {};
    const told = {
      pace: status.frames_per_second.toFixed(1),
      p50: milliseconds(whole.p50), p95: milliseconds(whole.p95), p99: milliseconds(whole.p99),
      frames: count(status.frames), invalid: count(status.invalid),
      dropped: count(status.capture?.dropped), reconnects: count(status.capture?.reconnects),
    };
    for (const [name, text] of Object.entries(told)) put(find(`[data-stat=${name}]`, this.root), text);
    if (status.state !== "ok") this.showChips([]);
    this.showState();
  }

  showState() {
    if (!this.status) return;
    const { state, reason } = this.status;
    const isLate = performance.now() - this.newsMs > LATE_MS;
    const shown = !isLinked ? "lost" : state !== "ok" ? state : isLate ? "late" : this.frameStatus;
    const pill = find(".state", this.root);
    pill.dataset.state = shown;
    put(pill, STATES[shown] ?? shown);
    const troubled = !["ok", "ended"].includes(shown);
    this.root.classList.toggle("troubled", troubled);
    const trouble = find(".trouble", this.root);
    trouble.hidden = !troubled;
    if (!troubled) return;
    const age = this.capturedAt === null ? "no frame yet" : `last frame ${duration(nowS() - this.capturedAt)} ago`;
    put(trouble.firstChild, STATES[shown] ?? shown);
    put(trouble.lastChild, [REASONS[shown] ?? reason, age].filter(Boolean).join(" · "));
  }
}

function cardOf(id) {
  if (!cards.has(id)) cards.set(id, new Card(id));
  return cards.get(id);
}

function drawTerm(name, amount, largest) {
  const term = element("div", amount < 0 ? "term against" : "term"), track = element("span", "track"), bar = element("i");
  const share = Math.abs(amount) / largest * 50;
  bar.style.left = `${amount < 0 ? 50 - share : 50}%`;
  bar.style.width = `${share}%`;
  track.append(bar);
  term.setAttribute("role", "listitem");
  term.append(element("span", "label", name), track, element("output", "", signed(amount)));
  return term;
}

// ---- timeline, events, latencies ----

function drawTimeline() {
  const timeline = find("#timeline");
  if (CAN_HOVER.matches && timeline.matches(":hover")) return;  // somebody reads a bar's title
  const end = nowS(), begin = end - spanS;
  const rows = new Map();
  for (const visit of visits.values()) {
    const until = Math.min(visit.end_at ?? end, end), from = Math.max(visit.start_at, begin);
    if (until <= begin || from >= end) continue;
    const key = JSON.stringify([visit.source, visit.label]);
    const row = rows.get(key) ?? rows.set(key, { visit, total: 0, parts: [] }).get(key);
    row.total += until - from;
    row.parts.push({ visit, from, until });
  }
  const ranked = [...rows.values()].sort((a, b) => b.total - a.total).slice(0, SHOWN_ROWS);
  ranked.sort((a, b) => a.visit.source.localeCompare(b.visit.source) || b.total - a.total);
  const place = (time) => `${(time - begin) / spanS * 100}%`;
  const drawn = ranked.flatMap((row, i) => {
    const { source } = row.visit;
    const isFirst = cards.size > 1 && source !== ranked[i - 1]?.visit.source;
    return [...(isFirst ? [element("h3", "of", source)] : []), drawRow(row, place, end)];
  });
  const hidden = rows.size - ranked.length;
  if (!drawn.length) drawn.push(element("p", "empty", "No label has been there in this time."));
  if (hidden > 0) drawn.push(element("p", "empty", `and ${hidden} more`));
  timeline.replaceChildren(...drawn, drawAxis(begin, end, place));
}

function drawRow({ visit, parts }, place, end) {
  const row = element("div", "row"), who = element("div", "who", visit.label), lane = element("div", "lane");
  row.style.setProperty("--hue", labelColor(visit.label));
  for (const part of parts) {
    const bar = element("i", part.visit.end_at === null ? "lasting" : "");
    bar.style.left = place(part.from);
    bar.style.right = `calc(100% - ${place(part.until)})`;
    const lasted = duration((part.visit.end_at ?? end) - part.visit.start_at);
    bar.title = `${visit.label}, ${clock(part.visit.start_at)}, ${lasted}, best score ${part.visit.max_score.toFixed(2)}`;
    lane.append(bar);
  }
  row.append(who, lane);
  return row;
}

function drawAxis(begin, end, place) {
  const axis = element("div", "row axis"), lane = element("div", "lane");
  const step = spanS / (innerWidth < 560 ? 2 : 5);
  for (let time = Math.ceil(begin / step) * step; time < end; time += step) {
    const share = (time - begin) / spanS;
    if (share < 0.06 || share > 0.94) continue;  // it would stick out
    const tick = element("span", "", clock(time));
    tick.style.left = place(time);
    lane.append(tick);
  }
  axis.append(element("div", "who"), lane);
  return axis;
}

function drawLatencies(sources) {
  const rows = [];
  for (const { status } of sources) {
    const stages = STAGES.filter((stage) => status.latency_ms[stage]);
    if (sources.length > 1 && stages.length) {
      const head = element("th", "of", status.name);
      head.colSpan = 4;
      head.scope = "rowgroup";
      rows.push(element("tr"));
      rows.at(-1).append(head);
    }
    for (const stage of stages) {
      const row = element("tr", stage === "capture_to_label" ? "whole" : "");
      const cells = [stage.replaceAll("_", " ")];
      for (const rank of ["p50", "p95", "p99"]) cells.push(milliseconds(status.latency_ms[stage][rank]));
      row.append(...cells.map((text) => element("td", "", text)));
      rows.push(row);
    }
  }
  find("#latency tbody").replaceChildren(...rows);
}

// ---- the connection ----

function showMachine({ memory_free_bytes: free, memory_total_bytes: total, hottest_c: hottest, power_mode: power }) {
  const gib = (bytes) => (bytes / 2 ** 30).toFixed(1);
  const told = {
    memory: free === null || total === null ? "" : `${gib(free)} of ${gib(total)} GiB free`,
    hottest: hottest === null ? "" : `${hottest.toFixed(0)} °C`,
    power: power ?? "",
  };
  for (const [id, text] of Object.entries(told)) {
    put(find(`#${id}`), text);
    find(`#${id}`).parentElement.hidden = !text;
  }
}

function showOutputs(outputs) {
  const troubled = outputs.filter(({ state }) => state !== "ok");
  put(find("#outputs"), troubled.map(({ name, state, lost }) => `${name} is ${state}, ${lost} lost`).join("; "));
  find("#outputs").title = troubled.map(({ name, reason }) => `${name}: ${reason}`).join("\n");
  find("#outputs").parentElement.hidden = !troubled.length;
}

function dropCards(sources) {
  const shown = new Set(sources.map((source) => source.id));
  for (const [id, card] of cards) {
    if (shown.has(id)) continue;
    card.root.remove();
    cards.delete(id);
  }
}

function takeState(state) {
  if (lastState && lastState.version !== state.version) return location.reload();  // this page is of the former
  lastState = state;
  model = state.model;
  clockOffsetS = state.now - Date.now() / 1000;
  put(find("#model"), model.name);
  const [runs] = model.runtime.split(";");  // behind it: what else was measured
  put(find("#runtime"), `${runs} (${model.provider})`);
  find("#runtime").title = model.runtime;
  showMachine(state.machine);
  showOutputs(state.outputs);
  dropCards(state.sources);
  for (const source of state.sources) {
    cardOf(source.id).update(source);
    find("button.edit", cardOf(source.id).root).hidden = !state.may_edit;
  }
  for (const visit of state.visits) visits.set(visit.id, visit);
  if (visits.size > KEPT_VISITS) {
    const ended = [...visits.values()].filter((visit) => visit.end_at !== null);
    ended.sort((a, b) => a.end_at - b.end_at);
    for (const visit of ended.slice(0, visits.size - KEPT_VISITS)) visits.delete(visit.id);
  }
  drawEvents(visits, nowS(), clock);
  drawLatencies(state.sources);
}

async function takeFrame(buffer, socket) {
  const length = new DataView(buffer).getUint32(0);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  try {
    await cardOf(about.source).paint(about, new Uint8Array(buffer, 4 + length));
  } finally {
    await untilVisible();
    if (socket.readyState === WebSocket.OPEN) socket.send(String(about.source));
  }
}

function untilVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

function showLink(state, text) {
  const link = find("#link");
  link.dataset.state = state;
  put(link, text);
}

async function connect(pauseMs = 500) {
  const address = new URL("/api/live", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  let opened = false;
  heardMs = performance.now();
  socket.onopen = () => {
    opened = isLinked = true;
    server = socket;
    visits.clear();
    for (const card of cards.values()) if (card.asked !== null) card.ask(card.asked);
    showLink("ok", "connected");
  };
  socket.onmessage = ({ data }) => {
    heardMs = performance.now();
    return typeof data === "string" ? takeState(JSON.parse(data)) : takeFrame(data, socket);
  };
  socket.onclose = hangUp = async () => {
    hangUp = () => {};
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    showLink("lost", "connection lost, trying again");
    isLinked = false;
    for (const card of cards.values()) card.showState();
    const late = new Promise(resolve => setTimeout(resolve, 2000, null));  // AbortSignal.timeout is not in iOS 15
    const answer = await Promise.race([fetch("/api/state"), late]).catch(() => null);
    if (answer?.status === 401) location.reload();  // the token is another one now
    setTimeout(connect, pauseMs, opened ? 500 : Math.min(5000, pauseMs * 2));
  };
}

document.addEventListener("visibilitychange", () => {  // nothing came while nobody looked
  for (const card of cards.values()) card.newsMs = performance.now();
});

find("#spans").addEventListener("click", ({ target }) => {
  if (!target.dataset.seconds) return;
  spanS = Number(target.dataset.seconds);
  for (const button of find("#spans").children) button.setAttribute("aria-pressed", button === target);
  drawTimeline();
});

setInterval(() => {
  if (document.hidden || !lastState) return;
  put(find("#uptime"), duration(nowS() - lastState.started_at));
  for (const card of cards.values()) card.showState();
  drawTimeline();
}, 500);

setInterval(() => {  // a phone that slept, or left its network, is told of no end
  if (performance.now() - heardMs > SILENT_MS) hangUp();
}, 1000);

connect();
