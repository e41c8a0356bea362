"use strict";
// Text reaches the page through textContent only: model output is never parsed as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bodies = [...document.querySelectorAll("table.view tbody")];

// The page names each run, task and item once; here they stand where they are used.
data.cells = data.cells.map(([run, task, n, kind, rows]) => ({
  run: data.runs[run][0], task: data.tasks[task][0], length: data.tasks[task][1], n, kind,
  rows: rows.map(([item, ...rest]) => [data.items[item], ...rest]),
}));
for (const body of bodies) for (const row of body.rows)
  row.dataset.label ??= [...row.querySelectorAll("td.l")].map((c) => c.textContent).join(" ").toLowerCase();
const cellsOf = (text) => text.split(" ").flatMap((part) => {
  const [first, last = first] = part.split("-").map(Number);
  return Array.from({length: last - first + 1}, (_, k) => data.cells[first + k]);
});

// What a cell is sorted by: a label's text, else the number that its text begins with.
function sortKey(cell) {
  if (cell.dataset.v === undefined) {
    const number = parseFloat(cell.textContent.replace("\u2212", "-"));
    cell.dataset.v = cell.classList.contains("l") ? cell.textContent : Number.isNaN(number) ? "" : String(number);
  }
  return cell.dataset.v;
}

function sortBy(th, cells) {
  const table = th.closest("table");
  const column = [...th.parentNode.children].indexOf(th);
  const down = th.getAttribute("aria-sort") !== "descending";
  for (const other of th.parentNode.children) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => (row.children[column] ? sortKey(row.children[column]) : "");
  const rows = [...table.tBodies[0].rows];
  const name = (row) => [...row.querySelectorAll("td.l")].map((c) => c.textContent).join("\0");
  const numeric = rows.every((r) => value(r) === "" || !Number.isNaN(Number(value(r))));
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    // Rows that are not ranked, and empty cells, stay below whatever the direction.
    if (a.classList.contains("out") !== b.classList.contains("out")) return a.classList.contains("out") ? 1 : -1;
    if ((x === "") !== (y === "")) return x === "" ? 1 : -1;
    const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", {numeric: true});
    // Values that print alike are in the order of their names, as in the other formats.
    if (!order) return name(a) < name(b) ? -1 : name(a) > name(b) ? 1 : 0;
    return down ? -order : order;
  });
  table.tBodies[0].append(...rows);
}

function filter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0, all = 0;
  for (const body of bodies) for (const row of body.rows) {
    row.hidden = !words.every((w) => row.dataset.label.includes(w));
    all += 1; shown += !row.hidden;
  }
  for (const series of document.querySelectorAll("details.series")) {
    const sections = [...series.querySelectorAll("section")];
    for (const one of sections) one.hidden = [...one.querySelectorAll("tbody tr")].every((row) => row.hidden);
    series.open = words.length > 0 && sections.some((one) => !one.hidden);
  }
  $("count").textContent = words.length ? `${shown} of ${all} table rows` : "";
}

function fill(row, values, tag) {
  for (const value of values) {
    const cell = document.createElement(tag);
    cell.textContent = value ?? "";
    if (typeof value !== "number") cell.className = "l";
    row.append(cell);
  }
}

const name = (item, occ) => (occ ? `${item} #${occ}` : item);
const elsewhere = () => (data.file ? `all are in ${data.file}` : "icr board --items parquet writes all");

function open(cell) {
  const head = document.querySelector("#items thead tr"), body = document.querySelector("#items tbody");
  head.replaceChildren(); body.replaceChildren();
  const row = cell.parentNode, th = cell.closest("table").tHead.rows[0].children[cell.cellIndex];
  $("detail-title").textContent = `${[...row.querySelectorAll(".l")].map((c) => c.textContent).join(" · ")} · ${th.textContent}: ${cell.textContent}`;
  const found = cellsOf(cell.dataset.runs);
  const shown = found.reduce((n, c) => n + c.rows.length, 0), all = found.reduce((n, c) => n + c.n, 0);
  const texts = found.some((c) => c.rows.some((r) => r.length > 7));
  $("detail-text").textContent =
    `Runs ${[...new Set(found.map((c) => c.run))].join(", ")}; ${shown} of ${all} items shown${shown < all ? `, ${elsewhere()}` : ""}.` +
    (texts ? "" : " Questions and answers are shown when the board is built with --samples.");
  fill(head, ["task", "item", "length", "depth", "score", "prompt tokens", "cut", "error", ...(texts ? ["question", "gold", "answer"] : [])], "th");
  for (const c of found) for (const r of c.rows) {
    const line = document.createElement("tr");
    const [item, occ, depth, score, tokens, cut, error, ...rest] = r;
    fill(line, [c.task, name(item, occ), c.length, depth ?? "", score ?? "–", tokens ?? "", cut ? "yes" : "", error, ...rest], "td");
    body.append(line);
  }
  $("detail").hidden = false;
  $("detail").scrollTop = 0;
}

