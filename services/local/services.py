"""Starts each service as a child process and waits until it is ready. The command lines of the house are here."""

import hashlib
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.local import http, ports
from services.local.errors import ChildFailedError, CommandError
from services.local.interrupts import Interrupts
from services.local.plan import Plan
from services.local.processes import Child, Children, tail
from services.redis_server import LocalRedis, RedisServerError, start_server

Progress = Literal["tty", "plain"]


class PortTakenError(Exception):
    """Another program listens where a service of ours should."""


TrainerPart = Literal["run", "pretrain", "interact"]
TRAINER_GRACE_S = 120.0  # time to end an update and save
LOADING = "is being built"  # how the teacher says that its model is on the way
LOADING_S = 3600.0  # a teacher of 8B parameters is downloaded first
READY_S = 120.0
COMPLAINT_S = 5.0
NO_PORT, PORT_TAKEN = 2, "cannot listen on"  # how our services end when their port is not to be had


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


@dataclass(frozen=True)
class Service:
    """A service of ours that is on its way up. `worker` is its name, also in the queue: the one that answers is it."""

    child: Child
    url: str
    worker: str


def worker_name(service: str, folder: Path) -> str:
    """Stable for a run's folder, so that a service that was killed goes on with its own deliveries.

    Unique among the living: two runs of one name in different folders have different ones.
    """
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]
    return f"{socket.gethostname()}.{folder.name}-{place}.{service}"


def start_teacher(
    children: Children, teacher: str, port: int, redis_url: str | None, log: Path, worker: str
) -> Service:
    """Start the teacher that `teacher` (`rules:`, `transformers:<model>`) names."""
    command = [*_module("services.teacher"), "--port", str(port)]
    if redis_url is not None:
        command += ["--redis-url", redis_url]
    env = {**_environment(), "FABULA_TEACHER": teacher, "FABULA_WORKER": worker}
    return Service(children.start("teacher", command, log, env=env), _url(port), worker)


def start_evaluator(children: Children, plan: Plan, port: int, redis_url: str, teacher_url: str, log: Path) -> Service:
    """Start the evaluator over all runs beside this one."""
    command = [*_module("services.evaluator"), "--port", str(port), "--redis-url", redis_url]
    command += ["--runs-dir", str(plan.folder.parent), "--teacher-url", teacher_url]
    if plan.eval_data is not None:
        command += ["--eval-data", plan.eval_data]
    worker = worker_name("evaluator", plan.folder)
    env = {**_environment(), "FABULA_EVALUATOR_WORKER": worker}
    return Service(children.start("evaluator", command, log, env=env), _url(port), worker)


def start_trainer(
    children: Children, part: TrainerPart, folder: Path, redis_url: str | None, progress: Progress
) -> Child:
    """Start the trainer in the foreground: what it prints goes to our own terminal."""
    command = [*_module("services.student_trainer"), part, str(folder), "--progress", progress]
    if redis_url is not None:
        command += ["--redis-url", redis_url]
    return children.start("trainer", command, env=_environment(), grace_s=TRAINER_GRACE_S)


def wait_ready(children: Children, service: Service, interrupts: Interrupts) -> None:
    """Wait until the service is ready.

    One that says for `COMPLAINT_S` seconds that it cannot work is believed, unless it says that it is loading.

    Raises:
        PortTakenError: another program was faster to take its port; the service has ended.
        ChildFailedError: it stopped or does not get ready; its log's end is in the message.
        Interrupted: a signal has arrived.
    """
    child = service.child
    start = good = time.monotonic()
    while not (answer := http.readiness(service.url, service.worker)).ready:
        if child.poll() == NO_PORT and PORT_TAKEN in tail(child.log, lines=1):
            children.forget(child)
            raise PortTakenError(service.url)
        children.check()
        now = time.monotonic()
        loading = answer.answered and LOADING in answer.reason
        if loading or not answer.answered:
            good = now
        if now - good > COMPLAINT_S or now - start > (LOADING_S if loading else READY_S):
            raise ChildFailedError(
                f"the {child.name} at {service.url} does not get ready: {answer.reason}; the end of {child.log}:\n"
                f"{tail(child.log)}"
            )
        interrupts.sleep()


def _url(port: int) -> str:
    return f"http://{ports.HOST}:{port}"


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _environment() -> dict[str, str]:
    """Our services reach each other directly, whatever proxy the machine uses for the world outside.

    Threads of torch that wait must sleep, not spin: several processes share the cores here, and spinning slows the
    trainer several-fold.
    """
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    hosts = ",".join(filter(None, [known, "127.0.0.1", "localhost"]))
    return {"NO_PROXY": hosts, "no_proxy": hosts, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
