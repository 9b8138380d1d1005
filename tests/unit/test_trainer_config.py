"""Settings: presets hold the paper's numbers, and each mistake is named with its cure."""

from pathlib import Path

import pytest

from services.student_trainer import config
from services.student_trainer.algorithms import make_algorithm
from services.student_trainer.config import ConfigError


def test_paper_preset_is_the_papers() -> None:
    paper = config.resolve("paper")
    interact, ppo, kl = paper.interact, paper.interact.ppo, paper.interact.kl
    assert (paper.student.layers, paper.student.heads, paper.student.width, paper.student.context) == (12, 12, 768, 512)
    assert (paper.tokenizer.vocab_size, paper.tokenizer.min_frequency) == (16_000, 2)
    assert (paper.pretrain.word_budget, paper.pretrain.learning_rate) == (900_000_000, 5e-5)
    assert (paper.pretrain.warmup_ratio, paper.pretrain.dtype, paper.seed) == (0.01, "bfloat16", 42)
    assert paper.pretrain.milestones == tuple(
        n * 1_000_000 for n in (*range(1, 11), *range(20, 101, 10), *range(200, 901, 100))
    )
    assert interact.prompt == "Let me tell you a long, magical tale. Once upon a time, in a faraway land,"
    assert (interact.word_budget, interact.batch_size, interact.max_new_tokens) == (1_000_000, 360, 90)
    assert (interact.temperature, interact.teacher_words_per_story) == (1.0, 3)
    assert (interact.checkpoint_every_words, interact.reward.length_weight) == (100_000, 0.4)
    assert (ppo.learning_rate, ppo.epochs, ppo.minibatch_size, ppo.max_grad_norm) == (1e-6, 4, None, None)
    assert (ppo.gamma, ppo.gae_lambda, ppo.ratio_clip, ppo.value_clip, ppo.value_weight) == (1.0, 0.95, 0.2, 0.2, 0.1)
    assert ppo.ratio_threshold == 10.0
    assert (kl.coefficient, kl.adaptive, kl.target, kl.horizon, kl.floor) == (0.2, True, 6.0, 10_000, 0.0)


@pytest.mark.parametrize("name", config.preset_names())
def test_presets_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    settings = config.resolve(name)
    path = tmp_path / "run.yaml"
    path.write_text(config.dump(settings, "a-run"), encoding="utf-8")
    assert config.load(path) == settings
    assert config.load(path).hash == settings.hash


def test_overrides_reach_every_depth() -> None:
    settings = config.resolve("smoke", ["seed=7", "interact.ppo.learning_rate=1e-4", "corpus.source=stories.txt"])
    assert (settings.seed, settings.interact.ppo.learning_rate, settings.corpus.source) == (7, 1e-4, "stories.txt")
    assert settings.hash != config.resolve("smoke").hash


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["interact.ppo.minibatch_size=7", "interact.batch_size=360"], r"360 must be divisible by .* 7; try 6 or 8"),
        (
            ["interact.algorithm=grpo", "interact.grpo.group_size=7"],
            r"24 must be divisible by group_size 7; try 6 or 8",
        ),
        (["interact.algorithm=rloo", "interact.rloo.group_size=1"], r"rloo\.group_size"),
        (["interact.algorithm=grpo", "interact.kl.estimator=k1"], r"expected gradient is 0; take k2 or k3"),
        (["interact.algorithm=dpo"], r"interact\.algorithm.*'ppo', 'rloo', 'grpo', 'reinforce\+\+' or 'bon'"),
        (["interact.reward.weights.creativity=-1"], r"weights must be 0 or more, not \{'creativity': -1\.0\}"),
        (["interact.batch=9"], r"interact\.batch is no setting; did you mean batch_size\?"),
        (["zzz=9"], r"zzz is no setting; known here: corpus, evaluation, interact"),
        (["student.width=65"], r"width 65 must be divisible by heads 2"),
        (["pretrain.block_tokens=4096"], r"block_tokens 4096 exceeds student\.context"),
        (["interact.max_new_tokens=160"], r"max_new_tokens 160 leaves no room"),
        (["seed=abc"], r"seed: .*integer"),
        (["seed"], r"'seed' is not of the form section\.key=value"),
        (["seed.x=1"], r"seed is a value, not a section"),
        (["interact.ppo.learning_rate=.nan"], r"learning_rate"),
        (["seed=[1"], r"'seed=\[1'.*YAML"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.resolve("smoke", overrides)


@pytest.mark.parametrize("name", ["ppo", "rloo", "grpo", "reinforce++", "bon"])
def test_each_algorithm_learns_with_its_own_block(name: str) -> None:
    section = {"reinforce++": "reinforce_plus_plus"}.get(name, name)
    settings = config.resolve("smoke", [f"interact.algorithm={name}", f"interact.{section}.learning_rate=0.125"])
    algorithm = make_algorithm(settings.interact)
    assert algorithm.section == section
    assert algorithm.settings.learning_rate == 0.125
    assert algorithm.needs_value_head == (name == "ppo")


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'big' is unknown; choose one of laptop, paper, smoke"):
        config.resolve("big")


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        config.load(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read"):
        config.load(tmp_path / "run.yaml")
