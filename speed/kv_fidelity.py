"""How much each KV method changes a real model's next-token distribution: budget -> KL, top-1, NLL, attention
mass.

    python speed/kv_fidelity.py --text a.txt --text b.txt.gz --lengths 1k,4k,8k --out fidelity.jsonl
    python speed/kv_fidelity.py --out fidelity.jsonl --table       # markdown from what is there

The text after the prompt is given token by token to full attention and to each method (teacher forcing),
after one shared dense prefill. Finished cells are kept; run again to continue. Default model:
SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from icr_tasks.kv import make
from icr_tasks.kv.hf import attention, decode, repeat
from icr_tasks.kv.hf.cache import new_cache
from icr_tasks.kv.hf.report import report
from icr_tasks.kv.hf.session import Session
from icr_tasks.settings import Setting, parse_tokens, show_tokens

SETTINGS = (
    "kv:topk@0.018",
    "kv:topk@0.05",
    "kv:topk@0.25",
    "kv:topk@1.0",
    "kv:cluster@0.018,update=256",
    "kv:cluster@0.018,update=256,estimation=0",
    "kv:cluster@0.05,update=256",
    "kv:cluster@0.018,update=256,build=fast",
    "kv:cluster@0.018,update=256,build=naive",
    "kv:page@0.018",
    "kv:page@0.05",
    "kv:page@0.25",
    "kv:steady",
    "kv:steady@0.25",
    "kv:snapkv@0.25",
    "kv:snapkv@0.5",
    "kv:keydiff@0.25",
    "kv:snapkv@0.25,adaptive",
    "kv:chunkkv@0.25",
    "kv:expected@0.25",
    "kv:expected@0.5",
    "kv:kvzip@0.25",
    "kv:kvzip@0.5",
    "kv:keydiff@0.5",
    "kv:streaming@0.25",
    "kv:streaming@0.5",
)


class _Observer:
    """Stands in for a method during the shared prefill: only the last queries are remembered."""

    needs_queries, frees = 64, True


class Prefilled:
    """One text's dense prefill, from which each method starts on its own copy of the cache."""

    def __init__(self, model: Any, ids: list[int], steps: int, ask: tuple[list[int], list[int]]) -> None:
        self.job = decode.Job(
            [ids[:-steps]], steps, frozenset(), forced=ids[-steps:], keep_logits=True, repeat=ask
        )
        self.model, self.layers = model, model.config.num_hidden_layers
        self.batch = decode._Batch(model, self.job)
        self.seen = Session(_Observer(), [0], self.layers)  # type: ignore[arg-type]
        with attention.active(self.seen):
            self.logits = decode._prefill(self.batch, self.batch.ids.shape[1], 2048)
        self.cache, self.mask = self.batch.cache, self.batch.mask

    def run(self, setting: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """Logits (steps, vocabulary) and the measurements."""
        parsed = Setting.parse(setting)
        method = make(str(parsed.method), parsed.amount, dict(parsed.extra)) if parsed.compressed else None
        if method is not None and (method.moments or method.repeats):  # they watch a prefill of their own
            answer = decode.generate(self.model, self.job, method)[0]
            return torch.stack(answer.logits), answer.kv
        session, steps = Session(method, [0], self.layers), self.job.max_new
        session._queries, session._scales = list(self.seen._queries), self.seen._scales
        self.batch.cache = new_cache(self.model.config, self.cache.get_seq_length() + steps)
        for new, old in zip(self.batch.cache.layers, self.cache.layers, strict=True):
            new.update(old.keys, old.values)
        with attention.active(session):
            pads = session.finish_prefill(self.batch.cache, steps)
            stored = decode.stored_bytes(self.batch.cache, 0, 0, session.where)
            self.batch.repad(pads, steps)
            answer = decode._decode(self.batch, session, self.job, self.logits)[0]
        return torch.stack(answer.logits), report(
            session, 0, stored, self.batch.cache, {"prefill": 1, "decode": 1}, 0
        )


def compare(full: torch.Tensor, got: torch.Tensor, forced: list[int]) -> dict[str, float]:
    """Means over steps after the first (which the dense prefill gives): KL(full || got), top-1 agreement, NLL
    change."""
    p, q = full[1:].double().log_softmax(-1), got[1:].double().log_softmax(-1)
    target = torch.tensor(forced[1:]).unsqueeze(1)
    return {
        "kl": float((p.exp() * (p - q)).sum(-1).mean()),
        "top1": float((p.argmax(-1) == q.argmax(-1)).double().mean()),
        "dnll": float((p.gather(1, target) - q.gather(1, target)).mean()),
        "max_logit": float((full - got).abs().max()),
    }


@torch.inference_mode()
def measure(model_path: str, texts: list[Path], lengths: list[int], steps: int, out: Path) -> None:
    """Append one line a (text, length, setting)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    model.set_attn_implementation(attention.register())
    done = {(r["text"], r["n"], r["setting"]) for r in _read(out)}
    for n in lengths:
        for path in texts:
            todo = [s for s in SETTINGS if (path.name, n, s) not in done]
            if not todo:
                continue
            with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
                ids = tokenizer(file.read(8 * (n + steps)), verbose=False)["input_ids"][: n + steps]
            ask = [
                tokenizer(text, add_special_tokens=False)["input_ids"] for text in (repeat.WHOLE, repeat.FROM)
            ]
            prefilled = Prefilled(model, ids, steps, (ask[0], ask[1]))
            full, _ = prefilled.run("full")
            for setting in todo:
                logits, kv = prefilled.run(setting)
                kept = ("read_fraction", "attended_fraction", "stored_fraction", "mass_kept", "fallback")
                row = {"text": path.name, "n": n, "setting": setting, **compare(full, logits, ids[-steps:])}
                row |= {k: kv[k] for k in kept}
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def _read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, means over the texts that have every setting, with the lowest and highest text; a row a
    setting and length."""
    whole = Counter((r["text"], r["n"]) for r in rows)
    rows = [r for r in rows if whole[r["text"], r["n"]] == max(whole.values())]
    cells: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["n"], row["setting"]].append(row)
    lines = [
        "| tokens | setting | texts | stored | attended | read | mass kept | KL | top-1 | NLL change |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    order = {s: i for i, s in enumerate(SETTINGS)}
    for (n, setting), found in sorted(cells.items(), key=lambda c: (c[0][0], order.get(c[0][1], 99))):

        def mean(name: str, found: list[dict[str, Any]] = found) -> float | None:
            values = [r[name] for r in found if r[name] is not None]
            return sum(values) / len(values) if values else None

        def spread(name: str, form: str, found: list[dict[str, Any]] = found) -> str:
            values = [r[name] for r in found]
            return f"{mean(name):{form}} ({min(values):{form}} to {max(values):{form}})"

        mass = mean("mass_kept")
        lines.append(
            f"| {show_tokens(n)} | `{setting}` | {len(found)} | {mean('stored_fraction'):.0%} | "
            f"{mean('attended_fraction'):.1%} | {mean('read_fraction'):.1%} | "
            f"{'' if mass is None else f'{mass:.3f}'} | "
            f"{spread('kl', '.4f')} | {spread('top1', '.2f')} | {spread('dnll', '+.3f')} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", action="append", type=Path, default=[], help="plain text, may be gzipped")
    parser.add_argument("--lengths", default="1k,2k,4k")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, default=Path("fidelity.jsonl"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not args.table:
        from icr_tasks.engines.smollm2 import export

        lengths = [parse_tokens(n) for n in args.lengths.split(",")]
        measure(args.model or str(export()), args.text, lengths, args.steps, args.out)
    print(table(_read(args.out)))


if __name__ == "__main__":
    main()
