"""What the judge makes of a server's answers, with a dialect that answers from a table instead of a server."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from fabula_proto import Story, VerdictStatus
from services.teacher.judges.base import Asked, JudgeUnavailableError, Noted, Prompting, judge_stories
from services.teacher.judges.remote.asking import parsed
from services.teacher.judges.remote.dialect import (
    Description,
    Dialect,
    DialectError,
    Draw,
    Frame,
    Sampled,
    StoryRefusedError,
)
from services.teacher.judges.remote.http import Http, LoopThread, RequestRefusedError, ServerFaultError
from services.teacher.judges.remote.judge import RemoteJudge
from services.teacher.judges.remote.tree import AnswerTree, MalformedAnswerError, Path, Token, build_tree
from services.teacher.rubric import Rubric, load_rubric
from services.teacher.spec import TeacherSpec

PAPER = load_rubric()
FIRST = {"0": 0.1, "1": 0.2, "2": 0.4, "3": 0.2}  # and 0.1 for something else
TROUBLE: dict[str, Exception] = {
    "FAULT": ServerFaultError("HTTP 500 (CUDA error)"),
    "LONG": RequestRefusedError(422, "HTTP 422: `inputs` must have less than 9 tokens. Given: 10"),
    "ODD": RequestRefusedError(400, "HTTP 400: invalid character"),
    "MARKED": StoryRefusedError("its text becomes control tokens of the judge's model"),
    "GARBAGE": MalformedAnswerError("the server's answer has no choices"),
    "GONE": JudgeUnavailableError("cannot be reached", passing=True),
}


class TableDialect(Dialect):
    """After a space or nothing a digit by FIRST, after a digit a space. A story with a word of TROUBLE gets that."""

    backend = "table"
    constrains = True

    def __init__(self) -> None:
        super().__init__(Http("http://nowhere", key=None, timeout_s=1, concurrency=1, key_hint=""), None)
        self.server = Description("tiny", "1", 100)
        self.answer, self.heeds = "2 1 3", True
        self.logprobs: dict[Token, float] = {token: math.log(p) for token, p in FIRST.items()}
        self.asked: list[Path] = []
        self.drawn: list[Draw] = []

    async def describe(self) -> Description:
        return self.server

    async def frame(self, rubric: Rubric) -> Frame:
        return Frame(f"{','.join(c.name for c in rubric.criteria)}: ", " Answer: ")

    async def tree(self, frame: Frame, rubric: Rubric) -> AnswerTree:
        levels, criteria = range(rubric.levels), len(rubric.criteria)
        paths: list[tuple[str, ...]] = [()]
        for i in range(criteria):
            paths = [(*path, *(" " if i else ""), str(level)) for path in paths for level in levels]
        return build_tree([[path] for path in paths])

    async def prompt(self, frame: Frame, fenced: str, tree: AnswerTree) -> str:
        for word, error in TROUBLE.items():
            if word in fenced:
                raise error
        return frame.head + fenced + frame.tail

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        self.asked += paths
        return {path: {" ": 0.0} if path and path[-1] != " " else dict(self.logprobs) for path in paths}

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        self.drawn.append(draw)
        return Sampled("x y z" if draw.signs == "x-z" and self.heeds else self.answer)


@contextmanager
def judging(dialect: TableDialect, **settings: Any) -> Iterator[RemoteJudge]:
    loop = LoopThread("test-client")
    spec = TeacherSpec.model_validate({"judge": "vllm:http://nowhere", **settings})
    try:
        judge = RemoteJudge(spec, PAPER, dialect, loop)
    except JudgeUnavailableError:
        loop.run(dialect.http.close())
        loop.close()
        raise
    yield judge
    judge.close()


def stories(*texts: str) -> list[Story]:
    return [Story(id=str(i), text=text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(("mode", "coverage"), [("joint", 0.9**3), ("independent", 0.9)])
def test_distributions_and_coverage(mode: str, coverage: float) -> None:
    with judging(TableDialect(), mode=mode) as judge:
        (verdict,) = judge_stories(judge, stories("A fox ran home."))
    assert verdict.status is VerdictStatus.OK
    assert verdict.coverage == pytest.approx(coverage)
    assert verdict.criteria is not None
    for score in verdict.criteria.values():
        assert score.probabilities == pytest.approx([p / 0.9 for p in FIRST.values()])
        assert score.halo == (pytest.approx(0.0, abs=1e-9) if mode == "joint" else None)


def test_joint_asks_in_rounds_and_the_prompt_alone_first() -> None:
    dialect = TableDialect()
    with judging(dialect, mode="joint") as judge:
        dialect.asked.clear()
        judge_stories(judge, stories("A fox ran home."))
    assert [len([path for path in dialect.asked if len(path) == n]) for n in range(5)] == [1, 4, 4, 16, 16]
    assert dialect.asked == sorted(dialect.asked, key=len)


def test_temperature_sharpens_and_is_named() -> None:
    with judging(TableDialect(), mode="joint", temperature=0.5) as judge:
        (verdict,) = judge_stories(judge, stories("A fox ran home."))
        assert judge.identity.mode == "joint-t0.5"
    assert verdict.criteria is not None
    squares = [p * p for p in FIRST.values()]
    assert verdict.criteria["readability"].probabilities == pytest.approx([p / sum(squares) for p in squares])
    assert verdict.coverage == pytest.approx(0.9**3)


def test_a_drawn_answer_is_one_hot() -> None:
    dialect = TableDialect()
    with judging(dialect, mode="sample") as judge:
        (verdict,) = judge_stories(judge, stories("A fox ran home."))
        assert judge.identity.mode == "sample-t0.2-seed42"
        assert "the constraint bites" in judge.notes[0]
    assert verdict.total == 6.0
    assert verdict.coverage == pytest.approx(0.9)
    assert (dialect.drawn[-1].temperature, dialect.drawn[-1].seed, dialect.drawn[-1].max_tokens) == (0.2, 42, 6)


def test_a_drawn_answer_that_cannot_be_read_is_shown_and_no_number() -> None:
    dialect = TableDialect()
    with judging(dialect, mode="sample") as judge:
        dialect.answer = "I'd say 2/3"
        (verdict,) = judge_stories(judge, stories("A fox ran home."))
    assert verdict.status is VerdictStatus.FAILED
    assert "I'd say 2/3" in str(verdict.reason)


@pytest.mark.parametrize("answer", ["2 1 3", " 2 1 3", "2 1 3\n"])
def test_what_is_an_answer(answer: str) -> None:
    assert parsed(answer, 3, 4) == (2, 1, 3)


@pytest.mark.parametrize(
    "answer", ["", "213", "2 1", "2 1 3 3", "2, 1, 3", "2/3 1/3 3/3", "2  1 3", "4 1 3", "-1 1 3", "２ １ ３", "2 1 3."]
)
def test_what_is_none(answer: str) -> None:
    with pytest.raises(MalformedAnswerError, match="the judge answered"):
        parsed(answer, 3, 4)


def test_one_bad_story_never_spoils_another() -> None:
    with judging(TableDialect(), mode="joint") as judge:
        verdicts = judge_stories(judge, stories("A fox.", "FAULT", "LONG", "ODD", "MARKED", "GARBAGE", "An owl."))
    assert [v.status.value for v in verdicts] == ["ok", "failed", "refused", "failed", "refused", "failed", "ok"]
    assert [v.story_id for v in verdicts] == [str(i) for i in range(7)]
    for verdict, says in zip(
        verdicts[1:6], ["CUDA", "less than 9", "invalid character", "control", "no choices"], strict=True
    ):
        assert says in str(verdict.reason)
        assert verdict.total is None


def test_a_server_that_fails_on_every_story_is_away() -> None:
    with judging(TableDialect(), mode="joint") as judge, pytest.raises(JudgeUnavailableError, match="CUDA") as found:
        judge_stories(judge, stories("FAULT one", "FAULT two"))
    assert found.value.passing


def test_a_server_that_is_gone_is_gone_for_all() -> None:
    with judging(TableDialect(), mode="joint") as judge, pytest.raises(JudgeUnavailableError, match="reached") as found:
        judge_stories(judge, stories("A fox.", "GONE"))
    assert found.value.passing


def test_another_model_at_the_same_address_judges_nothing_in_the_first_ones_name() -> None:
    dialect = TableDialect()
    with judging(dialect, mode="joint") as judge:
        dialect.http.lost = True
        assert judge_stories(judge, stories("A fox."))[0].status is VerdictStatus.OK
        assert not dialect.http.lost
        dialect.http.lost, dialect.server = True, Description("other", "1", 100)
        with pytest.raises(JudgeUnavailableError, match="now holds other 1, no more tiny 1"):
            judge_stories(judge, stories("A fox."))


@pytest.mark.parametrize(("min_coverage", "status"), [(None, "ok"), (0.95, "failed"), (0.0, "ok")])
def test_too_little_coverage_is_no_verdict(min_coverage: float | None, status: str) -> None:
    with judging(TableDialect(), mode="independent", min_coverage=min_coverage) as judge:
        (verdict,) = judge_stories(judge, stories("A fox ran home."))
    assert verdict.status.value == status
    assert (status == "ok") == ("0.9 of its probability" not in str(verdict.reason))


@pytest.mark.parametrize("bad", [{"2": float("nan")}, {"2": 0.7}, {"2": -0.1, "1": -0.1, "x": -0.1}])
def test_impossible_numbers_fail_the_story(bad: dict[Token, float]) -> None:
    dialect = TableDialect()
    with judging(dialect, mode="joint") as judge:
        dialect.logprobs = bad
        (verdict,) = judge_stories(judge, stories("A fox ran home."))
    assert verdict.status is VerdictStatus.FAILED


def test_a_digit_that_does_not_come_back_fails_the_probe() -> None:
    dialect = TableDialect()
    del dialect.logprobs["3"]
    with pytest.raises(JudgeUnavailableError, match=r"only \[0, 1, 2\] came back") as found, judging(dialect):
        pass
    assert not found.value.passing


def test_a_digit_that_can_only_be_next_to_impossible_need_not_come_back() -> None:
    dialect = TableDialect()
    dialect.logprobs = {"0": math.log(0.5), "1": math.log(0.3), "2": math.log(0.19), "x": -12.0}
    with judging(dialect) as judge:
        assert "3 of 4 digits" in judge.notes[0]


def test_a_constraint_that_does_not_bite_fails_the_probe() -> None:
    dialect = TableDialect()
    dialect.heeds = False
    with (
        pytest.raises(JudgeUnavailableError, match=r"ignores a constraint.*2 1 3"),
        judging(dialect, mode="sample"),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (DialectError("no chat template"), False),
        (RequestRefusedError(400, "HTTP 400: no"), False),
        (ServerFaultError("no answer within 60 s"), True),
        (JudgeUnavailableError("cannot be reached", passing=True), True),
        (JudgeUnavailableError("says HTTP 401"), False),
    ],
)
def test_whether_a_failed_start_may_pass(error: Exception, passing: bool) -> None:
    class Failing(TableDialect):
        async def describe(self) -> Description:
            raise error

    with pytest.raises(JudgeUnavailableError, match=str(error)) as found, judging(Failing()):
        pass
    assert found.value.passing is passing


def test_preparing_breaks_markers_and_refuses_what_cannot_fit() -> None:
    with judging(TableDialect(), mode="independent") as judge:
        asked = judge.prepare(Story(id="a", text="The end.<|im_end|>\ud800"))
        assert isinstance(asked, Asked)
        assert "The end.< |im_end|>�" in asked.payload
        assert asked.tokens >= 3
        refused = judge.prepare(Story(id="b", text="word " * 1000))
        assert not isinstance(refused, Asked)
        assert refused.status is VerdictStatus.REFUSED
        assert isinstance(judge, Noted)
        assert isinstance(judge, Prompting)
        shown = judge.prompts(Story(id="c", text="A fox.<s>"))
        assert len(shown) == 3
        assert all("A fox.< s>" in text and text.endswith("Answer: ") for text in shown)


def test_too_many_answers_are_refused_with_the_cure() -> None:
    criteria = [{"name": f"c{'x' * i}", "question": "?", "levels": ["a", "b", "c", "d"]} for i in range(6)]
    rubric = Rubric.model_validate(PAPER.model_dump() | {"criteria": criteria})
    loop, dialect = LoopThread("test-client"), TableDialect()
    with pytest.raises(JudgeUnavailableError, match=r"4096 possible answers.*independent"):
        RemoteJudge(TeacherSpec(judge="vllm:http://nowhere"), rubric, dialect, loop)
    loop.run(dialect.http.close())
    loop.close()
