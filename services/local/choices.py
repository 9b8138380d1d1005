"""The teacher and the evaluation data that a user names, checked and in full."""

import os
from pathlib import Path

from services.local.errors import CommandError

DEFAULT_TEACHER = "rules:"


def chosen_teacher(said: str | None) -> str:
    """The teacher asked for, else FABULA_TEACHER, else the one without weights."""
    return said or os.environ.get("FABULA_TEACHER") or DEFAULT_TEACHER


def checked_teacher(teacher: str) -> str:
    """`teacher` in full; a folder becomes an absolute path. A name of the teachers file stays a name.

    Raises:
        CommandError: there is no such teacher.
    """
    # Imported here: the teacher's settings read the environment, which most commands have no use for.
    from services.teacher.roster import read_roster
    from services.teacher.settings import TeacherSettings
    from services.teacher.spec import BACKENDS, parse_judge

    try:
        if os.environ.get("FABULA_TEACHERS_FILE") and teacher.partition(":")[0] not in BACKENDS:
            read_roster(TeacherSettings(teacher=teacher))
            return teacher
        target = parse_judge(teacher)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if target.url is not None:
        return str(target)
    path = Path(target.model).expanduser() if target.model else None
    # A folder means the same folder wherever the run is continued from; anything else is a name on the hub.
    return f"{target.backend}:{path.resolve() if path is not None and path.is_dir() else target.model or ''}"


def checked_eval_data(given: str | None) -> str | None:
    """A folder as an absolute path; `hub:OWNER/NAME[@REVISION]`, which is fetched here, as it is.

    Raises:
        CommandError: it is no folder and not on the Hub, or holds no evaluation data.
    """
    if given is None:
        return None
    # Imported here: they load torch.
    from services.evaluator.adapters.eval_data import check_folder, is_hub, local_folder
    from services.evaluator.errors import EvaluatorError

    try:
        path = local_folder(given).expanduser().resolve()
    except EvaluatorError as error:
        raise CommandError(str(error)) from error
    if not path.is_dir():
        raise CommandError(
            f"the evaluation data {given} is not a folder (looked for {path}); give one in the BabyLM 2025 "
            "`evaluation_data` layout, or leave it out for generated items"
        )
    try:
        check_folder(path)
    except EvaluatorError as error:
        raise CommandError(str(error)) from error
    return given if is_hub(given) else str(path)
