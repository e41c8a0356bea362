"""Small files in the official shape of benchmarks whose data are not at hand, and what drives a task on them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from icr_tasks.harness.run import manager
from icr_tasks.storage import cache_root, fingerprint, write_atomic

WORDS = [
    f"{a}{b}" for a in ("lo", "mi", "ka", "tre", "su", "ven") for b in ("ra", "dol", "ne", "fi", "stu", "mar")
]


def prose(r: random.Random, n: int) -> str:
    """`n` invented words."""
    return " ".join(r.choice(WORDS) for _ in range(n))


def parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A parquet file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=2)
    return path


def mrcr_row(needles: int, wanted: int, words: int, seed: int = 0) -> dict[str, Any]:
    """A conversation of `words` words in which a note about kites is asked for `needles` times."""
    r = random.Random(seed)
    messages = [{"role": "user", "content": "Here is an example of a conversation and its last question."}]
    notes, places = [], set(r.sample(range(needles * 3), needles))
    for n in range(needles * 3):
        kind = "write a note about kites" if n in places else f"write a poem about {r.choice(WORDS)}"
        text = prose(r, words // (needles * 3))
        notes += [text] if n in places else []
        messages += [{"role": "user", "content": kind}, {"role": "assistant", "content": text}]
    prefix = f"Qw{seed}Zt0Lm2A"
    messages.append(
        {"role": "user", "content": f"Prepend {prefix} to the {wanted}. (1 indexed) note about kites."}
    )
    return {
        "prompt": json.dumps(messages),
        "answer": prefix + notes[wanted - 1],
        "random_string_to_prepend": prefix,
        "n_needles": needles,
        "desired_msg_index": 2,
        "total_messages": len(messages),
        "n_chars": sum(len(m["content"]) for m in messages),
    }


def task(name: str, **metadata: Any) -> Any:
    """The leaf task under these options."""
    return manager({"tokenizer": "none", **metadata}).load([name])["tasks"][name]


def scores(found: Any, say: Callable[[dict[str, Any]], str], template: Any = None) -> dict[str, float]:
    """Mean metrics of a task whose items are answered by `say(doc)`."""
    found.build_all_requests(chat_template=template, apply_chat_template=template is not None)
    rows = []
    for instance in found.instances:
        instance.resps = [say(instance.doc)]
    found.apply_filters()
    for instance in found.instances:
        rows.append(found.process_results(instance.doc, [instance.filtered_resps["none"]]))
    return {name: sum(r[name] for r in rows) / len(rows) for name in rows[0]}


def everything(root: Path) -> dict[str, str]:
    """Small files of every benchmark in their official shapes below `root`; leaf task -> its headline."""
    edges = "aa -> bb\ncc -> bb\nbb -> dd"
    walk = f"Walk.\nThe graph has the following edges:\n{edges}\n\n\nOperation:\nFind the parents of node bb.\n\nEnd."
    record = {
        "prompt": walk,
        "answer_nodes": ["aa", "cc"],
        "problem_type": "parents",
        "prompt_chars": len(walk),
    }
    parquet(root / "graphwalks" / "graphwalks_128k_and_shorter.parquet", [record])
    (root / "aa_lcr" / "lcr" / "Legal" / "s1").mkdir(parents=True)
    (root / "aa_lcr" / "lcr" / "Legal" / "s1" / "a.txt").write_text("The mill was built by Petra.")
    (root / "aa_lcr" / "AA-LCR_Dataset.csv").write_text(
        "document_category,document_set_id,question_id,question,answer,data_source_filenames,input_tokens\n"
        "Legal,s1,1,Who built the mill?,Petra,a.txt,9\n"
    )
    session = [[{"role": "user", "content": "My bike is in the cellar."}]]
    memory = {
        "question_id": "x1",
        "question_type": "multi-session",
        "question": "Where is my bike?",
        "answer": "in the cellar",
        "question_date": "2023/06/02 (Fri) 10:00",
        "haystack_session_ids": ["s1"],
        "haystack_dates": ["2023/05/20 (Sat) 18:00"],
        "haystack_sessions": session,
        "answer_session_ids": ["s1"],
    }
    (root / "longmemeval").mkdir()
    (root / "longmemeval" / "longmemeval_s_cleaned.json").write_text(json.dumps([memory]))
    question = {
        "id": "p1",
        "context": "A long text.",
        "language": "English",
        "token_length": "8k",
        "primary_task": "T5",
        "secondary_task": "T5.1 Sets",
        "contextual_requirement": "Full",
        "question_nonthinking": "Which? Output [Answer] and then one a line.",
        "question_thinking": "Which?",
        "answer": ["x y"],
        "difficulty": "Easy",
    }
    (root / "longbench_pro").mkdir()
    (root / "longbench_pro" / "longbench_pro.json").write_text(json.dumps([question]))
    rows = [mrcr_row(2, 1, 5000, n) for n in range(2)]
    for part in (0, 1):
        path = parquet(root / "mrcr" / f"2needle_{part}.parquet", [rows[part]])
        note = cache_root() / "official_tokens" / f"{fingerprint(path)[:24]}-o200k_base.json"
        write_atomic(note, b'{"1": 5000}')  # counted before: no encoding is asked for
    return {
        "icr_graphwalks_parents_128k": "graph_f1",
        "icr_aa_lcr": "subem",
        "icr_longmemeval_s": "subem",
        "icr_longbench_pro_8k": "lbpro",
        "icr_mrcr_2needle_8k": "mrcr",
        "icr_synth_latent_1k": "subem",
        "icr_synth_order_4k": "order",
    }


def every_length(root: Path) -> None:
    """Rows for each length, kind and language of the benchmarks that `everything` has one of: what the official files
    say of a long text is kept, the text is short."""
    from icr_tasks.benchmarks import longbench_pro, mrcr

    edges = "aa -> bb\ncc -> bb\nbb -> dd"
    walks = []
    for kind, asked, nodes in (
        ("parents", "Find the parents of node bb.", ["aa", "cc"]),
        ("bfs", "Perform a BFS from node aa with depth 1.", ["bb"]),
    ):
        text = f"Walk.\nThe graph has the following edges:\n{edges}\n\n\nOperation:\n{asked}\n\nEnd."
        row = {"prompt": text, "answer_nodes": nodes, "problem_type": kind, "prompt_chars": len(text)}
        walks.append(row)
    for name in ("128k_and_shorter", "256k_to_1mil"):
        parquet(root / "graphwalks" / f"graphwalks_{name}.parquet", walks)
    memory = root / "longmemeval"
    (memory / "longmemeval_oracle.json").write_bytes((memory / "longmemeval_s_cleaned.json").read_bytes())
    path = root / "longbench_pro" / "longbench_pro.json"
    [first] = json.loads(path.read_text())
    rows = [
        {**first, "id": f"{tongue}-{size}-{task[:4]}", "token_length": size, "language": tongue}
        | {"secondary_task": task, "answer": answer, "context": f"{first['context']} {size} {tongue}"}
        for tongue, words in (("English", ["x y", "A mill."]), ("Chinese", ["甲 乙", "磨坊被烧毁了。"]))
        for size in longbench_pro.LENGTHS
        for task, answer in (("T5.1 Sets", words[:1]), ("T4.1 Summary", words[1:]))
    ]
    path.write_text(json.dumps(rows))
    for needles in mrcr.NEEDLES:
        count = int(needles[0])
        for part, bins in enumerate((list(mrcr.BINS)[:4], list(mrcr.BINS)[4:])):
            made = [mrcr_row(count, 1, 30 * count, seed) for seed, _ in enumerate(bins)]
            lows = [mrcr.BINS[label][0] for label in bins]
            for row, low in zip(made, lows, strict=True):
                row["n_chars"] = low * 4
            path = parquet(root / "mrcr" / f"{needles}_{part}.parquet", made)
            note = cache_root() / "official_tokens" / f"{fingerprint(path)[:24]}-o200k_base.json"
            write_atomic(note, json.dumps({n + 1: low for n, low in enumerate(lows)}).encode())
