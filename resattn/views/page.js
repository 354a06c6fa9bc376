"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, text, kind) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (kind) e.className = kind; return e; };
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const ROLES = ["trunk", "mask", "shortcut"], N = 7, STEPS = 100, ROOM = 0.3;
$("about").textContent = "input " + data.input.join(" x ") + "; " + data.notes[0];

// -- a canvas as sharp as the screen
function fit(canvas) {
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  canvas.width = Math.max(1, w * ratio); canvas.height = Math.max(1, h * ratio);
  const pen = canvas.getContext("2d"); pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [pen, w, h];
}

// -- the drawing: marks are sorted by place, so that a frame visits those in view alone
function prepared(drawn) {
  const m = drawn.marks, n = m.length / N, order = [...Array(n).keys()].sort((a, b) => m[a * N] - m[b * N]);
  const edges = [], e = drawn.edges;
  let low = 0, high = 0;
  for (let k = 0; k < n; k++) { low = Math.min(low, m[k * N + 1]); high = Math.max(high, m[k * N + 1]); }
  for (let k = 0; k < e.length; k += 2) edges.push([e[k], e[k + 1], stop(m, e[k]), start(m, e[k + 1])]);
  edges.sort((a, b) => a[2] - b[2]);
  let span = 0;
  for (const edge of edges) span = Math.max(span, edge[3] - edge[2]);
  const lanes = new Map();
  order.forEach((k) => { const lane = m[k * N + 1]; if (!lanes.has(lane)) lanes.set(lane, []); lanes.get(lane).push(k); });
  return { ...drawn, n, order, edges: edges, span, low, high, lanes };
}
const isLayer = (m, k) => m[k * N + 2] & 1;
const start = (m, k) => m[k * N] / STEPS + (isLayer(m, k) ? ROOM : 0);
const stop = (m, k) => m[k * N] / STEPS + (isLayer(m, k) ? 1 : 0);
const cache = {};
const canvas = $("drawing");
let name = data.drawings.folded ? "folded" : "all", view = null, chosen = -1, waiting = false;
const current = () => cache[name] || (cache[name] = prepared(data.drawings[name]));
if (Object.keys(data.drawings).length < 2) $("fold").hidden = true;
$("fold").querySelector("input").addEventListener("change", (event) => { name = event.target.checked ? "folded" : "all"; view = null; redraw(); });

