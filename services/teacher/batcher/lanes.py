"""The threads of the batcher: requests come in on any of them, and the judge's lanes take batches."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from fabula_proto import Verdict
from services.teacher.batcher.bisection import judge_or_bisect
from services.teacher.batcher.room import BatchLimits, BusyError, Rate, Request, Room
from services.teacher.batcher.turns import Turns
from services.teacher.judges.base import Asked, Judge, JudgeUnavailableError

log = logging.getLogger(__name__)

STOP_POLL_S = 0.1


class BatchObserver(Protocol):
    """Is told what the batcher does. Called from any thread, also with the batcher's lock held: cheap, never raises."""

    def queued(self, tokens: int) -> None:
        """So many tokens wait now."""
        ...

    def batch_done(self, stories: int, tokens: int, padded_tokens: int, inference_s: float) -> None:
        """A batch has its verdicts; the seconds include the search for stories that break the judge."""
        ...

    def ticket_done(self, queue_s: float, inference_s: float) -> None:
        """A request has its verdicts; see `Ticket` for the seconds."""
        ...

    def turned_away(self) -> None:
        """A request found no room."""
        ...


class _Nobody:
    """Observes nothing."""

    def queued(self, tokens: int) -> None: ...
    def batch_done(self, stories: int, tokens: int, padded_tokens: int, inference_s: float) -> None: ...
    def ticket_done(self, queue_s: float, inference_s: float) -> None: ...
    def turned_away(self) -> None: ...


class Ticket:
    """One request's stories, admitted as a whole.

    `future`: the verdicts in the order of the stories, or JudgeUnavailableError. Once it is done, `queue_s` is the time
    from admission until the last of its batches began, and `inference_s` the time that its batches took, added up.
    """

    def __init__(self, asked: Sequence[Asked], *, patient: bool) -> None:
        self.future: Future[list[Verdict]] = Future()
        self.queue_s = 0.0
        self.inference_s = 0.0
        self.asked = tuple(asked)
        self.request = Request(sum(item.tokens for item in asked), patient)
        self.admitted_at = time.monotonic()
        self.verdicts: dict[int, Verdict] = {}
        self.claimed = False  # one thread has taken it on to settle the future

    def cancel(self) -> None:
        """The client left: what has not begun is dropped and its room is free at once. As `future.cancel()` does."""
        self.future.cancel()


Batch = list[tuple[Ticket, int]]  # a story: its ticket, and its position there