// Two runs: items joined by task, item and occurrence; of tasks whose scores mean the same (metric, judge, data, filter).
const byRun = Object.create(null);
for (const c of data.cells) (byRun[c.run] ??= Object.create(null))[c.task] = c;

function options(select, values) {
  select.replaceChildren(...values.map(([value, text]) => Object.assign(document.createElement("option"), {value, textContent: text})));
}

function tasks() {
  const [a, b] = [byRun[$("run-a").value] ?? {}, byRun[$("run-b").value] ?? {}];
  const kept = $("run-task").value, both = Object.keys(a).filter((t) => a[t].kind === b[t]?.kind);
  options($("run-task"), [["", `all ${both.length} tasks of both`], ...both.map((t) => [t, t])]);
  if (both.includes(kept)) $("run-task").value = kept;
}

function two() {
  const [a, b] = [byRun[$("run-a").value] ?? {}, byRun[$("run-b").value] ?? {}], only = $("run-task").value;
  const rows = [], shared = Object.keys(a).filter((t) => t in b && (!only || t === only));
  const other = shared.filter((t) => a[t].kind !== b[t].kind);
  for (const task of shared.filter((t) => !other.includes(t))) {
    const theirs = new Map(b[task].rows.map((r) => [`${r[0]}\0${r[1]}`, r]));
    for (const r of a[task].rows) {
      const s = theirs.get(`${r[0]}\0${r[1]}`);
      // an item without a score is no zero
      if (s) rows.push({task, r, s, d: r[3] == null || s[3] == null ? null : s[3] - r[3]});
    }
  }
  const scored = rows.filter((x) => x.d !== null), gone = rows.length - scored.length;
  const up = scored.filter((x) => x.d > 0), down = scored.filter((x) => x.d < 0);
  const sum = scored.reduce((n, x) => n + x.d, 0);
  $("two-text").textContent = (scored.length
    ? `${scored.length} items in both: B better on ${up.length}, A better on ${down.length}, the same on ${scored.length - up.length - down.length}; ` +
      `B - A over these ${(100 * sum / scored.length).toFixed(1)} points. icr compare has the interval over all items.`
    : "These two have no item in common on this page.") +
    (gone ? ` Left out: ${gone} without a score in one of them.` : "") +
    (other.length ? ` Not compared, by another metric, judge, filter or data: ${other.join(", ")}.` : "");
  const head = document.querySelector("#flips thead tr"), body = document.querySelector("#flips tbody");
  head.replaceChildren(); body.replaceChildren();
  const texts = rows.some((x) => x.r.length > 7 || x.s.length > 7);
  fill(head, ["task", "item", "depth", "score A", "score B", ...(texts ? ["question", "gold", "answer A", "answer B"] : [])], "th");
  rows.sort((x, y) => Math.abs(y.d) - Math.abs(x.d) || x.d - y.d);
  for (const {task, r, s, d} of rows.slice(0, 500)) {
    const line = document.createElement("tr");
    fill(line, [task, name(r[0], r[1]), r[2] ?? "", r[3] ?? "–", s[3] ?? "–", ...(texts ? [r[7] ?? s[7], r[8] ?? s[8], r[9], s[9]] : [])], "td");
    if (d) line.children[d > 0 ? 4 : 3].classList.add("up");
    body.append(line);
  }
  $("flips").hidden = !rows.length;
}

const runs = data.runs.map(([run, text]) => [run, `${text} (${run.slice(0, 6)})`]).sort((a, b) => (a[1] < b[1] ? -1 : 1));
for (const id of ["run-a", "run-b"]) options($(id), [["", "choose a run"], ...runs]);
$("two").hidden = runs.length < 2;

