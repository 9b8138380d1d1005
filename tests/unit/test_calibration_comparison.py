"""Two teachers on the same stories: what is counted, what is computed, what is refused."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from fabula_proto import TeacherIdentity, Verdict, VerdictStatus
from services.teacher.calibration.comparison import Comparison, ComparisonError, Side, compare
from services.teacher.calibration.estimates import groups_by_prompt
from services.teacher.calibration.statistics import weighted_kappa
from services.teacher.rubric import Rubric, load_rubric

PAPER = load_rubric()
FIRST = PAPER.model_copy(update={"criteria": PAPER.criteria[:1]})


def identity(model: str) -> TeacherIdentity:
    return TeacherIdentity(
        backend="test", model=model, revision="1", rubric="paper", rubric_version="1", rubric_hash="0", mode="joint"
    )


def verdict(story: int, *levels: float, rubric: Rubric = PAPER, flags: Sequence[str] = ()) -> Verdict:
    """Expected levels, one a criterion; between two levels the nearer one is the mode."""
    spread = [[max(0.0, 1.0 - abs(level - i)) for i in range(rubric.levels)] for level in levels]
    by_name = {c.name: p for c, p in zip(rubric.criteria, spread, strict=True)}
    return rubric.verdict(str(story), by_name, flags=flags)


def failed(status: VerdictStatus) -> Verdict:
    return Verdict(story_id="x", status=status, reason="could not")


def two_teachers(n: int = 200) -> tuple[list[list[float]], list[list[float]]]:
    """Levels of three criteria for n stories: B is A and noise, half a level higher where there is room."""
    rng = random.Random(0)
    a = [[rng.uniform(0, 3) for _ in range(3)] for _ in range(n)]
    b = [[min(3.0, max(0.0, level + 0.5 + rng.gauss(0, 0.5))) for level in row] for row in a]
    return a, b


def compared(a: Sequence[Verdict | None], b: Sequence[Verdict | None]) -> Comparison:
    return compare(Side("a", identity("A"), a), Side("b", identity("B"), b), range(len(a)), "a test")


def test_every_number_is_the_one_it_says() -> None:
    a, b = two_teachers()
    found = compared([verdict(i, *row) for i, row in enumerate(a)], [verdict(i, *row) for i, row in enumerate(b)])
    rows = {row.name: row for row in found.agreement}
    assert list(rows) == [*(c.name for c in PAPER.criteria), "total", "reward"]
    x, y = [row[0] for row in a], [row[0] for row in b]
    row = rows[PAPER.criteria[0].name]
    assert row.bias.value == pytest.approx(np.mean(y) - np.mean(x))
    assert row.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic)
    modes_a, modes_b = [math.floor(v + 0.5) for v in x], [math.floor(v + 0.5) for v in y]
    assert row.kappa.value == pytest.approx(weighted_kappa(modes_a, modes_b))
    assert row.confusion is not None
    assert row.confusion[1][2] == sum((i, j) == (1, 2) for i, j in zip(modes_a, modes_b, strict=True))
    for estimate in (row.bias, row.spearman, row.kappa):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.low < estimate.value < estimate.high
    total = rows["total"]
    assert total.mean_b == pytest.approx(np.sum(b) / len(b))
    assert total.confusion is not None
    assert (len(total.confusion), sum(map(sum, total.confusion))) == (10, 200)
    assert rows["reward"].confusion is None
    assert rows["reward"].bias.value == pytest.approx((np.sum(b) - np.sum(a)) / len(b) / 9)


def test_the_map_puts_b_on_the_scale_of_a() -> None:
    a, b = two_teachers()
    found = compared([verdict(i, *row) for i, row in enumerate(a)], [verdict(i, *row) for i, row in enumerate(b)])
    assert found.no_map is None
    assert found.mapping is not None
    assert (found.mapping.reward_map.from_teacher, found.mapping.reward_map.to_teacher) == (
        identity("B"),
        identity("A"),
    )
    assert found.mapping.reward_map.stories == 200
    assert found.mapping.before.bias > 0.1
    assert abs(found.mapping.after.bias) < 0.02
    assert found.mapping.after.distance < found.mapping.before.distance / 5


def test_a_story_without_two_verdicts_is_counted_and_left_out() -> None:
    good = [verdict(i, i % 4, i % 3, i % 2) for i in range(6)]
    a = [*good[:3], failed(VerdictStatus.FAILED), good[4], good[5]]
    b = [good[0], failed(VerdictStatus.REFUSED), *good[2:5], None]
    found = compared(a, b)
    assert (found.stories, found.pairs) == (6, 3)
    assert (found.a.ok, found.a.failed, found.a.refused, found.a.absent) == (5, 1, 0, 0)
    assert (found.b.ok, found.b.failed, found.b.refused, found.b.absent) == (4, 0, 1, 1)
    assert all(row.bias.value == 0.0 for row in found.agreement)
    assert found.mapping is None
    assert found.no_map == "3 stories were judged by both; a map needs at least 50"


def test_a_number_that_is_not_defined_is_none() -> None:
    always = compared([verdict(i, 1, 1, 1) for i in range(5)], [verdict(i, 1, 1, i % 4) for i in range(5)])
    assert [row.spearman.value for row in always.agreement] == [None] * 5
    assert always.agreement[0].kappa.value is None
    assert always.agreement[2].kappa.value == 0.0


def test_stories_too_short_to_judge_do_not_bend_the_map() -> None:
    a, b = two_teachers(60)
    verdicts_a = [verdict(i, *row) for i, row in enumerate(a)]
    verdicts_b = [verdict(i, *row) for i, row in enumerate(b)]
    short = [verdict(i, 0, 0, 0, flags=("too_short",)) for i in range(60, 200)]
    plain, mixed = compared(verdicts_a, verdicts_b), compared([*verdicts_a, *short], [*verdicts_b, *short])
    assert plain.mapping is not None
    assert mixed.mapping is not None
    assert plain.mapping.reward_map == mixed.mapping.reward_map
    assert mixed.pairs == 200


def test_only_shared_criteria_are_compared() -> None:
    a = [verdict(i, i % 4, rubric=FIRST) for i in range(8)]
    found = compared(a, [verdict(i, i % 4, 1, 2) for i in range(8)])
    assert [row.name for row in found.agreement] == [FIRST.criteria[0].name, "reward"]
    assert found.not_shared == tuple(sorted(c.name for c in PAPER.criteria[1:]))


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ComparisonError, match=r"1 of 2 stories have an ok verdict on both sides.*b: 1 ok, 1 failed"):
        compared([verdict(0, 1, 1, 1), verdict(1, 1, 1, 1)], [verdict(0, 1, 1, 1), failed(VerdictStatus.FAILED)])
    renamed = FIRST.model_copy(update={"criteria": (FIRST.criteria[0].model_copy(update={"name": "style"}),)})
    with pytest.raises(ComparisonError, match="no criterion is shared"):
        compared([verdict(i, 1, rubric=renamed) for i in range(3)], [verdict(i, 1, rubric=FIRST) for i in range(3)])
    criterion = FIRST.criteria[0]
    fewer = FIRST.model_copy(update={"criteria": (criterion.model_copy(update={"levels": criterion.levels[:3]}),)})
    with pytest.raises(ComparisonError, match=r"is judged on \[3, 4\] levels"):
        compared([verdict(i, 1, rubric=fewer) for i in range(3)], [verdict(i, 1, rubric=FIRST) for i in range(3)])


def test_stories_of_a_prompt_are_drawn_together_where_there_are_enough_prompts() -> None:
    assert groups_by_prompt(["same"] * 5) == [0, 1, 2, 3, 4]
    prompts = [f"prompt {i % 12}" for i in range(24)]
    assert groups_by_prompt(prompts) == prompts
    assert groups_by_prompt(["", "", *prompts])[:2] == [0, 1]
