"""xFinder adapter: with a stand-in package of the same interface everywhere, with the real package where
installed."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from fake_endpoint import FakeEndpoint
from xfinder_standin import OPTIONS, case, package, real_is_installed

from icr_tasks.errors import IcrError
from icr_tasks.harness.grading import Answer, Graders, grade
from icr_tasks.metrics import xfinder_package
from icr_tasks.metrics.judge.endpoint import Unreachable
from icr_tasks.metrics.xfinder import XFinder, XFinderConfig
from icr_tasks.metrics.xfinder_cases import NO_ANSWER, metrics

__all__ = ["package"]  # a fixture


def config(url: str | None, **more: Any) -> XFinderConfig:
    return XFinderConfig("xFinder-llama38it", url, **{"store": None, "pause": 0.01, **more})


def says(replies: list[Any]) -> Callable[[str], Any]:
    return lambda prompt: replies[int(prompt.split("Question ", 1)[1].split(":", 1)[0])]


def test_metrics_of_extractions(package: str) -> None:
    """Letter equality is the paper's count; the comparator's also takes text, and we reduce "B. Mars" to B
    for it."""
    replies = [
        "B",
        "b",
        " B\n",
        "Mars",
        "mars.",
        "(B)",
        "B. Mars",
        "A",
        "The Moon",
        NO_ANSWER,
        "B. The Moon",
        "C. Mars",
    ]
    with FakeEndpoint(says(replies)) as server:
        extractor = XFinder(config(server.url))
        cases = [case("x", n=n) for n in range(len(replies))]
        rows = [metrics(extractor, c, f) for c, f in zip(cases, extractor.extract(cases), strict=True)]
        assert {path[":path"] for path in server.headers} == {"/v1/completions"} and server.bodies[0][
            "temperature"
        ] == 0
    assert [r["acc_xfinder"] for r in rows] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [r["acc_xfinder_cmp"] for r in rows] == [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert [r["no_valid_answer_rate"] for r in rows] == [0] * 9 + [1, 0, 0] and {
        r["extract_error_rate"] for r in rows
    } == {0}


def test_both_prompt_modes_are_the_packages_own_text(package: str) -> None:
    released = xfinder_package.Prompter("xFinder-llama38it", "as_released", None, 1000)(case("It is {Mars}."))
    trained = xfinder_package.Prompter("xFinder-llama38it", "as_trained", None, 1000)(case("It is {Mars}."))
    instruction = xfinder_package.package().instruction
    assert (
        instruction.strip()
        and instruction not in released
        and trained == released.replace(_query(released), instruction + _query(released))
    )
    assert (
        "It is {Mars}." in released
        and "Answer Choices: (A) The Moon (B) Mars" in released
        and "['A', 'The Moon']" in released
    )
    other = xfinder_package.Prompter("xFinder-qwen1505", "as_released", "MY SYSTEM", 1000)(case("x"))
    assert "MY SYSTEM" in other and other != released
    long = xfinder_package.Prompter("xFinder-llama38it", "as_released", None, 100)(case("a" * 5000 + "END"))
    assert len(long) < len(released) + 200 and "END" in long
    assert xfinder_package.template_of("IAAR-Shanghai/xFinder-qwen1505", None) == "xFinder-qwen1505"
    assert xfinder_package.template_of("anything", None) == "xFinder-llama38it"


def _query(prompt: str) -> str:
    """The part of a prompt that the package's query format makes: from the word before the question on."""
    start = prompt.index("Question 0: where?")
    marks = ("Q<", 'Question: """')
    return prompt[max(prompt.rindex(m, 0, start) for m in marks if m in prompt[:start]) :]