// The state of the page is in its address, so that a link opens what the sender saw: #?q=words&sort=table,column,up&a=run&b=run&task=name
// A link of the menu puts a section there in its place, which forgets nothing.
let kept = new URLSearchParams();
const state = () => (location.hash.startsWith("#?") ? (kept = new URLSearchParams(location.hash.slice(2))) : kept);
function keep(changes) {
  const now = state();
  for (const [key, value] of Object.entries(changes)) value ? now.set(key, value) : now.delete(key);
  kept = now;
  history.replaceState(null, "", `#?${now}`);
  $("link").hidden = !now.size;
}
function restore() {
  const now = state();
  $("link").hidden = !now.size;
  if (!now.size || !location.hash.startsWith("#?")) return;
  $("filter").value = now.get("q") ?? "";
  filter();
  const [table, column, way] = (now.get("sort") ?? "").split(",");
  const th = [...(document.getElementById(table)?.querySelectorAll("thead th") ?? [])][Number(column)];
  if (th) { sortBy(th); if ((th.getAttribute("aria-sort") === "ascending") !== (way === "up")) sortBy(th); }
  for (const [id, key] of [["run-a", "a"], ["run-b", "b"]]) if (data.runs.some(([run]) => run === now.get(key))) $(id).value = now.get(key);
  if ($("run-a").value && $("run-b").value) { tasks(); $("run-task").value = now.get("task") ?? ""; two(); $("two").scrollIntoView(); }
}

