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
  const size = [Math.max(1, Math.round(w * ratio)), Math.max(1, Math.round(h * ratio))];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
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
  for (const lane of lanes.values()) lane.sort((a, b) => start(m, a) - start(m, b));
  // The longest path goes from each of its marks to the next one, in order of execution.
  const path = [...Array(n).keys()].filter((k) => m[k * N + 2] & 2), next = new Map(path.map((k, i) => [k, path[i + 1]]));
  return { ...drawn, n, order, edges: edges, span, low, high, lanes, next };
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
  view = { x: -0.5, scale, lane, y: Math.max(36, (h - 24 - (d.high - d.low + 1) * lane) / 2) + (0.5 - d.low) * lane };
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
    if (y0 === y1 && jumps(d, a, b)) { const far = x1 - x0, lift = far < 1.3 * view.scale ? Math.min(0.3 * view.lane, 4 + far / 24) : view.lane * (0.46 + Math.min(0.12, far / 6000)); pen.bezierCurveTo(x0, y0 - lift * 1.3, x1, y1 - lift * 1.3, x1, y1); }
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
    if (d.next.get(a) === b) traced.push([a, b]); else curve(a, b);
  }
  pen.stroke();
  pen.strokeStyle = ink; pen.lineWidth = 1.8; pen.beginPath();
  for (const [a, b] of traced) curve(a, b);
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
  let k = first(lane, stop(m, a) - 1e-6, (i) => start(m, i));
  while (k < lane.length && (lane[k] === a || start(m, lane[k]) <= stop(m, a) + 1e-6)) k++;
  return k < lane.length && start(m, lane[k]) < start(m, b) - 1e-6;
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
ROLES.forEach((role) => { const mark = make("span", "\u25a0 "); mark.style.color = "var(--" + role + ")"; $("legend").append(mark, role + "; "); });
$("legend").append(make("span", "dark line: the longest path; pale: not on it"));

// -- a module that is pointed at
function choose(row, op, macs) {
  if (chosen === row && !op) return;
  chosen = row;
  const [path, kind, cells, field] = data.modules[row], box = $("module"), table = make("table");
  box.replaceChildren(make("b", path), make("div", kind, "note"));
  if (op) box.append(make("div", op + (macs ? ", " + macs.toLocaleString("en") + " multiply-adds" : ""), "note"));
  cells.forEach((text, k) => { if (!text) return; const line = make("tr"); line.title = data.columns[k][1]; line.append(make("th", data.columns[k][0]), make("td", text)); table.append(line); });
  box.append(table); drawField(field, path); redraw();
  paint();
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

// -- the tree: a line is in the page while it is in view, so that ten thousand stay smooth
const HIGH = 22, MORE = 8, opened = new Set([0]), shown = new Map();
const below = (k) => k + 1 < data.tree.length && data.tree[k + 1][0] > data.tree[k][0];
const box = make("div", undefined, "rows");
let listed = [], current_line = 0;
function list() {
  listed = [];
  let hidden = Infinity;
  data.tree.forEach(([level], k) => { if (level > hidden) return; hidden = opened.has(k) ? Infinity : level; listed.push(k); });
  box.style.height = listed.length * HIGH + "px";
  for (const line of shown.values()) line.remove();
  shown.clear(); paint();
}
function paint(all) {
  const top = box.getBoundingClientRect().top, whole = all || listed.length <= 300, from = whole ? 0 : Math.floor(-top / HIGH) - MORE, to = whole ? Infinity : (window.innerHeight - top) / HIGH + MORE;
  for (const [i, line] of shown) if ((i < from || i > to) && line !== document.activeElement) { line.remove(); shown.delete(i); }
  for (let i = Math.max(0, from); i < listed.length && i <= to; i++) if (!shown.has(i)) { const line = row(listed[i], i); shown.set(i, line); box.append(line); }
  for (const [i, line] of shown) line.classList.toggle("on", data.tree[listed[i]][1] === chosen);
}
function row(k, i) {
  const [level, module, text] = data.tree[k], [path, kind, cells] = data.modules[module], line = make("div", undefined, "row"), cell = make("span");
  line.style.top = i * HIGH + "px"; line.tabIndex = i === current_line ? 0 : -1; line.setAttribute("role", "treeitem"); line.setAttribute("aria-level", level + 1);
  cell.style.paddingLeft = level * 1.1 + "em"; cell.title = path;
  cell.append(make("b", below(k) ? (opened.has(k) ? "\u25be" : "\u25b8") : ""), text + " ", make("i", kind === "functional" ? "" : kind));
  if (below(k)) line.setAttribute("aria-expanded", String(opened.has(k)));
  line.append(cell, ...cells.map((c) => make("span", c)));
  for (const event of ["pointerenter", "focus"]) line.addEventListener(event, () => choose(module));
  line.addEventListener("click", () => turn(k, i));
  line.addEventListener("keydown", (e) => {
    const act = { ArrowDown: () => go(i + 1), ArrowUp: () => go(i - 1), Enter: () => turn(k, i), ArrowRight: () => opened.has(k) || turn(k, i), ArrowLeft: () => opened.has(k) && turn(k, i) }[e.key];
    if (act) { e.preventDefault(); act(); }
  });
  return line;
}
function turn(k, i) { if (!below(k)) return; if (!opened.delete(k)) opened.add(k); list(); go(i); }
function go(i) {
  if (i < 0 || i >= listed.length) return;
  const before = shown.get(current_line);
  if (before) before.tabIndex = -1;
  current_line = i;
  if (!shown.has(i)) { window.scrollBy(0, box.getBoundingClientRect().top + i * HIGH - window.innerHeight / 2); paint(); }
  const line = shown.get(i);
  line.tabIndex = 0; line.focus({ preventScroll: false });
}
const head = make("div", undefined, "row head"); head.append(make("span", "module")); data.columns.forEach(([c, text]) => { const e = make("span", c); e.title = text; head.append(e); });
box.setAttribute("role", "tree"); box.setAttribute("aria-label", "modules"); $("tree").append(head, box); list();
window.addEventListener("scroll", () => paint(), { passive: true }); window.addEventListener("beforeprint", () => paint(true));

for (const [label, value, definition] of data.facts) { const line = make("tr"); line.append(make("th", label), make("td", value, "n"), make("td", definition, "note")); $("facts").append(line); }
data.notes.slice(1).forEach((note) => $("notes").append(make("li", note)));
window.addEventListener("resize", () => { redraw(); lengths(); paint(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { redraw(); lengths(); });
home(); redraw(); lengths(); choose(0);
})();