function home() {
  const d = current(), w = canvas.clientWidth, h = canvas.clientHeight, scale = Math.max(w / (d.length / STEPS + 1.5), 3);
  const lane = Math.min(60, Math.max(14, (h - 90) / (d.high - d.low + 1)));
  view = { x: -0.5, scale, lane, y: 36 + (0.5 - d.low) * lane };
}
function first(list, value, key) {
  let a = 0, b = list.length;
  while (a < b) { const c = (a + b) >> 1; if (key(list[c]) < value) a = c + 1; else b = c; }
  return a;
}
function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }
function draw() {
  waiting = false;
  const d = current(), m = d.marks, [pen, w, h] = fit(canvas);
  if (!view) home();
  const X = (x) => (x - view.x) * view.scale, Y = (lane) => view.y + lane * view.lane;
  const left = view.x, right = view.x + w / view.scale;
  const inks = ROLES.map(colour), ink = colour("ink"), pale = colour("pale"), line = colour("line");
  pen.clearRect(0, 0, w, h); pen.font = "11px system-ui,sans-serif"; pen.lineJoin = "round";
  pen.fillStyle = pale; pen.strokeStyle = line; pen.lineWidth = 1;
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((n) => n * view.scale >= 50) || 2000;
  for (let x = Math.max(0, Math.ceil(left / every) * every); x <= right && x <= d.length / STEPS; x += every) { pen.fillText(x, X(x) + 2, h - 6); pen.beginPath(); pen.moveTo(X(x), h - 18); pen.lineTo(X(x), h - 4); pen.stroke(); }
  for (const [row, times, from, to] of d.blocks) {
    const a = X(from / STEPS), b = X(to / STEPS);
    if (b < 0 || a > w || b - a < 3) continue;
    pen.strokeStyle = line; pen.strokeRect(a, 14, b - a, h - 36);
    pen.fillStyle = pale; if (b - a > 24) pen.fillText(times + " \u00d7", a + 3, 12);
  }
  const traced = [];
  const curve = (a, b) => {
    const x0 = X(stop(m, a)), x1 = X(start(m, b)), y0 = Y(m[a * N + 1]), y1 = Y(m[b * N + 1]);
    pen.moveTo(x0, y0);
    if (y0 === y1 && jumps(d, a, b)) { const lift = Math.min(16, 4 + (x1 - x0) / 12); pen.bezierCurveTo(x0, y0 - lift * 1.3, x1, y1 - lift * 1.3, x1, y1); }
    else if (y0 === y1) pen.lineTo(x1, y1);
    else if (x1 - x0 < 2 * view.scale) { const c = (x0 + x1) / 2; pen.bezierCurveTo(c, y0, c, y1, x1, y1); }
    else { const c = 0.35 * view.scale, later = m[a * N + 1] === 0 || Math.abs(m[a * N + 1]) < Math.abs(m[b * N + 1]), y = later ? y1 : y0;
      if (later) { pen.bezierCurveTo(x0 + c, y0, x0 + c / 2, y, x0 + 1.5 * c, y); pen.lineTo(x1, y1); }
      else { pen.lineTo(x1 - 1.5 * c, y); pen.bezierCurveTo(x1 - c / 2, y, x1 - c, y1, x1, y1); } }
  };
  pen.strokeStyle = pale; pen.lineWidth = 0.8; pen.beginPath();
  for (let k = first(d.edges, left - d.span, (e) => e[2]); k < d.edges.length && d.edges[k][2] <= right; k++) {
    const [a, b, , to] = d.edges[k];
    if (to < left) continue;
    if ((m[a * N + 2] & 2) && (m[b * N + 2] & 2)) traced.push([a, b]); else curve(a, b);
  }
  pen.stroke();
  pen.strokeStyle = ink; pen.lineWidth = 1.8; pen.beginPath();
  for (const [a, b] of traced) if (!jumps(d, a, b) || d.edges.length === d.n - 1) curve(a, b);
  pen.stroke();
  for (let k = first(d.order, (left - 1) * STEPS, (i) => m[i * N]); k < d.n && m[d.order[k] * N] <= right * STEPS; k++) {
    const i = d.order[k], flags = m[i * N + 2], y = Y(m[i * N + 1]);
    pen.globalAlpha = flags & 2 ? 1 : 0.6; pen.fillStyle = inks[flags >> 2];
    if (flags & 1) { const tall = Math.max(2.5, 8e-4 * view.lane * m[i * N + 3]), a = X(start(m, i)); pen.fillRect(a, y - tall / 2, Math.max(1, X(stop(m, i)) - a), tall); }
    else { pen.beginPath(); pen.arc(X(start(m, i)), y, Math.min(3, 1 + view.scale / 20), 0, 7); pen.fill(); }
    if (chosen && m[i * N + 4] === chosen) { pen.globalAlpha = 1; pen.strokeStyle = ink; pen.lineWidth = 1.5; pen.strokeRect(X(start(m, i)) - 2, y - 0.45 * view.lane, Math.max(4, X(stop(m, i)) - X(start(m, i)) + 4), 0.9 * view.lane); }
  }
  pen.globalAlpha = 1;
}
// Whether another mark lies between two of one lane: the edge is then an arc above it.
function jumps(d, a, b) {
  const m = d.marks, lane = d.lanes.get(m[a * N + 1]);
  if (m[a * N + 1] !== m[b * N + 1]) return false;
  const k = first(lane, m[a * N] + 0.5, (i) => m[i * N]);
  return k < lane.length && m[lane[k] * N] < m[b * N] && lane[k] !== b;
}
function at(x, y) {
  const d = current(), m = d.marks, place = view.x + x / view.scale;
  let best = -1, least = 15;
  for (let k = first(d.order, (place - 1.2) * STEPS, (i) => m[i * N]); k < d.n && m[d.order[k] * N] <= (place + 0.5) * STEPS; k++) {
    const i = d.order[k], a = (start(m, i) - view.x) * view.scale, b = (stop(m, i) - view.x) * view.scale;
    const away = Math.max(a - x, x - b, 0) + Math.max(Math.abs(view.y + m[i * N + 1] * view.lane - y) - 0.4 * view.lane, 0);
    if (away < least) { least = away; best = i; }
  }
  return best;
}
function zoom(factor, x) { const place = view.x + x / view.scale; view.scale = Math.min(200, Math.max(0.2, view.scale * factor)); view.x = place - x / view.scale; redraw(); }
let held = null;
canvas.addEventListener("pointerdown", (e) => { held = [e.offsetX, e.offsetY, view.x, view.y]; canvas.setPointerCapture(e.pointerId); });
canvas.addEventListener("pointerup", () => { held = null; });
canvas.addEventListener("pointermove", (e) => {
  if (held) { view.x = held[2] - (e.offsetX - held[0]) / view.scale; view.y = held[3] + e.offsetY - held[1]; return redraw(); }
  const i = at(e.offsetX, e.offsetY), d = current();
  if (i >= 0) choose(d.marks[i * N + 4], d.names[d.marks[i * N + 5]], d.marks[i * N + 6]);
});
canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY / 400), e.offsetX); }, { passive: false });
canvas.addEventListener("keydown", (e) => {
  const step = canvas.clientWidth / view.scale / 5, middle = canvas.clientWidth / 2;
  const act = { ArrowLeft: () => view.x -= step, ArrowRight: () => view.x += step, ArrowUp: () => view.y += 40, ArrowDown: () => view.y -= 40, "+": () => zoom(1.4, middle), "-": () => zoom(1 / 1.4, middle), "0": home }[e.key];
  if (act) { e.preventDefault(); act(); redraw(); }
});
canvas.setAttribute("aria-label", data.target + " drawn to scale; the tree below gives the same modules as text");
ROLES.forEach((role) => { const mark = make("span", "\u25a0 " + role + "  "); mark.style.color = "var(--" + role + ")"; $("legend").append(mark); });
$("legend").append("line in ink: the longest path; pale: not on it");

