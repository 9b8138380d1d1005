"""`python -m services.teacher`: serve one teacher over HTTP and, with a queue, from Redis."""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import uvicorn
from pydantic import ValidationError

from services.teacher import logs
from services.teacher.app import create_app
from services.teacher.service import TeacherService
from services.teacher.settings import TeacherSettings, explain_settings

EPILOG = """\
environment, each also a setting (see docs/teacher.md):
  FABULA_TEACHER       rules: (default), transformers:<hub name or folder>, tgi:URL, vllm:URL, sglang:URL, llamacpp:URL,
                       ollama:MODEL, openai:MODEL, or a name of the teachers file; bare `transformers` is LLaMA 3.1 8B
  FABULA_MODE          joint (default where the judge has it), independent, sample
  FABULA_TEACHERS_FILE YAML of named teachers, for /score?teacher=NAME and ensembles
  FABULA_RUBRIC        paper (default), or the path of a rubric's YAML file
  FABULA_REDIS_URL     queue to serve as well, such as redis://localhost:6379/0
  FABULA_DEVICE        auto (default), cpu, cuda, ...        FABULA_DTYPE  auto (default), float32, bfloat16, float16

example:
  FABULA_TEACHER=rules: python -m services.teacher --port 8001
  curl -d '{"stories": ["Once upon a time, a fox lost his lantern. The owl found it."]}' localhost:8001/score
"""


class TeacherServer(uvicorn.Server):
    """uvicorn, with readiness off from the moment of the signal."""

    def __init__(self, config: uvicorn.Config, service: TeacherService) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came: finish what has begun, begin nothing."""
        self._service.drain()
        super().handle_exit(sig, frame)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--help` and mistakes end the process as argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m services.teacher",
        description="Serve a teacher that judges stories by a rubric.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8001, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--teacher", help="who judges; overrides FABULA_TEACHER")
    parser.add_argument("--rubric", help="rubric's name or file; overrides FABULA_RUBRIC")
    parser.add_argument("--redis-url", help="queue to serve as well; overrides FABULA_REDIS_URL")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser.parse_args(arguments)


def read_settings(arguments: argparse.Namespace) -> TeacherSettings:
    """Settings from the environment, overridden by the command line.

    Raises:
        pydantic.ValidationError: a value is not accepted.
    """
    given = {name: getattr(arguments, name) for name in ("teacher", "rubric", "redis_url")}
    return TeacherSettings(**{name: value for name, value in given.items() if value is not None})


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
    print(f"teacher: {message}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a drain, 2 for a user's error."""
    given = parse_arguments(arguments)
    try:
        settings = read_settings(given)
        logs.configure(given.log_level, settings.log_format)
        app = create_app(settings)
    except ValidationError as error:
        fail(explain_settings(error))
    except ValueError as error:  # a rubric, a teachers file, an address of Redis
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
    config = uvicorn.Config(app, log_config=None, log_level=given.log_level, access_log=False)
    name = f"[{given.host}]" if ":" in given.host else given.host
    print(f"teacher {settings.teacher} on http://{name}:{bound.getsockname()[1]} (process {os.getpid()})", flush=True)
    TeacherServer(config, app.state.service).run(sockets=[bound])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
