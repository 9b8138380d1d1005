"""Structured logs: one line an event, for people or as JSON, each with the id of the request that it belongs to."""

import json
import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["text", "json"]

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_CLEAN_ID = re.compile(r"[!-~]{1,128}")
# What every record has; the rest came as `extra=`. uvicorn's color_message is its message again, for terminals.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
    "request_id",
}
# Whatever a terminal or a reader of lines may take for something else than text.
_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


def new_request_id() -> str:
    """A fresh id: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def clean_request_id(given: str | None) -> str:
    """The id that a client sent, if it is 1 to 128 printable ASCII characters without spaces; else a fresh one.

    What passes can stand in a log line and in a header without being taken for more than an id.
    """
    return given if given is not None and _CLEAN_ID.fullmatch(given) else new_request_id()


def current_request_id() -> str | None:
    """The id of the request that is being served here, None outside of one."""
    return _request_id.get()


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Everything logged inside belongs to this request.

    Holds for the thread or asyncio task that enters, and for tasks that it starts; a thread pool's threads know
    nothing of it unless they are given a copy of the context, as anyio does and `Executor.submit` does not.
    """
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


class RequestIdFilter(logging.Filter):
    """Writes the request's id on each record; one that was given with `extra=` stays."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if not hasattr(record, "request_id"):
            record.request_id = _request_id.get()
        return True


class TextFormatter(logging.Formatter):
    """`2026-11-21T09:30:00.123Z INFO services.teacher.worker: message [request id]`, tracebacks indented below it.

    Control characters are escaped, so that no text in a message can end its line and forge another.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The first line."""
        request_id = getattr(record, "request_id", None)
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {record.message}"
        return (line if request_id is None else f"{line} [{request_id}]").translate(_CONTROL)

    def formatException(self, ei: Any) -> str:
        """A traceback that cannot be taken for lines of its own."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """A stack, likewise."""
        return _indented(super().formatStack(stack_info))


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: ts, level, logger, message, request_id, what came as `extra=`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := getattr(record, "request_id", None)) is not None:
            fields["request_id"] = request_id
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD | fields.keys()}
        try:
            return json.dumps(fields | extra, default=str, allow_nan=False)
        except (TypeError, ValueError):
            # No JSON: NaN, a key that is no string, or something that holds itself.
            return json.dumps(fields | {name: repr(value) for name, value in extra.items()})


def handler(log_format: LogFormat, stream: TextIO | None = None) -> logging.Handler:
    """Writes lines to `stream`, standard error where none is given."""
    made = logging.StreamHandler(stream)
    made.addFilter(RequestIdFilter())
    made.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    return made


def configure(level: str, log_format: LogFormat) -> None:
    """Send everything that this process logs, Python's warnings and uvicorn's lines included, to standard error.

    For the process's main function. uvicorn must be told `log_config=None`, or it brings handlers of its own.
    """
    logging.basicConfig(level=level.upper(), handlers=[handler(log_format)], force=True)
    logging.captureWarnings(True)
    if level != "debug":
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each question to a model's server


def _timestamp(record: logging.LogRecord) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    made = datetime.fromtimestamp(record.created, UTC)
    return made.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _indented(text: str) -> str:
    return "\n".join("  " + line.translate(_CONTROL) for line in text.split("\n"))