// -- a module that is pointed at
function choose(row, op, macs) {
  if (chosen === row && !op) return;
  chosen = row;
  const [path, kind, cells, field] = data.modules[row], box = $("module"), table = make("table");
  box.replaceChildren(make("b", path), make("div", kind, "note"));
  if (op) box.append(make("div", op + (macs ? ", " + macs.toLocaleString("en") + " multiply-adds" : ""), "note"));
  cells.forEach((text, k) => { if (!text) return; const line = make("tr"); line.title = data.columns[k][1]; line.append(make("th", data.columns[k][0]), make("td", text)); table.append(line); });
  box.append(table); drawField(field, path); redraw();
  for (const e of document.querySelectorAll(".row.on")) e.classList.remove("on");
  if (lines[row]) lines[row].classList.add("on");
}
function drawField(field, path) {
  const c = $("field"), [pen, w, h] = fit(c), [H, W] = data.image, s = Math.min(w / W, h / H), ww = W * s, hh = H * s;
  pen.clearRect(0, 0, w, h);
  const sky = pen.createLinearGradient(0, 0, 0, hh); sky.addColorStop(0, "#8fb8de"); sky.addColorStop(0.6, "#dfe9f0"); sky.addColorStop(0.61, "#7da06b"); sky.addColorStop(1, "#55753f");
  pen.fillStyle = sky; pen.fillRect(0, 0, ww, hh);
  pen.fillStyle = "#b5532a"; pen.fillRect(ww * 0.36, hh * 0.42, ww * 0.3, hh * 0.3); pen.beginPath(); pen.moveTo(ww * 0.32, hh * 0.43); pen.lineTo(ww * 0.51, hh * 0.25); pen.lineTo(ww * 0.7, hh * 0.43); pen.fillStyle = "#6b3a2a"; pen.fill();
  let words = "no field along the axes of an image";
  if (field) {
    const fh = field[0] || H, fw = field[1] || W, a = Math.min(fh * s, 4 * hh), b = Math.min(fw * s, 4 * ww);
    pen.strokeStyle = "#000"; pen.lineWidth = 3; pen.strokeRect((ww - b) / 2, (hh - a) / 2, b, a);
    pen.strokeStyle = "#fff"; pen.lineWidth = 1.5; pen.strokeRect((ww - b) / 2, (hh - a) / 2, b, a);
    words = field[0] && field[1] ? "a unit in the middle sees " + fh + " x " + fw + " px of " + H + " x " + W + (fh > H || fw > W ? ": more than the input" : "") : "each unit sees the whole input";
  }
  c.setAttribute("aria-label", path + ": " + words); $("field-words").textContent = words;
}

