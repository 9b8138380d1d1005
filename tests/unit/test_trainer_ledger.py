"""The word ledger: the paper's account, and a budget that is asked before it is spent."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.student_trainer.ledger import BudgetSpentError, Ledger


def test_a_million_words_are_925_batches_of_the_papers() -> None:
    """1M words, 360 stories a batch, 3 teacher words a story, a prompt of 16 words paid once: arXiv 2509.15714."""
    ledger, batches = Ledger(budget=1_000_000), 0
    while ledger.spent + ledger.cost(360, 16, 3) <= ledger.budget:
        ledger = ledger.pay(360, 16, 3, student_words=360 * 60)
        batches += 1
    with pytest.raises(BudgetSpentError, match="1080 words are needed and 984 of 1000000 are left"):
        ledger.pay(360, 16, 3, student_words=0)
    # 16 + 925 * 1080 = 999,016 words. The paper reports 920 batches.
    assert (batches, ledger.stories, ledger.spent) == (925, 333_000, 999_016)
    assert ledger.prompt_words == 16


@given(st.integers(1, 5000), st.integers(1, 50), st.integers(0, 20), st.integers(0, 5))
def test_never_overspent_and_never_refused_early(budget: int, stories: int, prompt: int, per_story: int) -> None:
    ledger = Ledger(budget=budget)
    for _ in range(20):
        cost = ledger.cost(stories, prompt, per_story)
        if ledger.spent + cost > budget:
            before = ledger
            with pytest.raises(BudgetSpentError):
                ledger.pay(stories, prompt, per_story, 7)
            assert ledger == before
            break
        ledger = ledger.pay(stories, prompt, per_story, 7)
        assert ledger.spent == ledger.prompt_words + ledger.teacher_words <= budget


def test_written_account(tmp_path: Path) -> None:
    Ledger(budget=100).pay(5, 4, 3, 60, corpus_words=40).write(tmp_path / "ledger.json")
    assert json.loads((tmp_path / "ledger.json").read_text()) == {
        "budget": 100,
        "prompt_words": 4,
        "teacher_words": 15,
        "corpus_words": 40,
        "student_words": 60,
        "stories": 5,
        "spent": 59,
    }


def test_words_of_the_corpus_cost() -> None:
    ledger = Ledger(budget=100).pay(5, 4, 3, 60, corpus_words=40)
    with pytest.raises(BudgetSpentError, match="42 words are needed and 41 of 100 are left"):
        ledger.pay(5, 4, 3, 60, corpus_words=27)
    assert ledger.pay(5, 4, 3, 60, corpus_words=26).spent == 100
