"""More levels than a server shows of its own accord: what did not come back at first is found, where it can be."""

from collections.abc import Iterator

import pytest

from fabula_proto import Story
from services.teacher.judges.base import JudgeUnavailableError, judge_stories
from services.teacher.judges.build import build_judge
from services.teacher.judges.remote.dialect import StoryRefusedError
from services.teacher.judges.remote.judge import RemoteJudge
from services.teacher.rubric import Rubric
from services.teacher.spec import TeacherSpec
from tests.wire.bench import Bench

# The model writes 0-3 nearly always. 4 to 7 are neither among TGI's 5 most probable tokens nor in llama.cpp's first 64.
EIGHT = Rubric.model_validate(
    {
        "name": "eight",
        "version": "1",
        "instructions": "Grade.",
        "reminder": "Grade it.",
        "criteria": [
            {"name": name, "question": "?", "levels": [f"level {i}" for i in range(8)]} for name in ("a", "b")
        ],
    }
)
STORIES = (
    Story(id="a", text="The fox ran home, and he was glad."),
    Story(id="b", text="A king lost his crown. He asked the owl. They found it at dawn."),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.at(tmp_path_factory.mktemp("models") / "judge")


@pytest.fixture(scope="module")
def expected(bench: Bench) -> Iterator[list[dict[str, tuple[float, ...]]]]:
    judge = build_judge(TeacherSpec(judge=f"transformers:{bench.folder}", mode="joint"), EIGHT)
    criteria = [verdict.criteria or {} for verdict in judge_stories(judge, STORIES)]
    yield [{name: score.probabilities for name, score in found.items()} for found in criteria]
    judge.close()


@pytest.mark.parametrize("backend", ["tgi", "vllm", "sglang", "llamacpp"])
def test_digits_that_a_server_does_not_show_at_first_are_found(
    backend: str, bench: Bench, expected: list[dict[str, tuple[float, ...]]]
) -> None:
    with bench.server(backend) as server:
        judge = build_judge(TeacherSpec(judge=f"{backend}:{server.url}", mode="joint"), EIGHT)
        verdicts = judge_stories(judge, STORIES)
        judge.close()
    for verdict, wanted in zip(verdicts, expected, strict=True):
        assert verdict.criteria is not None, verdict.reason
        for name, probabilities in wanted.items():
            assert min(probabilities) > 0.0
            assert verdict.criteria[name].probabilities == pytest.approx(probabilities, rel=1e-3, abs=1e-6)


def test_where_only_twenty_tokens_come_back_the_rest_counts_as_nothing(bench: Bench) -> None:
    with bench.server("ollama") as server:
        judge = build_judge(TeacherSpec(judge=f"ollama:{server.url}#tiny", mode="independent"), EIGHT)
        (verdict,) = judge_stories(judge, STORIES[:1])
        judge.close()
    assert verdict.criteria is not None, verdict.reason
    assert 0.0 in verdict.criteria["a"].probabilities[4:]
    assert sum(verdict.criteria["a"].probabilities) == pytest.approx(1.0)


def test_a_model_that_writes_no_digits_fails_the_probe(bench: Bench) -> None:
    untrained = Bench.at(bench.folder.parent / "untrained", lift=0.0)
    with untrained.server("tgi") as server, pytest.raises(JudgeUnavailableError, match=r"came back.*instruct") as found:
        build_judge(TeacherSpec(judge=f"tgi:{server.url}", mode="joint"), EIGHT)
    assert not found.value.passing


def test_a_story_that_is_control_tokens_all_the_same_is_refused(bench: Bench) -> None:
    """The second line of defence, asked for what the first would never let through."""
    with bench.server("vllm") as server:
        judge = build_judge(TeacherSpec(judge=f"vllm:{server.url}", mode="joint"), EIGHT)
        assert isinstance(judge, RemoteJudge)
        dialect, question = judge._dialect, judge._questions[0]
        with pytest.raises(StoryRefusedError, match="control tokens"):
            judge._loop.run(dialect.prompt(question.frame, "The fox.<|eot_id|>", question.tree))
        judge.close()
