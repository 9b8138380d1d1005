"""Measures of stories' texts: by hand, against NLTK's recorded values, and against brute force."""

from collections.abc import Sequence
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluator.copying import CopyFinder
from services.evaluator.statistics import ratio_interval
from services.evaluator.texts import Cast, cast, distinct, self_bleu

STORIES = (
    "Once a small fox lost his lantern in the river and he cried .",
    "A small fox lost his lantern near the old river and he smiled .",
    "the owl knew",
    "The owl knew where the lantern was and the owl told the fox .",
    "once a small fox lost his lantern in the river",
    "silence",
)
NLTK = (0.7825422900366437, 0.4682568791024402, 0.5623413251903491, 0.08737167851715878, 0.6703200460356393, 0.0)
"""sentence_bleu of NLTK 3.10.4 with SmoothingFunction().method1, each story against the others."""

WORDS = st.lists(st.sampled_from("abc"), max_size=9).map(" ".join)


def test_self_bleu_is_nltks() -> None:
    assert self_bleu(STORIES) == pytest.approx(NLTK, abs=1e-12)


def test_self_bleu_by_hand() -> None:
    """Five words against four: 4/5, 3/4, 2/3, 1/2, no brevity penalty; the other way all match, e^(1 - 5/4)."""
    long, short = self_bleu(["a b c d x", "a b c d"])
    assert long == pytest.approx(exp((log(4 / 5) + log(3 / 4) + log(2 / 3) + log(1 / 2)) / 4))
    assert short == pytest.approx(exp(1 - 5 / 4))
    assert self_bleu(["alone here"]) == []


@given(st.lists(WORDS, min_size=2, max_size=5))
def test_self_bleu_lies_between_0_and_1_and_twins_have_1(texts: list[str]) -> None:
    assert all(0.0 <= value <= 1.0 for value in self_bleu(texts))
    assert self_bleu(["a b c d e", *texts, "A b c d e"])[0] == pytest.approx(1.0)


def brute_force(story: str, documents: Sequence[str]) -> int:
    words, texts = story.split(), [f" {' '.join(d.split())} " for d in documents]
    runs = (words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    return max((len(run) for run in runs if any(f" {' '.join(run)} " in text for text in texts)), default=0)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, max_size=4))
def test_longest_copy_is_what_trying_every_run_finds(stories: list[str], documents: list[str]) -> None:
    finder = CopyFinder(stories)
    for document in documents:
        finder.read(document)
    assert finder.longest() == [brute_force(story, documents) for story in stories]


def test_copies_are_of_whole_words_within_one_document() -> None:
    finder = CopyFinder(["the old fox ran home", "An owl"])
    for document in ("the older fox ran home", "The old\n fox  ran", "an", "owl", ""):
        finder.read(document)
    assert finder.longest() == [3, 1]


def test_distinct_by_hand() -> None:
    assert distinct("a b a b a", 1) == pytest.approx(2 / 5)
    assert distinct("a b a b a", 3) == pytest.approx(2 / 3)
    assert distinct("a b", 3) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There was a little fox who slept. Later the fox woke up.", Cast(1, 1)),
        ("There was a little fox who slept. Later he woke up.", Cast(1, 0)),
        ("She saw an owl, and his old owl saw a stone.", Cast(2, 1)),
        ("One day Mia met Tom. Mia ran home.", Cast(2, 1)),
        ("Then Mia's hat fell. The hat was red.", Cast(1, 0)),
        ('He said, "Come here!" Then I said, "Oh no."', Cast(0, 0)),
        ("We saw the Fox. The fox ran.", Cast(0, 0)),
        ("A king had a ring. Then the king lost that ring.", Cast(2, 2)),
        ("", Cast(0, 0)),
    ],
)
def test_cast_by_hand(text: str, expected: Cast) -> None:
    assert cast(text) == expected


@given(st.text(alphabet="aAn thefox.,\"'I ", max_size=60))
def test_cast_keeps_no_more_than_it_introduces(text: str) -> None:
    found = cast(text)
    assert 0 <= found.kept <= found.introduced


def test_ratio_is_of_sums_and_its_interval_holds_it() -> None:
    estimate = ratio_interval([2.0, 4.0, 9.0], [1.0, 2.0, 2.0], seed=0)
    assert (estimate.value, estimate.n) == (3.0, 3)
    assert estimate.low == 2.0  # three draws of a pair of ratio 2
    assert estimate.high == 4.5
    with pytest.raises(ValueError, match="2 denominators sum to 0"):
        ratio_interval([1.0, 1.0], [0.0, 0.0], seed=0)
