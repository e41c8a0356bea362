"""`icr train COMMAND ...`: data, sft, grpo, eval ... Each module loads only when its command runs.

A new command is one line in COMMANDS; its target is `main(argv: list[str]) -> int | None`.
"""

from __future__ import annotations

from importlib import import_module

from icr_tasks.errors import unknown

COMMANDS: dict[str, tuple[str, str]] = {
    "data": (".data.cli:main", "raw QA data to training rows, in resumable stages"),
    "sft": (".trainers:sft_main", "supervised fine-tuning from a config"),
    "grpo": (".trainers:grpo_main", "GRPO from a config"),
    "prepare": (".prepare:main", "render, count and cut the rows before a launch, on all cores"),
    "launch": (".launch:main", "check, prepare and start the processes of a config"),
    "difficulty": (".difficulty:main", "pass@k of every row, and the rows worth training on"),
    "eval": (".evaluate:main", "evaluate checkpoints with the harness"),
    "study": (".study.run:main", "arms x seeds trained, evaluated and compared, from one file"),
    "export": (".export.cli:main", "rows and rewards for verifiers, TRL environments or verl"),
    "verl": (".export.verl:main", "rows, reward and command line for verl (sequence parallelism)"),
    "configs": (".config:main", "list the configs that ship, or print one"),
    "demo": (".demo.run:main", "a tiny model learns in-context retrieval on this machine, in minutes"),
}


def main(argv: list[str]) -> int:
    """Run one training command; IcrError for a name that does not exist."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: icr train COMMAND [options]\n")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:<10} {text}")
        print("\nicr train COMMAND --help shows each command's options")
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        raise unknown("train command", argv[0], COMMANDS)
    module, _, function = COMMANDS[argv[0]][0].partition(":")
    return getattr(import_module(module, __package__), function)(argv[1:]) or 0
