"""The rules judge as a judge: identity, verdicts, the zero rule, any text at all."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula_proto import Story, Verdict, VerdictStatus
from services.teacher.judges.base import Judge, JudgeUnavailableError, judge_stories
from services.teacher.judges.rules import RulesJudge, levels, measure
from services.teacher.judges.rules.scoring import CRITERIA, distribution
from services.teacher.rubric import Criterion, Rubric, load_rubric

CURL_STORY = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."


def judge_one(text: str) -> Verdict:
    return judge_stories(RulesJudge(load_rubric()), [Story(id="s", text=text)])[0]


def rubric_of(*names: str, count: int = 4) -> Rubric:
    criteria = tuple(Criterion(name=n, question="?", levels=tuple("x" * count)) for n in names)
    return Rubric(name="own", version="1", instructions="judge", reminder="now", criteria=criteria)


def test_verdicts_come_in_order_with_the_identity() -> None:
    judge: Judge = RulesJudge(load_rubric())
    verdicts = judge_stories(judge, [Story(id="b", text=CURL_STORY), Story(id="a", text="")])
    assert [v.story_id for v in verdicts] == ["b", "a"]
    assert judge.identity.backend == "rules"
    assert judge.identity.mode == "rules"
    assert judge.identity.model == "fabula-rules"
    assert len(judge.identity.revision) == 12
    assert judge.identity.rubric_hash == load_rubric().hash


@pytest.mark.parametrize(
    "text", ["", "   \n", "...", "the", "there lived a little fox who", "!?!?", "123 456", "🦊🦊🦊", '"""']
)
def test_no_story_is_zero_for_certain(text: str) -> None:
    verdict = judge_one(text)
    assert verdict.total == 0.0
    assert verdict.criteria is not None
    assert all(score.probabilities == (1.0, 0.0, 0.0, 0.0) for score in verdict.criteria.values())


def test_a_short_true_sentence_is_more_than_nothing() -> None:
    assert (judge_one("The little fox found the lantern.").total or 0.0) > 0.5


@given(st.text(max_size=600))
@settings(max_examples=150, deadline=None)
def test_any_text_gets_an_ok_verdict_twice_the_same(text: str) -> None:
    verdict = judge_one(text)
    assert verdict.status is VerdictStatus.OK
    assert verdict == judge_one(text)
    assert all(math.isfinite(x) for x in measure(text).flat().values())


@given(st.floats(0.0, 3.0), st.integers(2, 10))
def test_a_level_becomes_a_distribution_with_that_mean(level: float, count: int) -> None:
    shares = distribution(level, count)
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) >= 0.0
    assert sum(i * p for i, p in enumerate(shares)) == pytest.approx(level / 3.0 * (count - 1), abs=1e-9)


def test_a_rubric_of_some_known_criteria_is_served() -> None:
    verdict = judge_stories(RulesJudge(rubric_of("coherence", count=6)), [Story(id="s", text=CURL_STORY)])[0]
    assert verdict.criteria is not None
    assert list(verdict.criteria) == ["coherence"]
    assert len(verdict.criteria["coherence"].probabilities) == 6


def test_an_unknown_criterion_is_refused_by_name() -> None:
    with pytest.raises(JudgeUnavailableError, match="humour"):
        RulesJudge(rubric_of("coherence", "humour"))


def test_a_hundred_thousand_characters_take_linear_work() -> None:
    long = measure("The old fox walked down to the river and sang. " * 2200)
    assert long.words > 20_000
    for text in ("a" * 100_000, "a. " * 33_000, '"' * 100_000, "fox, " * 20_000, "n't " * 25_000, " " * 100_000):
        assert all(0.0 <= x <= 3.0 for x in levels(measure(text)).values())


def test_levels_stay_in_range_and_say_every_criterion() -> None:
    found = levels(measure(CURL_STORY))
    assert tuple(found) == CRITERIA
    assert all(0.0 < x < 3.0 for x in found.values())
    assert all(a != b for a, b in pairwise(found.values()))