// Charts: one a group, drawn one after the other; expressions are interpreted, not evaluated.
const dark = matchMedia("(prefers-color-scheme: dark)");
// Widths in the font that the reader has: which of a theme's fonts that is, only the browser knows.
const pen = document.createElement("canvas").getContext("2d");
function wide(text, size = 11, weight = "normal") {
  pen.font = `${weight} ${size}px ${data.themes[0].font}`;
  return pen.measureText(text).width;
}
const middle = (text, limit) => (text.length <= limit ? text : text.slice(0, limit / 3) + "…" + text.slice(text.length - 2 * limit / 3 + 1));
function fit(text, limit, size, weight) {
  let found = text;
  for (let letters = text.length - 1; letters > 6 && wide(found, size, weight) > limit; letters--) found = middle(text, letters);
  return found;
}
function wrapped(text, limit, size, weight) {
  const lines = [""];
  for (const whole of [text].flat().join(" ").split(" ")) {
    const word = fit(whole, limit, size, weight);
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (!lines.at(-1) || wide(longer, size, weight) <= limit) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
// On a phone what stands left or right of a plot goes above or below it, so that nothing scrolls sideways.
function changed(layer, {x, y, mark}) {
  const encoding = {...layer.encoding, ...(x && layer.encoding.x && {x: x(layer.encoding.x)}), ...(y && layer.encoding.y && {y: y(layer.encoding.y)})};
  return {...layer, encoding, ...(mark && {mark: mark(layer.mark, layer.encoding)})};
}
// A matrix: the name of a row stands above its cells, which share the width.
function matrixNarrowed(spec, inner) {
  const [columns, rows] = ["x", "y"].map((of) => spec.layer[0].encoding[of].sort.length);
  const y = (old) => ({...old, scale: {paddingInner: 0.42, paddingOuter: 0.42}, axis: {...old.axis, domain: false, ticks: false, labelAlign: "left", labelPadding: 0, labelOffset: -23, labelLimit: inner}});
  const x = (old) => ({...old, axis: {...old.axis, labelLimit: inner / columns - 2, labelFontSize: columns > 6 ? 10 : 11}});
  const mark = (old) => (old.type === "text" ? {...old, fontSize: columns > 6 ? 9.5 : 11} : old);
  return {width: Math.min(spec.width, inner), height: 48 * rows, layer: spec.layer.map((one) => changed(one, {x, y, mark}))};
}
// Heat maps: one below the other, each with its own depths.
function heatNarrowed({hconcat, ...spec}, inner) {
  const axis = hconcat[0].layer[0].encoding.y.axis;
  const y = (old) => ({...old, axis});
  return {...spec, vconcat: hconcat.map((panel) => ({...panel, width: Math.min(panel.width, inner - 75), layer: panel.layer.map((one) => changed(one, {y}))}))};
}
// A forest: the name above its interval, the numbers below.
function forestNarrowed(spec, inner, rows) {
  const place = (dy) => (old) => ({...old, align: "left", dx: 0, dy, limit: inner});
  const layer = spec.layer.map((one) => {
    const field = one.encoding.text?.field;
    return field ? {...changed(one, {mark: place(field === "name" ? -18 : 17)}), encoding: {...one.encoding, x: {value: 0}}} : one;
  });
  return {width: inner, height: 58 * rows, layer};
}
// Labels right of a plot: long ones lose their middle, the plot gets the rest.
function labelledNarrowed(spec, inner) {
  const datasets = {...spec.datasets}, widths = [0], plot = 0.36 * inner;  // the least of it that still shows a shape
  for (const {mark, encoding, data} of spec.layer) {
    const field = encoding.text?.field;
    if (!field || encoding.x?.value?.expr !== "width" || !data) continue;
    datasets[data.name] = datasets[data.name].map((row) => ({...row, [field]: fit(middle(row[field] ?? "", 24), inner - 50 - plot - mark.dx, mark.fontSize)}));
    widths.push(...datasets[data.name].map((row) => mark.dx + wide(row[field], mark.fontSize)));
  }
  const width = Math.max(plot, Math.min(spec.width, inner - 50 - Math.max(...widths)));
  const x = (old) => (old.axis?.title ? {...old, axis: {...old.axis, title: wrapped(old.axis.title, width + 80)}} : old);  // in the middle below the plot
  const layer = spec.layer.map((one) => (one.encoding ? keyed(changed(one, {x}), inner) : one));
  return {datasets, layer, width};
}
// The key below a plot: as many columns as fit.
function keyed(layer, inner) {
  const encoding = {...layer.encoding};
  for (const of of ["color", "shape"]) {
    const {legend, scale} = encoding[of] ?? {};
    if (!legend?.columns) continue;
    const column = 34 + Math.max(0, ...scale.domain.map((name) => wide(name)));
    encoding[of] = {...encoding[of], legend: {...legend, columns: Math.max(1, Math.min(legend.columns, Math.floor(inner / column)))}};
  }
  return {...layer, encoding};
}
function narrowed(spec) {
  const room = document.documentElement.clientWidth;
  if (room >= 640) return spec;
  const {text, subtitle} = spec.title, inner = room - 56;  // the frame, its padding and the page's
  const title = {text: wrapped(text, inner, 14, 600), ...(subtitle && {subtitle: wrapped(subtitle, inner)})};
  if (spec.hconcat) return {...heatNarrowed(spec, inner), title};
  if (spec.layer?.[0].encoding.x?.type === "nominal") return {...spec, ...matrixNarrowed(spec, inner), title};
  const notes = spec.layer?.find((one) => one.encoding?.text?.field === "note");
  if (notes) return {...spec, ...forestNarrowed(spec, inner, spec.datasets[notes.data.name].length), title};
  return {...spec, ...(spec.width && labelledNarrowed(spec, inner)), title};
}
async function draw(place) {
  const chart = data.charts[place.dataset.chart];
  await window.vegaEmbed(place, narrowed({...data.frames[chart.frame], ...chart.spec}), {
    config: {...data.themes[dark.matches ? 1 : 0], padding: 10},  // fonts are measured here: no room in reserve
    actions: false, renderer: "svg", ast: true, tooltip: {theme: dark.matches ? "dark" : "light"},
  });
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${chart.title}. ${chart.about}`);
  place.dataset.drawn = place.dataset.chart;
}
const places = [...document.querySelectorAll(".chart")];
places.forEach((place) => {
  place.parentNode.querySelector("select")?.addEventListener("change", (e) => { place.dataset.chart = e.target.value; draw(place); });
});
(async () => { for (const place of places) await draw(place); })();
dark.addEventListener("change", () => places.filter((p) => p.dataset.drawn).forEach(draw));

document.querySelectorAll("table.view thead th").forEach((th) => th.firstElementChild.addEventListener("click", () => {
  sortBy(th);
  keep({sort: [th.closest("section").id, th.cellIndex, th.getAttribute("aria-sort") === "ascending" ? "up" : "down"].join(",")});
}));
document.querySelectorAll("td[data-runs]").forEach((cell) => {
  cell.classList.add("go");
  cell.tabIndex = 0;
  cell.addEventListener("click", () => open(cell));
  cell.addEventListener("keydown", (e) => { if (e.key === "Enter") open(cell); });
});
$("filter").addEventListener("input", () => { filter(); keep({q: $("filter").value.trim()}); });
for (const id of ["run-a", "run-b", "run-task"]) $(id).addEventListener("change", () => {
  if (id !== "run-task") tasks();
  if ($("run-a").value && $("run-b").value) two();
  keep({a: $("run-a").value, b: $("run-b").value, task: $("run-task").value});
});
$("link").addEventListener("click", () => navigator.clipboard?.writeText(`${location.href.split("#")[0]}#?${state()}`).then(() => { $("link").textContent = "Copied"; }));
addEventListener("hashchange", restore);
restore();
$("close").addEventListener("click", () => { $("detail").hidden = true; });
document.addEventListener("keydown", (e) => { if (e.key === "Escape") $("detail").hidden = true; });
document.documentElement.dataset.ready = "yes";
