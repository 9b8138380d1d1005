"""The interaction loop with corpus batches in between: learning, paying, resuming."""

from pathlib import Path

import pytest
import torch

from services.student_trainer.interaction import StopRequestedError
from tests.interaction_helpers import Following, go
from tests.trainer_helpers import make_run, mixed_settings, teacher_thread


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("lag", [0, 1])
def test_corpus_batches_are_read_paid_for_and_resumed_exactly(redis_url: str, tmp_path: Path, lag: int) -> None:
    settings = mixed_settings(lag=lag)
    folder, start = make_run(tmp_path / "runs" / "whole", settings)
    stopped, stopped_start = make_run(tmp_path / "runs" / "stopped", settings)
    following = Following()
    with teacher_thread(redis_url):
        whole = go(redis_url, folder, start, settings, following)
        with pytest.raises(StopRequestedError):
            go(redis_url, stopped, stopped_start, settings, Following(stop_after_updates=1))
        final = go(redis_url, stopped, stopped_start, settings, Following())
    assert (whole / "model.safetensors").read_bytes() == (final / "model.safetensors").read_bytes()
    assert stopped.ledger.read_bytes() == folder.ledger.read_bytes()
    last = following.lines[-1]
    assert 2 < len(following.lines) < 18  # without corpus words the budget would last for 18 updates
    assert last.words_spent == last.words_prompt + last.words_teacher + last.words_corpus <= 340
    assert last.words_corpus > 0
    assert all(line.next_word_loss is not None and 3 < line.next_word_loss < 7 for line in following.lines)
    per_update = [b.words_corpus - a.words_corpus for a, b in zip(following.lines, following.lines[1:], strict=False)]
    assert all(words > 0 for words in per_update)
    text = folder.ledger.read_text(encoding="utf-8")
    assert f'"corpus_words": {last.words_corpus}' in text
