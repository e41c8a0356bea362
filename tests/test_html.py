"""board.html: safe with hostile text, whole without network; in a browser it sorts, filters and opens
items."""

from __future__ import annotations

import json
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import board_tree
import browser
import pytest

from icr_tasks.cli import main
from icr_tasks.leaderboard import plots

HOSTILE = "</script><img src=x onerror=alert(1)>|`\"'&{{js}}\u202e=1+1\n[x](javascript:alert(1))"


def hostile_run(root: Path) -> None:
    """Every string an outsider may choose is hostile: model, setting, prompt, dataset, item, cluster, error,
    keys."""

    def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["setting"] = dict(head["setting"], text=HOSTILE)
        task = head["tasks"].pop("icr_helmet_rag_nq_4k")
        head["tasks"] = {HOSTILE: dict(task, dataset=HOSTILE, benchmark=HOSTILE)}
        rows[:] = [r for r in rows if r["task"] == "icr_helmet_rag_nq_4k"]
        for number, row in enumerate(rows):
            row.update(task=HOSTILE, item=f"{HOSTILE}{number}", cluster=f"{HOSTILE}{number // 3}")
        rows[0].update(error="=cmd|' /C calc'!A0", score={})
        head["tasks"][HOSTILE].update(status="partial", n_scored=len(rows) - 1, n_failed=1)

    board_tree.run(root, HOSTILE, prompt=HOSTILE, datasets=("nq",), change=change)