// -- lengths of paths
function lengths() {
  const [pen, w, h] = fit($("lengths")), all = [data.lengths, data.used || []], most = all.map((l) => Math.max(1e-12, ...l.map((p) => p[1])));
  const end = Math.max(1, ...all.flat().map((p) => p[0])) + 1, width = (w - 10) / end;
  pen.clearRect(0, 0, w, h); pen.font = "11px system-ui,sans-serif";
  data.lengths.forEach(([k, share]) => { pen.fillStyle = colour("trunk"); const tall = (h - 40) * share / most[0]; pen.fillRect(5 + k * width, h - 20 - tall, Math.max(1, width * 0.8), tall); });
  if (data.used) { pen.strokeStyle = colour("mask"); pen.lineWidth = 2; pen.beginPath(); data.used.forEach(([k, share], i) => { const x = 5 + (k + 0.4) * width, y = h - 20 - (h - 40) * share / most[1]; if (i) pen.lineTo(x, y); else pen.moveTo(x, y); }); pen.stroke(); }
  pen.fillStyle = colour("pale"); const every = Math.max(1, Math.ceil(end / 8)); for (let k = 0; k < end; k += every) pen.fillText(k, 5 + k * width, h - 6);
  const mean = (l) => (l.reduce((s, p) => s + p[0] * p[1], 0) / Math.max(1e-300, l.reduce((s, p) => s + p[1], 0))).toFixed(1);
  const words = data.lengths.length ? "Bars: share of paths by weighted layers, mean " + mean(data.lengths) + "." + (data.used ? " Line: share of the gradient's energy, mean " + mean(data.used) + "." : "") : "no path from input to output is known";
  $("lengths").setAttribute("aria-label", words); $("lengths-words").textContent = words;
}

// -- the tree: a line is made when its parent is opened
const lines = {};
function row(entry, k) {
  const [level, module, text] = entry, [, kind, cells] = data.modules[module], line = make("div", undefined, "row"), cell = make("span");
  cell.style.paddingLeft = level * 1.1 + "em";
  const below = data.tree[k + 1] && data.tree[k + 1][0] > level, button = make("button", below ? "\u25b8" : "");
  button.disabled = !below; button.setAttribute("aria-label", "open " + text); button.setAttribute("aria-expanded", "false");
  cell.append(button, text + " "); cell.append(make("i", kind === "functional" ? "" : kind)); cell.title = data.modules[module][0];
  line.append(cell); cells.forEach((c) => line.append(make("span", c)));
  line.tabIndex = 0; lines[module] = line;
  for (const event of ["pointerenter", "focus"]) line.addEventListener(event, () => choose(module));
  const box = make("div"); box.append(line);
  let inner = null;
  const open = () => {
    if (!below) return;
    if (inner) { inner.hidden = !inner.hidden; } else { inner = make("div"); for (let n = k + 1; n < data.tree.length && data.tree[n][0] > level; n++) if (data.tree[n][0] === level + 1) inner.append(row(data.tree[n], n)); box.append(inner); }
    button.textContent = inner.hidden ? "\u25b8" : "\u25be"; button.setAttribute("aria-expanded", String(!inner.hidden));
  };
  button.addEventListener("click", open);
  line.addEventListener("keydown", (e) => { if (e.key === "Enter" && e.target === line) open(); });
  if (!level) open();
  return box;
}
const head = make("div", undefined, "row head"); head.append(make("span", "module")); data.columns.forEach(([c, text]) => { const e = make("span", c); e.title = text; head.append(e); });
$("tree").append(head, row(data.tree[0], 0));

for (const [label, value, definition] of data.facts) { const line = make("tr"); line.append(make("th", label), make("td", value, "n"), make("td", definition, "note")); $("facts").append(line); }
data.notes.slice(1).forEach((note) => $("notes").append(make("li", note)));
window.addEventListener("resize", () => { redraw(); lengths(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { redraw(); lengths(); });
home(); redraw(); lengths(); choose(0);
})();
