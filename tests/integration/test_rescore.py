"""`fabula rescore`: stories that a run recorded, judged again over a real socket, in process, and by a recording."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from fabula_proto import ScoredBatch, ScoreResponse, Story, TeacherIdentity, Verdict, VerdictStatus
from services.cli import main
from services.local.errors import CommandError
from services.local.partial_verdicts import PartialVerdicts
from services.local.recorded_stories import read_recorded
from services.local.rescoring import RANGES, Rescoring, file_name, rescore
from services.local.scorers import rubric_here, score_stories
from services.student_trainer.records import StoryRow, write_stories_part
from services.teacher.rubric import load_rubric
from tests.story_rows import write_judged_stories
from tests.teacher_helpers import WordJudge, teacher
from tests.trainer_helpers import IDENTITY

RUBRIC = load_rubric()
STEPS, STORIES = 7, 4


def verdict(story_id: str, level: float) -> Verdict:
    low = int(level)
    probabilities = [0.0] * 4
    probabilities[low], probabilities[min(low + 1, 3)] = 1 - (level - low), level - low
    return RUBRIC.verdict(story_id, {c.name: probabilities for c in RUBRIC.criteria})


def recorded(step: int, index: int) -> Verdict:
    """Rises with every step; the third story of the first step has no verdict."""
    if (step, index) == (0, 2):
        return Verdict(story_id=f"{step}-{index}", status=VerdictStatus.REFUSED, reason="not a story")
    return verdict(f"{step}-{index}", (step + index / 10) / 3)


def text(step: int, index: int) -> str:
    """Story `index` of step `step` has 10 * index + 5 words: WordJudge sees no progress over the steps."""
    first = "BREAK" if (step, index) == (6, 3) else "fox"
    return " ".join([first, *["ran"] * (10 * index + 4)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "r"
    for step in range(STEPS):
        verdicts = [recorded(step, index) for index in range(STORIES)]
        batch = ScoredBatch(
            run="r", step=step, chunk=0, digest="d", verdicts=tuple(verdicts), teacher=IDENTITY, worker="w", seconds=0
        )
        rows = [
            StoryRow(
                story=Story(id=f"{step}-{index}", prompt="Once", text=text(step, index)),
                index=index,
                words=9,
                tokens=9,
                ended=True,
                kl=0.0,
                reward=verdicts[index].reward,
                verdict=verdicts[index],
                batch=batch,
            )
            for index in range(STORIES)
        ]
        write_stories_part(folder / "stories", "r", step, step, [c.name for c in RUBRIC.criteria], rows)
    (folder / "run.yaml").write_text("preset: smoke\n")
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    monkeypatch.setattr(sys, "argv", ["fabula", "rescore", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_running_teacher_judges_the_recorded_stories(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (run / "stories").iterdir()}
    with teacher(WordJudge()) as client:
        assert command(monkeypatch, run, "--url", client.base_url, "--json") == 0
        report = Rescoring.from_json(capsys.readouterr().out)
        assert command(monkeypatch, run, "--url", client.base_url) == 0
        shown = capsys.readouterr().out
    # 28 stories; one was refused by the teacher of the run, another one breaks the new one.
    assert (report.stories, report.pairs) == (28, 26)
    assert (report.recorded.ok, report.recorded.refused, report.recorded.failed) == (27, 1, 0)
    assert (report.again.ok, report.again.refused, report.again.failed) == (27, 0, 1)
    assert report.teachers[0].teacher == IDENTITY
    assert report.teachers[0].stories == 28

    assert [(x.first_step, x.last_step) for x in report.ranges] == [(0, 0), (1, 1), (2, 3), (4, 4), (5, 6)]
    assert [x.pairs for x in report.ranges] == [3, 4, 8, 4, 7]
    second = report.ranges[1]  # recorded 3 * (1 + i / 10) / 3; WordJudge gives story i a level of i for each criterion
    assert second.recorded.value == pytest.approx(1.15, abs=1e-6)
    assert second.again.value == pytest.approx(3 * 1.5)
    assert second.difference.value == pytest.approx(4.5 - 1.15, abs=1e-6)
    assert second.again.low is not None
    assert second.again.high is not None
    assert 0 <= second.again.low < 4.5 < second.again.high <= 9
    total = next(row for row in report.agreement if row.name == "total")
    assert total.spearman.value is not None
    assert 0 < total.spearman.value < 0.9  # it follows the index within a step, and not the steps
    assert "again - recorded" in shown
    assert "1.15" in shown
    assert "Stories refused, most often (1): not a story" in " ".join(shown.split())
    assert "cannot stand BREAK" in " ".join(shown.split())
    assert [line.split()[0] for line in shown.splitlines() if line[:1].isdigit()] == ["26", "0", "1", "2-3", "4", "5-6"]

    assert {path: path.read_bytes() for path in (run / "stories").iterdir()} == before
    rows = pq.read_table(report.file).to_pylist()
    assert [(row["step"], row["index"]) for row in rows] == [(s, i) for s in range(STEPS) for i in range(STORIES)]
    assert (rows[7]["total"], rows[7]["score_coherence"], rows[7]["teacher_model"]) == (9.0, 3.0, "words")
    assert (rows[-1]["status"], rows[-1]["total"]) == ("failed", None)
    assert "BREAK" in rows[-1]["reason"]
    assert [path.name for path in (run / "rescored").iterdir()] == [Path(report.file).name]


@pytest.mark.parametrize(("where", "kept"), [("elsewhere", 128), ("here", 64)])
def test_an_interrupted_rescoring_goes_on(tmp_path: Path, where: str, kept: int) -> None:
    """Ctrl-C in the second of four chunks: what was judged before is not judged again, and nothing differs."""
    write_judged_stories(tmp_path / "stories", steps=5, stories=40)
    stories = [row.story for row in read_recorded(tmp_path / "stories")]
    partial = PartialVerdicts(lambda _: tmp_path / "partial.jsonl")
    done: list[int] = []

    def interrupt(count: int) -> None:
        done.append(count)
        if sum(done) > 64:
            raise KeyboardInterrupt

    judge = WordJudge()
    with teacher(judge) as client:
        side = str(client.base_url) if where == "elsewhere" else "rules:"
        whole = score_stories(side, stories, lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            score_stories(side, stories, interrupt, partial)
        assert len(partial.known(whole.teacher)) == kept
        with (tmp_path / "partial.jsonl").open("a") as file:
            file.write('\n{"story_id": "4-39", "status": "fai')  # as a kill leaves it
        done.clear()
        judge.calls.clear()
        assert score_stories(side, stories, done.append, partial) == whole
    assert sum(done) == len(stories)
    assert done[0] == kept or where == "elsewhere"
    # A running teacher is asked one chunk again, to learn who it is.
    assert sum(len(call) for call in judge.calls) == (64 + 72 if where == "elsewhere" else 0)
    assert len(partial.known(whole.teacher)) == len(stories)
    partial.forget(whole.teacher)
    assert not (tmp_path / "partial.jsonl").exists()


def test_a_sample_is_spread_over_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, run, "--teacher", "rules:", "--limit", "7") == 0
    [path] = (run / "rescored").iterdir()
    assert [row["step"] for row in pq.read_table(path).to_pylist()] == list(range(STEPS))
    assert RANGES < STEPS


def test_levels_between_two_are_kept(run: Path, tmp_path: Path) -> None:
    """A recording that says what the run recorded agrees with it in every number."""
    verdicts = tuple(recorded(step, index) for step in range(STEPS) for index in range(STORIES))
    answers = tmp_path / "answers.jsonl"
    answers.write_text(ScoreResponse(verdicts=verdicts[:-1], teacher=IDENTITY).to_json())
    report = rescore(run, str(answers), None, Console(stderr=True))
    assert (report.again.absent, report.again.refused, report.pairs) == (1, 1, 26)
    for row in report.agreement:
        assert row.kappa.value == pytest.approx(1.0, abs=1e-6), row.name
        assert row.bias.value == pytest.approx(0.0, abs=1e-6)
    absent = pq.read_table(report.file).to_pylist()[-1]
    assert (absent["status"], absent["total"], absent["flags"]) == ("absent", None, [])


def test_a_teacher_without_a_verdict_is_said_and_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = tuple(
        Verdict(story_id=f"{s}-{i}", status=VerdictStatus.FAILED, reason="away") for s in range(7) for i in range(4)
    )
    answers = tmp_path / "answers.jsonl"
    answers.write_text(ScoreResponse(verdicts=failed, teacher=IDENTITY).to_json())
    assert command(monkeypatch, run, "--teacher", answers) == 1
    said = capsys.readouterr().err
    assert "0 of 28 stories have an ok verdict on both sides" in said
    assert "28 failed" in said
    [path] = (run / "rescored").iterdir()
    assert str(path) in said


def test_teachers_that_differ_in_anything_have_files_of_their_own() -> None:
    def name(**change: str) -> str:
        return file_name(TeacherIdentity.model_validate(IDENTITY.model_dump() | change))

    assert name().startswith("test-vowels-")
    assert len({name(), name(revision="2"), name(rubric_hash="1" * 12), name(mode="joint")}) == 4
    assert name(model="/models/My Llama").startswith("test-My-Llama-")


def test_a_judge_needs_no_teachers_file_that_is_in_order(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "teachers.yaml").write_text("teachers: {other: {judge: 'rules:', rubric: missing.yaml}}")
    monkeypatch.setenv("FABULA_TEACHERS_FILE", str(tmp_path / "teachers.yaml"))
    assert rescore(run, "rules:", None, Console(stderr=True)).pairs == 27
    assert rubric_here("rules:").name == "paper"
    with pytest.raises(CommandError, match="teacher other"):
        rescore(run, "other", None, Console(stderr=True))


def test_what_cannot_be_rescored_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, run) == 2
    assert command(monkeypatch, run, "--teacher", "rules:", "--url", "http://127.0.0.1:1") == 2
    (run / "stories" / "part-00003.parquet").write_bytes(b"cut")
    with pytest.raises(CommandError, match=r"part-00003\.parquet cannot be read"):
        rescore(run, "rules:", None, Console())
    for path in (run / "stories").iterdir():
        path.unlink()
    with pytest.raises(CommandError, match="no judged stories yet"):
        rescore(run, "rules:", None, Console())
