"""Starts each service as a child process and waits until it is ready. The command lines of the house are here."""

import os
import sys
import time
from pathlib import Path
from typing import Literal

from services.local import http
from services.local.errors import ChildFailedError, CommandError
from services.local.interrupts import Interrupts
from services.local.plan import Plan
from services.local.processes import Child, Children, tail
from services.redis_server import LocalRedis, RedisServerError, start_server

Progress = Literal["tty", "plain"]
TrainerPart = Literal["run", "pretrain", "interact"]
TRAINER_GRACE_S = 120.0  # time to end an update and save
LOADING = "is being built"  # how the teacher says that its model is on the way
LOADING_S = 3600.0  # a teacher of 8B parameters is downloaded first
READY_S = 120.0
COMPLAINT_S = 5.0
EVALUATOR_THREADS = "FABULA_EVALUATOR_TORCH_THREADS"


def start_redis(children: Children, folder: Path) -> LocalRedis:
    """Run a Redis server over the data in `folder` and watch over it.

    Raises:
        CommandError: there is none, or it does not come up.
    """
    try:
        redis = start_server(folder)
    except RedisServerError as error:
        raise CommandError(f"{error}; or name a running one with --redis-url", exit_code=1) from error
    children.adopt(Child("Redis server", redis.pid, redis.log, redis.exit_code))
    return redis


def start_teacher(children: Children, teacher: str, port: int, redis_url: str | None, log: Path) -> Child:
    """Start the teacher that `teacher` (`rules:`, `transformers:<model>`) names."""
    command = [*_module("services.teacher"), "--port", str(port)]
    if redis_url is not None:
        command += ["--redis-url", redis_url]
    return children.start("teacher", command, log, env={**_environment(), "FABULA_TEACHER": teacher})


def start_evaluator(children: Children, plan: Plan, port: int, redis_url: str, teacher_url: str, log: Path) -> Child:
    """Start the evaluator over all runs beside this one."""
    command = [*_module("services.evaluator"), "--port", str(port), "--redis-url", redis_url]
    command += ["--runs-dir", str(plan.folder.parent), "--teacher-url", teacher_url]
    if plan.eval_data is not None:
        command += ["--eval-data", str(plan.eval_data)]
    # Beside a trainer; threads of two torch processes that fight for the cores cost both more than they bring.
    threads = os.environ.get(EVALUATOR_THREADS) or str(max(1, (os.cpu_count() or 1) // 2))
    return children.start("evaluator", command, log, env={**_environment(), EVALUATOR_THREADS: threads})


def start_trainer(
    children: Children, part: TrainerPart, folder: Path, redis_url: str | None, progress: Progress
) -> Child:
    """Start the trainer in the foreground: what it prints goes to our own terminal."""
    command = [*_module("services.student_trainer"), part, str(folder), "--progress", progress]
    if redis_url is not None:
        command += ["--redis-url", redis_url]
    return children.start("trainer", command, env=_environment(), grace_s=TRAINER_GRACE_S)


def wait_ready(children: Children, child: Child, url: str, interrupts: Interrupts) -> None:
    """Wait until the service at `url` is ready.

    A service that says for `COMPLAINT_S` seconds that it cannot work is believed, unless it says that it is loading.

    Raises:
        ChildFailedError: it stopped or does not get ready; its log's end is in the message.
        Interrupted: a signal has arrived.
    """
    start = good = time.monotonic()
    while not (answer := http.readiness(url)).ready:
        children.check()
        now = time.monotonic()
        if LOADING in answer.reason or not answer.answered:
            good = now
        loading = answer.answered and LOADING in answer.reason
        if now - good > COMPLAINT_S or now - start > (LOADING_S if loading else READY_S):
            end = f"; the end of {child.log}:\n{tail(child.log)}" if child.log is not None else ""
            raise ChildFailedError(f"the {child.name} at {url} does not get ready: {answer.reason}{end}")
        interrupts.sleep()


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _environment() -> dict[str, str]:
    """Our services reach each other directly, whatever proxy the machine uses for the world outside."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    hosts = ",".join(filter(None, [known, "127.0.0.1", "localhost"]))
    return {"NO_PROXY": hosts, "no_proxy": hosts}