def test_errors_are_errors_and_never_wrong_answers(package: str, tmp_path: Path) -> None:
    fault = lambda p, n: (400, '{"error":{"message":"too long"}}', {}) if "Question 1:" in p else None  # noqa: E731
    with FakeEndpoint(says(["B", "B", " ", ("B and then on", "length"), "B"]), fault=fault) as server:
        extractor = XFinder(config(server.url, store=tmp_path / "v"))
        cases = [case("x", n=n) for n in range(5)]
        found = extractor.extract(cases)
        assert [f.text for f in found] == ["B", None, None, None, "B"]
        assert (
            "too long" in str(found[1].error)
            and found[2].error == "empty extraction"
            and "cut off" in str(found[3].error)
        )
        assert metrics(extractor, cases[1], found[1]) == {"extract_error_rate": 1.0}
        before = server.calls
        XFinder(config(server.url, store=tmp_path / "v")).extract([cases[0], cases[4]])
        assert server.calls == before
        XFinder(config(server.url, store=tmp_path / "v", extra={"temperature": 0.7})).extract(cases[:1])
        assert server.calls == before + 1  # another request is another extraction
    with pytest.raises(Unreachable):
        XFinder(config(server.url, retries=0)).extract(cases)


def test_the_task_is_graded_and_an_error_makes_the_run_fail(package: str) -> None:
    doc = {"question": "Question 0: where?", "options": list(OPTIONS), "answers": ["Mars"], "keys": {}}
    answers = [
        Answer({**doc, "id": str(i), "question": f"Question {i}: where?"}, {}, "It is Mars") for i in range(3)
    ]
    with FakeEndpoint(says(["B", "A", ""])) as server:
        options = {
            "xfinder_base_url": server.url,
            "xfinder_model": "m",
            "xfinder_store": "off",
            "xfinder_prompt": "as_trained",
        }
        grades = grade("infbench_mc", Graders.parse(options), answers)
    assert [grades.metrics[i].get("acc_xfinder") for i in "012"] == [1.0, 0.0, None]
    assert (
        grades.sheet["extractor"]["prompt"] == "as_trained"
        and grades.sheet["extractor"]["template"] == "xFinder-llama38it"
    )
    assert grades.error is not None and grades.error.exit_code == 3 and "1 of 3 answers" in str(grades.error)
    gone = grade(
        "longbench",
        Graders.parse({**options, "xfinder_retries": 0}),
        [Answer({**a.doc, "answers": ["B"]}, {}, "x") for a in answers],
    )
    assert (
        gone.error is not None
        and gone.error.exit_code == 3
        and "does not answer" in gone.sheet["reasons"]["acc_xfinder"]
    )
    without = grade("infbench_mc", Graders(), answers)
    assert without.error is None and without.sheet["reasons"]["acc_xfinder"].startswith("no extractor")


def test_a_local_model_in_batches(package: str, tmp_path: Path) -> None:
    """A random-init model: batched and single extraction agree, which needs correct left padding."""
    pytest.importorskip("transformers")
    folder = str(tiny.llama(tmp_path / "m"))
    cases = [case("x" * (1 + 40 * n), n=n) for n in range(5)]
    more = {"model": folder, "store": None, "max_tokens": 12, "device": "cpu"}
    together = XFinder(XFinderConfig(**more, batch_size=5)).extract(cases)
    alone = XFinder(XFinderConfig(**more, batch_size=1)).extract(cases)
    assert together == alone and len(together) == 5
    assert all(f.text or f.error for f in together)
    with pytest.raises(IcrError, match="cannot be loaded"):
        XFinder(XFinderConfig(str(tmp_path / "none"), store=None)).extract(cases)


