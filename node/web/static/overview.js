// The picture of all nodes: every node one cell, in the order of the tree, coloured and shaped by its state.
//
// Rules
// 1. Who there is comes once (`layout`, kept by the browser under its tag), states as a digit a node, then what has
//    changed since a number. The page asks again when the console says that something has moved, and when the server says
//    that time alone changes something (`next_ms`).
// 2. What is drawn is one group: the node in `at`, and all below it. Groups are nested rectangles, nodes are cells in
//    them. A cell that is large enough has the shape of its state; a small one has a mark of another size or form.
// 3. Where one is stands in the URL: `at`, `state`, `level`. Everything can be done by keyboard, too; what is under the
//    focus is said in a live region. The same numbers are in the page as tables.
"use strict";
(() => {
  const canvas = document.querySelector("[data-overview]");
  if (!canvas) return;
  const words = JSON.parse(canvas.dataset.words);
  const say = document.getElementById("overview-said");
  const tip = document.getElementById("overview-tip");
  const trail = document.getElementById("overview-trail");
  const ink = canvas.getContext("2d", { alpha: false, willReadFrequently: true }); // cells are written as pixels
  const SHOWN_FROM = 8; // pixels of a cell from which on it has the shape of its state
  const MARK = 5; // pixels that a fault has at least
  const BOLD = ["alert", "stale", "revoked"], MARKED = ["alert", "stale", "behind"];
  const ASK_EVERY_MS = 700;
  const OVERHEAD = 5; // what a group's frame costs, in cells

  let tree = null; // of the layout
  let states = null; // Uint8Array, a number a node
  let tag = "", seq = 0;
  let root = 0, current = -1;
  let cells = null; // x, y, size of each node that is drawn
  let groups = []; // {i, x, y, w, h, head}
  let sprites = new Map();
  let pitch = 0; // pixels that a cell has, about
  let only = { state: new Set(), level: new Set() };
  let colours = null;

  // ---------------------------------------------------------------- what is known

  function build(told) {
    const n = told.ids.length;
    const depth = new Uint8Array(n), level = new Uint8Array(n);
    const end = new Uint32Array(n), parent = new Int32Array(n).fill(-1);
    const open = [];
    for (let i = 0; i < n; i++) {
      depth[i] = parseInt(told.depth[i], 36);
      level[i] = parseInt(told.level[i], 36);
      while (open.length && depth[open[open.length - 1]] >= depth[i]) end[open.pop()] = i;
      if (open.length) parent[i] = open[open.length - 1];
      open.push(i);
    }
    for (const i of open) end[i] = n;
    return { n, weights: weigh(n, end, parent), ids: told.ids, names: told.names, depth, level, end, parent, levels: told.levels, states: told.states };
  }

  function below(i) {
    const found = [];
    for (let child = i + 1; child < tree.end[i]; child = tree.end[child]) found.push(child);
    return found;
  }

  const isLeaf = (i) => tree.end[i] === i + 1;

  function shownStates(i) {
    const counts = new Array(tree.states.length).fill(0);
    for (let k = i; k < tree.end[i]; k++) counts[states[k]]++;
    return counts;
  }

  function wanted(i) {
    return (!only.state.size || only.state.has(tree.states[states[i]])) &&
      (!only.level.size || only.level.has(tree.levels[tree.level[i]]));
  }

  const stateWord = (i) => words.states[tree.states[states[i]]];
  const levelWord = (i) => words.levels[tree.levels[tree.level[i]]] || tree.levels[tree.level[i]];
  const named = (i) => `${tree.names[i]} ${tree.ids[i]}`;

  // ---------------------------------------------------------------- where everything lies

  // Of every node, from the last to the first: whoever is above stands before.
  function weigh(n, end, parent) {
    const weights = new Uint32Array(n);
    for (let i = n - 1; i >= 0; i--) {
      weights[i] += end[i] === i + 1 ? 1 : OVERHEAD + 1;
      if (parent[i] >= 0) weights[parent[i]] += weights[i];
    }
    return weights;
  }

  // Squarified treemap (Bruls, Huizing, van Wijk 2000): items of {weight}, largest first, each gets a rectangle.
  function squarify(items, x, y, w, h, place) {
    let rest = items.reduce((sum, one) => sum + one.weight, 0);
    let from = 0;
    while (from < items.length) {
      const side = Math.min(w, h), scale = (w * h) / rest;
      let row = 0, to = from, worst = Infinity;
      for (; to < items.length; to++) {
        const more = row + items[to].weight * scale;
        const largest = items[from].weight * scale, smallest = items[to].weight * scale;
        const next = Math.max((side * side * largest) / (more * more), (more * more) / (side * side * smallest));
        if (next > worst) break;
        worst = next;
        row = more;
      }
      const thick = row / side;
      let along = 0;
      for (let k = from; k < to; k++) {
        const part = (items[k].weight * scale) / thick;
        if (w >= h) place(items[k], x, y + along, thick, part);
        else place(items[k], x + along, y, part, thick);
        along += part;
        rest -= items[k].weight;
      }
      if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
      from = to;
    }
  }

  // Cells of whole pixels, as large as fit.
  function grid(nodes, x, y, w, h) {
    if (w <= 0 || h <= 0) return;
    const ratio = window.devicePixelRatio || 1;
    const fit = (size) => Math.floor(w / size) * Math.floor(h / size) >= nodes.length;
    let size = Math.floor(Math.min(Math.sqrt((w * h) / nodes.length), 64) * ratio) / ratio;
    while (size > 1 / ratio && !fit(size)) size -= 1 / ratio;
    if (!fit(size)) size = Math.sqrt((w * h) / nodes.length); // less than a pixel each
    const columns = Math.max(1, Math.floor(w / size));
    nodes.forEach((i, k) => {
      cells[3 * i] = Math.round(x * ratio) / ratio + (k % columns) * size;
      cells[3 * i + 1] = Math.round(y * ratio) / ratio + Math.floor(k / columns) * size;
      cells[3 * i + 2] = size;
    });
  }

  function lay(i, x, y, w, h, up) {
    const pad = up === 0 ? 0 : pitch < 2.2 ? (up < 3 ? 1 : 0) : up === 1 ? 3 : up === 2 ? 2 : 1;
    const children = below(i);
    const inner = children.filter((child) => !isLeaf(child));
    const leaves = [i, ...children.filter(isLeaf)];
    const tall = up === 0 ? 0 : up === 1 ? 18 : 14;
    const roomy = up === 1 || (up === 2 && pitch >= 4) || (up === 3 && pitch >= 16);
    const head = roomy && w > 44 && h > tall * 3 ? tall : 0;
    groups.push({ i, x, y, w, h, head, up });
    x += pad; y += pad + head; w -= 2 * pad; h -= 2 * pad + head;
    if (w < 1 || h < 1) return;
    if (!inner.length) {
      grid(leaves, x, y, w, h);
      return;
    }
    const items = inner.map((child) => ({ i: child, weight: tree.weights[child] }));
    items.push({ i: -1, weight: leaves.length + 1 });
    items.sort((a, b) => b.weight - a.weight);
    squarify(items, x, y, w, h, (one, ...where) => {
      if (one.i < 0) grid(leaves, ...where);
      else lay(one.i, ...where, up + 1);
    });
  }

  function arrange() {
    const box = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    cells = new Float32Array(3 * tree.n);
    groups = [];
    sprites = new Map();
    const style = getComputedStyle(canvas);
    colours = {
      page: style.getPropertyValue("--picture-page"), frame: style.getPropertyValue("--picture-frame"),
      text: style.getPropertyValue("--picture-text"), ring: style.getPropertyValue("--picture-ring"),
      states: tree.states.map((state) => style.getPropertyValue(`--${state}`) || "#888"),
    };
    pitch = Math.sqrt((box.width * box.height) / tree.weights[root]);
    lay(root, 0, 0, box.width, box.height, 0);
    draw();
  }

  // ---------------------------------------------------------------- drawing

  // One cell, drawn once, then copied pixel by pixel: 56,712 calls of drawImage take ten times as long.
  function sprite(state, size, faint) {
    const key = (Math.round(size * 4) * 16 + state) * 2 + (faint ? 1 : 0);
    let made = sprites.get(key);
    if (made) return made;
    const ratio = window.devicePixelRatio || 1, wide = Math.max(1, Math.floor(size * ratio));
    const paper = document.createElement("canvas");
    paper.width = paper.height = wide;
    const c = paper.getContext("2d", { willReadFrequently: true });
    c.fillStyle = colours.page;
    c.fillRect(0, 0, wide, wide);
    c.scale(ratio, ratio);
    c.globalAlpha = faint ? 0.12 : 1;
    c.fillStyle = c.strokeStyle = colours.states[state];
    const gap = wide >= 3 ? 1 / ratio : 0, s = Math.floor(size * ratio) / ratio - gap, name = tree.states[state];
    if (size >= SHOWN_FROM) shape(c, name, s);
    else speck(c, name, s, size);
    made = { wide, paper, pixels: new Uint32Array(c.getImageData(0, 0, wide, wide).data.buffer) };
    sprites.set(key, made);
    return made;
  }

  function speck(c, name, s, size) {
    if (BOLD.includes(name)) c.fillRect(0, 0, size, size); // no gap: these stand out
    else if (name === "behind") { c.fillRect(0, 0, s, s / 2); c.globalAlpha *= 0.45; c.fillRect(0, s / 2, s, s / 2); }
    else if (name === "never") c.fillRect(s / 3, s / 3, Math.max(s / 3, 1), Math.max(s / 3, 1));
    else if (name === "unknown" || name === "superseded") {
      c.lineWidth = 0.75;
      c.strokeRect(0.4, 0.4, Math.max(s - 0.8, 0.5), Math.max(s - 0.8, 0.5));
    } else {
      c.fillRect(0, 0, s, s);
      if (s !== size) return;
      c.fillStyle = colours.page; // two pixels: no room for a gap, so the second is paler
      c.globalAlpha = 0.45;
      c.fillRect(s / 2, 0, s / 2, s);
      c.fillRect(0, s / 2, s / 2, s / 2);
    }
  }

  function shape(c, name, s) {
    const m = s / 2, r = s / 2 - 0.5, line = Math.max(1.2, s / 9);
    c.lineWidth = line;
    const circle = (from, to, radius) => { c.beginPath(); c.arc(m, m, radius, from, to); };
    const path = (...points) => {
      c.beginPath();
      points.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
      c.closePath();
      c.fill();
    };
    if (name === "ok") { circle(0, 7, r * 0.9); c.fill(); }
    else if (name === "behind") {
      circle(0, 7, r - line / 2); c.stroke();
      circle(Math.PI / 2, Math.PI * 1.5, r - line / 2); c.fill();
    } else if (name === "stale") path([m, 0], [s, s], [0, s]);
    else if (name === "alert") path([m, 0], [s, m], [m, s], [0, m]);
    else if (name === "never") { circle(0, 7, r - line / 2); c.stroke(); }
    else if (name === "revoked") {
      c.lineWidth = line * 1.6;
      c.beginPath(); c.moveTo(1, 1); c.lineTo(s - 1, s - 1); c.moveTo(s - 1, 1); c.lineTo(1, s - 1); c.stroke();
    } else if (name === "superseded") {
      circle(0, 7, r - line / 2); c.stroke();
      c.beginPath(); c.moveTo(m - r * 0.6, m + r * 0.6); c.lineTo(m + r * 0.6, m - r * 0.6); c.stroke();
    } else {
      c.font = `bold ${s}px sans-serif`;
      c.textAlign = "center"; c.textBaseline = "middle";
      c.fillText("?", m, m + s / 16);
    }
  }

  function stamp(page, i, ratio) {
    const size = cells[3 * i + 2];
    if (!size) return;
    const { wide, pixels } = sprite(states[i], size, !wanted(i));
    const left = Math.round(cells[3 * i] * ratio), top = Math.round(cells[3 * i + 1] * ratio);
    const right = Math.min(wide, page.width - left), bottom = Math.min(wide, page.height - top);
    for (let y = 0; y < bottom; y++) {
      let to = (top + y) * page.width + left, from = y * wide;
      for (let x = 0; x < right; x++) page.pixels[to++] = pixels[from++];
    }
  }

  // A fault is seen however small its cell is: drawn last, over its neighbours.
  function mark(i) {
    const size = cells[3 * i + 2];
    if (!size || size >= MARK || !wanted(i)) return;
    const over = (MARK - size) / 2;
    ink.fillStyle = colours.page;
    ink.fillRect(cells[3 * i] - over - 0.5, cells[3 * i + 1] - over - 0.5, MARK + 1, MARK + 1);
    ink.drawImage(sprite(states[i], MARK, false).paper, cells[3 * i] - over, cells[3 * i + 1] - over, MARK, MARK);
  }
  const faulty = (i) => MARKED.includes(tree.states[states[i]]);

  function draw() {
    const box = canvas.getBoundingClientRect();
    ink.fillStyle = colours.page;
    ink.fillRect(0, 0, box.width, box.height);
    for (const g of groups) {
      if (g.up === 0 || (g.up > 2 && pitch < 2.2)) continue;
      ink.strokeStyle = colours.frame;
      ink.lineWidth = g.up === 1 ? 1.5 : g.up === 2 ? 0.75 : 0.35;
      ink.globalAlpha = g.up === 1 ? 1 : g.up === 2 ? 0.7 : 0.5;
      ink.strokeRect(g.x + 0.5, g.y + 0.5, Math.max(g.w - 1, 0), Math.max(g.h - 1, 0));
      ink.globalAlpha = 1;
      if (g.head) label(g);
    }
    const ratio = window.devicePixelRatio || 1;
    const data = ink.getImageData(0, 0, canvas.width, canvas.height);
    const page = { width: canvas.width, height: canvas.height, pixels: new Uint32Array(data.data.buffer) };
    for (let i = root; i < tree.end[root]; i++) stamp(page, i, ratio);
    ink.putImageData(data, 0, 0);
    for (let i = root; i < tree.end[root]; i++) if (faulty(i)) mark(i);
    ring();
  }

  function label(g) {
    ink.fillStyle = colours.text;
    ink.font = `${g.up === 1 ? "600 13px" : "11px"} system-ui, sans-serif`;
    ink.textBaseline = "middle"; ink.textAlign = "left";
    ink.save();
    ink.beginPath(); ink.rect(g.x, g.y, g.w - 4, g.head + 3); ink.clip();
    ink.fillText(tree.names[g.i], g.x + 5, g.y + g.head / 2 + 2);
    ink.restore();
  }

  function bounds(i) {
    const group = !isLeaf(i) && groups.find((one) => one.i === i);
    if (group) return [group.x, group.y, group.w, group.h];
    const size = cells[3 * i + 2];
    return size ? [cells[3 * i], cells[3 * i + 1], size, size] : null;
  }

  function ring() {
    if (current < 0 || document.activeElement !== canvas && !tip.dataset.pinned && tip.hidden) return;
    const where = bounds(current);
    if (!where) return;
    const [x, y, w, h] = where;
    ink.strokeStyle = colours.ring;
    ink.lineWidth = 2.5;
    ink.strokeRect(x - 1.5, y - 1.5, w + 3, h + 3);
  }

  // ---------------------------------------------------------------- numbers beside it

  function numbers() {
    const counts = shownStates(root);
    tree.states.forEach((state, k) => {
      for (const one of document.querySelectorAll(`[data-count-state="${state}"]`)) one.textContent = format(counts[k]);
    });
    const total = document.querySelector("[data-count-all]");
    if (total) total.textContent = format(tree.end[root] - root);
    const levels = {}, of = tree.levels.map(() => 0);
    for (let i = root; i < tree.end[root]; i++) {
      const key = `${tree.levels[tree.level[i]]} ${tree.states[states[i]]}`;
      levels[key] = (levels[key] || 0) + 1;
      of[tree.level[i]]++;
    }
    for (const one of document.querySelectorAll("[data-count-of-level]")) {
      one.textContent = format(of[tree.levels.indexOf(one.dataset.countOfLevel)] || 0);
    }
    for (const one of document.querySelectorAll("[data-count-level]")) one.textContent = format(levels[one.dataset.countLevel] || 0);
  }

  const format = (n) => n.toLocaleString(document.documentElement.lang || undefined);

  function summary(i) {
    if (isLeaf(i)) return `${named(i)}, ${levelWord(i)}: ${stateWord(i)}`;
    const counts = shownStates(i);
    const parts = tree.states.map((state, k) => (counts[k] ? `${words.states[state]} ${format(counts[k])}` : "")).filter(Boolean);
    return `${named(i)}, ${levelWord(i)}: ${stateWord(i)}. ${words.nodes.replace("{count}", format(tree.end[i] - i))}: ${parts.join(", ")}`;
  }

  function crumbs() {
    const way = [];
    for (let i = root; i >= 0; i = tree.parent[i]) way.unshift(i);
    trail.replaceChildren(...way.map((i) => {
      const item = document.createElement("li"), link = document.createElement("a");
      link.href = address(i);
      link.textContent = tree.names[i];
      if (i === root) link.setAttribute("aria-current", "location");
      link.addEventListener("click", (event) => { if (plain(event)) { event.preventDefault(); go(i); } });
      item.append(link);
      return item;
    }));
    const page = document.createElement("li"), link = document.createElement("a");
    link.href = nodePage(root);
    link.textContent = words.open;
    page.className = "overview-open";
    page.append(link);
    trail.append(page);
  }

  const plain = (event) => !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);
  const nodePage = (i) => `/mesh/${encodeURIComponent(tree.ids[i])}`;

  function address(at) {
    const query = new URLSearchParams(location.search);
    query.delete("at"); query.delete("state"); query.delete("level");
    if (at > 0) query.set("at", tree.ids[at]);
    for (const kind of ["state", "level"]) for (const one of only[kind]) query.append(kind, one);
    const text = query.toString();
    return location.pathname + (text ? `?${text}` : "");
  }

  // ---------------------------------------------------------------- going about

  function go(i, push = true) {
    if (isLeaf(i)) i = Math.max(tree.parent[i], 0);
    root = i;
    current = -1;
    hide();
    if (push) history.pushState(null, "", address(root));
    crumbs(); arrange(); numbers(); tables();
    say.textContent = summary(root);
  }

  function out() {
    if (tree.parent[root] >= 0) { const was = root; go(tree.parent[root]); choose(was); }
  }

  function choose(i, where) {
    const before = current;
    current = i;
    if (before !== i) { draw(); say.textContent = i >= 0 ? summary(i) : ""; }
    if (i >= 0) show(i, where);
  }

  // Among what is drawn: next and previous beside it, into it, out of it, and to the next one that has a fault.
  function step(key) {
    const i = current < root ? root : current;
    const beside = i === root ? [] : below(tree.parent[i]);
    const at = beside.indexOf(i);
    if (key === "ArrowRight") return beside[(at + 1) % beside.length] ?? i;
    if (key === "ArrowLeft") return beside[(at - 1 + beside.length) % beside.length] ?? i;
    if (key === "ArrowDown") return isLeaf(i) ? i : i + 1;
    if (key === "ArrowUp") return i === root ? i : tree.parent[i];
    if (key === "Home") return root;
    const ways = key === "n" ? 1 : -1, size = tree.end[root] - root;
    for (let k = 1; k <= size; k++) {
      const next = root + (((i - root + ways * k) % size) + size) % size;
      if (only.state.size || only.level.size ? wanted(next) : tree.states[states[next]] !== "ok") return next;
    }
    return i;
  }

  canvas.addEventListener("keydown", (event) => {
    if (!tree || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key;
    if (["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Home", "n", "p"].includes(key)) choose(step(key));
    else if (key === "Enter") { if (current >= 0) location.href = nodePage(current); }
    else if (key === "+" || key === "z" || key === " ") { if (current >= 0) { const was = current; go(was); choose(was); } }
    else if (key === "-" || key === "Escape") out();
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("focus", () => { if (tree) choose(current < 0 ? root : current); });
  canvas.addEventListener("blur", () => { hide(); if (tree) draw(); });

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    for (let i = root; i < tree.end[root]; i++) {
      const size = cells[3 * i + 2];
      if (size && x >= cells[3 * i] && x < cells[3 * i] + size && y >= cells[3 * i + 1] && y < cells[3 * i + 1] + size) {
        return { cell: true, i };
      }
    }
    let found = null;
    for (const g of groups) if (g.up && x >= g.x && x < g.x + g.w && y >= g.y && y < g.y + g.h) found = g;
    while (found && found.up > 1 && !found.head) { // the gap between small cells belongs to the group that has a name
      const up = tree.parent[found.i];
      found = groups.find((one) => one.i === up);
    }
    return found && found.up ? { cell: false, i: found.i } : null;
  }

  let touched = -1;
  canvas.addEventListener("pointermove", (event) => {
    if (!tree || event.pointerType === "touch") return;
    const found = under(event);
    canvas.classList.toggle("overview-pointing", Boolean(found));
    if (!found) { hide(); current = -1; draw(); return; }
    if (found.i !== current) choose(found.i, event); else place(event);
  });
  canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) { hide(); current = -1; if (tree) draw(); } });
  canvas.addEventListener("click", (event) => {
    const found = tree && under(event);
    if (!found) return;
    const finger = event.pointerType === "touch";
    if (finger && touched !== found.i) { touched = found.i; choose(found.i, event); return; } // a finger sees first what it would open
    if (found.cell) {
      if (plain(event)) location.href = nodePage(found.i); else window.open(nodePage(found.i));
    } else go(found.i);
  });

  function show(i, event) {
    tip.textContent = summary(i);
    tip.hidden = false;
    place(event);
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    let x, y;
    if (event && event.clientX !== undefined) { x = event.clientX - box.left + 14; y = event.clientY - box.top + 14; }
    else { const where = bounds(current) || [0, 0, 0, 0]; x = where[0] + Math.min(where[2], 40) + 6; y = where[1] + Math.min(where[3], 40) + 6; }
    tip.style.left = `${Math.max(0, Math.min(x, box.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(0, Math.min(y, box.height - tip.offsetHeight - 4))}px`;
  }

  function hide() { tip.hidden = true; touched = -1; }

  // ---------------------------------------------------------------- filters

  const filters = document.querySelectorAll("[data-filter]");
  function read() {
    only = { state: new Set(), level: new Set() };
    for (const one of filters) if (one.checked) only[one.dataset.filter].add(one.value);
  }
  for (const one of filters) {
    one.addEventListener("change", () => {
      read();
      history.replaceState(null, "", address(root));
      if (tree) { draw(); crumbs(); tables(); }
    });
  }
  for (const one of document.querySelectorAll("[data-apply]")) one.hidden = true; // what a browser without scripts needs

  window.addEventListener("popstate", () => {
    const query = new URLSearchParams(location.search);
    for (const one of filters) one.checked = query.getAll(one.dataset.filter).includes(one.value);
    read();
    if (!tree) return;
    const i = tree.ids.indexOf(query.get("at") || "");
    go(Math.max(i, 0), false);
  });

  // The tables below are the server's: asked for again, for where one is. When something has moved base.js does so.
  let tabled = 0;
  async function tables() {
    const mine = ++tabled;
    const answer = await fetch(address(root), { headers: { "x-fednode-live": "1" } }).catch(() => null);
    if (!answer || !answer.ok || mine !== tabled) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["overview-groups", "overview-list", "overview-levels"]) {
      const now = document.getElementById(id), then = page.getElementById(id);
      if (!now || !then) continue;
      now.replaceWith(document.adoptNode(then));
      then.dispatchEvent(new CustomEvent("fednode:replaced", { bubbles: true }));
    }
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-group]");
    const i = link && tree ? tree.ids.indexOf(link.dataset.group) : -1;
    if (i < 0 || !plain(event)) return;
    event.preventDefault();
    go(i);
    canvas.scrollIntoView({ block: "nearest" });
  });

  // ---------------------------------------------------------------- keeping it current

  async function told(path) {
    const answer = await fetch(path, { headers: { accept: "application/json" } });
    if (answer.status === 401) { location.reload(); throw new Error("signed out"); }
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  }

  async function laid(wanted) {
    const answer = await fetch(`/data/mesh/layout?tag=${wanted}`);
    if (!answer.ok) throw new Error(`layout: ${answer.status}`);
    return { ...await answer.json(), tag: answer.headers.get("x-layout") };
  }

  async function all() {
    const known = canvas.dataset.layout;
    let [layout, now] = await Promise.all([tree && tag === known ? null : laid(known), told("/data/mesh/states")]);
    for (let tries = 0; now.layout !== (layout ? layout.tag : tag); tries++) { // the tree has changed meanwhile
      if (tries > 5) throw new Error("the tree changes all the time");
      layout = await laid(now.layout);
      now = await told("/data/mesh/states");
    }
    canvas.dataset.layout = now.layout;
    const began = performance.now();
    const at = tree ? tree.ids[root] : new URLSearchParams(location.search).get("at") || "";
    if (layout) { tree = build(layout); tag = layout.tag; }
    states = Uint8Array.from(now.states, (digit) => digit.charCodeAt(0) - 48);
    seq = now.seq;
    root = Math.max(tree.ids.indexOf(at), 0);
    if (isLeaf(root)) root = Math.max(tree.parent[root], 0);
    current = -1;
    crumbs(); arrange(); numbers();
    performance.measure("overview-drawn", { start: began });
    again(now.next_ms);
    canvas.dataset.ready = String(seq);
  }

  let asking = false, more = false, timer = 0, askedAt = -ASK_EVERY_MS;
  async function ask() {
    clearTimeout(timer);
    if (asking) { more = true; return; }
    const wait = askedAt + ASK_EVERY_MS - performance.now();
    if (wait > 0) { timer = setTimeout(ask, wait); return; }
    asking = true; askedAt = performance.now();
    try {
      const news = tree ? await told(`/data/mesh/changes?since=${seq}&layout=${tag}`) : null;
      if (news && news.changes) take(news); else await all();
    } catch {
      timer = setTimeout(ask, 5000); // the line, or the node, is away; the page's own notice says so
    }
    asking = false;
    if (more) { more = false; ask(); }
  }

  function take(news) {
    seq = news.seq;
    for (const [i, state] of news.changes) states[i] = state;
    if (news.changes.length) {
      draw();
      numbers();
      if (current >= 0 && !tip.hidden) tip.textContent = summary(current);
    }
    again(news.next_ms);
    canvas.dataset.ready = String(seq);
  }

  // When time alone will have changed something.
  function again(ms) {
    clearTimeout(timer);
    if (ms >= 0) timer = setTimeout(ask, Math.min(Math.max(ms, ASK_EVERY_MS), 600000));
  }

  let missed = false; // while nobody looked at this window
  document.addEventListener("fednode:moved", (event) => {
    if (!event.detail.includes("mesh")) return;
    if (document.hidden) missed = true; else ask();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && missed) { missed = false; ask(); } });
  let sized = 0;
  new ResizeObserver(() => { clearTimeout(sized); sized = setTimeout(() => { if (tree) arrange(); }, 100); }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (tree) arrange(); });
  read();
  ask();
})();
