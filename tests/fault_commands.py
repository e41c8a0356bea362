"""lm_eval's command in a process of its own, and what it said: started anew, or forked from this one."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any


def anew(line: list[str]) -> tuple[int, str]:
    """(exit code, stderr) of `lm_eval LINE`."""
    run = subprocess.run(
        [sys.executable, "-P", "-m", "lm_eval", *line], capture_output=True, text=True, timeout=600
    )
    return run.returncode, run.stderr


def forked(line: list[str]) -> tuple[int, str]:
    """The same in a fork of this process, which has imported everything and read lm_eval's index of tasks: seconds less."""
    imported()
    with tempfile.TemporaryFile() as err, open(os.devnull, "wb") as null:
        pid = os.fork()
        if not pid:
            signal.alarm(600)  # a hanging child must not outlive the campaign
            os.dup2(null.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            sys.argv, code = ["lm_eval", *line], 1
            try:
                sys.modules["lm_eval.__main__"].cli_evaluate()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        err.seek(0)
        return code, err.read().decode(errors="replace")


@cache
def imported() -> None:
    """What a command imports and indexes, once."""
    import lm_eval.__main__  # noqa: F401
    import torch  # noqa: F401
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import TaskIndex
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    build, kept = TaskIndex.build, {}

    def once(paths: Any, **options: Any) -> Any:
        key = (*map(str, paths), *options.items())
        if key not in kept:
            kept[key] = build(map(Path, key[: len(key) - len(options)]), **options)
        return copy.copy(kept[key])

    TaskIndex.build = staticmethod(once)  # type: ignore[method-assign]
    TaskManager()
