"""What would show only after pretraining, asked before: do the settings fit the teacher?"""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fabula_proto.streams import TransportError
from services.local.errors import CommandError
from services.local.plan import Plan

if TYPE_CHECKING:
    from services.teacher.roster import Roster
    from services.teacher.rubric import Rubric
    from services.teacher.spec import TeacherSpec


def check_weights(plan: Plan) -> None:
    """Check the criterion weights against the rubric of the plan's own teacher, which needs neither it nor a queue.

    They decide the result, so that mending one later costs the pretraining; guards may be changed at any time.

    Raises:
        CommandError: they name a criterion that there is not, or leave none.
    """
    if plan.settings.interact.reward.weights:
        _, _, rubric = _training(plan, ())
        _check_criteria(plan.settings.interact.reward.weights, rubric)


def check_teachers(plan: Plan, redis_url: str) -> None:
    """Check the run's settings against the teacher that is started for it; the queue knows who judges the run.

    Raises:
        CommandError: as `check_fit`; or the queue does not answer.
    """
    # Imported here: most commands have no use for it.
    from services.teacher.assignments import Assignments

    wanted = plan.settings.interact
    if not wanted.reward.weights and wanted.guards.held_out.teacher is None:
        return
    try:
        assignments = Assignments(redis_url)
        try:
            judges = assignments.of(plan.run)
        finally:
            assignments.close()
    except ValueError as error:
        raise CommandError(str(error)) from error
    except TransportError as error:
        raise CommandError(str(error), exit_code=1) from error
    check_fit(plan, judges)


def check_fit(plan: Plan, judges: Sequence[str]) -> None:
    """Check the run's settings against its teachers: `judges` by name, or the plan's own where nobody is named.

    Raises:
        CommandError: the settings name a criterion or a teacher that there is not, or hold out the training teacher.
    """
    wanted = plan.settings.interact
    roster, training, rubric = _training(plan, judges)
    _check_criteria(wanted.reward.weights, rubric)
    if wanted.guards.held_out.teacher is not None:
        _check_held_out(wanted.guards.held_out.teacher, roster, training)


def _training(plan: Plan, judges: Sequence[str]) -> "tuple[Roster, list[TeacherSpec], Rubric]":
    """Who can be asked, the teachers that the student learns from, and the rubric of the first of them."""
    from services.teacher.roster import UnknownTeacherError, read_roster
    from services.teacher.rubric import load_rubric
    from services.teacher.settings import TeacherSettings

    try:
        roster = read_roster(TeacherSettings(teacher=plan.teacher))
        training = [roster.teachers[name] for name in roster.members(judges)]
        return roster, training, load_rubric(training[0].rubric)
    except UnknownTeacherError as error:
        raise CommandError(f"run {plan.run} was put on the teachers {', '.join(judges)}, and {error}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error


def _check_criteria(weights: Mapping[str, float], rubric: "Rubric") -> None:
    criteria = [criterion.name for criterion in rubric.criteria]
    for name in weights:
        if name not in criteria:
            near = difflib.get_close_matches(name, criteria, n=1)
            raise CommandError(
                f"interact.reward.weights names {name}, which is no criterion of the teacher's rubric {rubric.name}; "
                + (f"did you mean {near[0]}? " if near else "")
                + f"Its criteria are {', '.join(criteria)}"
            )
    if not sum(weights.get(name, 1.0) for name in criteria) > 0:
        raise CommandError(
            f"interact.reward.weights leaves no criterion with a weight above 0; the criteria are {', '.join(criteria)}"
        )


def _check_held_out(name: str, roster: "Roster", training: "Sequence[TeacherSpec]") -> None:
    from services.teacher.roster import UnknownTeacherError

    try:
        held_out = [roster.teachers[member] for member in roster.members([name])]
    except UnknownTeacherError as error:
        near = difflib.get_close_matches(name, roster.names, n=1)
        raise CommandError(
            f"interact.guards.held_out.teacher: {error}"
            + (f"; did you mean {near[0]}?" if near else "")
            + ". Others are added in the file that FABULA_TEACHERS_FILE names"
        ) from error
    if {_who(spec) for spec in held_out} == {_who(spec) for spec in training}:
        raise CommandError(
            f"interact.guards.held_out.teacher {name} is the teacher that the student learns from "
            f"({', '.join(spec.judge for spec in training)}): it can never disagree with itself. Name another one, or "
            "choose another --teacher"
        )


def _who(spec: "TeacherSpec") -> tuple[object, ...]:
    """What of a teacher's settings is in its identity (fabula_proto.TeacherIdentity)."""
    if spec.target.backend == "rules":
        return ("rules:", spec.rubric)
    seed = spec.sample_seed if spec.chosen_mode == "sample" else None
    return (str(spec.target), spec.teacher_revision, spec.rubric, spec.chosen_mode, spec.chosen_temperature, seed)
