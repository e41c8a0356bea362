"""`icr train data`: raw QA data to training rows."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from icr_tasks.data.synth.questions import DOMAINS
from icr_tasks.errors import unknown

from . import split, synth
from .store import Manifest, key_of


def main(argv: list[str]) -> int:
    """Run the stages; returns 0."""
    parser = argparse.ArgumentParser(prog="icr train data", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="data folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dev", type=float, default=0.05, help="share of questions held out")
    made = parser.add_argument_group("synthetic rows (nothing to download)")
    made.add_argument("--synth", type=int, metavar="N", help="N rows of the synthetic benchmark's training split")
    made.add_argument("--length", default="512", help="nominal lengths to mix, comma-separated: 512,1k,4k")
    made.add_argument("--domain", default="", help="comma-separated: biography,business,arts,geography")
    made.add_argument("--kinds", default="", help="comma-separated: single,hop,comparison,yesno")
    made.add_argument("--passages", type=int, help="passages a row, instead of a length")
    args = parser.parse_args(argv)
    return _synth(args)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _synth(args: argparse.Namespace) -> int:
    begun = time.perf_counter()
    domains = _list(args.domain) or [None]
    for domain in domains:
        if domain is not None and domain not in DOMAINS:
            raise unknown("domain", domain, DOMAINS)
    options = {"n": args.synth, "lengths": _list(args.length), "seed": args.seed, "domains": domains}
    options |= {"kinds": _list(args.kinds), "passages": args.passages, "dev": args.dev}
    manifest, key = Manifest.load(args.output), key_of(options)
    if manifest.fresh("synth", key):
        print(f"synth: done before, {manifest.stages['synth']['counts']}")
        return 0
    made = {k: v for k, v in options.items() if k != "dev"}
    counts = split.split(synth.rows(**made), args.output, seed=args.seed, dev=args.dev)
    files = {f"{name}.parquet": counts[name] for name in ("train", "dev")}
    seconds = round(time.perf_counter() - begun, 1)
    manifest.record("synth", key, files, options=options, counts=counts, seconds=seconds)
    print(f"synth: {counts} in {seconds} s -> {args.output} (data {manifest.hash()})")
    return 0
