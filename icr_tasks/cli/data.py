"""`icr data fetch|ls`: official benchmark files.

icr data fetch helmet --datasets nq,hotpotqa --lengths 4k,32k
icr data fetch infbench --dry-run
icr data ls --known
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from .. import benchmarks
from ..benchmarks.declare import Benchmark
from ..benchmarks.fetch import Remote, download, extract, hub
from ..errors import IcrError, unknown
from ..storage import cache_root, data_root, fingerprint


def main(argv: list[str]) -> int:
    """Returns 0; raises IcrError for unknown names and failed downloads."""
    parser = argparse.ArgumentParser(
        prog="icr data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    fetch = verbs.add_parser("fetch", help="download a benchmark")
    fetch.add_argument(
        "benchmark",
        help="helmet, infbench, longbench_v2, loong, mrcr ...: all of them in icr data ls --known",
    )
    fetch.add_argument(
        "--datasets", help="comma-separated (helmet: nq,hotpotqa,triviaqa,popqa; infbench: mc,qa,sum)"
    )
    fetch.add_argument(
        "--lengths", help="comma-separated, where a benchmark has nominal lengths: 4k,8k,16k ..."
    )
    fetch.add_argument(
        "--demos", action="store_true", help="helmet: also the demonstrations of the official prompt"
    )
    fetch.add_argument("--from", dest="base", help="mirror: a URL or folder that holds the files unpacked")
    fetch.add_argument(
        "--accept-license", action="store_true", help="where the data's licence must be accepted by you"
    )
    fetch.add_argument(
        "--dry-run", action="store_true", help="print what would be fetched, with sizes where known"
    )
    ls = verbs.add_parser("ls", help="what is on disk")
    ls.add_argument(
        "--known", action="store_true", help="every benchmark, with items, size, licence and source"
    )
    args = parser.parse_args(argv)
    if args.verb == "fetch":
        return _fetch(args)
    return _known() if args.known else _ls()


def _split(text: str | None, kind: str, known: Sequence[str]) -> list[str]:
    names = [n.strip() for n in text.split(",")] if text else list(known)
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    return names


def _target() -> Path:
    return data_root() if os.environ.get("ICR_DATA_DIR") else cache_root() / "data"


def _fetch(args: argparse.Namespace) -> int:
    found = benchmarks.get(args.benchmark)
    if found.files is None:
        print(f"{found.title} needs no files: its data are generated")
        return 0
    if (terms := found.facts.get("accept")) and not (args.accept_license or args.dry_run):
        raise IcrError(f"{found.title}: {terms} Accept it with --accept-license")
    root, remotes = _target(), list(_wanted(found, args))
    if args.dry_run:
        return _show(remotes, root, args.base)
    plain = [r for r in remotes if r.archive is None or args.base]
    for remote in plain:
        path = download(Remote(remote.target, _url(remote, args.base), remote.size, remote.sha256), root)
        if remote.unpack is not None:
            remote.unpack(path, path.parent)
        print(path)
    for archive in dict.fromkeys(r.archive for r in remotes if r not in plain):
        assert archive is not None
        members = [r for r in remotes if r.archive == archive]
        prefix = members[0].target.split("/")[0]
        names = {r.target.removeprefix(f"{prefix}/"): r.sha256 for r in members}
        hashes = {name: told for name, told in names.items() if told}
        extract(hub(archive[0]), names, root, prefix, archive[1], hashes)
        print(f"{len(members)} files below {root / prefix}")
    for remote in remotes:
        if (
            remote.archive is not None
            and remote.sha256
            and fingerprint(root / remote.target) != remote.sha256
        ):
            path = root / remote.target
            path.rename(path.with_name(path.name + ".wrong"))
            raise IcrError(
                f"{path.name}: sha256 is not the official file's; moved aside as .wrong, fetch it again"
            )
    return 0


def _wanted(found: Benchmark, args: argparse.Namespace) -> Iterator[Remote]:
    """The files of the asked datasets and lengths, each once."""
    assert found.files is not None
    datasets = _split(
        args.datasets, f"{found.title} dataset", list(dict.fromkeys(t.dataset for t in found.tasks))
    )
    known = [n for n in dict.fromkeys(t.length for t in found.tasks) if n is not None]
    if args.lengths and not known:
        raise IcrError(f"{found.title} has no nominal lengths; leave --lengths out")
    lengths: list[str | None] = [*_split(args.lengths, f"{found.title} length", known)] or [None]
    if args.demos:
        lengths.append("demos")
    seen = set()
    for dataset in datasets:
        for length in lengths:
            for remote in found.files(dataset, length):
                if remote.target not in seen:
                    seen.add(remote.target)
                    yield remote


def _url(remote: Remote, base: str | None) -> str:
    if base:
        return f"{base.rstrip('/')}/{remote.url if remote.archive else Path(remote.target).name}"
    return remote.url if "://" in remote.url else hub(remote.url)


def _show(remotes: Sequence[Remote], root: Path, base: str | None) -> int:
    for remote in remotes:
        have = "have" if (root / remote.target).is_file() else "get "
        source = "" if remote.archive and not base else f"  from {_url(remote, base)}"
        print(f"{have}  {root / remote.target}{source}")
    for archive in dict.fromkeys(r.archive for r in remotes if r.archive and not base):
        assert archive is not None
        print(f"from {hub(archive[0])} ({archive[1] / 1e9:.1f} GB streamed at most)")
    return 0


def _known() -> int:
    """One line a benchmark: items are those of one leaf task where that number is fixed."""
    rows = [("name", "tasks", "items", "size", "at hand", "licence", "source")]
    root = _target()
    for found in benchmarks.all_benchmarks():
        files = {
            r.target: r
            for t in found.tasks
            for r in (found.files(t.dataset, t.length) if found.files else ())
        }
        have = sum((root / target).is_file() for target in files)
        counts = sorted({int(n) for t in found.tasks if (n := found.sheet(t).get("n"))})
        items = (
            "generated"
            if found.files is None
            else "/".join(map(str, counts)) or found.counted or "as in the file"
        )
        there = "-" if found.files is None else f"{have} of {len(files)} files"
        facts = found.sheet(found.tasks[0])
        rows.append(
            (
                found.name,
                str(len(found.tasks)),
                items,
                _size(files.values()),
                there,
                str(facts["license"]),
                str(facts["source"]),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(7)]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    return 0


def _size(files: Collection[Remote]) -> str:
    """What there is to fetch: exact, roughly ("~"), at least ("over", where some files' sizes are not known), or
    unknown."""
    archives = {r.archive for r in files if r.archive}
    alone = [r for r in files if not r.archive]
    exact = sum(size for _, size in archives) + sum(r.size or 0 for r in alone)
    rough = sum(r.about or 0 for r in alone if r.size is None)
    if not exact + rough:
        return "not known" if alone else "-"
    unknown = any(r.size is None and not r.about for r in alone)
    mark = "over " if unknown else "~" if rough else ""
    size = exact + rough
    return f"{mark}{size / 1e9:.1f} GB" if size >= 1e9 else f"{mark}{max(size / 1e6, 0.1):.1f} MB"


def _ls() -> int:
    root = _target()
    files = (
        sorted(
            p for p in root.rglob("*") if p.is_file() and p.suffix in (".jsonl", ".json", ".parquet", ".csv")
        )
        if root.is_dir()
        else []
    )
    if not files:
        raise IcrError(f"no data below {root}; icr data fetch helmet --dry-run shows what there is to get")
    for path in files:
        print(f"{path.stat().st_size:>14,}  {fingerprint(path)[:16]}  {path.relative_to(root)}")
    return 0
