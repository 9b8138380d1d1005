"""Log lines as they are written: their shape, whose request they belong to, and texts that try to forge them."""

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.teacher import logs

ROOT = Path(__file__).resolve().parents[2]
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
HOSTILE = "bye\n2026-11-21T00:00:00.000Z INFO services.teacher: all is well\r\x1b[2J\u2028\x85end"
ESCAPED = r"bye\n2026-11-21T00:00:00.000Z INFO services.teacher: all is well\r\x1b[2J\u2028\x85end"


class Log:
    """A logger of its own and what its handler wrote."""

    def __init__(self, log_format: logs.LogFormat) -> None:
        self._stream = io.StringIO()
        self.logger = logging.Logger("fabula.test", logging.DEBUG)
        self.logger.addHandler(logs.handler(log_format, self._stream))

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def test_a_text_line_says_when_what_where_and_for_whom() -> None:
    log = Log("text")
    log.logger.info("batch %s judged in %.1f s", "r1/0/0", 0.25, extra={"stories": 3})
    with logs.request("abc-1"):
        log.logger.warning("slow")
    first, second = log.lines
    assert re.fullmatch(TIMESTAMP + r" INFO fabula\.test: batch r1/0/0 judged in 0\.2 s", first)
    assert re.fullmatch(TIMESTAMP + r" WARNING fabula\.test: slow \[abc-1\]", second)


def test_a_json_line_has_the_same_and_what_came_as_extra() -> None:
    log = Log("json")
    log.logger.info("plain")
    with logs.request("abc-1"):
        log.logger.error("batch %d", 7, extra={"run": "r1", "seconds": 0.5, "path": Path("a"), "level": "mine"})
    plain, full = log.objects
    assert list(plain) == ["ts", "level", "logger", "message"]
    assert re.fullmatch(TIMESTAMP, full.pop("ts"))
    assert full == {
        "level": "ERROR",
        "logger": "fabula.test",
        "message": "batch 7",
        "request_id": "abc-1",
        "run": "r1",
        "seconds": 0.5,
        "path": "a",
    }


def test_the_timestamp_is_the_records_in_utc() -> None:
    record = logging.makeLogRecord({"msg": "then", "created": 1_764_000_000.9876})
    made = logs.handler("json")
    assert json.loads(made.format(record))["ts"] == "2025-11-24T16:00:00.987Z"


def _with_itself() -> dict[str, object]:
    loop: dict[str, object] = {}
    loop["self"] = loop
    return loop