class Batcher:
    """Brings stories to a judge in batches. Its methods may be called from any thread.

    The judge is called from `judge.lanes` threads, which start with the first request. The caller closes the judge.
    """

    def __init__(self, judge: Judge, limits: BatchLimits, observer: BatchObserver | None = None) -> None:
        self._judge = judge
        self._observer = observer or _Nobody()
        self._changed = threading.Condition()  # guards all that follows
        self._turns: Turns[Ticket] = Turns(limits.batch_tokens, limits.batch_stories)
        self._room = Room(limits.queued_tokens)
        self._rate = Rate(judge.lanes)
        self._lanes: list[threading.Thread] = []
        self._idle = judge.lanes
        self._closing = False

    def submit(self, asked: Sequence[Asked], *, patient: bool = False, stop: threading.Event | None = None) -> Ticket:
        """Admit a request, as a whole or not at all; one larger than `queued_tokens` altogether when nothing waits.

        Args:
            asked: stories that the judge has prepared; for none, the ticket is done at once.
            patient: wait for room, in order of arrival; see `room` for how the two kinds share it.
            stop: ends that waiting.

        Raises:
            BusyError: there is no room, and the caller is not patient.
            JudgeUnavailableError: the batcher is closed, or `stop` was set before there was room.
        """
        ticket = Ticket(asked, patient=patient)
        with self._changed:
            self._check_open()
            if not asked:
                ticket.future.set_result([])
                return ticket
            if patient:
                self._wait_for_room(ticket.request, stop)
            elif not self._room.has(ticket.request):
                self._observer.turned_away()
                raise self._busy(ticket.request)
            self._start_lanes()
            ticket.admitted_at = time.monotonic()
            self._turns.add(ticket, [item.tokens for item in ticket.asked])
            self._room.count(ticket.request, ticket.request.tokens)
            self._tell()
        ticket.future.add_done_callback(lambda future: future.cancelled() and self._drop(ticket))
        return ticket

    def turn_away_if_full(self) -> None:
        """Raise BusyError where not one more token has room: said before anybody makes stories ready in vain."""
        request = Request(tokens=1, patient=False)
        with self._changed:
            if not self._room.has(request):
                self._observer.turned_away()
                raise self._busy(request)

    def close(self) -> None:
        """Finish what is admitted, then end the threads. Whoever still waits for room gets JudgeUnavailableError."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            lanes = list(self._lanes)
        for lane in lanes:
            lane.join()

    def _check_open(self) -> None:
        if self._closing:
            message = "this teacher is shutting down; ask another one, or this one again later"
            raise JudgeUnavailableError(message, passing=True)

    def _wait_for_room(self, request: Request, stop: threading.Event | None) -> None:
        self._room.line.append(request)
        try:
            while not self._room.has(request):
                if stop is not None and stop.is_set():
                    message = "the wait for room at the teacher was ended; ask again later"
                    raise JudgeUnavailableError(message, passing=True)
                self._changed.wait(None if stop is None else STOP_POLL_S)
                self._check_open()
        finally:
            self._room.line.remove(request)
            self._changed.notify_all()

    def _busy(self, request: Request) -> BusyError:
        ahead = self._room.ahead
        retry_after_s = self._rate.retry_after_s(ahead)
        message = (
            f"the teacher is busy: {ahead} tokens wait, {self._room.limit} may, and this request has {request.tokens}; "
            f"try again in {retry_after_s} s, or send fewer stories at once"
        )
        return BusyError(message, retry_after_s=retry_after_s, queued_tokens=ahead)

    def _tell(self) -> None:
        """Other tokens wait than before. With the lock held."""
        self._observer.queued(self._room.waiting)
        self._changed.notify_all()

    def _drop(self, ticket: Ticket) -> bool:
        """Forget what waits of the ticket; whether the caller is the one to settle it."""
        with self._changed:
            self._room.count(ticket.request, -self._turns.drop(ticket))
            self._tell()
        return self._claim(ticket)

    def _start_lanes(self) -> None:
        while len(self._lanes) < self._judge.lanes:
            # A daemon: a judge that hangs must not hold up the exit of a process that never closed the batcher.
            lane = threading.Thread(target=self._serve, name=f"judge-{len(self._lanes)}", daemon=True)
            lane.start()
            self._lanes.append(lane)

    def _serve(self) -> None:
        while batch := self._next_batch():
            try:
                self._run(batch)
            except JudgeUnavailableError as error:
                self._fail(batch, error)
            except BaseException as error:  # outermost edge of this thread: nobody may wait for ever, and it goes on
                log.exception("judging a batch of %d stories failed", len(batch))
                told = f"{type(error).__name__}: {error}"
                self._fail(batch, JudgeUnavailableError(f"the judge failed ({told}); see the log of the teacher"))
            with self._changed:
                self._idle += 1

    def _next_batch(self) -> Batch:
        """Wait for stories and take a batch of them. Empty when the batcher is closed and none wait."""
        with self._changed:
            while not self._turns.stories:
                if self._closing:
                    return []
                self._changed.wait()
            # What waits is shared out evenly to the lanes that are free.
            batch = self._turns.take(at_most=math.ceil(self._turns.stories / self._idle))
            self._idle -= 1
            now = time.monotonic()
            for ticket, i in batch:
                ticket.queue_s = now - ticket.admitted_at
                self._room.count(ticket.request, -ticket.asked[i].tokens)
            self._tell()
            return batch

    def _run(self, batch: Batch) -> None:
        began = time.monotonic()
        asked = [ticket.asked[i] for ticket, i in batch]
        verdicts = judge_or_bisect(self._judge, asked)
        inference_s = time.monotonic() - began
        tickets = _tickets(batch)
        with self._changed:
            tokens = sum(item.tokens for item in asked)
            self._rate.add(tokens, inference_s)
            for (ticket, i), verdict in zip(batch, verdicts, strict=True):
                ticket.verdicts[i] = verdict
            for ticket in tickets:
                ticket.inference_s += inference_s
            done = [t for t in tickets if len(t.verdicts) == len(t.asked) and not t.claimed]
        self._observer.batch_done(len(batch), tokens, len(batch) * max(item.tokens for item in asked), inference_s)
        for ticket in done:
            self._observer.ticket_done(ticket.queue_s, ticket.inference_s)
            if self._claim(ticket):
                ticket.future.set_result([ticket.verdicts[i] for i in range(len(ticket.asked))])

    def _fail(self, batch: Batch, error: JudgeUnavailableError) -> None:
        for ticket in _tickets(batch):
            if self._drop(ticket):
                ticket.future.set_exception(error)

    def _claim(self, ticket: Ticket) -> bool:
        """Whether the caller is the one to settle the future: nobody else is, and it has not been cancelled."""
        with self._changed:
            if ticket.claimed:
                return False
            ticket.claimed = True
        return ticket.future.set_running_or_notify_cancel()


def _tickets(batch: Batch) -> list[Ticket]:
    return list(dict.fromkeys(ticket for ticket, _ in batch))
