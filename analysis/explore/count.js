"use strict";
// What a network of the paper's family is, counted in the page: layers, paths, cost and receptive field, without Python.
// Each value that flows through the network carries what is known of it, so one walk gives all numbers. Path counts are
// exact: the numbers of paths by length are the digits of one BigInt, a layer is a shift and a sum of values a sum.
// A test compares every number with the captured network's: tests/explore/test_page_counts.py.
const Count = (() => {
  const EXPANSION = 4; // of a bottleneck unit
  const ROOM = 3; // the field is measured on an input so many times its estimated side

  const pooled = (n) => Math.max(Math.ceil((n - 3) / 2), 0) + 1; // 3x3, stride 2, ceil mode
  const halved = (n) => Math.ceil(n / 2);

  // -- which input positions each position of a map sees, along one axis: from lo[i - before] to hi[i + after]
  // Both rise with the position, so what a window sees stands at the window's two ends, held inside the map. A layer that
  // keeps the size only moves `before` and `after`, at no cost. Windows that meet a border are those of the first and the
  // last positions: from `first` up to `past` there are none.

  function identity(n) {
    const lo = Int32Array.from({ length: n }, (_, i) => i);
    return { lo, hi: lo, before: 0, after: 0, first: 0, past: n };
  }

  const from = (e, i) => e.lo[Math.max(i - e.before, 0)];
  const to = (e, i) => e.hi[Math.min(i + e.after, e.hi.length - 1)];

  function windows(e, n, kernel, stride, before) {
    if (e === null || (kernel === 1 && stride === 1)) return e;
    const after = kernel - 1 - before;
    const first = Math.ceil((e.first + before) / stride), past = Math.floor((e.past - 1 - after) / stride) + 1;
    if (stride === 1) return { lo: e.lo, hi: e.hi, before: e.before + before, after: e.after + after, first, past };
    const lo = new Int32Array(n), hi = new Int32Array(n);
    for (let i = 0; i < n; i++) {
      lo[i] = from(e, i * stride - before);
      hi[i] = to(e, i * stride + after);
    }
    return { lo, hi, before: 0, after: 0, first, past };
  }

  function resized(e, n) { // bilinear, corners aligned: two neighbours, or the one on which a position falls exactly
    const lo = new Int32Array(n), hi = new Int32Array(n), end = e.lo.length - 1, over = Math.max(n - 1, 1);
    let first = n, past = 0;
    for (let i = 0; i < n; i++) {
      const left = Math.floor((i * end) / over), right = (i * end) % over ? left + 1 : left;
      lo[i] = from(e, left);
      hi[i] = to(e, right);
      if (left >= e.first && right < e.past) { first = Math.min(first, i); past = i + 1; }
    }
    return { lo, hi, before: 0, after: 0, first, past };
  }

  function hull(a, b) {
    if (a === b || b === null) return a;
    const n = a.lo.length, lo = new Int32Array(n), hi = new Int32Array(n);
    for (let i = 0; i < n; i++) {
      lo[i] = Math.min(from(a, i), from(b, i));
      hi[i] = Math.max(to(a, i), to(b, i));
    }
    return { lo, hi, before: 0, after: 0, first: Math.max(a.first, b.first), past: Math.min(a.past, b.past) };
  }

  function side(e) { // the largest over positions where no window meets a border
    let most = 0;
    for (let i = e.first; i < e.past; i++) most = Math.max(most, to(e, i) - from(e, i) + 1);
    return most;
  }

  function central(e, middle) { // what the middle position sees, from the middle of the input
    const at = e.lo.length >> 1;
    return [from(e, at) - middle, to(e, at) + 1 - middle];
  }

  // -- one walk through a network

  function walk(spec, bits, pixels, sees) {
    const layers = [];
    const total = { params: 0, params_mask: 0, macs: 0, macs_mask: 0 };
    let stage = "stem", module = "", mask = false;

    function own(n) {
      total.params += n;
      if (mask) total.params_mask += n;
    }
    function norm(channels) { own(2 * channels); }
    function layer(v, kernel, stride, out, size, macs, role) {
      own(kernel * kernel * v.channels * out);
      total.macs += macs;
      if (mask) total.macs_mask += macs;
      const found = { index: layers.length, role: mask ? "mask" : role, stage, module, size, macs, start: v.depth };
      layers.push(found);
      return found;
    }
    function conv(v, kernel, stride, out, role = "trunk") {
      const before = kernel >> 1, size = Math.floor((v.size + 2 * before - kernel) / stride) + 1;
      const found = layer(v, kernel, stride, out, size, kernel * kernel * v.channels * out * size * size, role);
      const next = {
        size, channels: out, depth: v.depth + 1, shortest: v.shortest + 1, n: v.n, lag: v.lag + 1,
        path: { layer: found.index, before: v.path },
        trunk: v.trunk === null ? null : v.trunk + 1,
        trunkPath: { layer: found.index, before: v.trunkPath },
        reach: v.reach + (kernel - 1) * (pixels / v.size), all: null, bare: null,
      };
      if (sees) {
        next.all = windows(v.all, size, kernel, stride, before);
        next.bare = v.bare === v.all ? next.all : windows(v.bare, size, kernel, stride, before);
        found.all = central(next.all, pixels >> 1);
        found.bare = next.bare && central(next.bare, pixels >> 1);
      }
      return next;
    }
    function pool(v) {
      const size = pooled(v.size);
      const all = sees ? windows(v.all, size, 3, 2, 0) : null;
      const bare = !sees ? null : v.bare === v.all ? all : windows(v.bare, size, 3, 2, 0);
      // As in `estimated_side`: a pooling that leaves one position adds nothing.
      return { ...v, size, all, bare, reach: v.reach + (size > 1 ? 2 : 0) * (pixels / v.size) };
    }
    // `a` sees all that `b` sees where `isWider` says so.
    function sum(a, b, isWider = false) {
      const deeper = a.depth >= b.depth ? a : b, lag = Math.min(a.lag, b.lag);
      const inTrunk = b.trunk === null || (a.trunk !== null && a.trunk >= b.trunk) ? a : b;
      const all = !sees ? null : isWider ? a.all : hull(a.all, b.all);
      const bare = !sees ? null : a.bare === a.all && b.bare === b.all ? all : isWider && a.bare ? a.bare : hull(a.bare, b.bare);
      return {
        size: a.size, channels: a.channels, depth: deeper.depth, path: deeper.path, lag,
        n: (a.n << BigInt(bits * (a.lag - lag))) + (b.n << BigInt(bits * (b.lag - lag))),
        shortest: Math.min(a.shortest, b.shortest), trunk: inTrunk.trunk, trunkPath: inTrunk.trunkPath,
        reach: Math.max(a.reach, b.reach), all, bare,
      };
    }
    function unit(v, inner, stride = 1) { // a bottleneck in pre-activation form
      const out = EXPANSION * inner;
      norm(v.channels);
      const kept = v.channels !== out || stride !== 1 ? conv(v, 1, stride, out, "shortcut") : v;
      let branch = conv(v, 1, 1, inner);
      norm(inner);
      branch = conv(branch, 3, stride, inner);
      norm(inner);
      return sum(conv(branch, 1, 1, out), kept, true);
    }
    function units(v, inner, n, stride = 1) {
      for (let i = 0; i < n; i++) v = unit(v, inner, i === 0 ? stride : 1);
      return v;
    }
    function resize(v, size) {
      return { ...v, size, all: sees ? resized(v.all, size) : null, reach: v.reach + pixels / v.size };
    }
    function hourglass(v, inner, poolings) {
      let down = units(pool(v), inner, spec.r);
      if (poolings > 1) {
        const skip = unit(down, inner);
        down = sum(skip, hourglass(down, inner, poolings - 1));
      }
      return resize(units(down, inner, spec.r), v.size);
    }
    function attention(v, inner, poolings, stride) {
      v = units(v, inner, spec.p, stride);
      const trunk = units(v, inner, spec.t);
      mask = true;
      let m = { ...v, trunk: null, bare: null };
      m = poolings ? hourglass(m, inner, poolings) : units(m, inner, 2 * spec.r);
      for (let i = 0; i < 2; i++) { norm(m.channels); m = conv(m, 1, 1, m.channels); }
      mask = false;
      const product = sum(trunk, m); // the gate's input and the trunk's are paths alike
      return units(spec.merge === "naive" ? product : sum(trunk, product), inner, spec.p);
    }

    const all = sees ? identity(pixels) : null;
    let v = { size: pixels, channels: 3, depth: 0, shortest: 0, n: 1n, lag: 0, path: null, trunk: 0, trunkPath: null, reach: 1,
      all, bare: all };
    if (spec.stem === "imagenet") {
      v = conv(v, 7, 2, spec.width);
      norm(spec.width);
      v = pool(v);
    } else v = conv(v, 3, 1, spec.width);
    const stages = spec.units.map((first, k) => {
      const inner = spec.width * 2 ** k;
      let stride = k ? 2 : 1;
      stage = `stage${k + 1}`;
      if (first) { v = units(v, inner, first, stride); stride = 1; }
      for (let i = 0; i < spec.modules[k]; i++) {
        module = `module${i + 1}`;
        v = attention(v, inner, spec.poolings[k], stride);
        stride = 1;
      }
      module = "";
      if (spec.tail[k]) v = units(v, inner, spec.tail[k], stride);
      return { name: stage, size: v.size, all: sees ? side(v.all) : 0, bare: sees ? side(v.bare) : 0 };
    });
    stage = "head";
    norm(v.channels);
    const head = layer(v, 1, 1, spec.classes, 1, v.channels * spec.classes, "trunk");
    own(spec.classes);
    v = { ...v, depth: v.depth + 1, trunk: v.trunk + 1, shortest: v.shortest + 1, n: v.n << BigInt(bits * (v.lag + 1)),
      path: { layer: head.index, before: v.path }, trunkPath: { layer: head.index, before: v.trunkPath } };
    return { v, layers, total, stages };
  }

  const listed = (path) => { // a linked list of layers, as a set
    const found = new Set();
    for (let at = path; at; at = at.before) found.add(at.layer);
    return found;
  };

  function lengths(packed, bits) { // the digits: how many paths have 0, 1, 2, ... layers
    const text = packed.toString(16), width = bits / 4, found = [];
    for (let end = text.length; end > 0; end -= width) found.push(BigInt("0x" + text.slice(Math.max(end - width, 0), end)));
    return found;
  }

  // The most poolings that the mask of each stage allows.
  function most(spec) {
    let size = spec.stem === "imagenet" ? pooled(halved(spec.input)) : spec.input;
    return spec.units.map((_, k) => {
      if (k) size = halved(size);
      let n = 0;
      for (let s = size; s > 1; s = pooled(s)) n++;
      return n;
    });
  }

  function count(spec) {
    const first = walk(spec, 0, spec.input, false); // without a shift the digits add up to the number of paths
    const bits = 4 * Math.ceil((first.v.n.toString(16).length + 1));
    const times = Math.max(Math.ceil((ROOM * Math.trunc(first.v.reach)) / spec.input), 2);
    const second = walk(spec, bits, times * spec.input, true);
    const byLength = lengths(second.v.n, bits);
    let weight = 0n;
    byLength.forEach((n, k) => { weight += n * BigInt(k); });
    const onLongest = listed(first.v.path), onTrunk = listed(first.v.trunkPath);
    const layers = first.layers.map((l, i) => ({
      ...l, onLongest: onLongest.has(i), onTrunk: onTrunk.has(i), all: second.layers[i].all, bare: second.layers[i].bare,
    }));
    const last = second.stages[second.stages.length - 1];
    return {
      layers, lengths: byLength,
      stages: first.stages.map((s, k) => ({ ...s, all: second.stages[k].all, bare: second.stages[k].bare })),
      quantities: {
        trunk_depth: first.v.trunk, longest_path: first.v.depth, shortest_path: first.v.shortest,
        weighted_layers: layers.length, n_paths: first.v.n,
        mean_path_length: Number((weight * 1000000n) / first.v.n) / 1e6, ...first.total,
        receptive_field_px: last.all, receptive_field_trunk_px: last.bare,
      },
    };
  }

  return { count, most };
})();
if (typeof module !== "undefined") module.exports = Count;
