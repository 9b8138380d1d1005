"""`fabula score`: verdicts for a few texts, from a judge in this process or from a running teacher."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from fabula_proto import ScoreResponse, Story, Verdict, VerdictStatus
from services.local.errors import CommandError


def score_here(teacher: str | None, texts: Sequence[str]) -> ScoreResponse:
    """Judge `texts` in this process, as a teacher with the same settings would over HTTP.

    Raises:
        CommandError: there is no such teacher, or it cannot judge.
    """
    # Imported here: a judge may bring torch, and most commands need none.
    from services.teacher.judges.base import JudgeUnavailableError, judge_stories
    from services.teacher.judges.build import build_judge
    from services.teacher.rubric import RubricError, load_rubric
    from services.teacher.screening import ScreenedJudge
    from services.teacher.settings import TeacherSettings

    try:
        settings = TeacherSettings() if teacher is None else TeacherSettings(teacher=teacher)
        rubric = load_rubric(settings.rubric)
        judge = ScreenedJudge(build_judge(settings.spec, rubric), rubric, settings.max_story_chars)
        stories = [Story(id=str(i), text=text) for i, text in enumerate(texts)]
        return ScoreResponse(verdicts=tuple(judge_stories(judge, stories)), teacher=judge.identity)
    except (JudgeUnavailableError, RubricError) as error:
        raise CommandError(str(error), exit_code=1) from error
    except ValueError as error:
        raise CommandError(settings_problem(error)) from error


def show(response: ScoreResponse, texts: Sequence[str], console: Console) -> None:
    """Print one small table a text, and who judged."""
    for text, verdict in zip(texts, response.verdicts, strict=True):
        console.print(_table(text, verdict))
    teacher = response.teacher
    console.print(
        f"Judged by {teacher.backend} ({teacher.model}, revision {teacher.revision}), rubric {teacher.rubric} "
        f"{teacher.rubric_version}, mode {teacher.mode}",
        style="dim",
        highlight=False,
    )


def _table(text: str, verdict: Verdict) -> Table:
    words = text.split()
    start = " ".join(words[:12]) + (" ..." if len(words) > 12 else "")
    table = Table(title=start or "(empty)", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("criterion")
    table.add_column("score", justify="right")
    table.add_column("probability of each level, from 0")
    if verdict.status is not VerdictStatus.OK:
        table.add_row(verdict.status.value, "-", verdict.reason or "", style="yellow")
        return table
    for name, criterion in (verdict.criteria or {}).items():
        levels = "  ".join(f"{p:.2f}" for p in criterion.probabilities)
        table.add_row(name, f"{criterion.mean:.2f}", levels)
    table.add_row("total", f"{verdict.total:.2f}", f"reward {verdict.reward:.3f}", style="bold")
    if verdict.flags:
        table.add_row("flags", "", ", ".join(verdict.flags), style="yellow")
    return table


def settings_problem(error: ValueError) -> str:
    """What is wrong with a teacher's settings, each setting on a line."""
    from pydantic import ValidationError

    from services.teacher.settings import explain_settings

    if isinstance(error, ValidationError):
        # The teacher is mostly named on the command line, and the message quotes it.
        return explain_settings(error).removeprefix("FABULA_TEACHER: ")
    return str(error)
