"""The study `hybrid_cpu.yaml` with its judges: servers that know the aliases and are wrong at a known rate.

    python speed/hybrid_study.py -o study-hybrid [--seeds 0,1] [--into docs/training_studies_tables.md]

The judges are constructed, not models: an answer is right when it is the recorded one or its alias, and for a
tenth (on the other port, a fiftieth) of the prompts the opposite is said, drawn by SHA-256, so that a prompt
always gets the same verdict. All arguments are those of `icr train study`. Calls of each arm are added up in
OUT/judge_calls.json over interruptions.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from icr_tasks.metrics.answers import subem_word
from icr_tasks.metrics.extract import extract_answer
from icr_tasks.training.study import run, spec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fake_endpoint import FakeEndpoint

STUDY = "hybrid_cpu.yaml"
# Port -> share of the prompts with a wrong verdict, right and wrong answers alike; the ports are those of the
# study's arms.
JUDGES = {8753: 0.1, 8754: 0.02}
ASKED = re.compile(r"\n\[Correct Answer\]: (.*?)\n\[AI Model Solution\]: (.*?)\n---\n", re.S)


def right(prompt: str) -> bool:
    """What an infallible judge would say: the answer is the recorded one, or its alias."""
    found = ASKED.search(prompt)
    assert found, "not a prompt of rubric `paper`"
    gold, solution = found.groups()
    return bool(subem_word(extract_answer(solution).text, (gold, spec.alias(gold))))


def errs(prompt: str, error: float) -> bool:
    """Whether a judge of that error rate is wrong about this prompt."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) < error * 2**64


def reply(prompt: str, error: float) -> str:
    """The judge's text: criterion 3 decides, the other two are always met."""
    verdict = int(right(prompt) != errs(prompt, error))
    return "\n".join(f"\\boxed{{Criterion {i}: {v}}}" for i, v in ((1, 1), (2, 1), (3, verdict)))


def counts(prompts: Iterable[str], error: float) -> Counter[str]:
    """Calls, and how many verdicts were false."""
    out: Counter[str] = Counter()
    for prompt in prompts:
        out["calls"] += 1
        if errs(prompt, error):
            out["false rejects" if right(prompt) else "false accepts"] += 1
    return out


def save(path: Path, servers: dict[float, FakeEndpoint]) -> dict[str, dict[str, int]]:
    """Add this run's calls to those of the file, by arm (the request's `user`). `servers` by error rate."""
    total = {k: Counter(v) for k, v in json.loads(path.read_text()).items()} if path.is_file() else {}
    for error, server in servers.items():
        for arm in sorted({str(body["user"]) for body in server.bodies}):
            mine = (p for p, body in zip(server.prompts, server.bodies, strict=True) if body["user"] == arm)
            total[arm] = total.get(arm, Counter()) + counts(mine, error)
    path.write_text(json.dumps(total, indent=1))
    return {arm: dict(found) for arm, found in total.items()}


def main(argv: list[str]) -> int:
    """The exit status of `icr train study`."""
    if "--check" in argv or "-h" in argv or "--help" in argv:
        return run.main([STUDY, *argv])
    given = [argv[i + 1] for i, name in enumerate(argv[:-1]) if name in ("-o", "--out")]
    out = Path(given[0] if given else f"study-{Path(STUDY).stem}")
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = {
            e: stack.enter_context(FakeEndpoint(partial(reply, error=e), port=p)) for p, e in JUDGES.items()
        }
        try:
            code = run.main([STUDY, *argv])
        finally:
            calls = save(out / "judge_calls.json", servers)
    for arm, found in calls.items():
        print(f"{arm}: " + ", ".join(f"{n:,} {what}" for what, n in found.items()))
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
