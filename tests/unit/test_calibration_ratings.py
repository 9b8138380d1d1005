"""Ratings files: what is read, what is left out, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from fabula_proto import VerdictStatus
from services.teacher.calibration.ratings import (
    HUMAN,
    Rated,
    RatingsError,
    criteria_of,
    half,
    judges_of,
    rater_identity,
    read_ratings,
)

ROW = {
    "story_id": 7,
    "system": "GPT",
    "prompt": "Write of a fox.",
    "story": "A fox ran. He hid.",
    "human": {"coherence": [4, 5, 2], "surprise": [1, 1, 2]},
    "human_mean": {"coherence": 3.6667},
    "llm": {"Reader": {"coherence": [3, 4.5], "surprise": 2}, "Broken": {"coherence": [-1, 0.33]}},
}


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "ratings.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    return path


def rated() -> Rated:
    return Rated.model_validate(ROW)


def test_a_row_of_hanna_is_read(tmp_path: Path) -> None:
    other = {"story_id": "b", "text": "A line\u2028separator.", "human": {"coherence": [1]}}
    first, second = read_ratings(written(tmp_path, ROW, "", other))
    assert (first.story_id, first.words, first.story.prompt) == ("7", 5, "Write of a fox.")
    assert first.mean(HUMAN, "coherence") == pytest.approx(11 / 3)
    assert first.mean("Reader", "coherence") == 3.75
    assert first.mean("Reader", "surprise") == 2.0
    assert first.mean("Reader", "empathy") is first.mean("Nobody", "coherence") is first.mean(HUMAN, "empathy") is None
    assert (second.text, second.prompt, second.system) == ("A line\u2028separator.", "", None)
    assert judges_of([first, second]) == ["Reader", "Broken"]
    assert criteria_of([second, first]) == ["coherence", "surprise"]
    assert criteria_of([first], "Broken") == ["coherence"]


def test_a_models_failed_answer_is_no_rating() -> None:
    assert rated().mean("Broken", "coherence") is None
    verdict = rated().verdict("Broken", ["coherence"])
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.reason == "Broken gave no rating of coherence within 1.0..5.0"


def test_ratings_become_a_verdict_on_the_papers_levels() -> None:
    verdict = rated().verdict("Reader", ["coherence", "surprise"])
    assert verdict.criteria is not None
    coherence, surprise = verdict.criteria["coherence"], verdict.criteria["surprise"]
    assert coherence.mean == pytest.approx((3.75 - 1) / 4 * 3)
    assert coherence.probabilities == pytest.approx((0.0, 0.0, 0.9375, 0.0625))
    assert surprise.probabilities == pytest.approx((0.25, 0.75, 0.0, 0.0))
    assert verdict.total == pytest.approx(coherence.mean + surprise.mean)
    assert verdict.reward == pytest.approx((coherence.mean + surprise.mean) / 6)
    assert rater_identity("f", "Reader", ["a"]) != rater_identity("f", "Reader", ["b"])


def test_the_ends_of_the_scale_are_the_ends_of_the_levels() -> None:
    row = Rated.model_validate({"story_id": "a", "text": "x", "scale": [0, 100], "human": {"c": [0], "d": [100]}})
    verdict = row.verdict(HUMAN, ["c", "d"])
    assert verdict.criteria is not None
    assert [score.mode for score in verdict.criteria.values()] == [0, 3]


def test_the_split_stays_as_it_was() -> None:
    """The rules judge was fitted on the tune half of HANNA: no prompt may change sides."""
    prompts = ("", "a", "Write of a fox.", "When you die the afterlife is an arena where you face every insect")
    assert [half(prompt) for prompt in prompts] == ["test", "test", "test", "tune"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "hold no story"),
        (("{",), ":1 is no rated story (Invalid JSON"),
        ((ROW, {"story_id": 8, "human": {"c": [1]}}), ":2 is no rated story (text: Field required)"),
        ((ROW | {"human": {}},), "human: Dictionary should have at least 1 item"),
        ((ROW | {"human": {"c": [6]}},), "human ratings [6.0] of c; expected one or more in 1.0..5.0"),
        ((ROW | {"human": {"c": []}},), "human ratings [] of c"),
        ((ROW | {"scale": [5, 1]},), "scale [5.0, 1.0] does not rise"),
        ((ROW, ROW), ":2 has story_id '7' again"),
    ],
)
def test_what_is_no_ratings_file_is_said(tmp_path: Path, rows: tuple[object, ...], message: str) -> None:
    with pytest.raises(RatingsError, match=re.escape(message)):
        read_ratings(written(tmp_path, *rows))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RatingsError, match="cannot be read"):
        read_ratings(tmp_path / "none.jsonl")
