"""What is changed in other people's code, and only where it lacks what we need: each change once, with its
reason.

lm-eval 0.4.13 has no entry points for tasks or models; a model registered before `lm_eval.models` is imported
hides the built-in ones, so registration waits for that module. `PATCHES` lists every place with the upstream
thread that would make it unnecessary, and what must still be there for the change to work; `changed()` tells
in a sentence what is not.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ..credentials import redact_text
from .command import patch_run as patch_run  # a start-up hook of an older install asks for it here

_TALKATIVE = ("lm_eval.evaluator", "lm_eval.models.api_models", "lm_eval._cli.run")


@dataclass(frozen=True)
class Patch:
    """One place in somebody else's code: `target` as module:object, the arguments or names it must still
    take."""

    target: str
    why: str
    upstream: str
    needs: tuple[str, ...] = ()


_TRANSFORMERS = "https://github.com/huggingface/transformers"
_LM_EVAL = "https://github.com/EleutherAI/lm-evaluation-harness/pull"
PATCHES = (
    Patch(
        "lm_eval.tasks.manager:TaskManager.__init__",
        "our task folders are found without --include_path",
        f"{_LM_EVAL}/4015 (open: entry points for tasks; the patch steps aside for it)",
        ("include_path", "include_defaults"),
    ),
    Patch(
        "lm_eval.tasks.manager:TaskManager._load_spec",
        "a setting may stand after a task's name, for hosts that pass no options",
        f"{_LM_EVAL}/4015 (as above; no thread about options in a task's name)",
        ("spec",),
    ),
    Patch(
        "lm_eval.tasks.manager:TaskManager.match_tasks",
        "names with a setting are found by --tasks",
        f"{_LM_EVAL}/4015 (as above)",
        ("task_list",),
    ),
    Patch(
        "lm_eval.api.registry:model_registry",
        "icr-vllm, icr-hf, icr-api and icr-replay are found by --model",
        f"{_LM_EVAL}/4013 (merged, not released: entry points for models; the patch steps aside for it)",
    ),
    Patch(
        "lm_eval._cli.run:Run._execute",
        "an error of ours ends the command with one line, and what cannot work is refused before a model loads",
        "https://github.com/EleutherAI/lm-evaluation-harness (no thread; a task is asked after the model)",
        ("args",),
    ),
    Patch(
        "lm_eval.config.evaluate_config:EvaluatorConfig.process_tasks",
        "what the command line shows to be impossible is refused before a model loads",
        "https://github.com/EleutherAI/lm-evaluation-harness (as above)",
        ("metadata",),
    ),
    Patch(
        "lm_eval.api.model:hash_args",
        "--use_cache tells models and settings apart",
        f"{_LM_EVAL}/3715 (open: about repeats; no thread about models)",
        ("attr", "args"),
    ),
    Patch(
        "transformers.utils.chat_template_utils:datetime",
        "a chat template that prints the date prints a fixed one (context/chat.py)",
        f"{_TRANSFORMERS}/blob/main/src/transformers/utils/chat_template_utils.py (its clock takes no argument)",
    ),
    Patch(
        "lm_eval.loggers.evaluation_tracker:EvaluationTracker.save_results_aggregated",
        "a results file that cannot be written ends the run, and holds no credential",
        f"{_LM_EVAL}/1766 (made the tracker, which logs a failure and goes on; no thread about that)",
        ("results", "samples"),
    ),
    Patch(
        "lm_eval.loggers.evaluation_tracker:EvaluationTracker.save_results_samples",
        "a samples file that cannot be written ends the run",
        f"{_LM_EVAL}/1766 (as above)",
        ("task_name", "samples"),
    ),
    Patch(
        "lm_eval.evaluator:evaluate",
        "a route's second prompt, which depends on the first answer, reaches the model",
        f"{_LM_EVAL}/1571 (requests of one round; no thread about a second one)",
        ("lm", "task_dict"),
    ),
    Patch(
        "lm_eval.evaluator:add_env_info",
        "a sweep describes the machine once, not after every cell",
        f"{_LM_EVAL}/1766 (made it part of every evaluation; no option to leave it out)",
    ),
    Patch(
        "lm_eval.evaluator:get_git_commit_hash",
        "a sweep asks git once, not after every cell",
        f"{_LM_EVAL}/1766 (as above)",
    ),
    Patch(
        "lm_eval.models.vllm_causallms:VLLM.generate_until",
        "the memory of --model vllm does not grow with the data (pieces.py)",
        "https://github.com/EleutherAI/lm-evaluation-harness (no thread; all prompts are tokenized before the first is answered)",
        ("requests",),
    ),
    Patch(
        "lm_eval.models.vllm_causallms:VLLM.tok_encode",
        "long prompts of --model vllm are tokenized piece by piece (pieces.py)",
        "https://github.com/EleutherAI/lm-evaluation-harness (as above)",
        ("string", "add_special_tokens"),
    ),
    # Beside the engine they touch:
    Patch(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner._build_attention_metadata",
        "our attention backends know each prompt's length (kv/vllm/seam.py)",
        "https://github.com/vllm-project/vllm/pull/24794 (made backends registrable; their metadata has no "
        "prompt lengths)",
    ),
    Patch(
        "transformers.trainer:Trainer._save_checkpoint",
        "a checkpoint appears only when it is whole (training/checkpoint.py)",
        f"{_TRANSFORMERS}/issues/35782 (a half-written folder is taken for a checkpoint)",
        ("model", "trial"),
    ),
    Patch(
        "transformers.trainer:Trainer._get_output_dir",
        "a checkpoint is written beside its place first (training/checkpoint.py)",
        f"{_TRANSFORMERS}/pull/27820 (wrote to a folder of its own first, for a while)",
        ("trial",),
    ),
    Patch(
        "transformers.trainer:Trainer._load_from_checkpoint",
        "an adapter beside merged weights is what training resumes from (training/checkpoint.py)",
        f"{_TRANSFORMERS}/issues/35782 (as above)",
        ("resume_from_checkpoint",),
    ),
    Patch(
        "xfinder.modules.answer_extractor:Extractor._execute_api_inference",
        "xFinder's own prompts are used with our client (metrics/xfinder_package.py)",
        "https://github.com/IAAR-Shanghai/xFinder (no thread; its client has neither time-outs nor retries)",
        ("query",),
    ),
)


def changed(patches: Iterable[Patch] = PATCHES) -> list[str]:
    """What upstream moved or renamed under our changes, a sentence each; empty where all still fit."""
    found = []
    for patch in patches:
        module, _, path = patch.target.partition(":")
        if find_spec(module.partition(".")[0]) is None:
            continue  # not installed: nothing of it is changed
        try:
            place: Any = import_module(module)
            for name in path.split("."):
                place = getattr(place, name)
            known = inspect.signature(place).parameters if patch.needs else {}
        except (ImportError, AttributeError, TypeError, ValueError):
            found.append(
                f"{patch.target} is gone, but it is changed here so that {patch.why}; see {patch.upstream}"
            )
            continue
        if gone := [name for name in patch.needs if name not in known]:
            found.append(
                f"{patch.target} no longer takes {', '.join(gone)}, which is needed so that {patch.why}; "
                f"see {patch.upstream}"
            )
    return found


MODELS = {
    "icr-replay": "icr_tasks.engines.replay:ReplayLM",
    "icr-vllm": "icr_tasks.engines.vllm:IcrVLLM",
    "icr-hf": "icr_tasks.engines.hf:IcrHF",
    "icr-api": "icr_tasks.engines.served.model:IcrAPI",
}


def _task_dirs() -> list[Any]:
    from ..benchmarks.sheets import task_dirs

    return task_dirs()


def patch_manager(module: ModuleType) -> None:
    """Names with a setting; and our task folder for every TaskManager, where lm_eval does not find it itself."""
    from .named import patch

    patch(module.TaskManager)
    if hasattr(module, "discover_plugin_task_paths") or getattr(module.TaskManager, "_icr_patched", False):
        return
    original = module.TaskManager.__init__
    known = inspect.signature(original)

    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        call = known.bind(self, *args, **kwargs)
        asked = call.arguments.get("include_path")
        given = [] if asked is None else list(asked) if isinstance(asked, (list, tuple)) else [asked]
        if call.arguments.get("include_defaults", True):
            ours = [str(f) for f in _task_dirs() if str(f) not in map(str, given)]
            call.arguments["include_path"] = [*ours, *given] or None
        original(*call.args, **call.kwargs)
        self.include_path = asked

    module.TaskManager.__init__ = __init__
    module.TaskManager._icr_patched = True


def patch_models(module: ModuleType) -> None:
    """Register our models by name; each loads only when it is asked for. Nothing where lm_eval scans entry
    points."""
    from lm_eval.api import registry

    if hasattr(registry, "load_plugins"):
        return
    known = getattr(module, "MODEL_MAPPING", {})
    for name, target in MODELS.items():
        if name not in registry.model_registry and find_spec(target.split(":")[0]):
            known[name] = target
            registry.model_registry.register(name, target=target)


def patch_evaluator(module: ModuleType) -> None:
    """Tasks know the model of the evaluation under way (`engines.session.engine`); once."""
    from ..engines import identity, session

    original = module.evaluate
    if getattr(original, "_icr_patched", False):
        return
    known = inspect.signature(original)

    @wraps(original)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        lm = known.bind(*args, **kwargs).arguments["lm"]
        if not hasattr(lm, "get_model_info") and (found := identity.loaded(lm)):
            lm.get_model_info = lambda: found  # for the results file; lm_eval's vllm says nothing
        with session.evaluating(lm):
            return original(*args, **kwargs)

    evaluate._icr_patched = True  # type: ignore[attr-defined]
    vars(module)["evaluate"] = evaluate


def patch_tracker(module: ModuleType) -> None:
    """Make failed saves of icr_ results raise, and keep credentials out of results and log lines."""
    from .saving import install

    install(module)
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        if not any(isinstance(found, _Discreet) for found in logger.filters):
            logger.addFilter(_Discreet())


def patch_config() -> None:
    """Refusals before a model is loaded, for `lm_eval run` (command.py)."""
    from lm_eval.config.evaluate_config import EvaluatorConfig

    from . import flags
    from .asked import Asked

    original = EvaluatorConfig.process_tasks
    if getattr(original, "icr", False):
        return

    @wraps(original)
    def process_tasks(self: Any, metadata: Any = None) -> Any:
        if self.trust_remote_code and metadata is not None:  # lm_eval gives it to the model alone
            metadata.setdefault("trust_remote_code", True)
        manager = original(self, metadata)
        asked = Asked(
            engine=str(self.model),
            template=self.apply_chat_template,
            use_cache=self.use_cache,
            num_fewshot=self.num_fewshot,
            model_args=self.model_args,
            gen_kwargs=self.gen_kwargs or {},
        )
        others = {name: getattr(self, name, None) for name in flags.CHECKED}
        flags.before_loading(self.tasks, self.metadata, asked, others)
        return manager

    process_tasks.icr = True  # type: ignore[attr-defined]
    EvaluatorConfig.process_tasks = process_tasks


def patch_cache(module: Any) -> None:
    """The key of lm_eval's response cache counts what our requests carry beside prompt and arguments."""
    original = module.hash_args
    if getattr(original, "icr", False):
        return

    @wraps(original)
    def hash_args(attr: str, args: Any) -> str:
        salt = getattr(args, "salt", "")
        return original(attr, [*args, salt] if salt else args)

    hash_args.icr = True  # type: ignore[attr-defined]
    module.hash_args = hash_args


class _Discreet(logging.Filter):
    """lm_eval logs a model's arguments as they were given, and what a server said about them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """The record, its message without credentials."""
        message = record.getMessage()
        if message.startswith("API request failed"):
            from .ending import heard

            heard(message)
        if (shown := redact_text(message)) != message:
            record.msg, record.args = shown, None
        return True


@contextmanager
def environment_once() -> Iterator[None]:
    """lm_eval describes the machine after each evaluation, which takes seconds: once a process is enough."""
    import lm_eval.evaluator as module

    original = module.add_env_info, module.get_git_commit_hash
    module.add_env_info = lambda results, *args, **kwargs: results.update(environment()[0])
    module.get_git_commit_hash = lambda *args, **kwargs: environment()[1]
    try:
        yield
    finally:
        module.add_env_info, module.get_git_commit_hash = original


@lru_cache(maxsize=1)
def environment() -> tuple[dict[str, Any], str | None]:
    """What lm_eval writes about the machine, and the git commit of the working folder."""
    from lm_eval.loggers.utils import add_env_info

    from ..engines.identity import described

    found: dict[str, Any] = {}
    add_env_info(found)
    return found, described()
