"""Training configs, order of the data and truncation: everything that is decided before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.errors import IcrError
from icr_tasks.training import config as configs
from icr_tasks.training import rows
from icr_tasks.training.rows import Order
from icr_tasks.training.study import spec

pytest.importorskip("trl", reason="training needs icr-tasks[train]")
SHIPPED = sorted(p.name for p in configs.SHIPPED.glob("[!_]*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_load_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    config = configs.load(name)
    (tmp_path / "again.yaml").write_text(config.dump())
    assert configs.load(tmp_path / "again.yaml") == config


def test_appendix_c_in_trls_terms() -> None:
    for name in ("ao", "id", "idc", "idq", "judge"):
        c = configs.load(f"grpo_{name}.yaml")
        t = c.trl
        assert (c.max_prompt_length, c.max_response_length, c.epochs, c.truncation) == (
            32768,
            2048,
            2,
            "middle",
        )
        assert c.prompts_per_rollout == 256 and t["num_generations"] == 5
        update = t["per_device_train_batch_size"] * c.devices * t["gradient_accumulation_steps"]
        assert update == 64 * 5 and t["per_device_train_batch_size"] == 2
        assert c.updates_per_rollout == 4 and t["save_steps"] == 10 * 4  # a verl step is four updates
        assert (t["learning_rate"], t["beta"], t["lr_scheduler_type"]) == (1e-6, 0.001, "constant")
        assert t["vllm_gpu_memory_utilization"] == 0.6 and t["vllm_tensor_parallel_size"] == 2
        assert t["vllm_max_model_length"] == 34816 and t["use_bias_correction_kl"] is False
        assert 28_500 // 256 * 4 * c.epochs == 888


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trl.learnin_rate=1", "learning_rate"),
        ("trl.max_prompt_length=3", "max_prompt_length at the top level"),
        ("trl.kl_loss_coef=3", "trl.beta"),
        ("trl.shuffle_dataset=true", "order.json"),
        ("trl.beta=yes", "float"),
        ("trl.save_steps=10", "multiple of 4"),
        ("trl.num_generations=7", "num_generations 7"),
        ("trl.num_generations=1", "at least 2"),
        ("trl.generation_batch_size=100", "not both"),
        ("trl.vllm_max_model_length=100", "shorter than prompt"),
        ("trl.hub_token=abc", "HF_TOKEN"),
        ("promt=ao", "prompt"),
        ("prompt=aoo", "ao"),
        ("epochs=0", "epochs"),
        ("epochs=true", "epochs is True"),
        ("limit=0", "limit is 0"),
        ("limit=-5", "limit is -5"),
        ("keep_states=-1", "keep_states is -1"),
        ("log_completions=-1", "log_completions is -1"),
        ("seed=one", "seed is 'one'"),
        ("lora.r=big", "lora.r is 'big'"),
        ("lora.alpha=big", "lora.alpha is 'big'"),
        ("reward.options.weights={ids: 2}", "'ao' has no term 'ids'"),
        ("reward.options.rule=false", "belongs to reward 'hybrid'"),
        ("truncation=midle", "middle"),
        ("lora.rank=8", "lora option"),
        ("lora.save=merge", "merged"),
        ("reward.nam=ao", "name"),
        ("reward.name=aoo", "ao"),
        ("reward.name=id", "prompt 'id'"),
        ("reward.options.gard=true", "guard"),
        ("reward.judge.api_key=x", "asks no judge"),
        ("kind=rl", "grpo"),
        ("model=", "no model"),
        ("nonsense", "key=value"),
    ],
)
def test_mistakes_are_named(override: str, says: str) -> None:
    with pytest.raises(IcrError, match=says):
        configs.load("grpo_ao.yaml", [override])


def test_the_defaults_of_batch_arithmetic_are_trl_s() -> None:
    trl = pytest.importorskip("trl", reason="training needs trl (extra [train])")
    given = {f.name: f.default for f in fields(trl.GRPOConfig)}
    assert {name: given[name] for name in configs.DEFAULTS} == configs.DEFAULTS
    other = {f.name: f.default for f in fields(trl.SFTConfig)}
    assert all(other[name] == value for name, value in configs.DEFAULTS.items() if name in other)


def test_what_sft_decides_itself_is_refused_in_the_config() -> None:
    with pytest.raises(IcrError, match="the loss is on the completion alone"):
        configs.load("sft_ao.yaml", ["trl.completion_only_loss=false"])


def test_a_key_in_the_config_is_refused_because_checkpoints_would_carry_it() -> None:
    with pytest.raises(IcrError, match="api_key_env"):
        configs.load("grpo_judge.yaml", ["reward.judge.api_key=abc"])


def test_text_that_is_a_number_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "extends: grpo_ao.yaml\ntrl: {learning_rate: 1e-6}\n"
    )  # text in YAML 1.1
    assert configs.load(tmp_path / "c.yaml").trl["learning_rate"] == 1e-6


def test_files_that_are_missing_broken_or_extend_themselves(tmp_path: Path) -> None:
    with pytest.raises(IcrError, match="grpo_ao.yaml"):
        configs.load("grpo_oa.yaml")
    (tmp_path / "loop.yaml").write_text("extends: loop.yaml\n")
    with pytest.raises(IcrError, match="extends itself"):
        configs.load(tmp_path / "loop.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(IcrError, match="not valid YAML"):
        configs.load(tmp_path / "bad.yaml")
    with pytest.raises(IcrError, match="trl.x={' is not valid YAML"):
        configs.load("grpo_ao.yaml", ["trl.x={"])


def test_validation_imports_neither_torch_nor_trl() -> None:
    code = (
        "import sys; from icr_tasks.training import config; config.load('grpo_judge.yaml'); "
        "config.load('sft_ao.yaml');"
        "print([m for m in ('torch', 'trl', 'transformers', 'datasets') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_only_harmless_differences_may_continue_a_run() -> None:
    one = configs.load("grpo_ao.yaml")
    assert (
        configs.difference(one, configs.load("grpo_ao.yaml", ["trl.logging_steps=1", "output=elsewhere"]))
        == []
    )
    assert configs.difference(one, configs.load("grpo_ao.yaml", ["trl.beta=0.1", "epochs=1"])) == [
        "epochs",
        "trl.beta",
    ]


def test_no_shipped_config_fills_the_disk_with_optimizer_states() -> None:
    """A config keeps every model for its curve and one optimizer; a study, which looks at the last one, one of each."""
    for path in configs.SHIPPED.glob("[!_]*.yaml"):
        tree = configs.read(path)
        judge = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
        found = configs.load(
            path.name, [f"reward.judge={judge}"] if "judge" in tree.get("reward", {}) else []
        )
        assert found.keep_states == 1 or found.trl.get("save_total_limit"), path.name
    for path in spec.SHIPPED.glob("[!_]*.yaml"):
        study = spec.load(path, Path("out"))
        for arm in (*([spec.START] if study.start else []), *study.arms):
            assert study.config(arm, study.seeds[0], "m").trl.get("save_total_limit") == 1, (path.name, arm)


def test_shipped_configs_are_made_for_long_prompts_and_only_reproductions_go_uncorrected() -> None:
    for path in configs.SHIPPED.glob("*.yaml"):
        tree = configs.read(path)
        given = tree["trl"]
        attention = given["model_init_kwargs"]["attn_implementation"]
        # context parallelism is SDPA's (accelerate's rule for FSDP2) and splits the activations over its cards;
        # all others take flash attention where it is, and offload
        split = path.name == "sft_cp4.yaml"
        assert attention == ("sdpa" if split else "auto"), path.name
        if tree["kind"] == "sft":
            assert given["activation_offloading"] is not split, path.name
            continue
        assert given["gradient_checkpointing_kwargs"] == {"offload": True}, path.name
        copies = {f"grpo_{r}.yaml" for r in ("ao", "id", "idc", "idq", "judge")} | {"_grpo_paper.yaml"}
        paper = path.name in copies or path.name.endswith("_code.yaml")
        assert given["vllm_importance_sampling_correction"] is not paper, path.name


def test_parallel_configs_are_valid_and_keep_checkpoints_loadable() -> None:
    accelerate = pytest.importorskip("accelerate.commands.config.config_args", reason="needs accelerate")
    for path in sorted((configs.SHIPPED / "accelerate").glob("*.yaml")):
        tree = yaml.safe_load(path.read_text())
        accelerate.ClusterConfig.from_yaml_file(str(path))
        fsdp, deepspeed = tree.get("fsdp_config", {}), tree.get("deepspeed_config", {})
        assert fsdp.get("fsdp_state_dict_type") == "FULL_STATE_DICT" or deepspeed.get(
            "zero3_save_16bit_model"
        )


def test_verl_recipe_states_appendix_c() -> None:
    tree = yaml.safe_load((configs.SHIPPED / "verl" / "ulysses4.yaml").read_text())
    actor, rollout = tree["actor_rollout_ref"]["actor"], tree["actor_rollout_ref"]["rollout"]
    assert (
        actor["fsdp_config"]["ulysses_sequence_parallel_size"] == 4
        and rollout["tensor_model_parallel_size"] == 2
    )
    assert (tree["data"]["train_batch_size"], actor["ppo_mini_batch_size"], rollout["n"]) == (256, 64, 5)
    assert tree["trainer"]["save_freq"] == 10 and rollout["max_num_batched_tokens"] == 34816


# -- order -------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 60), epochs=st.integers(1, 3), block=st.integers(1, 7), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_epoch_shows_each_row_at_most_once_in_a_new_order(
    n: int, epochs: int, block: int, seed: int
) -> None:
    ids = [f"r{i}" for i in range(n)]
    if n < block:
        with pytest.raises(IcrError, match="do not fill"):
            Order.make(ids, epochs, seed, block)
        return
    order = Order.make(ids, epochs, seed, block)
    size = n // block * block
    parts = [order.indices[e * size : (e + 1) * size] for e in range(epochs)]
    assert len(order.indices) == size * epochs
    assert all(len(set(part)) == size for part in parts)
    assert order == Order.make(ids, epochs, seed, block)
    if n > 20 and epochs > 1:
        assert parts[0] != parts[1]


def test_a_changed_order_is_refused(tmp_path: Path) -> None:
    ids = [f"r{i}" for i in range(10)]
    Order.make(ids, 1, 0).settle(tmp_path)
    Order.make(ids, 1, 0).settle(tmp_path)
    with pytest.raises(IcrError, match="changed since"):
        Order.make([*ids[:9], "other"], 1, 0).settle(tmp_path)
    with pytest.raises(IcrError, match="'r3' occurs twice"):
        Order.make([*ids, "r3"], 1, 0)


# -- truncation --------------------------------------------------------------------------------------------


def _row(sizes: list[int], gold: list[int]) -> dict:
    texts = [f"p{i} " + "x" * size for i, size in enumerate(sizes)]
    return {
        "id": "a",
        "question": "who?",
        "passages": texts,
        "gold_ids": gold,
        "gold_docs": [texts[i] for i in gold],
    }


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12), data=st.data(), limit=st.integers(20, 200)
)
@settings(max_examples=200, deadline=None)
def test_whole_passages_go_from_the_middle_and_labels_follow(
    sizes: list[int], data: st.DataObject, limit: int
) -> None:
    gold = sorted(data.draw(st.sets(st.integers(0, len(sizes) - 1), min_size=1, max_size=2)))
    row, rule = _row(sizes, gold), data.draw(st.sampled_from(["keep_gold", "middle"]))
    report = rows.Report()

    def count(r: dict) -> int:
        return sum(len(p) + 2 for p in r["passages"]) + 20

    out = rows.fit(row, limit, count, lambda ps: [len(p) for p in ps], rule, report)
    if out is None:
        assert report.left_out == ["a"]
        return
    assert count(out) <= limit and out["question"] == "who?"
    assert [p for p in row["passages"] if p in out["passages"]] == out["passages"]  # whole, in order
    assert [out["passages"][i] for i in out["gold_ids"]] == out["gold_docs"] and out["gold_ids"]
    assert len(row["passages"]) - len(out["passages"]) == out.get("n_dropped", 0)
    if rule == "keep_gold":
        assert len(out["gold_ids"]) == len(gold)


def test_what_is_dropped_first() -> None:
    assert rows.middle_out(5) == [2, 1, 3, 0, 4] and rows.middle_out(4) == [1, 2, 0, 3]


def test_rules_skip_and_error() -> None:
    row, report = _row([50, 50], [0]), rows.Report()

    def count(r: dict) -> int:
        return sum(map(len, r["passages"]))

    assert rows.fit(row, 60, count, lambda ps: [len(p) for p in ps], "skip", report) is None
    with pytest.raises(IcrError, match="row a: the prompt has 106 tokens, the limit is 60"):
        rows.fit(row, 60, count, lambda ps: [len(p) for p in ps], "error", report)


def test_a_growing_order_starts_short_and_drops_no_long_rows() -> None:
    sizes = [30, 10, 20, 10, 30, 20, 10, 20, 30]
    order = Order.make([str(i) for i in range(9)], 2, 0, 4, "growing", sizes)
    epochs = order.indices[:8], order.indices[8:]
    assert all([sizes[i] for i in e] == sorted(sizes[i] for i in e) and len(set(e)) == 8 for e in epochs)
    assert epochs[0] != epochs[1] and order.digest != Order.make([str(i) for i in range(9)], 2, 0, 4).digest


def test_a_bucketed_order_shares_steps_by_length_in_random_order() -> None:
    sizes = [length for length in (30, 10, 20, 40) for _ in range(6)]
    order = Order.make([str(i) for i in range(24)], 2, 0, 3, "bucketed", sizes)
    for epoch in (order.indices[:24], order.indices[24:]):
        steps = [[sizes[i] for i in epoch[at : at + 3]] for at in range(0, 24, 3)]
        assert sorted(epoch) == list(range(24)) and all(len(set(step)) == 1 for step in steps)
        lengths = [step[0] for step in steps]
        assert lengths != sorted(lengths) and lengths != sorted(lengths, reverse=True)
    assert order.indices[:24] != order.indices[24:]
