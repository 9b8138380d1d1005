"""Reward maps: what they do, their file, and a judge that wears one."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.calibration import mapped
from services.teacher.calibration.reward_map import RewardMap, RewardMapError
from services.teacher.judges.base import Asked, JudgeUnavailableError, Noted, judge_stories
from services.teacher.rubric import load_rubric
from services.teacher.screening import ScreenedJudge
from tests.teacher_helpers import WordJudge

OTHER = TeacherIdentity(
    backend="rules", model="other", revision="1", rubric="paper", rubric_version="1", rubric_hash="0", mode="rules"
)
TWELVE = "one two three four five six seven eight nine ten eleven twelve."


def a_map(**changes: object) -> RewardMap:
    fields: dict[str, object] = {
        "from_teacher": WordJudge().identity,
        "to_teacher": OTHER,
        "knots": ((0.0, 0.0), (0.25, 0.5), (0.5, 0.5), (1.0, 0.9)),
        "stories": 100,
        "created_by": "a test",
    }
    return RewardMap.model_validate(fields | changes)


def saved(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "map.json"
    a_map(**changes).save(path)
    return path


def story(text: str) -> Story:
    return Story(id=text[:20] or "empty", text=text)


def test_the_map_is_linear_between_its_knots() -> None:
    rewards = (0.0, 0.125, 0.25, 0.4, 0.5, 0.75, 1.0)
    assert [a_map().apply(r) for r in rewards] == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.5, 0.7, 0.9])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_any_map_keeps_order_and_bounds(points: list[tuple[float, float]], a: float, b: float) -> None:
    inner = sorted({x for x, _ in points} - {0.0, 1.0})
    levels = [0.0, *sorted([y for _, y in points][: len(inner)])]
    levels += [1.0] * (len(inner) + 2 - len(levels))
    reward_map = a_map(knots=tuple(zip([0.0, *inner, 1.0], levels, strict=True)))
    assert 0.0 <= reward_map.apply(min(a, b)) <= reward_map.apply(max(a, b)) <= 1.0


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        (((0.0, 0.0), (0.5, 1.0)), r"knots go from \(0.0, 0.0\) to \(0.5, 1.0\)"),
        (((0.0, 0.5), (1.0, 0.9)), "an empty story gets 0 from any teacher"),
        (((0.0, 0.0), (0.5, 0.5), (1.0, 0.4)), "do not rise"),
        (((0.0, 0.0), (0.5, 0.1), (0.5, 0.2), (1.0, 1.0)), "do not rise"),
        (((0.0, 0.0), (1.0, 1.5)), "less than or equal to 1"),
    ],
)
def test_what_is_no_map_is_refused(knots: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_map(knots=knots)


def test_the_file_gives_the_map_back(tmp_path: Path) -> None:
    assert RewardMap.load(saved(tmp_path)) == a_map()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "file: Invalid JSON"),
        ('{"knots": [[0, 0], [1, 1]]}', "from_teacher: Field required"),
        (json.dumps(a_map().model_dump() | {"knots": [[0, 0], [0, 1], [1, 1]]}), "do not rise"),
        (json.dumps(a_map().model_dump() | {"slope": 2}), "slope: Extra inputs"),
    ],
)
def test_a_file_that_holds_no_map_is_said(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "map.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(RewardMapError, match=re.escape(message)) as raised:
        RewardMap.load(path)
    assert str(path) in str(raised.value)
    assert "fabula teacher compare" in str(raised.value)


def test_a_mapped_judge_changes_the_reward_alone(tmp_path: Path) -> None:
    judge, plain = mapped(WordJudge(), saved(tmp_path)), WordJudge()
    verdict, before = judge_stories(judge, [story(TWELVE)])[0], judge_stories(plain, [story(TWELVE)])[0]
    assert before.reward == pytest.approx(1 / 3)
    assert verdict.reward == pytest.approx(0.5)
    assert verdict.model_copy(update={"reward": before.reward}) == before
    assert judge.identity.mode == f"rules+map:{a_map().hash}"
    assert judge.identity.model_copy(update={"mode": "rules"}) == plain.identity
    assert judge.lanes == plain.lanes
    judge.close()


def test_a_failure_stays_one_and_an_empty_story_stays_zero(tmp_path: Path) -> None:
    class Refusing(WordJudge):
        def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
            return [Verdict(story_id=a.story.id, status=VerdictStatus.REFUSED, reason="too tired") for a in asked]

    screened = ScreenedJudge(Refusing(), load_rubric(), 1000)
    refused, empty = judge_stories(mapped(screened, saved(tmp_path)), [story(TWELVE), story("")])
    assert (refused.status, refused.reward) == (VerdictStatus.REFUSED, None)
    assert (empty.status, empty.reward) == (VerdictStatus.OK, 0.0)


def test_a_map_for_another_teacher_is_refused(tmp_path: Path) -> None:
    for name, value in (("backend", "tgi"), ("model", "Llama"), ("rubric_hash", "abc"), ("mode", "joint")):
        path = saved(tmp_path, from_teacher=WordJudge().identity.model_copy(update={name: value}))
        own = getattr(WordJudge().identity, name)
        with pytest.raises(JudgeUnavailableError, match=f"{name} '{value}', but this teacher has '{own}'"):
            mapped(WordJudge(), path)
    with pytest.raises(JudgeUnavailableError, match="cannot be read"):
        mapped(WordJudge(), tmp_path / "none.json")


def test_another_revision_is_noted(tmp_path: Path) -> None:
    same = mapped(WordJudge(), saved(tmp_path))
    assert isinstance(same, Noted)
    assert len(same.notes) == 1
    assert "scale of rules other" in same.notes[0]
    older = saved(tmp_path, from_teacher=WordJudge().identity.model_copy(update={"revision": "0"}))
    assert "fitted for revision 0 and this teacher has 1" in mapped(WordJudge(), older).notes[1]


def test_notes_are_passed_on(tmp_path: Path) -> None:
    class Talking(WordJudge):
        @property
        def notes(self) -> tuple[str, ...]:
            return ("seems untrained",)

    assert mapped(Talking(), saved(tmp_path)).notes[0] == "seems untrained"