@pytest.mark.parametrize("value", [float("nan"), _with_itself(), {(1, 2): 3}], ids=["nan", "circle", "tuple-key"])
def test_an_extra_that_is_no_json_is_still_a_line(value: object) -> None:
    log = Log("json")
    log.logger.info("odd", extra={"odd": value, "n": 1})
    [line] = log.objects
    assert (line["message"], line["odd"]) == ("odd", repr(value))
    assert "NaN" not in log.text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_belongs_to_its_line(log_format: logs.LogFormat) -> None:
    log = Log(log_format)
    with logs.request("abc-1"):
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.logger.exception("broke", stack_info=True)
    if log_format == "json":
        [line] = log.objects
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("ValueError: " + HOSTILE)
        assert line["stack"].startswith("Stack (most recent call last):")
    else:
        first, *rest = log.text.rstrip("\n").split("\n")
        assert re.fullmatch(TIMESTAMP + r" ERROR fabula\.test: broke \[abc-1\]", first)
        assert rest[0] == "  Traceback (most recent call last):"
        assert "  " + ESCAPED.partition(r"\n")[2] in rest
        assert all(line.startswith("  ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_message_cannot_forge_another_line(log_format: logs.LogFormat) -> None:
    log = Log(log_format)
    log.logger.info("no teacher has the name %s", HOSTILE)
    [line] = log.lines
    assert line.isprintable()
    if log_format == "text":
        assert line.endswith(
            r"the name bye\n2026-11-21T00:00:00.000Z INFO services.teacher: all is well\r\x1b[2J\u2028\x85end"
        )
    else:
        assert json.loads(line)["message"] == "no teacher has the name " + HOSTILE


def test_an_unpaired_surrogate_can_be_written_as_json() -> None:
    log = Log("json")
    log.logger.info("\ud83e")
    assert log.text.isascii()
    assert log.objects[0]["message"] == "\ud83e"


def _break_within(log: Log, request_id: str) -> None:
    with logs.request(request_id):
        log.logger.info("1")
        raise RuntimeError("gone")


def test_an_inner_request_ends_where_it_began() -> None:
    log = Log("json")
    with logs.request("outer"):
        assert logs.current_request_id() == "outer"
        with pytest.raises(RuntimeError, match="gone"):
            _break_within(log, "inner")
        log.logger.info("2")
        log.logger.info("3", extra={"request_id": "given"})
    log.logger.info("4")
    assert [line.get("request_id") for line in log.objects] == ["inner", "outer", "given", None]
    assert logs.current_request_id() is None


def test_threads_do_not_mix_their_requests() -> None:
    log = Log("json")
    both_inside = threading.Barrier(2, timeout=10)

    def work(request_id: str) -> None:
        with logs.request(request_id):
            both_inside.wait()
            log.logger.info(request_id)

    with logs.request("main"), ThreadPoolExecutor(2) as pool:
        list(pool.map(work, ["a", "b"]))
        pool.submit(log.logger.info, "apart").result()
        pool.submit(copy_context().run, log.logger.info, "main").result()
    seen = {line["message"]: line.get("request_id") for line in log.objects}
    assert seen == {"a": "a", "b": "b", "apart": None, "main": "main"}


def test_tasks_do_not_mix_their_requests_and_their_threads_know_them() -> None:
    log = Log("json")

    async def work(request_id: str, mine: asyncio.Event, other: asyncio.Event) -> None:
        with logs.request(request_id):
            mine.set()
            await other.wait()
            log.logger.info(request_id)
            await asyncio.to_thread(log.logger.info, request_id)
            await asyncio.create_task(_say(log, request_id))

    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("a", first, second), work("b", second, first))

    asyncio.run(main())
    assert len(log.objects) == 6
    assert all(line["request_id"] == line["message"] for line in log.objects)


async def _say(log: Log, message: str) -> None:
    log.logger.info(message)


@pytest.mark.parametrize("sent", ["a", "x" * 128, "6f1e-77.b/c:d", "!~", '"quoted"', "r1/0/0"])
def test_a_clients_id_is_kept(sent: str) -> None:
    assert logs.clean_request_id(sent) == sent


@pytest.mark.parametrize("sent", [None, "", " ", "x" * 129, "a b", "a\n", "\na", "a\x00", "\x7f", "\u00e9", "\u0661"])
def test_what_is_no_id_is_replaced(sent: str | None) -> None:
    made = logs.clean_request_id(sent)
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert made != logs.clean_request_id(sent)


@given(st.text(max_size=140))
def test_no_header_gets_more_than_an_id_into_a_line(sent: str) -> None:
    log = Log("text")
    with logs.request(logs.clean_request_id(sent)):
        log.logger.info("asked")
    [line] = log.lines
    assert re.fullmatch(TIMESTAMP + r" INFO fabula\.test: asked \[[!-~]{1,128}\]", line)


SERVER = """
import asyncio, logging, sys, warnings
import uvicorn
from services.teacher import logs

async def app(scope, receive, send):
    while (message := await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    server.should_exit = True
    await serving

logging.getLogger().addHandler(logging.StreamHandler())  # what was there before must go
logs.configure(*sys.argv[1:])
warnings.warn("old ways", UserWarning)
logging.getLogger("services.teacher").debug("detail")
logging.getLogger("httpx").info("HTTP Request: POST http://model")
asyncio.run(main())
"""


def run_server(level: str, log_format: str) -> list[str]:
    """Standard error of a process that logs in this way and serves for a moment."""
    command = [sys.executable, "-c", SERVER, level, log_format]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_whole_process_logs_in_json() -> None:
    lines = [json.loads(line) for line in run_server("info", "json")]
    assert {line["logger"] for line in lines} == {"py.warnings", "uvicorn.error"}
    assert "UserWarning: old ways" in lines[0]["message"]
    running = [line for line in lines if line["message"].startswith("Uvicorn running on http://127.0.0.1:")]
    assert len(running) == 1
    assert set(running[0]) == {"ts", "level", "logger", "message"}


def test_a_whole_process_logs_in_text_down_to_the_level_asked_for() -> None:
    lines = run_server("debug", "text")
    assert all(re.match(TIMESTAMP + r" [A-Z]+ [a-z_.]+: ", line) for line in lines)
    for part in ("DEBUG services.teacher: detail", "INFO httpx: HTTP Request", "INFO uvicorn.error: Uvicorn running"):
        assert sum(part in line for line in lines) == 1
