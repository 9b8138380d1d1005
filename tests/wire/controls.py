"""What a test tells a server to do wrong, and what it saw. Python objects in the test's process; no wire format."""

import json
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Failure:
    """An answer that comes instead of the server's own."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class GarbageError(Exception):
    """The server shall answer with what is no JSON."""


class Controls:
    """Set the attributes while the server runs; each says what happens from the next request on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self.reset()

    def reset(self) -> None:
        """Nothing seen, nothing wrong."""
        self.requests: list[Request] = []
        self.prompts: list[list[int]] = []  # the token ids of all that the model was asked to go on with
        self.failures: list[Failure] = []  # given one a request, to whatever is asked next
        self.hang_ups = 0  # so many requests are broken off in the middle of the answer
        self.garbage_word: str | None = None  # a prompt with this word is answered with what is no JSON
        self.loading = False  # the model is not there yet: answered in the product's way
        self.api_key: str | None = None  # who does not send it is refused in the product's way
        self.drop_logprobs = False
        self.ignore_constraint = False
        self.double_begin = False  # one beginning token too many before each prompt that the model goes on with
        self.gate = threading.Event()  # while it is closed, nothing is answered
        self.gate.set()
        self.entered = threading.Event()
        self.busiest = 0  # most requests that were answered at once

    def fail(self, count: int, status: int, *, body: bytes = b"", **headers: str) -> None:
        """The next `count` requests are answered with `status`; `retry_after="0"` becomes the header Retry-After."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.failures += [Failure(status, named, body)] * count

    def asked(self, path: str) -> list[Request]:
        """The requests for `path` so far."""
        return [request for request in self.requests if request.path == path]

    def read(self, ids: list[int], text: str, begin_id: int) -> list[int]:
        """Called by a server with each prompt that it is about to go on with; the prompt that the model shall see.

        Raises:
            GarbageError: the server shall answer with garbage.
        """
        if self.double_begin:
            ids = [begin_id, *ids]
        with self._lock:
            self.prompts.append(ids)
        if self.garbage_word is not None and self.garbage_word in text:
            raise GarbageError
        assert self.gate.wait(60), "the test never opened the gate"
        return ids

    def note(self, request: Request) -> Failure | None:
        """Keep the request; the failure that it gets, if any."""
        with self._lock:
            self.requests.append(request)
            return self.failures.pop(0) if self.failures else None

    def hangs_up(self) -> bool:
        """Whether this request is broken off."""
        with self._lock:
            if self.hang_ups > 0:
                self.hang_ups -= 1
                return True
            return False

    def enter(self) -> None:
        """A request begins."""
        with self._lock:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        self.entered.set()

    def leave(self) -> None:
        """A request ends."""
        with self._lock:
            self._busy -= 1


class Controlled:
    """An application under `controls`: notes each request, and fails, hangs up or waits as told."""

    def __init__(self, app: App, controls: Controls) -> None:
        self._app = app
        self._controls = controls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _whole_body(receive)
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        failure = self._controls.note(Request(scope["method"], scope["path"], headers, body))
        if failure is not None:
            await _answer(send, failure)
            return
        if self._controls.hangs_up():
            await _broken_off(send)
            return
        self._controls.enter()
        try:
            await self._app(scope, _replay(body, receive), send)
        except GarbageError:
            await _answer(send, Failure(200, {"content-type": "application/json"}, b'{"choices": [{"index": 0, "log'))
        finally:
            self._controls.leave()


class Guard:
    """Middleware: a request whose path and headers `check` answers, goes no further."""

    def __init__(self, app: App, check: Callable[[str, Headers], Response | None]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            answer = self._check(scope["path"], Headers(scope=scope))
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _whole_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what really comes: that the client has gone."""
    left = [body]

    async def again() -> MutableMapping[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


async def _answer(send: Send, failure: Failure) -> None:
    headers = {"content-length": str(len(failure.body)), **failure.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": failure.status, "headers": encoded})
    await send({"type": "http.response.body", "body": failure.body})


async def _broken_off(send: Send) -> None:
    """Fewer bytes than promised: the HTTP server has nothing left but to close the connection."""
    headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"choices"'})
