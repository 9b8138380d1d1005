"""`fabula up`, `fabula pretrain` and `fabula interact`: a run, or a part of it, on this machine."""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.local import summary, table
from services.local.errors import CommandError, Interrupted
from services.local.evaluations import ReportWait
from services.local.house import House, program, run_in_house
from services.local.plan import Plan, Request, make_plan, read_plan, write_plan
from services.local.sessions import Sessions


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
    plan = make_plan(request)
    write_plan(plan)
    finished = Sessions.read(plan.folder).finished
    if finished and not options.stay:
        console.print(f"Run {plan.run} is finished; nothing was started.", highlight=False, markup=False)
        _close(plan, console)
        return 0

    def loop(house: House) -> bool:
        house.say(f"Run {plan.run} in {plan.folder}")
        with house.watch.timing("startup_s"):
            redis_url = house.redis(options.redis_url)
            teacher_url = house.teacher(options.teacher_port, redis_url)
            page = house.evaluator(options.evaluator_port, redis_url, teacher_url)
        house.say(f"Curves, scores and stories: {page}/   The teacher's API: {teacher_url}/docs")
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
    """Only next-word prediction of a run; needs neither teacher nor queue."""
    plan = make_plan(request)
    write_plan(plan)

    def body(house: House) -> bool:
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
            house.teacher(teacher_port, url)
        house.train("interact", url)
        house.say(f"Done: {plan.folder / 'checkpoints' / (summary.ends(plan.folder).after or '')}")
        house.say(
            f"Measure a checkpoint with: fabula evaluate CHECKPOINT; the whole run with: fabula up --run {plan.run}"
        )
        return False

    return run_in_house(plan, console, body)


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
