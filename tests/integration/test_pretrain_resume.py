"""A pretraining that was stopped or killed and started again ends bit-identical to one that was never touched."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from services.student_trainer import checkpoints
from services.student_trainer.corpus import load_documents
from services.student_trainer.pretrain_state import append_line, resume_folder
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
    seed=5,
    corpus=CorpusSettings(grammar_words=5_000),
    tokenizer=TokenizerSettings(vocab_size=400),
    student=StudentSettings(layers=1, heads=2, width=32, context=100, dropout=0.2),
    interact=InteractSettings(max_new_tokens=20),
    pretrain=PretrainSettings(
        word_budget=4_000,
        learning_rate=3e-3,
        weight_decay=0.01,
        block_tokens=32,
        batch_size=4,
        milestones=(2_000,),
        log_every=6,
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


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is tidied up."""


def go(folder: Path, stop_after: int | None = None, kill_after: int | None = None) -> tuple[Path | None, list[str]]:
    """Pretrain; stop, or die, after so many steps of this call. Returns the result and the names announced."""
    polls = 0
    announced: list[str] = []

    def stop() -> bool:
        nonlocal polls
        polls += 1
        if kill_after is not None and polls > kill_after:
            raise Killed
        return stop_after is not None and polls > stop_after

    def keep(path: Path, _: Facts) -> None:
        announced.append(path.name)

    return pretrain(folder, "r", SETTINGS, CORPUS, lambda _: None, stop, keep), announced


def weights(folder: Path, name: str) -> bytes:
    return (folder / "checkpoints" / name / "model.safetensors").read_bytes()


def metrics(folder: Path) -> list[dict[str, object]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_s")} for line in lines]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untouched")
    final, announced = go(folder)
    assert final == folder / "checkpoints" / "chck_4k"
    assert announced == ["chck_2k", "chck_4k"]
    return folder


def check_equal(folder: Path, untouched: Path) -> None:
    for name in ("chck_2k", "chck_4k"):
        checkpoints.verify(folder / "checkpoints" / name)
        assert weights(folder, name) == weights(untouched, name)
        assert checkpoints.facts(folder / "checkpoints" / name) == checkpoints.facts(untouched / "checkpoints" / name)
    assert metrics(folder) == metrics(untouched)
    assert not resume_folder(folder).exists()


@pytest.mark.parametrize("stops", [[1], [0, 9], [25, 1, 1]])
def test_stopped_and_started_again_is_bit_identical(tmp_path: Path, untouched: Path, stops: list[int]) -> None:
    announced: list[str] = []
    for steps in stops:
        final, names = go(tmp_path, stop_after=steps)
        assert final is None
        announced += names
    final, names = go(tmp_path)
    assert final == tmp_path / "checkpoints" / "chck_4k"
    assert [*announced, *names] == ["chck_2k", "chck_4k"]
    check_equal(tmp_path, untouched)


def test_killed_past_its_resume_point_takes_metrics_back_and_is_bit_identical(tmp_path: Path, untouched: Path) -> None:
    go(tmp_path, stop_after=5)
    with pytest.raises(Killed):
        go(tmp_path, kill_after=10)
    assert len(metrics(tmp_path)) == 2, "steps 6 and 12 were logged; the resume point is at step 5"
    go(tmp_path)
    check_equal(tmp_path, untouched)


def test_killed_before_its_first_resume_point_starts_over(tmp_path: Path, untouched: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, kill_after=8)
    append_line(tmp_path / "metrics.jsonl", '{"cut')
    go(tmp_path)
    check_equal(tmp_path, untouched)


def test_an_unfinished_resume_point_is_ignored(tmp_path: Path, untouched: Path) -> None:
    go(tmp_path, stop_after=4)
    for name in ("00000009", ".building-00000010"):
        (resume_folder(tmp_path) / name).mkdir()
    go(tmp_path)
    check_equal(tmp_path, untouched)


def test_a_kill_between_the_last_checkpoint_and_its_announcement_announces_again(
    tmp_path: Path, untouched: Path
) -> None:
    def die_at_the_end(path: Path, _: Facts) -> None:
        if path.name == "chck_4k":
            raise Killed

    with pytest.raises(Killed):
        pretrain(tmp_path, "r", SETTINGS, CORPUS, lambda _: None, lambda: False, die_at_the_end)
    final, announced = go(tmp_path)
    assert final == tmp_path / "checkpoints" / "chck_4k"
    assert announced == ["chck_4k"]
    check_equal(tmp_path, untouched)
