// Masks and the region, drawn over the picture of a source: with a pointer, the keyboard, or as text.

import { element, find, put } from "/small.js";

const STEP = 0.01;           // of width and height, by an arrow key; ten times with Shift
const NEAR_PX = 12;          // of a corner: it is meant
const MASK = "#606060";      // as the pictures that leave have it
const HINTS = {
  idle: "Drag a corner to move it. Masks are painted over for everybody, and a source with masks has no clips; the region is all that the model sees.",
  mask: "Mask: set three corners or more, then close the shape at its first corner.",
  region: "Region: set three corners or more, then close the shape at its first corner.",
};
const round = (share) => Math.round(Math.min(1, Math.max(0, share)) * 1e4) / 1e4;
const asText = (corners) => corners.map((corner) => corner.join(",")).join(" ");

function fromText(text) {
  const corners = text.trim().split(/\s+/).map((part) => part.split(",").map(Number));
  const isPolygon = corners.length > 2 && corners.every((c) => c.length === 2 && c.every((v) => v >= 0 && v <= 1));
  return isPolygon ? corners : null;
}

export class Shapes {
  constructor(root, changed) {
    this.canvas = find("canvas", root);
    this.list = find(".shapes", root);
    this.hint = find(".hint", root);
    this.tools = find(".tools", root);
    this.changed = changed;
    this.tools.addEventListener("click", ({ target }) => this.choose(target.dataset.tool));
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerup", () => { this.held = null; });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.draw());
    this.canvas.addEventListener("focus", () => this.draw());
    this.start([], []);
  }

  start(masks, region) {
    this.masks = masks;
    this.region = region;
    this.tool = this.held = null;
    this.drawn = [];
    this.cross = [0.5, 0.5];
    this.showList();
    this.choose(null);
  }

  paint(picture) {
    this.picture = picture;
    if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
      this.canvas.width = picture.width;
      this.canvas.height = picture.height;
    }
    this.draw();
  }

  choose(tool) {
    if (tool === "close") return this.close();
    this.tool = this.tool === tool ? null : tool ?? null;
    this.drawn = [];
    if (this.tool) this.canvas.focus({ preventScroll: true });
    this.showTool();
  }

  showTool() {
    put(this.hint, HINTS[this.tool ?? "idle"]);
    for (const button of this.tools.children) {
      if (button.dataset.tool === "close") button.disabled = this.drawn.length < 3;
      else button.setAttribute("aria-pressed", button.dataset.tool === this.tool);
    }
    this.draw();
  }

  close() {
    if (this.drawn.length < 3) return;
    if (this.tool === "region") this.region = this.drawn;
    else this.masks.push(this.drawn);
    this.choose(null);
    this.showList();
    this.changed();
  }

  add(corner) {
    this.drawn.push(corner.map(round));
    this.showTool();
  }

  // ---- pointer and keyboard ----

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  isNear(a, b) {
    const box = this.canvas.getBoundingClientRect();
    return Math.hypot((a[0] - b[0]) * box.width, (a[1] - b[1]) * box.height) < NEAR_PX;
  }

  press(event) {
    const place = this.at(event);
    if (this.tool) {
      if (this.drawn.length > 2 && this.isNear(place, this.drawn[0])) this.close();
      else this.add(place);
      return event.preventDefault();
    }
    for (const corners of [...this.masks, this.region]) {
      const number = corners.findIndex((corner) => this.isNear(place, corner));
      if (number >= 0) this.held = { corners, number };
    }
    if (this.held) this.canvas.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.held) return;
    this.held.corners[this.held.number] = this.at(event).map(round);
    this.showList();
    this.draw();
    this.changed();
  }

  key(event) {
    const step = STEP * (event.shiftKey ? 10 : 1);
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (ways[event.key]) this.cross = this.cross.map((share, i) => round(share + ways[event.key][i]));
    else if (event.key === "Enter" && this.tool) this.add([...this.cross]);
    else if (event.key === " " && this.tool) this.close();
    else if (event.key === "Backspace" && this.tool) this.drawn.pop();
    else if (event.key === "Escape" && this.tool) this.choose(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.showTool();
  }

  // ---- what is shown ----

  draw() {
    const { canvas, picture } = this, pen = canvas.getContext("2d");
    if (!picture?.width) return;
    pen.drawImage(picture, 0, 0);
    pen.lineWidth = Math.max(2, canvas.width / 400);
    if (this.region.length) {
      pen.save();
      pen.beginPath();
      pen.rect(0, 0, canvas.width, canvas.height);
      this.path(pen, this.region);
      pen.fillStyle = "#000a";
      pen.fill("evenodd");
      pen.restore();
      this.outline(pen, this.region, "#3ddc97");
    }
    for (const mask of this.masks) this.outline(pen, mask, "#fff", MASK);
    if (this.drawn.length) this.outline(pen, this.drawn, "#ffb454", null, true);
    if (this.tool && document.activeElement === canvas) this.drawCross(pen);
  }

  path(pen, corners, isOpen = false) {
    corners.forEach(([x, y], i) => pen[i ? "lineTo" : "moveTo"](x * this.canvas.width, y * this.canvas.height));
    if (!isOpen) pen.closePath();
  }

  outline(pen, corners, color, fill = null, isOpen = false) {
    pen.beginPath();
    this.path(pen, corners, isOpen);
    if (fill) {
      pen.fillStyle = fill;
      pen.fill();
    }
    pen.strokeStyle = pen.fillStyle = color;
    pen.stroke();
    const size = 3 * pen.lineWidth;
    for (const [x, y] of corners) pen.fillRect(x * this.canvas.width - size / 2, y * this.canvas.height - size / 2, size, size);
  }

  drawCross(pen) {
    const x = this.cross[0] * this.canvas.width, y = this.cross[1] * this.canvas.height, size = this.canvas.width / 40;
    pen.strokeStyle = "#ffb454";
    pen.beginPath();
    pen.moveTo(x - size, y);
    pen.lineTo(x + size, y);
    pen.moveTo(x, y - size);
    pen.lineTo(x, y + size);
    pen.stroke();
  }

  showList() {
    const rows = this.masks.map((mask, i) => this.row(`Mask ${i + 1}`, mask, (c) => { this.masks[i] = c; }, () => this.masks.splice(i, 1)));
    if (this.region.length) rows.push(this.row("Region", this.region, (c) => { this.region = c; }, () => { this.region = []; }));
    if (this.list.contains(document.activeElement)) return;  // somebody types there
    this.list.replaceChildren(...rows);
  }

  row(name, corners, set, remove) {
    const row = element("li"), text = element("input"), drop = element("button", "", "Remove");
    text.value = asText(corners);
    text.setAttribute("aria-label", `Corners of ${name.toLowerCase()}: x,y as shares of width and height`);
    text.addEventListener("input", () => {
      const read = fromText(text.value);
      text.setCustomValidity(read ? "" : "three corners or more, as 0,0 0.5,0 0.5,1; each number from 0 to 1");
      if (!read) return;
      set(read);
      this.draw();
      this.changed();
    });
    drop.type = "button";
    drop.setAttribute("aria-label", `Remove ${name.toLowerCase()}`);
    drop.addEventListener("click", () => {
      remove();
      drop.blur();
      this.showList();
      this.draw();
      this.changed();
    });
    row.append(element("b", "", name), text, drop);
    return row;
  }
}
