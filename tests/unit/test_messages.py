"""The messages: they travel unchanged, they cannot be changed, and what makes no sense cannot be said.

Text is any Unicode text. A lone surrogate is no text: UTF-8 and JSON cannot carry it. A story may hold one inside a
process; writing it is a ValueError, reading one a ValidationError, and an id refuses it outright.
"""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fabula_proto import (
    CriterionScore,
    Measure,
    Message,
    ScoredBatch,
    ScoreRequest,
    ScoreResponse,
    Story,
    StoryBatch,
    StoryInput,
    SuiteResult,
    TeacherIdentity,
    Verdict,
    VerdictStatus,
    stories_digest,
)
from services.schemas import public_messages

# A hypothesis text never holds a lone surrogate unless asked to; control characters and astral planes it does hold.
text = st.text(max_size=80)
name = st.text(min_size=1, max_size=20)
weights = st.lists(st.floats(0.0, 1e6), min_size=2, max_size=6).filter(lambda values: sum(values) > 1e-3)
scores = weights.map(CriterionScore.from_probabilities)
identities = st.builds(TeacherIdentity, **dict.fromkeys(TeacherIdentity.model_fields, text))
failures = st.builds(
    Verdict, story_id=name, status=st.sampled_from(["failed", "refused"]), reason=name, flags=st.tuples(text)
)
successes = st.builds(
    Verdict,
    story_id=name,
    status=st.just("ok"),
    criteria=st.dictionaries(name, scores, min_size=1, max_size=3),
    total=st.floats(0.0, 9.0),
    reward=st.floats(0.0, 1.0),
    coverage=st.floats(0.0, 1.0),
)
verdicts = st.one_of(failures, successes)
story_lists = st.lists(
    st.builds(Story, id=name, prompt=text, text=text), min_size=1, max_size=4, unique_by=lambda s: s.id
)


@st.composite
def batches(draw: st.DrawFn) -> StoryBatch:
    count = st.integers(0, 2**53)
    return StoryBatch(
        run=draw(name),
        step=draw(count),
        chunk=draw(count),
        chunks=draw(st.integers(1, 9)),
        policy_version=draw(count),
        stories=tuple(draw(story_lists)),
    )


scored = st.builds(
    ScoredBatch,
    run=text,
    step=st.integers(0, 9),
    chunk=st.integers(0, 9),
    digest=text,
    verdicts=st.lists(verdicts, min_size=1, max_size=3).map(tuple),
    teacher=identities,
    worker=text,
    seconds=st.floats(0.0, 1e6),
)


@given(st.one_of(batches(), scored))
def test_a_message_comes_back_as_it_was_sent(message: StoryBatch | ScoredBatch) -> None:
    sent = message.to_json()
    assert "\n" not in sent  # one line, as metrics.jsonl needs it
    assert type(message).from_json(sent) == message
    assert type(message).from_json(sent.encode()) == message


@given(batches())
def test_a_batch_is_the_same_work_after_its_journey(batch: StoryBatch) -> None:
    assert StoryBatch.from_json(batch.to_json()).key == batch.key


@given(story_lists, story_lists)
def test_two_lists_of_stories_have_one_digest_only_when_equal(some: list[Story], other: list[Story]) -> None:
    assert (stories_digest(some) == stories_digest(other)) == (some == other)


def test_a_digest_does_not_run_fields_together() -> None:
    assert stories_digest([Story(id="a", prompt="b", text="c")]) != stories_digest(
        [Story(id="a", prompt="bc", text="")]
    )


def test_a_lone_surrogate_cannot_be_written_or_read() -> None:
    story = Story(id="0", text="half a pair: \ud83e")
    with pytest.raises(ValueError, match="surrogates not allowed"):
        story.to_json()
    with pytest.raises(ValidationError):
        Story.from_json(r'{"id": "0", "text": "half a pair: \ud83e"}')
    with pytest.raises(ValidationError):
        Story(id="\ud83e", text="")
    assert Story.from_json(r'{"id": "0", "text": "\ud83e\udd8a"}').text == "🦊"


@pytest.mark.parametrize("kind", public_messages(), ids=lambda kind: kind.__name__)
def test_every_message_is_frozen_and_refuses_unknown_keys(kind: type[Message]) -> None:
    assert kind.model_config["frozen"] is True
    with pytest.raises(ValidationError) as raised:
        kind.model_validate({"surely_not_a_field": 1})
    assert ("surely_not_a_field",) in [error["loc"] for error in raised.value.errors()]


def test_a_message_cannot_be_changed() -> None:
    story = Story(id="0", text="A fox.")
    with pytest.raises(ValidationError, match="frozen"):
        story.text = "An owl."


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_finite_number_is_no_number(value: float) -> None:
    with pytest.raises(ValidationError):
        Measure(value=value, low=0.0, high=1.0, n=1)