def test_of_the_hub_the_revision_that_is_recorded_is_loaded(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is loaded as it is; its revision is a label."""
    transformers = pytest.importorskip("transformers")
    folder, loaded = str(tiny.llama(tmp_path / "m")), []

    def load(kind: Any) -> Any:
        real = kind.from_pretrained

        def from_pretrained(name: str, *, revision: str | None = None, **more: Any) -> Any:
            loaded.append((name, revision))
            return real(folder, **more)

        return from_pretrained

    monkeypatch.setattr(xfinder_package.hub, "local", lambda *_: False)
    for kind in (transformers.AutoTokenizer, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(kind, "from_pretrained", load(kind))
    for name, asked in (("org/xFinder-llama38it", "abc"), ("org/xFinder-llama38it", None), (folder, None)):
        XFinder(
            XFinderConfig(name, revision="abc" if asked or name == folder else "", store=None, max_tokens=2)
        ).extract([case("x")])
        assert loaded[-2:] == [(name, asked)] * 2


def test_real_package_leaves_warnings_alone_and_keeps_its_rules() -> None:
    if not real_is_installed():
        pytest.skip("xfinder is not installed (pip install --no-deps xfinder)")
    xfinder_package.package.cache_clear()
    before = list(warnings.filters)
    found = xfinder_package.package()
    assert warnings.filters == before and set(found.templates) == {"xFinder-qwen1505", "xFinder-llama38it"}
    assert xfinder_package.same(case(""), "Mars.") and xfinder_package.same(case(""), "b")
    assert not xfinder_package.same(case(""), "B. Mars") and not xfinder_package.same(case(""), "(B)")


def test_missing_package_and_bad_options(monkeypatch: pytest.MonkeyPatch) -> None:
    xfinder_package.package.cache_clear()
    monkeypatch.setitem(sys.modules, "xfinder", None)
    monkeypatch.setitem(sys.modules, "xfinder.helpers", None)
    with pytest.raises(IcrError, match="pip install --no-deps xfinder"):
        XFinder(config("http://localhost:1/v1"))
    for metadata, text in (
        ({"xfinder_base_url": "http://x/v1"}, "needs xfinder_model"),
        ({"xfinder_model": "m", "xfinder_prompt": "released"}, "as_released"),
        ({"xfinder_model": "m", "xfinder_base_url": "x"}, "not http"),
        ({"xfinder_modle": "m"}, "Did you mean 'xfinder_model'"),
    ):
        with pytest.raises(IcrError, match=text):
            XFinderConfig.parse(metadata)


def test_icr_score_with_an_endpoint(
    package: str,
    replica: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Regex accuracy stays; the extractor's is added; when it is away, all else is printed and the exit code
    is 3."""
    from icr_tasks import benchmarks
    from icr_tasks.cli.score import main

    if package == "real":
        pytest.skip("once is enough")
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    items = list(benchmarks.load("infbench", "mc", allow_partial=True).items)
    path = tmp_path / "preds.jsonl"
    gold = ["ABCD"[i.options.index(i.answers[0])] for i in items]
    rows = [
        {"id": i.id.removeprefix("mc-"), "prediction": f"The answer is {g}"}
        for i, g in zip(items, gold, strict=True)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = [
        "--task",
        "icr_infbench_mc",
        "--predictions",
        str(path),
        "--allow-partial-data",
        "--json",
        "--xfinder-model",
        "m",
    ]
    with FakeEndpoint(lambda p: p.split("The answer is ")[1][0]) as server:
        code = main([*command, "--xfinder-base-url", server.url, "--option", "xfinder_store=off"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["n"] == len(items) and found["metrics"]["acc"] == 1.0
    assert (
        found["metrics"]["acc_xfinder"] == found["metrics"]["acc_xfinder_cmp"] == 1.0
        and found["metrics"]["extract_error_rate"] == 0
    )
    code = main(
        [
            *command,
            "--xfinder-base-url",
            server.url,
            "--option",
            "xfinder_retries=0",
            "--option",
            "xfinder_store=off",
        ]
    )
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert (
        code == 3
        and found["metrics"]
        == {"acc_choice": 1.0, "parsed": 1.0, "acc": 1.0, "acc_v1": 1.0, "unfinished": 0.0}
        and "does not answer" in found["reasons"]["acc_xfinder"]
        and "icr: error" in out.err
    )
