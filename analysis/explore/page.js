"use strict";
// The explorer: what the sliders say is counted (count.js), drawn, compared with the state before, and kept in the address.
for (const root of document.querySelectorAll(".explore")) {
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const at = (name) => root.querySelector(`[data-e="${name}"]`);
  const SLIDERS = ["p", "t", "r", "modules", "poolings"];
  const PALE = 0.45, WIDTH = 940, LEAST = 0.08; // LEAST: height of a layer that is to be seen, of the largest
  const commas = (n) => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  const brief = (n) => (n >= 1e9 ? `${(n / 1e9).toPrecision(3)} G` : n >= 1e6 ? `${(n / 1e6).toPrecision(3)} M` : commas(n));
  const tag = (name, attributes, inside = "") =>
    `<${name}${Object.entries(attributes).map(([k, v]) => ` ${k}="${v}"`).join("")}>${inside}</${name}>`;

  let state = null, before = null, shown = null, previous = null, pinned = null;

  // -- the state and its address: #x=attention56;p=1;modules=1,1,1

  const equal = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const specOf = (s) => {
    const base = data.bases[s.base], rest = base.modules.slice(s.modules.length);
    return { ...base, p: s.p, t: s.t, r: s.r, modules: [...s.modules, ...rest], poolings: [...s.poolings, ...base.poolings.slice(s.poolings.length)] };
  };
  const clamped = (s) => {
    const most = Count.most(specOf(s));
    return { ...s, poolings: s.poolings.map((n, k) => Math.min(n, most[k])) };
  };
  const address = (s) => `x=${s.base};p=${s.p};t=${s.t};r=${s.r};modules=${s.modules};poolings=${s.poolings}`;
  function fromAddress() {
    const parts = Object.fromEntries(location.hash.slice(1).split(";").map((part) => part.split("=")));
    if (!Object.hasOwn(data.bases, parts.x ?? "")) return null;
    const found = { ...data.presets[0].state, base: parts.x };
    for (const name of SLIDERS) {
      const [low, high] = data.ranges[name];
      const numbers = (parts[name] ?? "").split(",").map(Number);
      if (numbers.some((n) => !Number.isInteger(n) || n < low || n > high)) return null;
      if (name === "modules" || name === "poolings") { if (numbers.length !== 3) return null; found[name] = numbers; }
      else if (numbers.length !== 1) return null;
      else found[name] = numbers[0];
    }
    return clamped(found);
  }

  // -- the drawings

  function network(found) {
    const { layers } = found, unit = Math.max(...layers.map((l) => l.macs)), scale = 74;
    const end = Math.max(...layers.map((l) => l.start)) + 1, step = WIDTH / end, gap = Math.min(0.06 * step, 1);
    const full = {};
    for (const l of layers) if (l.role === "mask") full[`${l.stage}.${l.module}`] = l.size;
    const level = (l) => Math.round(Math.log2(full[`${l.stage}.${l.module}`] / l.size));
    const tallest = (part) => Math.max(0, ...part.map((l) => l.macs / unit));
    const masks = layers.filter((l) => l.role === "mask"), trunks = layers.filter((l) => l.role === "trunk");
    const trunk = tallest(trunks.filter((l) => l.module)) || tallest(layers);
    const above = tallest(trunks) / 2 + 0.09 + tallest(layers.filter((l) => l.role === "shortcut")) / 2;
    const rows = {};
    let below = trunk / 2;
    for (const k of [...new Set(masks.map(level))].sort((a, b) => a - b)) {
      const tall = Math.max(tallest(masks.filter((l) => level(l) === k)), 1.5 * LEAST);
      rows[k] = -(below + 0.09 + tall / 2);
      below += 0.09 + tall;
    }
    const y = (l) => (l.role === "shortcut" ? above : l.role === "mask" ? rows[level(l)] : 0);
    const tall = (l) => Math.max(l.macs / unit, LEAST);
    const high = Math.max(...layers.map((l) => y(l) + tall(l) / 2)), low = Math.min(...layers.map((l) => y(l) - tall(l) / 2));
    const down = (v) => 26 + (high - v) * scale;
    let parts = tag("path", { d: `M0 ${down(0)}H${WIDTH}`, stroke: "currentColor", "stroke-opacity": 0.5 });
    for (const l of layers) {
      parts += tag("rect", { "data-i": l.index, x: (l.start * step + gap).toFixed(1), y: down(y(l) + tall(l) / 2).toFixed(1),
        width: Math.max(step - 2 * gap, 0.5).toFixed(1), height: (tall(l) * scale).toFixed(1), fill: `var(--${l.role})`,
        "fill-opacity": l.onLongest ? 1 : PALE });
    }
    const path = layers.filter((l) => l.onLongest).sort((a, b) => a.start - b.start);
    const points = path.flatMap((l) => [`${(l.start * step).toFixed(1)} ${down(y(l)).toFixed(1)}`, `${((l.start + 1) * step).toFixed(1)} ${down(y(l)).toFixed(1)}`]);
    parts += tag("path", { d: `M${points.join("L")}`, fill: "none", stroke: "currentColor", "stroke-width": 1.3, "pointer-events": "none" });
    for (const { name, size } of found.stages) {
      const part = layers.filter((l) => l.stage === name), x0 = Math.min(...part.map((l) => l.start)) * step;
      const x1 = (Math.max(...part.map((l) => l.start)) + 1) * step;
      parts += tag("path", { d: `M${x0 + 2} 19H${x1 - 2}`, stroke: "currentColor", "stroke-opacity": 0.6 });
      if (x1 - x0 > 46) parts += tag("text", { x: (x0 + x1) / 2, y: 13, "text-anchor": "middle" }, `stage ${name.slice(5)}${x1 - x0 > 96 ? `, ${size} px` : ""}`);
    }
    const height = down(low) + 12;
    const words = `The network to scale: ${found.quantities.trunk_depth} layers along the trunk, ${found.quantities.longest_path} along the longest path, ${layers.length} in all.`;
    return tag("svg", { viewBox: `0 0 ${WIDTH} ${height.toFixed(0)}`, class: "e-net", role: "img", "aria-label": words }, parts);
  }

  function paths(found, old) {
    const width = 460, height = 190, base = height - 34;
    const all = [[found, 0.75]].concat(old ? [[old, 0]] : []);
    const longest = Math.max(...all.map(([f]) => f.lengths.length - 1)), step = width / (longest + 1);
    const share = (f) => f.lengths.map((n) => Number((n * 1000000n) / f.quantities.n_paths) / 1e6);
    const most = Math.max(...all.map(([f]) => Math.max(...share(f))));
    let parts = "";
    share(found).forEach((s, k) => {
      if (s) parts += tag("rect", { x: (k * step).toFixed(1), y: (base - (base - 20) * (s / most)).toFixed(1), width: Math.max(step - 0.5, 0.5).toFixed(1), height: ((base - 20) * (s / most)).toFixed(1), fill: "var(--trunk)" });
    });
    if (old) {
      const line = share(old).map((s, k) => `${((k + 0.5) * step).toFixed(1)} ${(base - (base - 20) * (s / most)).toFixed(1)}`);
      parts += tag("path", { d: `M${line.join("L")}`, fill: "none", stroke: "currentColor", "stroke-opacity": 0.55, "stroke-dasharray": "4 3" });
    }
    parts += tag("path", { d: `M0 ${base}H${width}`, stroke: "currentColor", "stroke-opacity": 0.6 });
    const q = found.quantities, mean = (q.mean_path_length + 0.5) * step;
    parts += tag("path", { d: `M${mean} 14V${base}`, stroke: "currentColor" }) + tag("text", { x: mean + 4, y: 16 }, `mean ${q.mean_path_length.toFixed(1)}`);
    for (let k = 0; k <= longest; k += longest > 60 ? 20 : 10) parts += tag("text", { x: ((k + 0.5) * step).toFixed(1), y: base + 14, "text-anchor": "middle" }, k);
    parts += tag("text", { x: width, y: base + 30, "text-anchor": "end" }, "weighted layers on a path");
    return tag("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${q.n_paths} paths, of ${q.shortest_path} to ${q.longest_path} layers, ${q.mean_path_length.toFixed(1)} on average` }, parts);
  }

  function costs(found) {
    const q = found.quantities, width = 460, share = q.macs_mask / q.macs, x = width * (1 - share);
    const parts = tag("rect", { x: 0, y: 0, width: x.toFixed(1), height: 22, fill: "var(--trunk)" }) + tag("rect", { x: x.toFixed(1), y: 0, width: (width - x).toFixed(1), height: 22, fill: "var(--mask)" });
    return tag("svg", { viewBox: `0 0 ${width} 22`, role: "img", "aria-label": `masks take ${(100 * share).toFixed(0)} % of the multiply-adds` }, parts) +
      `<div class="e-key"><span>trunk ${brief(q.macs - q.macs_mask)}</span><span>masks ${brief(q.macs_mask)} (${(100 * share).toFixed(0)} %)</span></div>`;
  }

  // Squares over the photograph: what a unit sees, around the middle; one that is larger than the frame is cut by it.
  function scene(all, bare) {
    const side = specOf(state).input, span = Math.min(Math.max(side, all[1] - all[0], bare ? bare[1] - bare[0] : 0) * 1.12, side * 6);
    const x = (v) => 170 + (v / span) * 340;
    let parts = tag("image", { href: data.photo, x: x(-side / 2), y: x(-side / 2), width: (side / span) * 340, height: (side / span) * 340, preserveAspectRatio: "none" });
    const square = ([lo, hi], colour, dash) => tag("rect", { x: x(lo).toFixed(1), y: x(lo).toFixed(1), width: Math.max(x(hi) - x(lo), 2).toFixed(1), height: Math.max(x(hi) - x(lo), 2).toFixed(1), fill: "none", stroke: "#fff", "stroke-width": 4.5 }) +
      tag("rect", { x: x(lo).toFixed(1), y: x(lo).toFixed(1), width: Math.max(x(hi) - x(lo), 2).toFixed(1), height: Math.max(x(hi) - x(lo), 2).toFixed(1), fill: "none", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash });
    parts += square(all, "var(--mask)", "none");
    if (bare) parts += square(bare, "var(--trunk)", "5 3");
    return tag("svg", { viewBox: "0 0 340 340", class: "e-scene", role: "img", "aria-label": `receptive field: ${all[1] - all[0]} px with the masks${bare ? `, ${bare[1] - bare[0]} px without` : ""}` , style: "overflow:hidden" }, parts);
  }

  function showField(index) {
    const l = index === null ? null : shown.layers[index], q = shown.quantities;
    for (const r of root.querySelectorAll("rect.on")) r.classList.remove("on");
    if (l) root.querySelector(`rect[data-i="${index}"]`).classList.add("on");
    const last = [...shown.layers].reverse().find((m) => m.role === "trunk" && m.stage !== "head");
    const { all, bare } = l && l.all ? l : last;
    at("scene").innerHTML = scene(all, bare);
    const where = l ? `${l.stage}${l.module ? `, ${l.module}` : ""}, ${l.role}, layer ${l.start + 1} on its longest path, map ${l.size} px, ${brief(l.macs)} multiply-adds` : "End of the last stage";
    at("seen").textContent = l && !l.all ? `${where}: the receptive field is the whole image.`
      : `${where}: receptive field ${commas(all[1] - all[0])} px${bare ? (bare[0] === all[0] && bare[1] === all[1] ? ", with masks or without" : ` through the masks (solid), ${commas(bare[1] - bare[0])} px without them (dashed)`) : "; the layer is part of a mask"}.` + (l ? "" : ` The largest of a unit of this stage is ${commas(q.receptive_field_px)} px.`);
  }

  // -- the numbers, and what changed

  function table() {
    return data.quantities.map(({ id, label }) => {
      const now = shown.quantities[id], old = previous?.quantities[id];
      let change = "";
      if (old !== undefined && old !== now) {
        const d = Number(now) - Number(old);
        change = typeof now === "bigint" ? `× ${(Number(now) / Number(old)).toPrecision(3)}` : `${d > 0 ? "+" : "−"}${Number.isInteger(d) ? (Math.abs(d) >= 1e6 ? brief(Math.abs(d)) : commas(Math.abs(d))) : Math.abs(d).toFixed(2)}`;
      }
      const text = id === "mean_path_length" ? now.toFixed(2) : commas(now);
      return `<tr data-q="${id}" tabindex="0"><th scope="row">${label}</th><td data-quantity="${id}">${text}</td><td class="e-change">${change}</td></tr>`;
    }).join("");
  }

  function define(id) {
    const q = data.quantities.find((row) => row.id === id);
    if (!q) return;
    const base = data.bases[state.base], set = SLIDERS.filter((n) => !equal(state[n], data.presets.find((x) => x.state.base === state.base).state[n]))
      .map((n) => `${n}=${Array.isArray(state[n]) ? specOf(state)[n] : state[n]}`);
    at("what").innerHTML = "<b></b><br><code></code>";
    at("what").querySelector("b").replaceWith(`${q.label}: ${q.definition}.`);
    at("what").querySelector("code").textContent = `resattn audit ${base.name}${set.length ? ` --set ${set.join(" ")}` : ""}`;
  }

  function words() {
    const q = shown.quantities, more = Math.round(100 * (q.longest_path / q.trunk_depth - 1));
    at("head").textContent = q.longest_path === q.trunk_depth
      ? `${q.trunk_depth} layers: no path is longer than the trunk.`
      : `Its name would say ${q.trunk_depth}; the longest path has ${q.longest_path} layers, ${more} % more.`;
    const changed = before && SLIDERS.filter((n) => !equal(before[n], state[n])).map((n) => `${n} ${before[n]} → ${state[n]}`);
    at("changed").textContent = !before ? "" : before.base !== state.base ? `Changed: from ${data.bases[before.base].name}` : changed.length ? `Changed: ${changed.join("; ")}` : "";
  }

  function show(next, keep = true) {
    next = clamped(next);
    if (state && equal(next, state)) return;
    const begun = performance.now();
    before = state;
    previous = shown;
    state = next;
    shown = Count.count(specOf(state));
    pinned = null;
    for (const name of SLIDERS) {
      const value = state[name], slider = at(`s-${name}`);
      slider.value = Array.isArray(value) ? Math.max(...value) : value;
      at(`o-${name}`).textContent = Array.isArray(value) && new Set(value).size > 1 ? value.join(", ") : [value].flat()[0];
    }
    for (const button of root.querySelectorAll("[data-preset]")) button.setAttribute("aria-pressed", equal(data.presets[button.dataset.preset].state, state));
    at("drawing").innerHTML = network(shown);
    at("table").innerHTML = table();
    at("paths").innerHTML = paths(shown, previous);
    at("cost").innerHTML = costs(shown);
    words();
    showField(null);
    at("undo").disabled = !before;
    if (keep) history.replaceState(null, "", `#${address(state)}`);
    root.dataset.ms = (performance.now() - begun).toFixed(1);
  }

  for (const name of SLIDERS) {
    at(`s-${name}`).addEventListener("input", (event) => {
      const n = Number(event.target.value);
      // One number for all stages; poolings fall by one a stage, as the maps halve.
      const value = name === "modules" ? [n, n, n] : name === "poolings" ? [n, Math.max(n - 1, 0), Math.max(n - 2, 0)] : n;
      show({ ...state, [name]: value });
    });
  }
  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-preset]");
    if (button) show(data.presets[button.dataset.preset].state);
    const rect = event.target.closest("rect[data-i]");
    if (rect) { pinned = pinned === Number(rect.dataset.i) ? null : Number(rect.dataset.i); showField(pinned); }
  });
  at("undo").addEventListener("click", () => before && show(before));
  at("link").addEventListener("click", async () => {
    const url = `${location.href.split("#")[0]}#${address(state)}`;
    history.replaceState(null, "", url);
    try { await navigator.clipboard.writeText(url); at("changed").textContent = "The link is copied."; }
    catch { at("changed").textContent = "The link is in the address of this page."; }
  });
  at("drawing").addEventListener("pointerover", (event) => {
    const rect = event.target.closest("rect[data-i]");
    if (rect && pinned === null) showField(Number(rect.dataset.i));
  });
  at("drawing").addEventListener("pointerleave", () => pinned === null && showField(null));
  for (const kind of ["pointerover", "focusin"]) at("table").addEventListener(kind, (event) => define(event.target.closest("tr")?.dataset.q));
  addEventListener("hashchange", () => { const found = fromAddress(); if (found) show(found, false); });
  const asked = fromAddress();
  show(asked ?? data.presets[0].state, asked !== null);
  root.hidden = false;
}
