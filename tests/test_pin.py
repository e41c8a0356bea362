"""An lm-eval outside the requirement is named, by the start-up hook and by icr doctor, in a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from icr_tasks.cli import health
from icr_tasks.harness import pin


@pytest.mark.parametrize(
    ("version", "named"),
    [("0.4.12", False), ("0.4.13", False), ("0.4.14.dev0", False), ("0.4.11", True), ("0.5.0", True)],
)
def test_the_requirement_is_this_packages_own(
    version: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "lm-eval" else real(name))
    said = pin.outside()
    assert (said is not None) == named
    if said is not None:
        assert f"{version} is installed" in said and 'pip install "lm-eval' in said
    [finding] = [f for f in health.machine() if f.name == "lm-eval"]
    assert finding.usable is not named


def test_an_old_lm_eval_without_our_modules_is_named_when_it_is_imported(tmp_path: Path) -> None:
    """lm-eval 0.4.2 has no lm_eval.tasks.manager: nothing is patched, and without this nothing would be said."""
    (tmp_path / "lm_eval").mkdir()
    (tmp_path / "lm_eval" / "__init__.py").write_text("")
    folder = tmp_path / "lm_eval-0.4.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.2\n")
    code = "import icr_tasks.harness.autoload as a; a.install(); import lm_eval, lm_eval; a._quietly('pin', 'warn', None)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "ICR_LMEVAL_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("icr-tasks needs lm-eval") == 1 and "0.4.2 is installed" in done.stderr


@pytest.mark.parametrize("ask", ["import importlib.util as u; u.find_spec('lm_eval')", "import runpy"])
def test_looking_for_lm_eval_before_it_is_imported_does_not_use_the_hook_up(ask: str, tmp_path: Path) -> None:
    """Packages ask whether lm_eval is installed by find_spec, and `python -m lm_eval` looks before it imports."""
    (tmp_path / "lm_eval").mkdir()
    (tmp_path / "lm_eval" / "__init__.py").write_text("")
    (tmp_path / "lm_eval" / "__main__.py").write_text("print('ran')\n")
    folder = tmp_path / "lm_eval-0.4.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.2\n")
    start = "import runpy; runpy.run_module('lm_eval', run_name='__main__', alter_sys=True)"
    code = f"import icr_tasks.harness.autoload as a; a.install(); {ask}; {start}"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "ICR_LMEVAL_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout == "ran\n", done.stderr
    assert done.stderr.count("icr-tasks needs lm-eval") == 1


_NUMBERS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda n: ".".join(map(str, n)))
_OTHERS = st.sampled_from(["0.4.14.dev0", "1.0rc1", "1!0.4.12", "0.4.12+cpu", "0.4.12.post1"])


@given(
    _NUMBERS | _OTHERS,
    st.lists(st.tuples(st.sampled_from([">=", "<", "<=", "==", "!=", ">"]), _NUMBERS), max_size=3),
)
def test_what_fits_plainly_fits_by_the_standard(version: str, bounds: list[tuple[str, str]]) -> None:
    text = ",".join(a + b for a, b in bounds)
    says = pin.plainly_fits(version, text)
    right = SpecifierSet(text).contains(version, prereleases=True)
    plain = bool(bounds) and set(version) <= set("0123456789.") and {a for a, _ in bounds} <= {">=", "<"}
    assert says == (right and plain)


def test_the_usual_case_is_told_without_packaging() -> None:
    code = "import sys; from icr_tasks.harness import pin; pin.warn(None); print('packaging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n", done.stderr
