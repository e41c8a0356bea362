"use strict";
// Text reaches the page through textContent only: model output is never parsed as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bodies = [...document.querySelectorAll("table.view tbody")];

function sortBy(th, cells) {
  const table = th.closest("table");
  const column = [...th.parentNode.children].indexOf(th);
  const down = th.getAttribute("aria-sort") !== "descending";
  for (const other of th.parentNode.children) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.children[column].dataset.v ?? "";
  const rows = [...table.tBodies[0].rows];
  const name = (row) => [...row.querySelectorAll("td.l")].map((c) => c.dataset.v).join("\0");
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

function open(cell) {
  const keys = cell.dataset.runs.split("\n").filter((k) => k in data.cells);
  const head = document.querySelector("#items thead tr"), body = document.querySelector("#items tbody");
  head.replaceChildren(); body.replaceChildren();
  const row = cell.parentNode, th = cell.closest("table").tHead.rows[0].children[cell.cellIndex];
  $("detail-title").textContent = `${[...row.querySelectorAll(".l")].map((c) => c.textContent).join(" · ")} · ${th.textContent}: ${cell.textContent}`;
  const found = keys.map((k) => data.cells[k]);
  const shown = found.reduce((n, c) => n + c.rows.length, 0), all = found.reduce((n, c) => n + c.n, 0);
  $("detail-text").textContent = found.length
    ? `Runs ${[...new Set(found.map((c) => c.run))].join(", ")}; ${shown} of ${all} items shown, all are in items.csv.` +
      (found.some((c) => c.rows.some((r) => r.length > 7)) ? "" : " Questions and answers are shown when the board is built with --samples.")
    : "No items of this cell are in the page; all are in items.csv.";
  const texts = found.some((c) => c.rows.some((r) => r.length > 7));
  fill(head, ["task", "item", "length", "depth", "score", "prompt tokens", "cut", "error", ...(texts ? ["question", "gold", "answer"] : [])], "th");
  for (const c of found) for (const r of c.rows) {
    const line = document.createElement("tr");
    const [item, occ, depth, score, tokens, cut, error, ...rest] = r;
    fill(line, [c.task, occ ? `${item} #${occ}` : item, c.length, depth ?? "", score ?? "–", tokens ?? "", cut ? "yes" : "", error, ...rest], "td");
    body.append(line);
  }
  $("detail").hidden = false;
  $("detail").scrollTop = 0;
}

document.querySelectorAll("table.view thead th").forEach((th) => th.firstElementChild.addEventListener("click", () => sortBy(th)));
document.querySelectorAll("td.go").forEach((cell) => {
  cell.addEventListener("click", () => open(cell));
  cell.addEventListener("keydown", (e) => { if (e.key === "Enter") open(cell); });
});
$("filter").addEventListener("input", filter);
$("close").addEventListener("click", () => { $("detail").hidden = true; });
document.addEventListener("keydown", (e) => { if (e.key === "Escape") $("detail").hidden = true; });
document.documentElement.dataset.ready = "yes";
