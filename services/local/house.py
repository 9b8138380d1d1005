"""One command's hold on a run: its lock, its signals, and the services it starts as child processes."""

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from services.local import ports, services
from services.local.errors import CommandError, Interrupted
from services.local.interrupts import Interrupts
from services.local.plan import Plan
from services.local.processes import Children, describe_exit
from services.local.runlock import RunLock
from services.local.sessions import Outcome, Stopwatch
from services.local.table import duration

INTERRUPTED = 130
WRONG_SETTING = 2  # how the trainer ends where a setting, or a file it names, cannot be used
AFTER_FAILURE = "the same command continues from the last saved state"
AFTER_WRONG_SETTING = (
    "change the setting, or mend what it names: the same command would stop there again. A run keeps the settings "
    "that decide its result: give the changed one another --run NAME, or none"
)
PORT_TRIES = 5


def run_in_house(plan: Plan, console: Console, body: Callable[["House"], bool]) -> int:
    """Hold the run while `body` works in it; afterwards every child has ended, however it went.

    Args:
        plan: The run; its folder exists.
        console: Where to talk.
        body: Does the work; returns whether the run is finished with it.

    Returns:
        The exit status: 0, or 130 after a signal.

    Raises:
        CommandError: from the body, or the run is in use.
    """
    with Interrupts() as interrupts:
        try:
            with RunLock(plan.folder, interrupts.sleep, console.print) as lock:
                _hold(plan, console, interrupts, lock, body)
        except Interrupted:
            command = shlex.join([program(), *sys.argv[1:]])
            console.print(
                f"Stopped. The same command continues where it was: {command}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            return INTERRUPTED
    return 0


def program() -> str:
    """How the user called us, so that the commands we print can be typed: `fabula`, or `.venv/bin/fabula`."""
    return sys.argv[0] if Path(sys.argv[0]).name == "fabula" and not Path(sys.argv[0]).is_absolute() else "fabula"


def _hold(plan: Plan, console: Console, interrupts: Interrupts, lock: RunLock, body: Callable[["House"], bool]) -> None:
    watch = Stopwatch()
    outcome: Outcome = "failed"
    try:
        with Children(inherit=(lock.descriptor,), hurry=lambda: interrupts.insisted) as children:
            try:
                outcome = "finished" if body(House(plan, console, interrupts, children, watch)) else "paused"
            except Interrupted:
                outcome = "interrupted"
                console.print("\nStopping; the state is saved first (Ctrl-C again: at once) ...", highlight=False)
                raise
    finally:
        watch.save(plan.folder, outcome)


@dataclass(frozen=True)
class House:
    """What a command may start for its run."""

    plan: Plan
    console: Console
    interrupts: Interrupts
    children: Children
    watch: Stopwatch

    def redis(self, url: str | None) -> str:
        """Address of the queue: `url`, or that of a server started here on the run's own data."""
        if url is not None:
            self.say(f"Redis: {url}")
            return url
        redis = services.start_redis(self.children, self.plan.folder / "redis")
        self.say(f"Redis: {redis.binary.path} ({redis.binary.origin}), {redis.url}")
        return redis.url

    def teacher(self, wanted_port: int, redis_url: str) -> str:
        """Start the run's teacher and wait for it. Returns its address."""
        worker = services.worker_name("teacher", self.plan.folder)

        def start(port: int) -> services.Service:
            log = self._log("teacher")
            return services.start_teacher(self.children, self.plan.teacher, port, redis_url, log, worker)

        return self._serve(f"teacher {self.plan.teacher}", wanted_port, start)

    def evaluator(self, wanted_port: int, redis_url: str, teacher_url: str) -> str:
        """Start the evaluator and wait for it. Returns its address."""

        def start(port: int) -> services.Service:
            log = self._log("evaluator")
            return services.start_evaluator(self.children, self.plan, port, redis_url, teacher_url, log)

        return self._serve("evaluator", wanted_port, start)

    def train(self, part: services.TrainerPart, redis_url: str | None) -> None:
        """Run the trainer in the foreground until it is done.

        Raises:
            CommandError: it failed; what it said is on the terminal.
            ChildFailedError: another service stopped.
            Interrupted: a signal has arrived.
        """
        progress: services.Progress = "tty" if self.console.is_terminal else "plain"
        with self.watch.timing("training_s"):
            trainer = services.start_trainer(self.children, part, self.plan.folder, redis_url, progress)
            while trainer.poll() is None:
                self.interrupts.sleep()
                self.children.check(except_for=trainer)
            status = self.children.stop(trainer)
        self.interrupts.check()
        if status != 0:
            cure = AFTER_WRONG_SETTING if status == WRONG_SETTING else AFTER_FAILURE
            raise CommandError(
                f"the trainer stopped ({describe_exit(status)}); what it said stands above. Everything was stopped; "
                f"{cure}",
                exit_code=status if status > 0 else 1,
            )

    def say(self, text: str) -> None:
        """One line that is never wrapped or coloured: addresses and paths stay whole."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def line(self, text: str) -> AbstractContextManager[Any]:
        """A line with a spinner on a terminal, nothing elsewhere."""
        return self.console.status(text) if self.console.is_terminal else nullcontext()

    def _log(self, name: str) -> Path:
        return self.plan.folder / "logs" / f"{name}.log"

    def _serve(self, title: str, wanted_port: int, start: Callable[[int], services.Service]) -> str:
        """Start a service at the wanted port, or at a free one where that is taken, and wait until it is ready."""
        began = time.monotonic()
        port = wanted_port
        for _ in range(PORT_TRIES):
            if port == wanted_port and not ports.is_free(port):
                port = self._another_port(title, port)
            service = start(port)
            try:
                with self.line(f"Starting the {title} ..."):
                    services.wait_ready(self.children, service, self.interrupts)
            except services.PortTakenError:
                # It was free a moment ago: another `up` that began with us was faster.
                port = self._another_port(title, port)
                continue
            self.say(f"Ready: {title}, {service.url} ({duration(time.monotonic() - began)})")
            return service.url
        raise CommandError(f"no port for the {title} in {PORT_TRIES} tries, the last {port}; choose one", exit_code=1)

    def _another_port(self, title: str, taken: int) -> int:
        port = ports.any_free()
        self.say(f"Port {taken} is taken; the {title} gets {port}.")
        return port