@given(weights)
def test_weights_become_a_distribution(values: list[float]) -> None:
    score = CriterionScore.from_probabilities(values)
    assert math.isclose(sum(score.probabilities), 1.0)
    assert 0.0 <= score.mean <= len(values) - 1 + 1e-9
    assert score.probabilities[score.mode] == max(score.probabilities)


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, 2.0], [math.nan, 1.0]])
def test_weights_that_are_no_distribution_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot be normalised"):
        CriterionScore.from_probabilities(values)


@pytest.mark.parametrize(
    ("probabilities", "mean", "why"),
    [((0.5, 0.4), 0.4, "sum to 0.9"), ((0.5, 0.5), 1.0, "is not the expectation"), ((1.5, -0.5), 0.5, "less than")],
)
def test_a_score_agrees_with_its_probabilities(probabilities: tuple[float, ...], mean: float, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        CriterionScore(probabilities=probabilities, mean=mean, mode=0, entropy=0.0)


OK: dict[str, Any] = {
    "story_id": "0",
    "status": VerdictStatus.OK,
    "criteria": {"readability": CriterionScore.from_probabilities([1, 1, 1, 1])},
    "total": 1.5,
    "reward": 0.5,
    "coverage": 1.0,
}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"total": None}, "an ok verdict carries criteria, total, reward and coverage"),
        ({"criteria": {}}, "an ok verdict carries criteria"),
        ({"coverage": None}, "an ok verdict carries criteria"),
        ({"reason": "because"}, "an ok verdict has no reason"),
        ({"status": "failed", "reason": "model away"}, "a failed verdict carries no numbers"),
        ({"status": "refused", "reason": "too long"}, "a refused verdict carries no numbers"),
        ({"reward": 1.01}, "less than or equal to 1"),
        ({"status": "maybe"}, "'ok', 'failed' or 'refused'"),
    ],
)
def test_only_ok_carries_numbers_and_it_carries_them_all(changes: dict[str, Any], why: str) -> None:
    assert Verdict(**OK).total == 1.5
    with pytest.raises(ValidationError, match=why):
        Verdict(**{**OK, **changes})


@given(st.sampled_from(["criteria", "total", "reward", "coverage"]), st.sampled_from(["failed", "refused"]))
def test_no_number_at_all_fits_on_a_verdict_that_is_not_ok(number: str, status: str) -> None:
    with pytest.raises(ValidationError, match="carries no numbers"):
        Verdict(story_id="0", status=VerdictStatus(status), reason="r", **{number: OK[number]})


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_a_verdict_without_numbers_says_why(status: str) -> None:
    with pytest.raises(ValidationError, match="says its reason"):
        Verdict(story_id="0", status=VerdictStatus(status))


def test_a_batch_refuses_stories_with_one_id() -> None:
    with pytest.raises(ValidationError, match=r"story ids \['x'\] occur more than once in batch r/0/0"):
        StoryBatch(
            run="r",
            step=0,
            chunk=0,
            chunks=1,
            policy_version=0,
            stories=(Story(id="x", text="a"), Story(id="x", text="b")),
        )


def test_a_request_fills_in_ids_by_position() -> None:
    request = ScoreRequest(stories=("A fox.", StoryInput(text="An owl.", prompt="Once"), StoryInput(id="z", text="")))
    assert request.as_stories() == (
        Story(id="0", text="A fox."),
        Story(id="1", prompt="Once", text="An owl."),
        Story(id="z", text=""),
    )


def test_a_request_whose_own_id_meets_a_position_is_refused() -> None:
    with pytest.raises(ValueError, match=r"story ids \['1'\] occur more than once; give each story an id of its own"):
        ScoreRequest(stories=(StoryInput(id="1", text="a"), "b")).as_stories()


def test_an_empty_request_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        ScoreRequest.from_json(json.dumps({"stories": []}))


@given(st.lists(verdicts, max_size=3), identities)
def test_a_response_comes_back_as_it_was_sent(given_verdicts: list[Verdict], teacher: TeacherIdentity) -> None:
    response = ScoreResponse(verdicts=tuple(given_verdicts), teacher=teacher)
    assert ScoreResponse.from_json(response.to_json()) == response


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"status": "ok", "headline": "all", "measures": {}}, "headline 'all' is not among its measures"),
        ({"status": "failed"}, "a failed suite carries a reason and no measures"),
        (
            {"status": "skipped", "reason": "no data", "measures": {"all": {"value": 1, "low": 1, "high": 1, "n": 1}}},
            "a skipped suite carries a reason and no measures",
        ),
    ],
)
def test_a_suite_has_numbers_exactly_when_it_is_ok(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        SuiteResult.model_validate({"suite": "blimp", "source": "generated", **fields})


def test_an_interval_is_not_empty() -> None:
    with pytest.raises(ValidationError, match="is empty; expected low <= high"):
        Measure(value=0.5, low=0.6, high=0.4, n=10)
