"""How much may wait for the judge, counted in tokens, and how long it takes until there is room. No thread in here.

Two kinds share the room: requests over HTTP, which are turned away where there is none, and patient ones from the
queue, which stand in line. Neither can shut the other out: room that the first in line may have is kept for it, and
the patient ones together hold at most half of all room, unless none of theirs waits.
"""

import math
from collections import deque
from dataclasses import dataclass, field

RECENT_BATCHES = 32  # the rate is measured over so many
UNMEASURED_RETRY_S = 5  # said before the first batch is done: a guess, for nothing is known yet
LONGEST_RETRY_S = 600  # a rate of one small batch may foretell days; whoever asks again learns better


class BusyError(RuntimeError):
    """There is no room for a request now; the message is for users.

    `queued_tokens`: tokens ahead of the request, those promised to the first in line included. `retry_after_s`: in how
    many seconds, 1 to 600, these are judged at the rate of recent batches; 5 before any batch was measured.
    """

    def __init__(self, message: str, *, retry_after_s: int, queued_tokens: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.queued_tokens = queued_tokens


@dataclass(frozen=True)
class BatchLimits:
    """What is judged in one go, and what may wait."""

    batch_tokens: int  # padded: longest x stories
    batch_stories: int
    queued_tokens: int


@dataclass(eq=False)
class Request:
    """What the room knows of a request."""

    tokens: int
    patient: bool


@dataclass
class Room:
    """Tokens that wait, and who waits for room.

    A request larger than `limit` altogether has room when nothing waits, else it could never be judged.
    """

    limit: int
    line: deque[Request] = field(default_factory=deque)  # patient ones that are not admitted yet
    _http: int = 0
    _patient: int = 0

    @property
    def waiting(self) -> int:
        """Tokens of the admitted stories that have not begun."""
        return self._http + self._patient

    @property
    def ahead(self) -> int:
        """Tokens that wait or are promised to the first in line."""
        first = self.line[0] if self.line else None
        return self.waiting + (first.tokens if first and self._within_share(first) else 0)

    def has(self, request: Request) -> bool:
        """Whether there is room for the whole request now."""
        if not request.patient:
            return self._fits(request, self.ahead)
        is_next = not self.line or self.line[0] is request
        return is_next and self._within_share(request) and self._fits(request, self.waiting)

    def count(self, request: Request, tokens: int) -> None:
        """So many tokens of the request wait more, or fewer where negative."""
        if request.patient:
            self._patient += tokens
        else:
            self._http += tokens

    def _fits(self, request: Request, ahead: int) -> bool:
        return not ahead or ahead + request.tokens <= self.limit

    def _within_share(self, request: Request) -> bool:
        return not self._patient or 2 * (self._patient + request.tokens) <= self.limit


class Rate:
    """How fast the judge is: tokens over seconds of the most recent batches, times the lanes.

    Where somebody is turned away stories wait, so all lanes are busy: together they do so many times what one does.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._batches: deque[tuple[int, float]] = deque(maxlen=RECENT_BATCHES)

    def add(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens, at least 1, took so many seconds."""
        self._batches.append((tokens, seconds))

    def retry_after_s(self, tokens: int) -> int:
        """In how many seconds so many tokens are judged, 1 to 600."""
        if not self._batches:
            return UNMEASURED_RETRY_S
        done = sum(tokens for tokens, _ in self._batches)
        seconds = sum(seconds for _, seconds in self._batches)
        return max(1, min(LONGEST_RETRY_S, math.ceil(tokens * seconds / (done * self._lanes))))
