"""Pretraining's plan and schedule, and what a short one leaves behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fabula_proto import PretrainMetrics
from services.student_trainer import checkpoints
from services.student_trainer.corpus import Corpus, CorpusError, load_documents
from services.student_trainer.dataset import Blocks
from services.student_trainer.pretrain_plan import learning_rate, make_plan
from services.student_trainer.pretraining import Facts, pretrain
from services.student_trainer.settings import (
    CorpusSettings,
    InteractSettings,
    PretrainSettings,
    RunSettings,
    StudentSettings,
    TokenizerSettings,
)

SETTINGS = RunSettings(
    preset="test",
    seed=3,
    corpus=CorpusSettings(grammar_words=6_000),
    tokenizer=TokenizerSettings(vocab_size=500),
    student=StudentSettings(layers=1, heads=2, width=32, context=100, dropout=0.1),
    interact=InteractSettings(max_new_tokens=20),
    pretrain=PretrainSettings(
        word_budget=9_000,
        learning_rate=5e-3,
        warmup_ratio=0.1,
        block_tokens=32,
        batch_size=8,
        milestones=(1_000, 5_000, 1_000_000),
        log_every=7,
    ),
)
CORPUS = load_documents(SETTINGS.corpus, SETTINGS.seed)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Students this small are slower on two threads, and much slower where other processes share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def some_blocks(words: list[int]) -> Blocks:
    return Blocks(torch.zeros((len(words), 4), dtype=torch.int32), torch.tensor(words))


def test_milestones_fall_on_the_first_step_that_reaches_them() -> None:
    blocks = some_blocks([3, 4, 5, 6, 7, 2, 9])
    settings = PretrainSettings(word_budget=100, batch_size=2, milestones=(10, 11, 30, 100, 500))
    plan = make_plan(blocks, settings, seed=5)
    seen = [plan.words_seen(step) for step in range(plan.steps + 1)]
    assert seen[0] == 0
    for step in range(1, plan.steps + 1):
        assert seen[step] - seen[step - 1] == int(blocks.words_N[plan.batch(step)].sum())
    for step, milestone in plan.keep.items():
        assert seen[step - 1] < milestone <= seen[step]
    assert max(plan.keep) == plan.steps
    assert plan.keep[plan.steps] == 100
    assert {30, 100} <= set(plan.keep.values())
    assert 500 not in plan.keep.values()


def test_each_epoch_sees_every_block_once() -> None:
    blocks = some_blocks([1] * 10)
    plan = make_plan(blocks, PretrainSettings(word_budget=40, batch_size=4), seed=0)
    assert plan.steps == 10
    stream = torch.cat([plan.batch(step) for step in range(1, 11)]).tolist()
    for epoch in range(4):
        assert sorted(stream[epoch * 10 : epoch * 10 + 10]) == list(range(10))


def test_a_batch_larger_than_the_corpus_wraps_around() -> None:
    plan = make_plan(some_blocks([2, 2, 2]), PretrainSettings(word_budget=10, batch_size=7), seed=0)
    assert plan.steps == 1
    assert plan.words_seen(1) == 14
    assert sorted(plan.batch(1)[:3].tolist()) == [0, 1, 2]


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    settings = PretrainSettings(learning_rate=1.0, warmup_ratio=0.2)
    rates = [learning_rate(step, 10, settings) for step in range(1, 11)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    without = PretrainSettings(learning_rate=1.0, warmup_ratio=0.0)
    assert learning_rate(1, 4, without) == 1.0


class Run:
    """One short pretraining and everything it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[PretrainMetrics] = []
        self.kept: list[tuple[Path, Facts]] = []
        self.final = self.again(CORPUS)

    def again(self, corpus: Corpus) -> Path | None:
        return pretrain(
            self.folder, "r", SETTINGS, corpus, self.lines.append, lambda: False, lambda p, f: self.kept.append((p, f))
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def test_checkpoints_are_kept_at_milestones_and_at_the_end(run: Run) -> None:
    assert [path.name for path, _ in run.kept] == ["chck_1k", "chck_5k", "chck_9k"]
    assert run.final == run.folder / "checkpoints" / "chck_9k"
    for path, facts in run.kept:
        checkpoints.verify(path)
        assert checkpoints.facts(path) == facts
        assert facts["stage"] == "pretrain"
        per_step = SETTINGS.pretrain.batch_size * SETTINGS.pretrain.block_tokens
        assert facts["milestone"] <= facts["pretraining_words"] < facts["milestone"] + per_step
        assert facts["pretraining_tokens"] == facts["step"] * per_step


def test_loss_falls_on_training_and_validation_text(run: Run) -> None:
    assert run.lines[-1].loss < run.lines[0].loss - 0.5
    losses = [facts["validation_loss"] for _, facts in run.kept]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_metrics_lines_are_those_that_were_shown(run: Run) -> None:
    text = (run.folder / "metrics.jsonl").read_text()
    assert [PretrainMetrics.from_json(line) for line in text.splitlines()] == run.lines
    steps = [line.step for line in run.lines]
    assert steps[:-1] == list(range(7, steps[-1], 7))
    assert run.lines[-1].words_seen == run.kept[-1][1]["pretraining_words"]
    assert run.lines[-1].tokens_seen == run.lines[-1].step * 8 * 32


def test_nothing_to_resume_is_left(run: Run) -> None:
    assert not (run.folder / "resume" / "pretrain").exists()


def test_a_finished_pretraining_is_not_repeated(run: Run) -> None:
    before = (run.folder / "metrics.jsonl").read_bytes(), len(run.kept)
    assert run.again(Corpus([], [], "never read")) == run.final
    assert ((run.folder / "metrics.jsonl").read_bytes(), len(run.kept)) == before


def test_a_checkpoint_loads_equal_in_plain_transformers_and_has_its_stated_loss(run: Run) -> None:
    assert run.final is not None
    model = AutoModelForCausalLM.from_pretrained(run.final)
    tokenizer = AutoTokenizer.from_pretrained(run.final)
    ids = [i for text in CORPUS.validation for i in [*tokenizer.encode(text, split_special_tokens=True), 2]]
    blocks = torch.tensor(ids[: len(ids) // 32 * 32]).reshape(-1, 32)
    with torch.no_grad():
        loss = model(blocks, labels=blocks).loss.item()
    assert loss == pytest.approx(run.kept[-1][1]["validation_loss"], abs=1e-4)


def test_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    budget = SETTINGS.model_copy(update={"pretrain": SETTINGS.pretrain.model_copy(update={"word_budget": 400})})
    pretrain(tmp_path, "r", budget, CORPUS, lambda _: None, lambda: False, lambda *_: None)
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_learns_too(tmp_path: Path) -> None:
    update = {"word_budget": 3_000, "dtype": "bfloat16", "milestones": ()}
    settings = SETTINGS.model_copy(update={"pretrain": SETTINGS.pretrain.model_copy(update=update)})
    lines: list[PretrainMetrics] = []
    path = pretrain(tmp_path, "r", settings, CORPUS, lines.append, lambda: False, lambda *_: None)
    assert path is not None
    assert lines[-1].loss < lines[0].loss
    assert all(p.dtype == torch.float32 for p in AutoModelForCausalLM.from_pretrained(path).parameters())


def test_too_little_text_for_a_block_is_said(tmp_path: Path) -> None:
    corpus = Corpus(["a fox"], ["an owl"], "tiny")
    with pytest.raises(CorpusError, match=r"2 training words do not fill one block of 32 tokens"):
        pretrain(tmp_path, "r", SETTINGS, corpus, lambda _: None, lambda: False, lambda *_: None)


def test_validation_text_too_short_for_a_block_has_no_loss(tmp_path: Path) -> None:
    corpus = Corpus(CORPUS.train, ["an owl"], "short validation")
    update = {"word_budget": 500, "milestones": ()}
    settings = SETTINGS.model_copy(update={"pretrain": SETTINGS.pretrain.model_copy(update=update)})
    kept: list[Facts] = []
    pretrain(tmp_path, "r", settings, corpus, lambda _: None, lambda: False, lambda _, facts: kept.append(facts))
    assert kept[-1]["validation_loss"] is None
