"""`fabula teacher audit`: the attack suite against a teacher in this process or one that runs elsewhere."""

from collections.abc import Sequence

from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from fabula_proto import Story, TeacherIdentity, Verdict
from services.local import http
from services.local.errors import CommandError, not_installed
from services.local.scorers import rubric_here, score_stories

try:
    from services.teacher import audit
    from services.teacher.info import RubricInfo
    from services.teacher.rubric import Criterion
except ImportError as error:
    raise not_installed(error) from error


def run_audit(side: str, *, seed: int, quick: bool, console: Console) -> audit.AuditReport:
    """Audit `side`; progress goes to `console`.

    Args:
        side: a judge such as `rules:`, a name of the teachers file, or the URL of a running teacher, with
            `?teacher=NAME` if wanted.
        seed: of the attacks.
        quick: 6 base stories in place of 20.
        console: where progress is shown.

    Raises:
        CommandError: there is no such teacher, it cannot judge, or its rubric cannot be had.
    """
    remote = side.startswith(("http://", "https://"))
    if remote:
        criteria, rubric_hash = _rubric_there(side)
    else:
        rubric = rubric_here(side)
        criteria, rubric_hash = rubric.criteria, rubric.hash
    planned = audit.plan(criteria, seed=seed, quick=quick)
    if remote:  # before hundreds of stories are judged
        _check_rubric(side, _judge(side, planned.stories[:1], console)[0], rubric_hash)
    teacher, verdicts = _judge(side, planned.stories, console)
    _check_rubric(side, teacher, rubric_hash)
    return audit.summarise(planned, verdicts, teacher)


def _judge(side: str, stories: Sequence[Story], console: Console) -> tuple[TeacherIdentity, list[Verdict]]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{side} judges {len(stories)} texts", total=len(stories))
        scored = score_stories(side, stories, lambda done: progress.advance(task, done))
    return scored.teacher, [verdict for verdict in scored.verdicts if verdict is not None]


def _rubric_there(url: str) -> tuple[Sequence[Criterion], str]:
    address = url.partition("?")[0]
    try:
        rubric = RubricInfo.model_validate(http.info(address).get("rubric"))
    except ValidationError as error:
        raise CommandError(
            f"{address}/info names no rubric; is a teacher of this version there?", exit_code=1
        ) from error
    return [Criterion.model_validate(criterion.model_dump()) for criterion in rubric.criteria], rubric.hash


def _check_rubric(side: str, teacher: TeacherIdentity, rubric_hash: str) -> None:
    if teacher.rubric_hash != rubric_hash:
        raise CommandError(
            f"{side} judges by rubric {teacher.rubric} {teacher.rubric_version}, which is not the one that the service "
            "shows in /info, and attacks quote the rubric; let the service audit it: POST /audit?teacher=NAME",
            exit_code=1,
        )
