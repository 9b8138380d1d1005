"""The client's errors, retries and limits, against a small server that answers what it is told."""

import asyncio
import gc
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import time
from typing import Any

import httpx
import pytest

from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.judges.remote import http
from services.teacher.judges.remote.http import Http, LoopThread, RequestRefusedError, ServerFaultError, together
from tests.remote_helpers import FINE, Answer, Responder, answering

KEY = "sk-very-secret"


@contextmanager
def client(url: str, *, timeout_s: float = 20.0, concurrency: int = 4) -> Iterator[tuple[Http, LoopThread]]:
    loop = LoopThread("test-client")
    http = Http(url, key=KEY, timeout_s=timeout_s, concurrency=concurrency, key_hint="put the key into TEST_KEY")
    try:
        yield http, loop
    finally:
        loop.run(http.close())
        loop.close()


def ask(respond: Responder, *, timeout_s: float = 20.0) -> Any:
    """One request to a server that answers as told."""
    with answering(respond) as url, client(url, timeout_s=timeout_s) as (http, loop):
        return loop.run(http.post("/question", {"a": 1}))


def always(status: int, body: object, **headers: str) -> Responder:
    return lambda number, asked: (status, headers, body if isinstance(body, str) else json.dumps(body))


def then(*answers: Answer | None) -> Responder:
    return lambda number, asked: answers[min(number, len(answers) - 1)]


@pytest.mark.parametrize(
    "first",
    [
        (429, {"retry-after": "0"}, ""),
        (503, {"retry-after": "0.01"}, '{"error": {"code": 503, "message": "Loading model"}}'),
        (503, {}, ""),
        (502, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, "<html>bad gateway</html>"),
        None,
    ],
    ids=["429", "503", "503 without Retry-After", "date in the past", "dropped"],
)
def test_what_passes_is_waited_out(first: Answer | None) -> None:
    assert ask(then(first, FINE)) == {"fine": True}


@pytest.mark.filterwarnings("error")
def test_an_error_among_requests_loses_no_connection() -> None:
    """Connections that the server has closed are closed by the next request, which may itself be ended meanwhile."""

    async def at_once(http: Http, count: int) -> None:
        await together(*(http.post("/question", {}) for _ in range(count)))

    async def refused(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise RequestRefusedError(400, "too long")

    async def refused_among(http: Http, turns: int) -> None:
        with pytest.raises(RequestRefusedError):
            await together(http.post("/question", {}), refused(turns))

    lost: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda unraisable: lost.append(unraisable.exc_value))
        for turns in range(1, 10, 2):
            with answering(lambda number, asked: FINE) as url, client(url, concurrency=8) as (http, loop):
                loop.run(at_once(http, 8))
                kept = http._client._transport._pool.connections  # type: ignore[attr-defined]
                assert len(kept) > 4
                for connection in kept:
                    connection._connection._expire_at = 0.0  # as if nothing had been asked for some seconds
                loop.run(refused_among(http, turns))
        gc.collect()
    assert lost == []


def test_a_longer_wait_than_the_limit_is_not_begun() -> None:
    with pytest.raises(JudgeUnavailableError, match=r"busy or loading .*Model is overloaded") as found:
        ask(always(429, {"error": "Model is overloaded", "error_type": "overloaded"}, **{"retry-after": "3600"}))
    assert found.value.passing


def test_retry_after_is_seconds_or_a_date() -> None:
    def asked(value: str) -> float | None:
        return http._retry_after_s(httpx.Response(429, headers={"retry-after": value} if value else {}))

    assert asked("7") == 7.0
    assert asked("-3") == 0.0
    assert asked("soon") is None
    assert asked("") is None
    later = asked("Fri, 31 Dec 2100 23:59:59 GMT")
    assert later is not None
    assert later == pytest.approx(4133980799 - time(), abs=60)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (422, {"error": "`inputs` must have less than 9 tokens", "error_type": "validation"}, "less than 9"),
        (400, {"error": {"message": "too long", "type": "BadRequestError", "code": 400}}, "too long"),
        (400, {"object": "error", "message": "too long", "code": 400}, "too long"),
        (400, {"error": {"code": 400, "message": "exceeds the context", "n_ctx": 512}}, "exceeds"),
        (400, {"error": "invalid options: n"}, "invalid options"),
        (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, "Field required"),
        (413, "<html>too large</html>", "too large"),
    ],
    ids=["tgi", "vllm", "vllm old, sglang", "llamacpp", "ollama", "fastapi", "proxy"],
)
def test_a_refused_request_tells_the_servers_reason(status: int, body: object, says: str) -> None:
    with pytest.raises(RequestRefusedError, match=f"HTTP {status}: .*{says}") as found:
        ask(always(status, body))
    assert found.value.status == status


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, {}, '{"error": "CUDA error"}'), "CUDA error"),
        ((424, {}, '{"error": "Request failed during generation", "error_type": "generation"}'), "during generation"),
        ((200, {}, "<html>hello</html>"), "no JSON"),
        ((200, {}, "[" * 100_000), "no JSON"),
    ],
    ids=["500", "tgi's 424", "a page", "nested"],
)
def test_a_fault_is_told_from_a_refusal(answer: Answer, says: str) -> None:
    with pytest.raises(ServerFaultError, match=says):
        ask(then(answer))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})), "TEST_KEY"),
        ((403, {}, ""), "TEST_KEY"),
        ((404, {}, '{"error": "model \'x\' not found"}'), "model 'x' not found.*check the address"),
        ((405, {}, "method not allowed"), "check the address"),
        ((308, {"location": "https://elsewhere/"}, ""), "give that address"),
        ((429, {}, '{"error": {"message": "You exceeded", "code": "insufficient_quota"}}'), "quota"),
    ],
    ids=["401", "403", "404", "405", "redirect", "quota"],
)
def test_what_does_not_pass_ends_at_once_with_the_cure(answer: Answer, says: str) -> None:
    with pytest.raises(JudgeUnavailableError, match=says) as found:
        ask(then(answer, FINE))
    assert not found.value.passing
    assert KEY not in str(found.value)


