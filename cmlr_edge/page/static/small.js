// Small things that the scripts of the page share.

export const find = (selector, root = document) => root.querySelector(selector);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function put(node, text) {  // touching only what changes keeps selections and screen readers calm
  if (node.textContent !== text) node.textContent = text;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

// The same colour as in overlay videos and contact sheets: see cmlr_edge/sinks/drawing.py.
export function labelColor(label) {
  let crc = ~0;
  for (const byte of new TextEncoder().encode(label)) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  const number = ~crc >>> 0;
  const hue = (number % 24) / 24 * 360;
  const saturation = Math.floor(number / 24) % 2 ? 0.7 : 0.35;
  const lightness = 1 - saturation / 2;  // HSV with value 1, as HSL
  return `hsl(${hue} 100% ${lightness * 100}%)`;
}

export function duration(seconds) {  // with spaces that no line breaks at
  seconds = Math.max(0, seconds);
  if (seconds < 60) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)}\u00a0s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u00a0min ${Math.floor(seconds % 60)}\u00a0s`;
  return `${Math.floor(seconds / 3600)}\u00a0h ${Math.floor(seconds / 60) % 60}\u00a0min`;
}
