"""`icr data fetch|ls`: official benchmark files.

icr data fetch helmet --datasets nq,hotpotqa --lengths 4k,32k
icr data fetch infbench --dry-run
icr data ls
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..benchmarks import helmet_rag
from ..benchmarks.fetch import Remote, download, extract, hub
from ..errors import IcrError, unknown
from ..storage import cache_root, data_root, fingerprint

ARCHIVE = f"datasets/princeton-nlp/HELMET/resolve/{helmet_rag.REVISION}/data.tar.gz"
ARCHIVE_SIZE = 11_271_916_108
INFBENCH = "datasets/xinrongzhang2022/InfiniteBench/resolve/main/longbook_{split}_eng.jsonl"
LONGBENCH = "datasets/THUDM/LongBench-v2/resolve/2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9/data.json"
LONGBENCH_SHA = "15d61c22d92c96900b3c4948b6aeea218d3214b676a65df48e7b8555604c7fe2"
LOONG = "https://raw.githubusercontent.com/MozerWang/Loong/e05a1fd3ebd89d16dcca4fbeb8e761c82609f819/data/loong.jsonl"
LOONG_SHA = "cd640d3ca0e41d3638153506e3caee109850b30de0a4e829862232a2b6302da8"
LOONG_DOCS = "http://alibaba-research.oss-cn-beijing.aliyuncs.com/loong/doc.zip"


def main(argv: list[str]) -> int:
    """Returns 0; raises IcrError for unknown names and failed downloads."""
    parser = argparse.ArgumentParser(
        prog="icr data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    fetch = verbs.add_parser("fetch", help="download a benchmark")
    fetch.add_argument("benchmark", help="helmet, infbench, longbench_v2 or loong")
    fetch.add_argument(
        "--datasets", help="comma-separated (helmet: nq,hotpotqa,triviaqa,popqa; infbench: mc,qa,sum)"
    )
    fetch.add_argument("--lengths", help="helmet only, comma-separated: 4k,8k,16k,32k,64k,128k")
    fetch.add_argument(
        "--demos", action="store_true", help="helmet: also the demonstrations of the official prompt"
    )
    fetch.add_argument("--from", dest="base", help="mirror: a URL or folder that holds the files unpacked")
    fetch.add_argument(
        "--dry-run", action="store_true", help="print what would be fetched, with sizes where known"
    )
    verbs.add_parser("ls", help="what is on disk")
    args = parser.parse_args(argv)
    return _ls() if args.verb == "ls" else _fetch(args)


def _split(text: str | None, kind: str, known: dict[str, object] | list[str]) -> list[str]:
    names = [n.strip() for n in text.split(",")] if text else list(known)
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    return names


def _target() -> Path:
    import os

    return data_root() if os.environ.get("ICR_DATA_DIR") else cache_root() / "data"


def _fetch(args: argparse.Namespace) -> int:
    if args.benchmark not in FETCHERS:
        raise unknown("benchmark", args.benchmark, FETCHERS)
    FETCHERS[args.benchmark](args, _target())
    return 0


def _helmet(args: argparse.Namespace, root: Path) -> None:
    datasets = _split(args.datasets, "HELMET-RAG dataset", dict(helmet_rag.SOURCES))
    lengths = _split(args.lengths, "HELMET-RAG length", dict(helmet_rag.PASSAGES))
    names = [helmet_rag.SOURCES[d].test.format(k=helmet_rag.PASSAGES[n]) for d in datasets for n in lengths]
    names += [helmet_rag.SOURCES[d].demos for d in datasets] if args.demos else []
    members = [f"data/kilt/{name}" for name in names]
    missing = [m for m in members if not (root / "helmet" / m).is_file()]
    if args.dry_run:
        for member in members:
            print(f"{'have' if member not in missing else 'get '}  {root / 'helmet' / member}")
        print(
            f"from {args.base or hub(ARCHIVE)}"
            + ("" if args.base else f" ({ARCHIVE_SIZE / 1e9:.1f} GB streamed at most)")
        )
        return
    if args.base:
        base = args.base.rstrip("/")
        for member in missing:
            download(Remote(f"helmet/{member}", f"{base}/{member.removeprefix('data/')}"), root)
    elif missing:
        extract(hub(ARCHIVE), missing, root, "helmet", ARCHIVE_SIZE)
    for dataset, length in ((d, n) for d in datasets for n in lengths):
        path = (
            root
            / "helmet"
            / "data"
            / "kilt"
            / helmet_rag.SOURCES[dataset].test.format(k=helmet_rag.PASSAGES[length])
        )
        if (known := helmet_rag.SHA256.get((dataset, length))) and fingerprint(path) != known:
            path.rename(path.with_name(path.name + ".wrong"))
            raise IcrError(
                f"{path.name}: sha256 is not the official file's; moved aside as .wrong, fetch it again"
            )
    print(f"{len(members)} files below {root / 'helmet'}")


def _plain(files: Callable[[argparse.Namespace], list[Remote]]) -> Callable[[argparse.Namespace, Path], None]:
    def fetch(args: argparse.Namespace, root: Path) -> None:
        for remote in files(args):
            url = f"{args.base.rstrip('/')}/{Path(remote.target).name}" if args.base else remote.url
            if args.dry_run:
                print(
                    f"{'have' if (root / remote.target).is_file() else 'get '}  {root / remote.target}  from {url}"
                )
            else:
                print(download(Remote(remote.target, url, remote.size, remote.sha256), root))

    return fetch


def _infbench(args: argparse.Namespace) -> list[Remote]:
    splits = {"mc": "choice", "qa": "qa", "sum": "sum"}
    names = [splits[d] for d in _split(args.datasets, "InfiniteBench dataset", dict(splits))]
    return [Remote(f"infinitebench/longbook_{n}_eng.jsonl", hub(INFBENCH.format(split=n))) for n in names]


def _longbench(args: argparse.Namespace) -> list[Remote]:
    return [Remote("longbench_v2/data.json", hub(LONGBENCH), sha256=LONGBENCH_SHA)]


def _loong(args: argparse.Namespace, root: Path) -> None:
    _plain(
        lambda _: [Remote("loong/loong.jsonl", LOONG, sha256=LOONG_SHA), Remote("loong/doc.zip", LOONG_DOCS)]
    )(args, root)
    if not args.dry_run:
        from ..benchmarks.loong_fin import unpack

        unpack(root / "loong" / "doc.zip", root / "loong")


FETCHERS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "helmet": _helmet,
    "infbench": _plain(_infbench),
    "longbench_v2": _plain(_longbench),
    "loong": _loong,
}


def _ls() -> int:
    root = _target()
    files = (
        sorted(p for p in root.rglob("*") if p.is_file() and p.suffix in (".jsonl", ".json"))
        if root.is_dir()
        else []
    )
    if not files:
        raise IcrError(f"no data below {root}; icr data fetch helmet --dry-run shows what there is to get")
    for path in files:
        print(f"{path.stat().st_size:>14,}  {fingerprint(path)[:16]}  {path.relative_to(root)}")
    return 0
