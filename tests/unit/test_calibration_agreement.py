"""A teacher next to people: against synthetic ratings whose agreement is known, and against HANNA where it is there."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fabula_proto import Verdict, VerdictStatus
from services.teacher.calibration.agreement import Calibration, CalibrationError, calibrate, default_pairs
from services.teacher.calibration.ratings import Rated, half, read_ratings
from services.teacher.calibration.statistics import partial_spearman, spearman
from services.teacher.judges.base import judge_stories
from services.teacher.judges.rules import RulesJudge
from services.teacher.rubric import load_rubric
from tests.teacher_helpers import WordJudge

HANNA = Path(__file__).resolve().parents[3] / "shared" / "data" / "ratings" / "hanna.jsonl"
RUBRIC = load_rubric()


def synthetic(n: int = 300, raters: int = 4, noise: float = 1.0) -> tuple[list[Rated], list[float]]:
    """Stories with a hidden quality; raters see it with noise and like long stories; so does the model `Long`."""
    rng = random.Random(0)
    rated, qualities = [], []
    for i in range(n):
        quality, words = rng.gauss(0, 1), rng.randint(20, 200)
        opinion = quality + math.log(words) - 4.5
        human = [min(5.0, max(1.0, 3 + opinion + rng.gauss(0, noise))) for _ in range(raters)]
        row = {
            "story_id": str(i),
            "prompt": f"prompt {i // 5}",
            "text": "word " * words,
            "human": {"coherence": human, "depth": human[::-1]},
            "llm": {"Long": {"coherence": min(5.0, 1 + words / 50)}},
        }
        rated.append(Rated.model_validate(row))
        qualities.append(quality)
    return rated, qualities


def verdicts(rated: Sequence[Rated], level: Callable[[int], float]) -> list[Verdict | None]:
    found: list[Verdict | None] = []
    for i, row in enumerate(rated):
        place = min(3.0, max(0.0, level(i)))
        spread = [max(0.0, 1.0 - abs(place - whole)) for whole in range(4)]
        found.append(RUBRIC.verdict(row.story_id, {c.name: spread for c in RUBRIC.criteria}))
    return found


def calibrated(
    rated: Sequence[Rated], given: Sequence[Verdict | None], pairs: Sequence[tuple[str, str]] = ()
) -> Calibration:
    return calibrate(rated, given, pairs, WordJudge().identity, ratings="synthetic", selection="all")


def test_a_judge_of_quality_adds_to_word_count_and_one_of_length_does_not() -> None:
    rated, qualities = synthetic()
    given = verdicts(rated, lambda i: 1.5 + 0.4 * qualities[i])
    found = calibrated(rated, given, [("coherence", "coherence")])
    own, long = found.agreement
    assert (own.kind, own.judge, own.human, own.n) == ("teacher", "coherence", "coherence", 300)
    assert (long.kind, long.judge) == ("llm", "Long")
    levels = [v.criteria["coherence"].mean for v in given if v and v.criteria]
    means = [row.mean("human", "coherence") or 0.0 for row in rated]
    words = [math.log(row.words) for row in rated]
    assert own.spearman.value == pytest.approx(spearman(levels, means))
    assert own.words.value == pytest.approx(spearman(words, means))
    assert own.given_words.value == pytest.approx(partial_spearman(levels, means, words))
    assert own.beyond_words.value == pytest.approx(spearman(levels, means) - spearman(words, means))
    assert own.given_words.low is not None
    assert own.given_words.low > 0.5
    # `Long` knows nothing but length, up to its ceiling of 200 words.
    assert long.beyond_words.value == pytest.approx(0.0, abs=0.01)
    assert long.given_words.value is None or abs(long.given_words.value) < 0.2


def test_the_ceiling_is_what_the_truth_would_reach() -> None:
    rated, _ = synthetic(noise=1.5)
    (ceiling,) = calibrated(rated, verdicts(rated, lambda i: i % 4)).ceilings
    assert (ceiling.human, ceiling.n, ceiling.raters) == ("coherence", 300, 4)
    assert ceiling.halves.value is not None
    assert ceiling.reliability == pytest.approx(2 * ceiling.halves.value / (1 + ceiling.halves.value))
    assert ceiling.ceiling == pytest.approx(math.sqrt(ceiling.reliability or 0.0))
    assert 0.4 < ceiling.halves.value < (ceiling.reliability or 0.0) < (ceiling.ceiling or 0.0) < 1


def test_raters_without_anything_in_common_have_no_ceiling() -> None:
    rng = random.Random(1)
    rows = [{"story_id": str(i), "text": "a b", "human": {"coherence": [1 + i % 5, 5 - i % 5]}} for i in range(30)]
    rng.shuffle(rows)
    rated = [Rated.model_validate(row) for row in rows]
    (ceiling,) = calibrated(rated, verdicts(rated, lambda i: i % 4)).ceilings
    assert ceiling.halves.value == pytest.approx(-1.0)
    assert (ceiling.reliability, ceiling.ceiling) == (None, None)
    alone = [row.model_copy(update={"human": {"coherence": row.human["coherence"][:1]}}) for row in rated]
    (nothing,) = calibrated(alone, verdicts(alone, lambda i: i % 4)).ceilings
    assert (nothing.n, nothing.halves.value) == (0, None)


def test_stories_without_a_number_are_counted_and_left_out() -> None:
    rated, qualities = synthetic(40)
    given = verdicts(rated, lambda i: 1.5 + qualities[i])
    given[0] = Verdict(story_id="0", status=VerdictStatus.FAILED, reason="broke")
    given[1] = Verdict(story_id="1", status=VerdictStatus.REFUSED, reason="too long")
    given[2] = None
    found = calibrated(rated, given, [("total", "coherence"), ("creativity", "depth")])
    assert (found.stories, found.prompts) == (40, 8)
    assert (found.ok, found.failed, found.refused, found.absent) == (37, 1, 1, 1)
    assert [(row.judge, row.human, row.n) for row in found.agreement] == [
        ("total", "coherence", 37),
        ("Long", "coherence", 40),
        ("creativity", "depth", 37),
    ]


def test_pairs_are_those_that_go_together() -> None:
    ours = ["readability", "coherence", "creativity"]
    hanna = ["relevance", "coherence", "empathy", "surprise", "engagement", "complexity"]
    assert ("coherence", "coherence") in default_pairs(ours, hanna)
    assert ("creativity", "engagement") in default_pairs(ours, hanna)
    assert default_pairs(["style", "coherence"], ["style"]) == [("style", "style")]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("wit", "coherence")], "pair wit=coherence: the teacher judges readability, coherence, creativity and total"),
        ([("total", "wit")], "pair total=wit: people rated coherence, depth"),
    ],
)
def test_an_unknown_criterion_is_said(pairs: list[tuple[str, str]], message: str) -> None:
    rated, _ = synthetic(20)
    with pytest.raises(CalibrationError, match=message):
        calibrated(rated, verdicts(rated, lambda _: 1), pairs)


def test_too_little_is_said() -> None:
    rated, _ = synthetic(9)
    with pytest.raises(CalibrationError, match="9 stories have a number for coherence"):
        calibrated(rated, verdicts(rated, lambda i: i % 4))
    nameless = [row.model_copy(update={"human": {"wit": (1.0, 2.0)}}) for row in rated]
    with pytest.raises(CalibrationError, match="none goes with another by name; say which with --pair"):
        calibrated(nameless, verdicts(nameless, lambda i: i % 4))


@pytest.mark.skipif(
    not HANNA.exists(), reason="needs ../shared/data/ratings/hanna.jsonl beside the checkout (HANNA, MIT)"
)
def test_the_rules_judge_agrees_with_people_at_equal_length_on_held_out_stories() -> None:
    rated = [row for row in read_ratings(HANNA) if half(row.prompt) == "test"]
    assert len(rated) == 594
    judge = RulesJudge(RUBRIC)
    found = calibrated(rated, judge_stories(judge, [row.story for row in rated]), [("coherence", "coherence")])
    own = found.agreement[0]
    assert own.words.value == pytest.approx(0.38, abs=0.005)  # as published for this file
    assert own.given_words.low is not None
    assert own.given_words.low > 0.05
    assert [row.judge for row in found.agreement[1:]] == [
        "Beluga-13B",
        "OrcaPlatypus",
        "Mistral-7B",
        "Llama-13B",
        "ChatGPT",
    ]
    assert found.ceilings[0].ceiling is None  # HANNA's raters do not agree on coherence
