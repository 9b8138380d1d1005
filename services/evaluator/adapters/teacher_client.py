"""A teacher over HTTP. The only file of this service that imports httpx."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import Self

import httpx
from pydantic import ValidationError

from fabula_proto import Problem, ScoreRequest, ScoreResponse, Story, StoryInput, TeacherIdentity, Verdict
from services.evaluator.errors import TeacherProtocolError, TeacherRefusedError, TeacherUnavailableError

TRY_AGAIN = (429, 502, 503, 504)
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0
LOOK_EVERY_S = 0.25


class TeacherClient:
    """Asks `POST /score` in chunks; waits for a teacher that is busy, starting or away, within a bound.

    Args:
        url: The teacher's address, such as http://localhost:8001.
        chunk: Stories in one request.
        timeout_s: Longest wait for one answer.
        patience_s: Longest time without any answer, over all tries of one request.
        wait: Sleeps so many seconds; may raise to give up. Called with 0 now and then while an answer is awaited.
    """

    def __init__(
        self,
        url: str,
        *,
        chunk: int = 32,
        timeout_s: float = 300.0,
        patience_s: float = 120.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url.rstrip("/")
        self._chunk = chunk
        self._patience_s = patience_s
        self._wait = wait
        timeout = httpx.Timeout(timeout_s, connect=min(10.0, timeout_s))
        self._http = httpx.Client(timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        self._http.close()

    def identity(self) -> TeacherIdentity | None:
        """Who judges there now; none where nobody answers, or no teacher of ours."""
        try:
            answer = self._http.get(f"{self._url}/info")
            return TeacherIdentity.model_validate(answer.raise_for_status().json()["identity"])
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            return None

    def judge(self, stories: Sequence[Story]) -> ScoreResponse:
        """One verdict a story, in order.

        Raises:
            TeacherUnavailableError: no answer within the patience.
            TeacherRefusedError: the teacher will not judge this request.
            TeacherProtocolError: the answer is no ScoreResponse, or the teacher changed on the way.
        """
        verdicts: list[Verdict] = []
        teacher: TeacherIdentity | None = None
        for start in range(0, len(stories), self._chunk):
            part = stories[start : start + self._chunk]
            response = self._score(part)
            if teacher is not None and response.teacher != teacher:
                raise TeacherProtocolError(
                    f"{self._url} judged the first {start} stories as {teacher.model} {teacher.revision} and the next "
                    f"as {response.teacher.model} {response.teacher.revision}; evaluate again with one teacher"
                )
            teacher = response.teacher
            verdicts += response.verdicts
        if teacher is None:
            raise ValueError("0 stories to judge; give at least one")
        return ScoreResponse(verdicts=tuple(verdicts), teacher=teacher)

    def _score(self, stories: Sequence[Story]) -> ScoreResponse:
        body = ScoreRequest(stories=tuple(StoryInput(id=s.id, prompt=s.prompt, text=s.text) for s in stories))
        answer = self._post(body.to_json())
        try:
            response = ScoreResponse.from_json(answer.content)
        except ValidationError as error:
            raise TeacherProtocolError(f"{self._url}/score answered no ScoreResponse: {error}") from error
        asked, given = [s.id for s in stories], [v.story_id for v in response.verdicts]
        if asked != given:
            raise TeacherProtocolError(
                f"{self._url}/score answered {len(given)} verdicts, ids {given[:3]}..., for {len(asked)} stories, ids "
                f"{asked[:3]}...; expected one each, in order"
            )
        return response

    def _post(self, body: str) -> httpx.Response:
        """One request, tried again while the teacher is away or busy."""
        deadline = time.monotonic() + self._patience_s
        pause_s, why = FIRST_WAIT_S, ""
        while True:
            asked_s: float | None = None
            try:
                answer = self._ask(body)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                expected = "expected an address such as http://localhost:8001"
                raise TeacherRefusedError(f"{self._url!r} cannot be asked ({error}); {expected}") from error
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success:
                    return answer
                why = f"{answer.status_code}: {_detail(answer)}"
                if answer.status_code not in TRY_AGAIN:
                    raise TeacherRefusedError(f"{self._url}/score answered {why}")
                asked_s = _retry_after(answer)
            left_s = deadline - time.monotonic()
            if left_s <= 0 or (asked_s is not None and asked_s > left_s):
                raise TeacherUnavailableError(
                    f"{self._url}/score gave no verdicts for {self._patience_s:g} s ({why}); start the teacher, check "
                    "the address, or raise FABULA_EVALUATOR_TEACHER_PATIENCE_S"
                )
            self._wait(min(asked_s if asked_s is not None else pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_WAIT_S)

    def _ask(self, body: str) -> httpx.Response:
        """One request, in a thread of its own, so that `wait` can give up while a slow teacher thinks."""
        answer: Future[httpx.Response] = Future()

        def post() -> None:
            headers = {"Content-Type": "application/json"}
            try:
                answer.set_result(self._http.post(f"{self._url}/score", content=body, headers=headers))
            except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:  # RuntimeError: closed meanwhile
                answer.set_exception(error)

        Thread(target=post, name="teacher", daemon=True).start()
        while True:
            try:
                return answer.result(LOOK_EVERY_S)
            except TimeoutError:
                self._wait(0.0)


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds the teacher asks us to wait; none where it does not say so in seconds."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _detail(answer: httpx.Response) -> str:
    try:
        return Problem.from_json(answer.content).detail
    except ValidationError:
        return answer.text[:200]