def samples(out: Path, root: Path) -> None:
    """lm_eval output whose run has the fingerprint of the collected one, with hostile question, gold and
    answer."""
    name, stamp = "icr_helmet_rag_nq_4k", "2026-01-01T00-00-00"
    out.mkdir()
    sheet = {
        "benchmark": "helmet_rag",
        "dataset": "nq",
        "length": "4k",
        "metric": "subem",
        "n_expected": 2,
        "prompt": "ao",
    }
    results = {
        "configs": {name: {"metadata": {"icr": sheet}}},
        "versions": {name: "1-A"},
        "config": {"model": "icr-vllm", "model_args": {"pretrained": "org/answers"}},
    }
    rows = [
        {
            "doc_id": i,
            "doc": {
                "id": f"q{i}",
                "question": f"question {i} {HOSTILE}",
                "answers": ["gold", HOSTILE],
                "cluster": f"q{i}",
            },
            "target": "gold",
            "arguments": {},
            "resps": [["x"]],
            "filtered_resps": [f"answer {HOSTILE}"],
            "filter": "none",
            "metrics": ["subem"],
            "subem": float(i),
            "doc_hash": f"{i:064x}",
            "prompt_hash": "0" * 64,
            "target_hash": "0" * 64,
        }
        for i in range(2)
    ]
    (out / f"results_{stamp}.json").write_text(json.dumps(results))
    (out / f"samples_{name}_{stamp}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["collect", str(out), "-o", str(root)]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("html")
    root = board_tree.tree(base / "results")
    hostile_run(root)
    samples(base / "out", root)
    assert (
        main(
            ["board", str(root), "-o", str(base / "board"), "--items", "csv", "--published"]
            + ["--samples", str(base / "out")]
        )
        == 0
    )
    return base / "board"


class Tags(HTMLParser):
    """Elements and attributes of a page, and whether start and end tags match."""

    VOID = frozenset({"meta", "input", "rect", "circle", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_hostile_text_stays_text_in_html(made: Path) -> None:
    text = (made / "board.html").read_text()
    text = text.replace(plots.bundle(), "")  # Vega's own scripts, as they are on the registry
    parser = Tags()
    parser.feed(text)
    assert not parser.open
    tags = [tag for tag, _ in parser.seen]
    assert tags.count("script") == 3 and "img" not in tags and "iframe" not in tags
    for tag, attributes in parser.seen:
        assert not [a for a in attributes if a.startswith("on")], (tag, attributes)
        assert not attributes.get("href") or attributes["href"].startswith("#")
    assert "&lt;/script&gt;&lt;img src=x" in text and "\u202e" not in text
    assert not re.search(r"(?:src|href)=[\"']?https?:", text)  # nothing is fetched
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    shown = HOSTILE.replace(
        "\u202e", "\ufffd"
    )  # a direction override could make text read otherwise than it is
    assert any(shown in row[7] for *_, rows in data["cells"] for row in rows if len(row) > 7)


def test_hostile_text_stays_text_in_markdown(made: Path) -> None:
    text = (made / "board.md").read_text()
    outside = re.sub(r"(`{3,})sh\n.*?\n\1", "", text, flags=re.S)
    outside = re.sub(r"`[^`\n]*`", "", outside)
    for source in re.findall(r'srcset="([^"]*)"|src="([^"]*)"', outside):
        assert re.fullmatch(r"[A-Za-z0-9._@=-]+\.svg", "".join(source))
    ours = r'</?details>|</?summary>|</?b>|<source media="[^"<>]*" srcset="[^"<>]*">|<img src="[^"<>]*" alt="[^"<>]*">|</?picture>'
    outside = re.sub(ours, "", outside)
    assert "<" not in outside and "javascript:alert" in outside and "](javascript" not in outside
    tables = [block for block in outside.split("\n\n") if block.startswith("|")]
    for block in tables:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_hostile_text_in_a_shell_command_is_one_word(made: Path) -> None:
    import shlex

    opened = json.loads((made / "board.json").read_text())["open"]
    assert not [
        o for o in opened if "onerror" in o["row"]
    ]  # nobody has more of its items: nothing to complete
    from icr_tasks.leaderboard.ledgers.todo import command

    head = next(
        head
        for p in (made.parent / "results").rglob("run.json")
        if "onerror" in (head := json.loads(p.read_text()))["model"]["id"]
    )
    call = command(head, head["tasks"])
    words = shlex.split(call)
    assert words[:3] == ["lm_eval", "--tasks", HOSTILE]
    assert json.loads(words[words.index("--metadata") + 1]) == {"setting": HOSTILE, "prompt": HOSTILE}


def test_hostile_text_is_no_formula_in_csv_and_tsv(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import csv

    with (made / "items.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {18}
    cells = {cell for row in rows for cell in row}
    assert not [
        c
        for c in cells
        if c[:1] in ("=", "+", "@", "\t") or (c[:1] == "-" and not re.fullmatch(r"-[\d.]+", c))
    ]
    assert "'=cmd|' /C calc'!A0" in cells
    main(["board", str(made.parent / "results"), "--format", "tsv"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.count("\t") for line in lines} == {12}


def test_hostile_text_in_svg(made: Path) -> None:
    names = []
    for path in made.glob("*.svg"):
        assert re.fullmatch(r"[A-Za-z0-9._@=-]+", path.name)
        root = ElementTree.fromstring(path.read_text())
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "g", "title", "desc", "rect", "path", "line", "text", "tspan"}, path.name
        names.append(path.name)
    assert len(names) >= 8


def test_braces_in_names_fill_no_template(made: Path) -> None:
    text = (made / "board.html").read_text()
    assert text.count('"use strict";') == 1 and "{{js}}" in text


needs_browser = pytest.mark.skipif(
    browser.binary() is None, reason="no Chromium on PATH (CHROMIUM names another)"
)

SORT = """
const table = d.querySelector("#board table"), heads = [...table.tHead.rows[0].cells];
const at = heads.findIndex((h) => h.textContent.startsWith("InfiniteBench"));
const column = () => [...table.tBodies[0].rows].filter((r) => !r.classList.contains("out")).map((r) => r.cells[at].dataset.v);
heads[at].firstElementChild.click(); const down = column();
heads[at].firstElementChild.click(); const up = column();
heads[0].firstElementChild.click();
return {down, up, sort: heads[0].getAttribute("aria-sort"), names: [...table.tBodies[0].rows].map((r) => [r.className, r.cells[0].textContent])};
"""
FILTER = """
const input = d.getElementById("filter");
input.value = "BASE kv:"; input.dispatchEvent(new w.Event("input"));
const rows = [...d.querySelectorAll("table.view tbody tr")];
const left = rows.filter((r) => !r.hidden && r.offsetParent).map((r) => r.dataset.label);
const said = d.getElementById("count").textContent;
input.value = ""; input.dispatchEvent(new w.Event("input"));
return {left, said, all: rows.length, again: rows.filter((r) => !r.hidden).length};
"""
OPEN = """
const row = [...d.querySelectorAll("table.view tbody tr")].find((r) => r.dataset.label.startsWith("org/answers") && r.querySelector("td.go"));
row.querySelector("td.go").click();
const detail = d.getElementById("detail");
const found = {hidden: detail.hidden, title: d.getElementById("detail-title").textContent, text: d.getElementById("detail-text").textContent,
  heads: [...detail.querySelectorAll("th")].map((c) => c.textContent), rows: [...detail.querySelectorAll("tbody tr")].map((r) => [...r.cells].map((c) => c.textContent)),
  images: d.querySelectorAll("img").length, elements: detail.querySelectorAll("td *").length};
d.dispatchEvent(new w.KeyboardEvent("keydown", {key: "Escape"}));
return {...found, closed: detail.hidden};
"""


DRAW = """
d.getElementById("pictures").scrollIntoView();
const places = [...d.querySelectorAll(".chart")];
for (let k = 0; k < 100 && !places.every((p) => p.dataset.drawn); k++) { places.forEach((p) => p.scrollIntoView()); await new Promise((go) => setTimeout(go, 50)); }
const select = d.querySelector("#picture-length select");
const before = d.querySelector("#picture-length .chart").textContent;
select.value = select.options[1].value; select.dispatchEvent(new w.Event("change"));
await new Promise((go) => setTimeout(go, 400));
const chart = d.querySelector("#picture-length .chart");
return {groups: [...d.querySelectorAll("figure")].map((f) => f.id), svgs: places.map((p) => p.querySelectorAll("svg").length),
  words: places.map((p) => p.getAttribute("aria-label").length), changed: chart.textContent !== before, text: chart.textContent,
  above: d.querySelector("#pictures").offsetTop < d.querySelector("#drop").offsetTop,
  sticky: w.getComputedStyle(d.querySelector("table.view td.l")).position};
"""
STATE = """
const input = d.getElementById("filter");
input.value = "base kv"; input.dispatchEvent(new w.Event("input"));
const heads = [...d.querySelector("#drop table").tHead.rows[0].cells];
heads.at(-1).firstElementChild.click();
const [a, b] = [d.getElementById("run-a"), d.getElementById("run-b")];
const pick = (s, start) => { s.value = [...s.options].find((o) => o.textContent.startsWith(start)).value; s.dispatchEvent(new w.Event("change")); };
pick(a, "org/base-7b full"); pick(b, "org/base-7b kv:topk");
const hash = w.location.hash, said = d.getElementById("two-text").textContent;
const rows = [...d.querySelectorAll("#flips tbody tr")].map((r) => [...r.cells].map((c) => c.textContent));
input.value = ""; input.dispatchEvent(new w.Event("input")); a.value = ""; b.value = "";
w.location.hash = hash;
await new Promise((go) => setTimeout(go, 200));
return {hash, said, rows, q: input.value, a: a.value, b: b.value, again: d.getElementById("two-text").textContent,
  sorted: d.querySelector("#drop table").tHead.rows[0].cells[heads.length - 1].getAttribute("aria-sort"),
  hidden: [...d.querySelectorAll("#drop tbody tr")].filter((r) => r.hidden).length};
"""
AVERAGE = """
const cell = [...d.querySelectorAll("#board tbody td.go")].find((c) => c.dataset.runs.includes("-"));
cell.click();
const found = [...d.querySelectorAll("#items tbody tr")];
return {n: found.length, tasks: new Set(found.map((r) => r.cells[0].textContent)).size, text: d.getElementById("detail-text").textContent};
"""


@needs_browser
def test_charts_are_drawn_offline_and_chosen(made: Path) -> None:
    found, errors = browser.visit(made / "board.html", DRAW)
    assert errors == []
    assert {"picture-length", "picture-choice", "picture-cost", "picture-drop"} <= set(found["groups"])
    assert set(found["svgs"]) == {1} and min(found["words"]) > 40
    assert found["changed"] and "context length (tokens)" in found["text"]
    assert found["above"] and found["sticky"] == "sticky"


@needs_browser
def test_the_address_holds_the_state_and_two_runs_stand_side_by_side(made: Path) -> None:
    found, errors = browser.visit(made / "board.html", STATE)
    assert errors == []
    assert "q=base+kv" in found["hash"] and "sort=drop" in found["hash"] and "&b=" in found["hash"]
    assert (found["q"], found["again"]) == ("base kv", found["said"]) and found["a"] and found["b"]
    assert found["sorted"] in ("ascending", "descending") and found["hidden"] > 0
    gains = [float(r[4]) - float(r[3]) for r in found["rows"]]
    up, down = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    assert up and down and f"B better on {up}, A better on {down}" in found["said"]
    assert abs(gains[0]) == max(map(abs, gains)) and 0 in gains  # flips first


@needs_browser
def test_an_average_opens_the_items_of_all_its_tasks(made: Path) -> None:
    found, errors = browser.visit(made / "board.html", AVERAGE)
    assert errors == []
    assert (
        found["tasks"] > 3
        and found["n"] > 20
        and "items.csv" in found["text"]
        or "items shown." in found["text"]
    )


@needs_browser
def test_sorting(made: Path) -> None:
    found, errors = browser.visit(made / "board.html", SORT)
    assert errors == []
    down = [float(v) for v in found["down"] if v]
    up = [float(v) for v in found["up"] if v]
    assert len(down) > 3 and down == sorted(down, reverse=True) and up == sorted(up)
    assert found["down"][: len(down)] == [v for v in found["down"] if v]  # empty cells stay below, both ways
    assert found["up"][: len(up)] == [v for v in found["up"] if v]
    names = [name for cls, name in found["names"] if cls != "out"]
    assert found["sort"] == "descending" and names == sorted(names, reverse=True)
    assert [cls for cls, _ in found["names"]] == sorted(cls for cls, _ in found["names"])


@needs_browser
def test_filter(made: Path) -> None:
    found, errors = browser.visit(made / "board.html", FILTER)
    assert errors == []
    assert found["left"] and all("base" in label and "kv:" in label for label in found["left"])
    assert (
        found["said"] == f"{len(found['left'])} of {found['all']} table rows"
        and found["again"] == found["all"]
    )


@needs_browser
def test_names_are_not_broken_letter_by_letter_on_a_phone(made: Path) -> None:
    script = """return [...d.querySelectorAll("table.view td.l:first-child")]
      .filter((c) => c.offsetParent).map((c) => c.getBoundingClientRect().width);"""
    found, errors = browser.visit(made / "board.html", script, width=390)
    assert errors == [] and found and 70 < min(found) <= max(found) < 200


@needs_browser
def test_click_a_cell(made: Path) -> None:
    found, errors = browser.visit(made / "board.html", OPEN)
    assert errors == []
    assert (
        not found["hidden"]
        and found["closed"]
        and "org/answers" in found["title"]
        and "2 of 2 items" in found["text"]
    )
    assert found["heads"][-3:] == ["question", "gold", "answer"] and len(found["rows"]) == 2
    assert (
        found["rows"][1][-1] == f"answer {HOSTILE}".replace("\u202e", "\ufffd") and found["rows"][1][4] == "1"
    )  # shown, not parsed
    assert found["images"] == 0 and found["elements"] == 0


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshot_has_content(made: Path, tmp_path: Path, scheme: str) -> None:
    shot = tmp_path / f"{scheme}.png"
    theme = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browser.chromium(
        *theme, f"--screenshot={shot}", "--window-size=1400,1200", (made / "board.html").as_uri()
    )
    corner = first_pixel(shot.read_bytes())
    assert (max(corner) < 40) if scheme == "dark" else (min(corner) > 240)
    assert shot.stat().st_size > 40_000  # an empty page compresses to a few kB


def first_pixel(png: bytes) -> tuple[int, ...]:
    """Red, green and blue of the top left corner of an 8-bit PNG; there every filter leaves the value as it
    is."""
    at, raw = 8, b""
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        raw += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    return tuple(zlib.decompress(raw)[1:4])
