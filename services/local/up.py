"""`fabula up`, `fabula pretrain` and `fabula interact`: a run, or a part of it, on this machine."""

import difflib
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.local import summary, table
from services.local.errors import CommandError, Interrupted
from services.local.evaluations import ReportWait
from services.local.house import House, program, run_in_house
from services.local.plan import RUN_FILE, Plan, Request, changes, make_plan, open_folder, read_plan, write_plan
from services.local.precheck import check_teachers, check_weights
from services.local.run_list import is_trained
from services.local.sessions import Sessions
from services.student_trainer.folder_lock import TRAINER_LOCK, is_locked


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what (see plan.Request)."""

    teacher_port: int = 8001
    evaluator_port: int = 8002
    redis_url: str | None = None
    stay: bool = False


def up(request: Request, options: Options, console: Console) -> int:
    """Run or continue the requested run, print its table, and return the exit status.

    Raises:
        CommandError: something is wrong that the user can act on; every child has been stopped.
    """
    plan = _open(request, console)
    finished = Sessions.read(plan.folder).finished
    if finished and not options.stay:
        _say_ignored(plan, console)
        console.print(f"Run {plan.run} is finished; nothing was started.", highlight=False, markup=False)
        _close(plan, console)
        return 0

    def loop(house: House) -> bool:
        house.say(f"Run {plan.run} in {plan.folder}")
        settled = finished or is_trained(plan.folder)
        if settled:
            _say_ignored(plan, console)
        if not finished:
            _check_free(plan)
        with house.watch.timing("startup_s"):
            redis_url = house.redis(options.redis_url)
            if not settled:
                check_teachers(plan, redis_url)
            if not (plan.folder / RUN_FILE).exists():
                write_plan(plan)  # a start that fails from here on is continued by its name
            teacher_url = house.teacher(options.teacher_port, redis_url)
            page = house.evaluator(options.evaluator_port, redis_url, teacher_url)
        house.say(f"Curves, scores and stories: {page}/   The teacher's API: {teacher_url}/docs")
        if not settled:
            write_plan(plan)
        if not finished:
            house.train("run", redis_url)
        with house.watch.timing("evaluation_wait_s"):
            _wait_for_reports(house, redis_url)
        return True

    def loop_and_stay(house: House) -> bool:
        loop(house)
        _close(plan, console)
        house.say("Everything stays up until Ctrl-C.")
        _stay(house)
        return True

    status = run_in_house(plan, console, loop_and_stay if options.stay else loop)
    if status == 0 and not options.stay:
        _close(plan, console)
    return status


def pretrain(request: Request, console: Console) -> int:
    """Only next-word prediction of a run; needs neither teacher nor queue.

    Raises:
        CommandError: as `up`.
    """
    plan = _open(request, console)

    def body(house: House) -> bool:
        _check_free(plan)
        if is_trained(plan.folder):
            _say_ignored(plan, console)
        else:
            check_weights(plan)
            write_plan(plan)
        house.train("pretrain", None)
        house.say(f"Pretrained: {plan.folder / 'checkpoints' / (summary.ends(plan.folder).before or '')}")
        house.say(f"Go on with: {program()} interact {shlex.quote(str(plan.folder))}")
        return False

    return run_in_house(plan, console, body)


def interact(run_dir: Path, redis_url: str | None, teacher_port: int, console: Console) -> int:
    """Only the interaction of a pretrained run. With `redis_url`, its teachers do the judging and none is started.

    Raises:
        CommandError: there is no such run, or it has no pretrained checkpoint.
    """
    plan = read_plan(run_dir.expanduser())
    if summary.ends(plan.folder).before is None:
        raise CommandError(
            f"run {plan.run} has no pretrained checkpoint in {plan.folder / 'checkpoints'}; "
            f"make one first: fabula up --run {plan.run}, or fabula pretrain with the run's settings"
        )

    def body(house: House) -> bool:
        url = house.redis(redis_url)
        if redis_url is None:
            check_teachers(plan, url)
            house.teacher(teacher_port, url)
        house.train("interact", url)
        house.say(f"Done: {plan.folder / 'checkpoints' / (summary.ends(plan.folder).after or '')}")
        house.say(
            f"Measure a checkpoint with: {program()} evaluate CHECKPOINT; "
            f"the whole run with: {program()} up --run {plan.run}"
        )
        return False

    return run_in_house(plan, console, body)


def _open(request: Request, console: Console) -> Plan:
    """The requested plan, and its folder made. Nothing in the folder has changed: the run may be at work, or finished.

    Raises:
        CommandError: as `make_plan` and `open_folder`.
    """
    plan = make_plan(request)
    if open_folder(plan) is None and request.run is not None:
        others = [path.parent.name for path in plan.folder.parent.glob(f"*/{RUN_FILE}")]
        near = difflib.get_close_matches(plan.run, others, n=1)
        console.print(
            f"No run {plan.run} in {plan.folder.parent} yet; a new one begins."
            + (f" There is one named {near[0]}." if near else ""),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return plan


def _check_free(plan: Plan) -> None:
    """Raise where a trainer that was started by hand works with the run's settings as they are."""
    if is_locked(plan.folder / TRAINER_LOCK):
        raise CommandError(
            f"a trainer works in {plan.folder} already (`fabula runs` shows it); wait for it to end, stop it, or start "
            "another run with --run NAME"
        )


def _say_ignored(plan: Plan, console: Console) -> None:
    if different := changes(read_plan(plan.folder), plan):
        console.print(
            f"Ignored, since run {plan.run} has been trained already: {'; '.join(different)}.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _wait_for_reports(house: House, redis_url: str) -> None:
    wait = ReportWait(house.plan.folder, summary.ends(house.plan.folder).names, redis_url)
    if not (names := ", ".join(wait.missing)):
        return
    start = time.monotonic()
    with house.line(f"Measuring {names} ..."):
        wait.wait(house.children, house.interrupts)
    house.say(f"Measured {names} ({table.duration(time.monotonic() - start)} of waiting)")


def _stay(house: House) -> None:
    try:
        while True:
            house.interrupts.sleep(1.0)
            house.children.check()
    except Interrupted:
        return


def _close(plan: Plan, console: Console) -> None:
    table.show(summary.summarise(plan.folder), console)
    for line in (
        f"Run folder   {plan.folder}",
        f"Checkpoints  {plan.folder / 'checkpoints'}",
        f"Stories      {plan.folder / 'stories'} (Parquet)",
        f"The page     {_again(plan)} --stay",
        "Another run  the same command with --set seed=43, or another --preset, --corpus, --teacher",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _again(plan: Plan) -> str:
    """The command that goes on with this run, or shows it."""
    return f"{program()} up --run {plan.run} --runs-dir {shlex.quote(str(plan.folder.parent))}"
