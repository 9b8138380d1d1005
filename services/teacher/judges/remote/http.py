"""The one file that speaks HTTP: a pool of connections on a thread of its own, retries, and what each error means.

- The server cannot be had now, or not at all: `JudgeUnavailableError`, for everybody who waits.
- It refuses one request as it is (4xx): `RequestRefusedError`, for the story that was in it.
- It fails on one request (another 5xx, no answer in time, an answer that is no JSON): `ServerFaultError`; perhaps the
  story's fault, perhaps the server's.

429, 502, 503 and 504 are waited out, as long as `Retry-After` says or longer each time, within the time limit. A lost
connection is tried again twice: a scoring request changes nothing on the server, so that sending it again is safe.
Proxies and certificates come from the environment, as everywhere in httpx.
"""

import asyncio
import random
import threading
from collections.abc import Coroutine
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import httpx

from services.teacher.judges.base import JudgeUnavailableError

T = TypeVar("T")
OVERLOADED = (429, 502, 503, 504)
CONNECTION_TRIES = 3
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
MESSAGE_CHARS = 300


class RequestRefusedError(Exception):
    """The server refuses this request; another one may well succeed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServerFaultError(Exception):
    """The server failed on this request."""


class MissingRouteError(JudgeUnavailableError):
    """The server has no such route, or no such model: it is another kind or version than was thought."""


class LoopThread:
    """An event loop on a thread of its own, for callers on any other thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Stop the loop. Nothing may be running on it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """All results, in order. When one raises, the others are ended before its error goes on.

    They are ended by anyio's cancellation, not asyncio's own: httpcore shields the closing of its connections from the
    one alone, and would lose those that a cancelled request was about to close for the pool.
    """
    errors: list[Exception] = []
    results: dict[int, T] = {}

    async def run(place: int, one: Coroutine[Any, Any, T]) -> None:
        try:
            results[place] = await one
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised below
            errors.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for place, one in enumerate(work):
            group.start_soon(run, place, one)
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(work))]


