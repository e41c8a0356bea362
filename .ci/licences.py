"""`make licences`: the tables of docs/licences.md, written from what is installed.

    python -P .ci/licences.py            # rewrites the table between the marks
    python -P .ci/licences.py --check    # exits 1 when the page differs from pyproject.toml and the installed metadata

One line for each package that pyproject.toml names, with the extras that ask for it and the licence that its own metadata
declare (License-Expression, else the classifiers, else License). A package that is not installed here keeps the line it has;
one that has no line yet is an error, since a blank would read as "no licence".
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- dependencies: written by make licences -->", "<!-- end of dependencies -->"
NAME = re.compile(r"^[A-Za-z0-9._-]+")


def asked() -> dict[str, list[str]]:
    """Package -> the extras that name it (`base` for the package itself), in pyproject.toml's order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = {}
    for extra, lines in {"base": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in lines:
            name = NAME.match(line)
            assert name is not None, line
            found.setdefault(name.group().lower(), []).append(extra)
    return found


def licence(package: str) -> str | None:
    """What the installed metadata declare; None where the package is not installed."""
    try:
        told = metadata(package)
    except PackageNotFoundError:
        return None
    kinds = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier") or [] if "License ::" in line]
    text = (told.get("License") or "").strip().splitlines()
    short = text[0] if text and len(text[0]) < 60 and not text[0].startswith(("Copyright", "UNKNOWN")) else ""
    return told.get("License-Expression") or ", ".join(kinds) or short or "not declared"


def table(page: str) -> str:
    """The Markdown table; ValueError for a package that is neither installed nor in the page."""
    known = dict(re.findall(r"^\| `([^`]+)` \| .* \| (.*) \|$", page, re.M))
    lines = ["| package | asked for by | licence its metadata declare |", "|---|---|---|"]
    for package, extras in sorted(asked().items()):
        found = licence(package) or known.get(package)
        if found is None:
            raise ValueError(
                f"{package} is not installed and has no line in docs/licences.md: install it once"
            )
        lines.append(f"| `{package}` | {', '.join(f'`{e}`' for e in extras)} | {found} |")
    return "\n".join(lines)


def main() -> int:
    """0, or 1 when the page is not current (--check) or a licence is unknown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only")
    args = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    try:
        new = f"{before}{BEGIN}\n{table(page)}\n{END}{after}"
    except ValueError as error:
        print(f"licences: {error}", file=sys.stderr)
        return 1
    if args.check:
        if new != page:
            print("docs/licences.md is not current: run make licences", file=sys.stderr)
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
