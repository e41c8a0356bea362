"""The study `hybrid_cpu.yaml` with its judge: a server that knows the aliases and is wrong at a known rate.

    python benchmarks/hybrid_study.py -o study-hybrid [--seeds 0,1] [--into docs/training_studies.md]

The judge is constructed, not a model: an answer is right when it is the recorded one or its alias, and in a tenth of the
prompts (drawn by their SHA-256, so the same prompt always gets the same verdict) the opposite is said. All arguments are those
of `icr train study`. Calls of each arm are added up in OUT/judge_calls.json over interruptions.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from icr_tasks.metrics.extract import extract_answer
from icr_tasks.metrics.subem import subem_word
from icr_tasks.training.study import data, run, spec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fake_endpoint import FakeEndpoint

STUDY = "hybrid_cpu.yaml"
ERROR = 0.1  # share of the prompts with a wrong verdict, right and wrong answers alike
ASKED = re.compile(r"\n\[Correct Answer\]: (.*?)\n\[AI Model Solution\]: (.*?)\n---\n", re.S)


def right(prompt: str) -> bool:
    """What an infallible judge would say: the answer is the recorded one, or its alias."""
    found = ASKED.search(prompt)
    assert found, "not a prompt of rubric `paper`"
    gold, solution = found.groups()
    return bool(subem_word(extract_answer(solution).text, (gold, data.alias(gold))))


def errs(prompt: str, error: float = ERROR) -> bool:
    """Whether the judge is wrong about this prompt."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) < error * 2**64


def reply(prompt: str) -> str:
    """The judge's text: criterion 3 decides, the other two are always met."""
    verdict = int(right(prompt) != errs(prompt))
    return "\n".join(f"\\boxed{{Criterion {i}: {v}}}" for i, v in ((1, 1), (2, 1), (3, verdict)))


def counts(prompts: list[str]) -> Counter[str]:
    """Calls, and how many verdicts were false."""
    out = Counter(calls=len(prompts))
    for prompt in prompts:
        if errs(prompt):
            out["false rejects" if right(prompt) else "false accepts"] += 1
    return out


def save(path: Path, server: FakeEndpoint) -> dict[str, dict[str, int]]:
    """Add this session's calls to those of the file, by arm (the request's `user`)."""
    total = {k: Counter(v) for k, v in json.loads(path.read_text()).items()} if path.is_file() else {}
    for arm in sorted({str(body["user"]) for body in server.bodies}):
        mine = [p for p, body in zip(server.prompts, server.bodies, strict=True) if body["user"] == arm]
        total[arm] = total.get(arm, Counter()) + counts(mine)
    path.write_text(json.dumps(total, indent=1))
    return {arm: dict(found) for arm, found in total.items()}


def port() -> int:
    """Where the study's arms expect their judge."""
    arms = yaml.safe_load((spec.SHIPPED / STUDY).read_text())["arms"]
    (found,) = {urlsplit(arm["reward"]["judge"]["base_url"]).port for arm in arms.values() if "reward" in arm}
    return int(found)


def main(argv: list[str]) -> int:
    """The exit status of `icr train study`."""
    if "--check" in argv or "-h" in argv or "--help" in argv:
        return run.main([STUDY, *argv])
    given = [argv[i + 1] for i, name in enumerate(argv[:-1]) if name in ("-o", "--out")]
    out = Path(given[0] if given else f"study-{Path(STUDY).stem}")
    out.mkdir(parents=True, exist_ok=True)
    with FakeEndpoint(reply, port=port()) as server:
        try:
            code = run.main([STUDY, *argv])
        finally:
            calls = save(out / "judge_calls.json", server)
    for arm, found in calls.items():
        print(f"{arm}: " + ", ".join(f"{n:,} {what}" for what, n in found.items()))
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