def test_the_key_is_sent_and_hidden() -> None:
    def respond(number: int, headers: dict[str, str]) -> Answer:
        return 400, {}, json.dumps({"error": headers["authorization"]})

    with pytest.raises(RequestRefusedError, match=r"Bearer \*\*\*") as found:
        ask(respond)
    assert KEY not in str(found.value)


@pytest.mark.parametrize("key", ["a\nb", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    with pytest.raises(JudgeUnavailableError, match="TEST_KEY") as found:
        Http("http://localhost", key=key, timeout_s=1, concurrency=1, key_hint="set TEST_KEY")
    assert key not in str(found.value)


def test_user_and_password_are_sent_and_hidden() -> None:
    def respond(number: int, headers: dict[str, str]) -> Answer:
        return 200, {}, json.dumps(headers["authorization"])

    with answering(respond) as url:
        loop = LoopThread("test-client")
        http = Http(url.replace("//", "//user:pass@"), key=None, timeout_s=20, concurrency=1, key_hint="no key")
        try:
            assert loop.run(http.post("/", {})) == "Basic dXNlcjpwYXNz"
            assert http.url == url
        finally:
            loop.run(http.close())
            loop.close()


def test_a_server_that_loads_passes() -> None:
    answers = then((503, {}, '{"error": {"code": 503, "message": "Loading model"}}'), (404, {}, ""), (200, {}, ""))
    with answering(answers) as url, client(url) as (http, loop):
        with pytest.raises(JudgeUnavailableError, match=r"busy or loading .*Loading model") as found:
            loop.run(http.ready("/health"))
        assert found.value.passing
        loop.run(http.ready("/health"))
        loop.run(http.ready("/health"))


def test_nobody_there_passes() -> None:
    with answering(then(FINE)) as url:
        pass
    with client(url) as (http, loop):
        for question in (http.get("/"), http.ready("/health")):
            with pytest.raises(JudgeUnavailableError, match="cannot be reached") as found:
                loop.run(question)
            assert found.value.passing
        assert http.lost


def test_no_answer_in_time_is_a_fault() -> None:
    closing = threading.Event()

    def respond(number: int, headers: dict[str, str]) -> Answer:
        assert closing.wait(30)
        return FINE

    with answering(respond) as url, client(url, timeout_s=0.2) as (http, loop):
        try:
            with pytest.raises(ServerFaultError, match=r"within 0\.2 s"):
                loop.run(http.post("/", {}))
        finally:
            closing.set()


def test_no_more_than_so_many_requests_are_under_way() -> None:
    barrier, lock, under_way, most = threading.Barrier(3), threading.Lock(), [0], [0]

    def respond(number: int, headers: dict[str, str]) -> Answer:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        barrier.wait(30)
        with lock:
            under_way[0] -= 1
        return FINE

    async def all_at_once(http: Http) -> None:
        await together(*(http.post("/", {}) for _ in range(12)))

    with answering(respond) as url, client(url, concurrency=3) as (http, loop):
        loop.run(all_at_once(http))
    assert most[0] == 3


def test_an_error_ends_what_runs_beside_it() -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("slow")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ServerFaultError("broken")

    loop = LoopThread("test-client")
    with pytest.raises(ServerFaultError, match="broken"):
        loop.run(together(slow(), fails()))
    loop.close()
    assert ended == ["slow"]