class Http:
    """Requests to one server, at most `concurrency` at once, all on one event loop.

    Args:
        url: where the server is; user and password in it are sent as basic authentication and never shown.
        key: sent as a bearer token, never shown.
        timeout_s: the longest that one answer may take, waiting and trying again included.
        concurrency: requests under way at once; further ones wait, and their time does not run.
        key_hint: where a missing key is to be put, for messages.
    """

    def __init__(self, url: str, *, key: str | None, timeout_s: float, concurrency: int, key_hint: str) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{host}{parts.path}"
        self.lost = False  # whether the connection was lost since this was last set to False
        self._timeout_s = timeout_s
        self._key, self._key_hint = key, key_hint
        self._slots = asyncio.Semaphore(concurrency)
        if key is not None and not (key.isascii() and key.isprintable()):
            raise JudgeUnavailableError(f"the key for {self.url} has characters that no key has; {key_hint}")
        try:
            self._client = httpx.AsyncClient(
                headers={"Authorization": f"Bearer {key}"} if key else {},
                auth=(parts.username, parts.password or "") if parts.username else None,
                limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
                timeout=timeout_s,
            )
            httpx.URL(self.url)
        except (httpx.InvalidURL, ValueError) as error:
            raise JudgeUnavailableError(f"{self.url} cannot be used as a server's address: {error}") from error

    async def get(self, path: str) -> Any:
        """The JSON answer of GET `path`.

        Raises:
            JudgeUnavailableError, RequestRefusedError, ServerFaultError: see the module.
        """
        return await self._request("GET", path, None)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer of POST `path` with a JSON body; raises as `get` does."""
        return await self._request("POST", path, body)

    async def post_for(self, path: str, body: dict[str, Any], header: str) -> tuple[Any, str | None]:
        """As `post`, with one of the answer's headers."""
        response = await self._respond("POST", path, body)
        return self._read(path, response), response.headers.get(header)

    async def ready(self, path: str) -> None:
        """Ask once whether the server is ready, at its GET `path`. A server without that route may be.

        Raises:
            JudgeUnavailableError: it cannot be reached, or says 503: it is loading.
        """
        await self._respond("GET", path, None, waiting=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        return self._read(path, await self._respond(method, path, body))

    def _read(self, path: str, response: httpx.Response) -> Any:
        if not response.is_success:
            raise self._failure(path, response)
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise ServerFaultError(f"{self.url}{path} answered with something that is no JSON") from error

    async def _respond(
        self, method: str, path: str, body: dict[str, Any] | None, *, waiting: bool = True
    ) -> httpx.Response:
        async with self._slots:
            try:
                with anyio.fail_after(self._timeout_s):
                    return await self._patiently(method, path, body, waiting=waiting)
            except (TimeoutError, httpx.TimeoutException) as error:
                raise ServerFaultError(
                    f"{self.url}{path} gave no answer within {self._timeout_s:g} s; raise FABULA_SERVER_TIMEOUT_S or "
                    "lower FABULA_SERVER_CONCURRENCY"
                ) from error

    async def _patiently(self, method: str, path: str, body: dict[str, Any] | None, *, waiting: bool) -> httpx.Response:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        wait_s, lost = FIRST_WAIT_S, 0
        while True:
            asked_s: float | None = None
            answered = False
            try:
                response = await self._client.request(method, f"{self.url}{path}", json=body)
                if response.status_code not in OVERLOADED or _is_final(response):
                    return response
                answered, asked_s = True, _retry_after_s(response)
                why = f"HTTP {response.status_code}: {self._message(response)}"
            except httpx.TimeoutException:
                raise
            except httpx.TransportError as error:
                self.lost, lost, why = True, lost + 1, f"{type(error).__name__}: {error}"
                if lost >= CONNECTION_TRIES or "CERTIFICATE" in str(error):
                    raise self._unreachable(error) from error
            pause_s = asked_s if asked_s is not None else wait_s * random.uniform(0.5, 1.5)
            late = asyncio.get_running_loop().time() + pause_s >= deadline
            if late or (answered and not waiting):
                raise JudgeUnavailableError(f"{self.url} is busy or loading ({self._hidden(why)})", passing=True)
            await asyncio.sleep(pause_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _unreachable(self, error: httpx.TransportError) -> JudgeUnavailableError:
        why = self._hidden(f"{type(error).__name__}: {error}".rstrip(": "))
        message = f"{self.url} cannot be reached ({why}); start the server or check its address"
        return JudgeUnavailableError(message, passing="CERTIFICATE" not in str(error))

    def _failure(self, path: str, response: httpx.Response) -> Exception:
        status, message = response.status_code, self._message(response)
        where = f"{self.url}{path} says HTTP {status}"
        if status in (401, 403):
            return JudgeUnavailableError(f"{where} ({message}); {self._key_hint}")
        if status in (404, 405):
            return MissingRouteError(
                f"{where} ({message}); check the address, the model's name, and that it is this kind of server"
            )
        if _is_final(response):
            return JudgeUnavailableError(f"{where} ({message}); the account's quota is used up")
        if response.is_redirect:
            target = response.headers.get("location", "")
            return JudgeUnavailableError(f"{where}, a redirect to {target!r}; give that address")
        if status == 424 or status >= 500:
            return ServerFaultError(f"{where} ({message})")
        return RequestRefusedError(status, f"HTTP {status}: {message}")

    def _message(self, response: httpx.Response) -> str:
        """What the server says went wrong, in any of the forms that these servers use."""
        try:
            found = response.json()
        except (ValueError, RecursionError):
            found = response.text
        for _ in range(3):
            if isinstance(found, dict):
                found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), found)
        return self._hidden(" ".join(str(found).split())[:MESSAGE_CHARS])

    def _hidden(self, text: str) -> str:
        """`text` without the key: some servers and proxies repeat it in their errors."""
        return text.replace(self._key, "***") if self._key else text


def _is_final(response: httpx.Response) -> bool:
    """Whether a 429 stays one: OpenAI says so of an account without money."""
    return response.status_code == 429 and "insufficient_quota" in response.text


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date; None where it says nothing usable."""
    asked = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
