"""`python -m services.evaluator`: the page, the API and, with a queue, the measuring of checkpoints."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import uvicorn
from pydantic import ValidationError

from services.evaluator.app import create_app
from services.evaluator.job_worker import JobWorker
from services.evaluator.settings import PREFIX, EvaluatorSettings, explain_settings
from services.evaluator.worker import QueueWorker

EPILOG = f"""\
environment, each also a setting (see docs/evaluation.md):
  FABULA_RUNS_DIR  FABULA_REDIS_URL  FABULA_TEACHER_URL  FABULA_EVAL_DATA
  {PREFIX}STORIES, {PREFIX}SUITES ('["blimp"]'), {PREFIX}TORCH_THREADS, ...

example:
  python -m services.evaluator --port 8002 --runs-dir runs
"""


class EvaluatorServer(uvicorn.Server):
    """uvicorn, with the evaluation in hand abandoned from the moment of the signal."""

    def __init__(self, config: uvicorn.Config, workers: Sequence[JobWorker | QueueWorker]) -> None:
        super().__init__(config)
        self._workers = workers

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came: what is in hand will be taken up again."""
        for worker in self._workers:
            worker.finish()
        super().handle_exit(sig, frame)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--help` and mistakes end the process as argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m services.evaluator",
        description="Measure checkpoints and show runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8002, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--runs-dir", help="folder of run folders; overrides FABULA_RUNS_DIR (default: runs)")
    parser.add_argument("--redis-url", help="queue of checkpoints; overrides FABULA_REDIS_URL (default: none)")
    parser.add_argument("--teacher-url", help="judge of stories; overrides FABULA_TEACHER_URL (default: none)")
    parser.add_argument("--eval-data", help="BabyLM evaluation_data folder; overrides FABULA_EVAL_DATA")
    parser.add_argument("--stories", type=int, help="stories a checkpoint writes (default: the run's, or 200)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser.parse_args(arguments)


def read_settings(arguments: argparse.Namespace) -> EvaluatorSettings:
    """Settings from the environment, overridden by the command line.

    Raises:
        pydantic.ValidationError: a value is not accepted.
    """
    names = ("runs_dir", "redis_url", "teacher_url", "eval_data", "stories")
    given = {name: getattr(arguments, name) for name in names}
    return EvaluatorSettings(**{name: value for name, value in given.items() if value is not None})


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to host and port (0: a free one).

    Raises:
        OSError: the port is in use or not ours to take, or the host is unknown.
    """
    if not 0 <= port <= 65535:
        raise OSError("a port is a number from 0 to 65535")
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError:
        bound.close()
        raise
    return bound


def fail(message: str) -> NoReturn:
    """End with a message for the user and status 2."""
    print(f"evaluator: {message}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a drain, 2 for a user's error."""
    given = parse_arguments(arguments)
    logging.basicConfig(level=given.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = read_settings(given)
        app = create_app(settings)
    except ValidationError as error:
        fail(explain_settings(error))
    except ValueError as error:
        fail(str(error))
    try:
        bound = listen(given.host, given.port)
    except OSError as error:
        fail(f"cannot listen on {given.host}:{given.port} ({error}); give another --port, or 0 for a free one")

    # uvicorn raises the signal again once it has drained; by then it means "done".
    def done(_: int, __: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, done)
    signal.signal(signal.SIGINT, done)
    os.nice(settings.niceness)
    config = uvicorn.Config(app, log_config=None, log_level=given.log_level, access_log=False)
    name = f"[{given.host}]" if ":" in given.host else given.host
    queue = "serving the queue" if settings.redis_url else "page, API and evaluations that are asked for"
    address = f"http://{name}:{bound.getsockname()[1]}"
    print(f"evaluator on {address}, {queue}, runs in {settings.runs_dir} (process {os.getpid()})", flush=True)
    EvaluatorServer(config, app.state.workers).run(sockets=[bound])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
