"""The only file of the command line that speaks HTTP: readiness of services, and scores from a running teacher."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from fabula_proto import Problem, ScoreRequest, ScoreResponse, StoryInput
from services.local.errors import CommandError

TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Readiness:
    """What a service says of itself. `answered` is false where nothing listens yet; `reason` says what it waits for."""

    ready: bool
    answered: bool
    reason: str


def readiness(url: str, worker: str | None = None) -> Readiness:
    """Ask the service at `url` whether it is ready; with `worker`, whether it is the one of that name and ready."""
    try:
        response = _get(url, "/readyz")
        if response.is_success and worker is not None and worker not in (names := _worker_names(_get(url, "/info"))):
            return Readiness(
                ready=False, answered=False, reason=f"{', '.join(names) or 'another program'} answers there"
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Readiness(ready=False, answered=False, reason=str(error) or type(error).__name__)
    return Readiness(response.is_success, answered=True, reason="" if response.is_success else _problem(response))


def _get(url: str, path: str) -> httpx.Response:
    return httpx.get(f"{url.rstrip('/')}{path}", timeout=10.0, trust_env=not is_local(url))


def _worker_names(info: httpx.Response) -> list[str]:
    """What a service of ours calls itself in its /info."""
    try:
        said = info.json()
    except ValueError:
        return []
    return [str(said[key]) for key in ("worker", "worker_name") if key in said] if isinstance(said, dict) else []


def score(url: str, texts: Sequence[str], teachers: Sequence[str] = ()) -> ScoreResponse:
    """Ask the service at `url` for a verdict on each text, by its own teacher or by `teachers`.

    Waits while the service is too busy, as long as it asks for and TIMEOUT_S in all.

    Raises:
        CommandError: `url` is no address, it cannot be reached, refuses, or answers something else.
    """
    url = checked_url(url)
    request = ScoreRequest(stories=tuple(StoryInput(text=text) for text in texts), teachers=tuple(teachers))
    body = request.model_dump(exclude_none=True, exclude_defaults=True)
    gives_up_at = time.monotonic() + TIMEOUT_S
    try:
        while True:
            response = httpx.post(f"{url.rstrip('/')}/score", json=body, timeout=TIMEOUT_S, trust_env=not is_local(url))
            pause_s = _asks_to_wait_s(response)
            if pause_s is None or time.monotonic() + pause_s > gives_up_at:
                break
            time.sleep(pause_s)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _away(url, error) from error
    if not response.is_success:
        raise CommandError(f"the teacher at {url} answered {response.status_code}: {_problem(response)}", exit_code=1)
    try:
        return ScoreResponse.from_json(response.content)
    except ValidationError as error:
        raise CommandError(
            f"{url}/score does not speak Fabula's protocol ({error.error_count()} wrong values); is it a teacher?",
            exit_code=1,
        ) from error


def info(url: str) -> dict[str, Any]:
    """What the service at `url` says of itself.

    Raises:
        CommandError: `url` is no address, it cannot be reached, or answers something else.
    """
    url = checked_url(url)
    try:
        response = _get(url, "/info")
        said = response.json() if response.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _away(url, error) from error
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise CommandError(f"{url}/info answered {response.status_code}; is it a service of Fabula?", exit_code=1)
    return said


def checked_url(url: str) -> str:
    """`url`, which is written in full.

    Raises:
        CommandError: it has no scheme or no host.
    """
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"the address {url!r} lacks http:// at its start; write http://{url}")
    if not urlsplit(url).hostname:
        raise CommandError(f"the address {url!r} names no host; write one such as http://localhost:8001")
    return url


def _away(url: str, error: Exception) -> CommandError:
    return CommandError(
        f"no teacher answers at {url} ({str(error) or type(error).__name__}); check the address, start one with "
        "`python -m services.teacher --port 8001`, or name a teacher that judges here, such as rules:",
        exit_code=1,
    )


def _asks_to_wait_s(response: httpx.Response) -> float | None:
    """Seconds that a service without room asks us to wait; none where it has room, or does not say."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if response.status_code == httpx.codes.TOO_MANY_REQUESTS and asked.isdigit() else None


def is_local(url: str) -> bool:
    """Whether `url` is on this machine: then no proxy from the environment stands between."""
    return httpx.URL(url).host in ("localhost", "127.0.0.1", "::1")


def _problem(response: httpx.Response) -> str:
    try:
        return Problem.from_json(response.content).detail
    except ValidationError:
        return f"status {response.status_code}"
