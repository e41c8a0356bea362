"""Run by test_kv_vllm.py in a process of its own: vLLM with ICR_KV set, three engines (or those of CASE_ENGINES), answers
as JSON on the last line.

python kv_vllm_case.py MODEL prompts.json N_NEW
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def checked(generate: Callable[[], Any]) -> dict[str, str]:
    """What an item's check says of the engine that is running: the errors it gives, "" where all is well."""
    from icr_tasks.kv import choose
    from icr_tasks.kv.topk import TopK
    from icr_tasks.kv.vllm import backend_cpu
    from icr_tasks.settings import Setting

    def said(setting: str) -> str:
        before = choose.counted()
        generate()
        return str(choose.verify_all(Setting.parse(setting), [{}], before)[0].get("error") or "")

    ran = choose.parse(os.environ["ICR_KV"])
    found = {"as asked": said(ran), "leftover": said("full"), "leftover beside rag": said("rag@4k")}
    own = backend_cpu.Impl.forward
    backend_cpu.Impl.forward = backend_cpu.CPUAttentionBackendImpl.forward
    found["patched away"] = said(ran)
    backend_cpu.Impl.forward = own
    share = TopK.share
    TopK.share = lambda self, n: n  # a method that keeps everything
    found["inert"] = said(ran)
    TopK.share = share
    return {**found, "again": said(ran)}


def main(model: str, prompts_file: str, n_new: int) -> None:
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from icr_tasks.kv.vllm import counters

    with open(prompts_file) as file:
        prompts = [TokensPrompt(prompt_token_ids=p) for p in json.load(file)]
    params = SamplingParams(temperature=0.0, max_tokens=n_new, ignore_eos=True, logprobs=1)
    common = dict(
        model=model,
        dtype=os.environ.get("CASE_DTYPE", "float32"),
        enforce_eager=True,
        max_model_len=512,
        distributed_executor_backend="uni",
        skip_tokenizer_init=True,
        disable_log_stats=False,
    )
    if "CASE_BACKEND" in os.environ:
        common |= {"attention_backend": os.environ["CASE_BACKEND"], "gpu_memory_utilization": 0.3}
    found, chosen = {}, os.environ.get("CASE_ENGINES", "plain,chunked,preempted").split(",")
    for name, extra in {
        "plain": {"enable_prefix_caching": False},
        "graphs": {
            "enforce_eager": False,
            "additional_config": {counters.CONFIG: {"cuda_graphs": True}},
            "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"},
            "max_num_seqs": 6,
            "enable_prefix_caching": False,
        },
        "chunked": {
            "enable_prefix_caching": os.environ.get("CASE_PREFIX") != "off",
            "max_num_batched_tokens": 64,
            "max_num_seqs": 4,
        },
        # room for about two of the sequences at once: the others are preempted and computed again
        "preempted": {
            "num_gpu_blocks_override": int(os.environ["CASE_BLOCKS"]),
            "enable_prefix_caching": False,
        },
    }.items():
        if name not in chosen:
            continue
        llm = LLM(**{**common, **extra})
        before = counters.totals()
        rounds = [llm.generate(prompts, params, use_tqdm=False) for _ in range(2 if name == "chunked" else 1)]
        after = counters.totals()
        metrics = {m.name: getattr(m, "value", None) for m in llm.get_metrics()}
        found[name] = {
            "answers": [
                [
                    [
                        list(o.outputs[0].token_ids),
                        [
                            lp[t].logprob
                            for t, lp in zip(o.outputs[0].token_ids, o.outputs[0].logprobs, strict=True)
                        ],
                    ]
                    for o in outputs
                ]
                for outputs in rounds
            ],
            "counts": {k: after[k] - before[k] for k in after},
            "preemptions": metrics.get("vllm:num_preemptions"),
            "prefix_hits": metrics.get("vllm:prefix_cache_hits"),
        }
        if name == "plain" and "CASE_BACKEND" not in os.environ:
            found["checked"] = checked(lambda llm=llm: llm.generate(prompts[:1], params, use_tqdm=False))
        del llm
        gc.collect()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
