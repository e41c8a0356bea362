"""Loong's reader and prompts on the official questions and filings, under their official names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import tiny

from icr_tasks import benchmarks
from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, ItemSet
from icr_tasks.benchmarks.loong_fin import Files
from icr_tasks.context.build import Builder
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.errors import IcrError
from icr_tasks.harness.instance import light
from icr_tasks.settings import Setting


@pytest.fixture(autouse=True)
def _official(official_loong: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(official_loong))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def items() -> ItemSet:
    return benchmarks.load("loong_fin", "all")


def records(root: Path) -> list[dict]:
    rows = [json.loads(line) for line in (root / "loong" / "loong.jsonl").open(encoding="utf-8")]
    return [r for r in rows if r["type"] == "financial" and r["language"] == "en"]


def test_all_295_items_read_their_documents(items: ItemSet) -> None:
    assert len(items.items) == items.n_expected == 295 and items.official
    for item in items.items:
        units = item.units()
        assert len(units) == item.keys["n_docs"] == len(item.fields["documents"])
        assert [f"{u.id}.txt" for u in units] == [d["file"] for d in item.fields["documents"]]
        assert all(len(u.text) > 1000 for u in units) and len({u.title for u in units}) == len(units)


def test_each_name_means_one_recorded_file(items: ItemSet, official_loong: Path) -> None:
    """Beside the official loader's glob: one match is that match, several are told apart by the written
    rule."""
    folder = official_loong / "loong" / "doc" / "financial"
    names = [p.name for p in folder.iterdir()]
    kinds: Counter[str] = Counter()
    for record, item in zip(records(official_loong), items.items, strict=True):
        assert item.id == record["id"]
        found = {d["name"]: d for d in item.fields["documents"]}
        assert sorted(found) == sorted(record["doc"])
        for name, document in found.items():
            part = name if record["level"] == 4 else f"2024-{name}"
            matches = sorted(
                n for n in names if part in n
            )  # fnmatch of the pattern *part*.txt, no special characters
            assert document["file"] in matches and document["by"] in ("company", "stem", "part")
            if len(matches) == 1:
                assert document["file"] == matches[0] and document["matches"] == 1
                kinds["level 4" if record["level"] == 4 else "one"] += 1
            elif name == "C":
                assert document == {
                    "name": "C",
                    "file": "2024-C & C TOURS, INC.-j.txt",
                    "by": "part",
                    "matches": 36,
                }
                kinds["C"] += 1
            else:
                assert matches == [f"{part}-j.txt", f"{part}-n.txt"] and document["file"] == matches[0]
                assert document["matches"] == 2 and document["by"] == "company"
                kinds["two"] += 1
    assert kinds == {"one": 1194, "two": 57, "C": 3, "level 4": 157}
    assert items.notes == (
        "57 of 1411 documents have several files: the first in byte order is taken",
        "3 of 1411 documents have no file of their name: the first that contains it is taken",
    )


def test_gold_numbers_stand_in_the_file_that_is_taken(items: ItemSet) -> None:
    """Two level-1 questions on a company with a 10-Q and a 10-K: their answer is a number of the 10-Q
    alone."""
    asked = [i for i in items.items if i.answers == ("$7,963,173",)]
    assert len(asked) == 2
    for item in asked:
        assert sum("7,963,173" in u.text for u in item.units() if u.title.startswith("2024-GRANT PARK")) == 1


def test_what_lm_eval_logs_names_the_files(items: ItemSet) -> None:
    item = next(i for i in items.items if any(d["name"] == "C" for d in i.fields["documents"]))
    logged = json.loads(json.dumps(light(item)))
    assert logged["documents"] == item.fields["documents"] and "2024-C & C TOURS, INC.-j.txt" in str(logged)
    assert "units" not in logged and len(json.dumps(logged)) < 5000


def place(item: Item, name: str) -> int:
    return [d["name"] for d in item.fields["documents"]].index(name)


def test_the_asked_filing_has_no_fixed_place(items: ItemSet, official_loong: Path) -> None:
    places: Counter[int] = Counter()
    relative = []
    changed = 0
    for record, item in zip(records(official_loong), items.items, strict=True):
        shown = [d["name"] for d in item.fields["documents"]]
        changed += shown != record["doc"]
        if not record["shuffle_doc"]:
            assert shown == record["doc"]
        if record["level"] == 1:
            places[place(item, record["doc"][0])] += 1
            relative.append(place(item, record["doc"][0]) / (len(shown) - 1))
    assert sum(places.values()) == 75 and max(places.values()) < 30 and len(places) >= 5
    assert 0.4 < sum(relative) / len(relative) < 0.6
    assert changed > 230


def test_the_order_is_the_same_each_time(items: ItemSet) -> None:
    again = benchmarks.load("loong_fin", "all")
    assert [i.fields["documents"] for i in again.items] == [i.fields["documents"] for i in items.items]
    item = next(i for i in items.items if i.id == "2e35d3f3-db1a-47eb-b285-cb67ea2af8b6")
    assert [d["name"] for d in item.fields["documents"]] == [
        "Aditxt, Inc.",
        "Clean Vision Corp",
        "Cosmos Group Holdings Inc.",
        "ARVANA INC",
        "Ameri Metro, Inc. (formerly Yellowwood)",
        "HARTE HANKS INC",
        "C",
    ]


def test_official_prompt_is_the_official_one(items: ItemSet, official_loong: Path) -> None:
    """As Loong's own code joins it: title after the last hyphen, an empty line after each text, then the
    template."""
    folder = official_loong / "loong" / "doc" / "financial"
    form = base.get("loong_fin", "official")
    builder = Builder("loong_fin", Setting.parse("full"), form, None, None, 2048, None)
    for record, item in zip(records(official_loong), items.items, strict=True):
        docs = ""
        for document in item.fields["documents"]:
            with open(folder / document["file"]) as file:
                docs += f"《{Path(document['file']).stem.split('-')[-1]}》\n" + file.read() + "\n\n"
        template = record["prompt_template"].replace("{question}", record["question"])
        template = template.replace("{instruction}", record["instruction"])
        assert builder.build(item).prompt == template.replace("{docs}", docs)


def test_titles_of_chunks(items: ItemSet) -> None:
    """Retrieved chunks keep both titles: the one that tells filings apart and the official one."""
    tokens = TokenCounter(tiny.tokenizer())
    item = items.items[0]
    texts = {}
    for name in ("paper", "official"):
        form = base.get("loong_fin", name)
        texts[name] = str(
            Builder("loong_fin", Setting.parse("rag@2k,chunk=512"), form, tokens, None, 64, None)
            .build(item)
            .prompt
        )
    assert "《2024-" in texts["paper"] and "《j》" not in texts["paper"]
    assert "《j》" in texts["official"] and "《2024-" not in texts["official"]


def test_rule_on_other_folders(tmp_path: Path) -> None:
    for name in (
        "2024-C-Bond Systems-j",
        "2024-CANCER CORP-j",
        "2024-Coca-Cola Co",
        "2024-ACME-n",
        "2024-ACME-j",
        "2023-ACME-j",
        "._2024-ACME-j",
    ):
        (tmp_path / f"{name}.txt").write_text("x")
    files = Files(tmp_path)
    assert files.find(1, "C") == {
        "name": "C",
        "file": "2024-C-Bond Systems-j.txt",
        "by": "company",
        "matches": 1,
    }
    assert files.find(2, "ACME") == {"name": "ACME", "file": "2024-ACME-j.txt", "by": "company", "matches": 2}
    assert files.find(3, "Coca-Cola Co")["file"] == "2024-Coca-Cola Co.txt"
    assert files.find(4, "2023-ACME-j") == {
        "name": "2023-ACME-j",
        "file": "2023-ACME-j.txt",
        "by": "stem",
        "matches": 1,
    }
    assert files.find(1, "Nobody")["file"] is None
    with pytest.raises(IcrError, match="no documents at .*\n.*icr data fetch loong"):
        Files(tmp_path / "nowhere")
