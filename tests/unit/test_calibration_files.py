"""Stories and recordings as the command line reads them, and what it says of those that it cannot read."""

import gzip
import json
import re
from pathlib import Path

import pytest

from fabula_proto import ScoredBatch, ScoreResponse, Story, TeacherIdentity, Verdict, VerdictStatus
from services.local.errors import CommandError
from services.local.scorers import Scored, score_stories
from services.local.story_files import read_stories
from services.student_trainer.records import StoryRow, write_stories_part
from services.teacher.judges.base import judge_stories
from tests.teacher_helpers import WordJudge

STORIES = [Story(id=str(i), text=f"{'a fox ran ' * (i + 3)}home.") for i in range(4)]


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows), encoding="utf-8")
    return path


def answer(stories: list[Story]) -> str:
    judge = WordJudge()
    return ScoreResponse(verdicts=tuple(judge_stories(judge, stories)), teacher=judge.identity).to_json()


def recorded(side: str, stories: list[Story] | None = None) -> Scored:
    return score_stories(side, STORIES if stories is None else stories, lambda _: None)


def test_lines_of_either_kind_are_stories(tmp_path: Path) -> None:
    path = written(
        tmp_path / "stories.jsonl",
        "",
        '"A plain string."',
        {"text": "With an id.", "story_id": 7, "title": "left alone"},
        {"story": "HANNA's key.", "id": "seven", "prompt": "Write."},
    )
    stories = read_stories(path)
    assert stories == [
        Story(id="0", text="A plain string."),
        Story(id="7", text="With an id."),
        Story(id="seven", prompt="Write.", text="HANNA's key."),
    ]
    packed = tmp_path / "stories.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert read_stories(packed) == stories


def test_a_limit_takes_stories_from_all_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "stories.jsonl", *({"text": f"Story {i}."} for i in range(10)))
    assert [story.id for story in read_stories(path, limit=4)] == ["0", "2", "5", "7"]
    assert len(read_stories(path, limit=10)) == len(read_stories(path, limit=99)) == 10


def test_the_stories_of_a_run_are_read(tmp_path: Path) -> None:
    judge = WordJudge()
    verdicts = judge_stories(judge, STORIES)
    for step, part in enumerate((STORIES[:2], STORIES[2:])):
        batch = ScoredBatch(
            run="r",
            step=step,
            chunk=0,
            digest="0",
            verdicts=tuple(verdicts),
            teacher=judge.identity,
            worker="w",
            seconds=0,
        )
        rows = [
            StoryRow(
                story=s, index=i, words=3, tokens=3, ended=True, kl=0.0, reward=None, verdict=verdicts[i], batch=batch
            )
            for i, s in enumerate(part)
        ]
        write_stories_part(tmp_path / "stories", "r", step, 0, [c.name for c in judge.rubric.criteria], rows)
    assert read_stories(tmp_path / "stories") == read_stories(tmp_path) == STORIES


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no stories"),
        (["{"], "is not JSON Lines"),
        (['{"words": 3}'], ":1 is no story (text: Field required)"),
        (['"a b."', "17"], ":2 is no story (line: Input should be"),
        (['{"text": "a", "id": "x"}', '{"text": "b", "id": "x"}'], ":2 has the id 'x' again"),
    ],
)
def test_what_holds_no_stories_is_said(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=re.escape(message)):
        read_stories(written(tmp_path / "stories.jsonl", *lines))


def test_a_place_without_stories_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        read_stories(tmp_path / "none.jsonl")
    with pytest.raises(CommandError, match=r"holds no part-\*.parquet"):
        read_stories(tmp_path)
    (tmp_path / "part-00000.parquet").write_bytes(b"nothing")
    with pytest.raises(CommandError, match="expected a run's stories"):
        read_stories(tmp_path)


def test_answers_of_a_teacher_are_a_recording(tmp_path: Path) -> None:
    path = written(tmp_path / "answers.jsonl", answer(STORIES[:1]), answer(STORIES[1:3]))
    done: list[int] = []
    found = score_stories(str(path), [*STORIES[::-1]], done.append)
    assert found.teacher == WordJudge().identity
    assert sum(done) == len(STORIES)
    assert found.verdicts == [None, *judge_stories(WordJudge(), STORIES[:3])[::-1]]


def test_a_judge_of_a_ratings_file_is_a_recording(tmp_path: Path) -> None:
    rows = [
        {
            "story_id": i,
            "text": "a b c.",
            "human": {"coherence": [1 + i]},
            "llm": {"Reader": {"coherence": 5 if i else -1}},
        }
        for i in range(3)
    ]
    path = written(tmp_path / "ratings.jsonl", *rows)
    human, reader = recorded(f"{path}#human"), recorded(f"{path}#Reader")
    assert [v.reward if v else None for v in human.verdicts] == [0.0, 0.25, 0.5, None]
    assert [v.status if v else None for v in reader.verdicts] == [VerdictStatus.FAILED, *["ok"] * 2, None]
    assert isinstance(reader.verdicts[1], Verdict)
    assert isinstance(human.teacher, TeacherIdentity)
    assert (human.teacher.model, reader.teacher.model, human.teacher.revision) == ("human", "Reader", "ratings.jsonl")
    with pytest.raises(CommandError, match="has no ratings by 'Nobody'; it has human, Reader"):
        recorded(f"{path}#Nobody")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds answers of 0 teachers"),
        (["{}"], ":1 is no answer of POST /score"),
        ([answer(STORIES[:1]), answer(STORIES[:1]).replace('"revision":"1"', '"revision":"2"')], "of 2 teachers"),
        ([answer(STORIES[:1]), answer(STORIES[:1])], "two verdicts for a story"),
    ],
)
def test_what_is_no_recording_is_said(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=re.escape(message)):
        recorded(str(written(tmp_path / "answers.jsonl", *lines)))
