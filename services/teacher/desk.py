"""Teachers at work: a desk is one teacher with its screen, cache and batcher; a panel is who answers one request."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from fabula_proto import Story, TeacherIdentity, Verdict
from services.teacher.batcher import Batcher, BatchLimits, Ticket
from services.teacher.cache import VerdictCache
from services.teacher.calibration import mapped
from services.teacher.ensemble import combine, ensemble_identity
from services.teacher.judges.base import Asked, Judge, Noted, Prompting
from services.teacher.metrics import TeacherMetrics
from services.teacher.rubric import Rubric
from services.teacher.screening import ScreenedJudge, screen


@dataclass(frozen=True)
class Judged:
    """The answer to a request."""

    verdicts: tuple[Verdict, ...]
    identity: TeacherIdentity
    members: Mapping[str, TeacherIdentity]  # of an ensemble; empty for one teacher
    queue_s: float
    inference_s: float


class Desk:
    """One teacher at work. Its methods may be called from any thread."""

    def __init__(
        self,
        judge: Judge,
        rubric: Rubric,
        *,
        reward_map: str | None,
        min_coverage: float | None,
        max_story_chars: int,
        limits: BatchLimits,
        cache: VerdictCache | None,
        metrics: TeacherMetrics,
    ) -> None:
        self.rubric = rubric
        self._judge = judge
        self._max_story_chars = max_story_chars
        screened = ScreenedJudge(judge, rubric, max_story_chars)
        # The map comes last: what the screen gives 0 is put on the other teacher's scale too.
        self._outer: Judge = mapped(screened, reward_map) if reward_map else screened
        self._batcher = Batcher(self._outer, limits, metrics)
        self._cache = cache
        # Two teachers that differ in what they accept alone have one identity, and must not share what is remembered.
        mode = f"{self.identity.mode} min_coverage={min_coverage}"
        self._remembered_as = self.identity.model_copy(update={"mode": mode})
        self._metrics = metrics

    @property
    def identity(self) -> TeacherIdentity:
        """Who judges here."""
        return self._outer.identity

    @property
    def lanes(self) -> int:
        """How many batches the judge takes at once."""
        return self._judge.lanes

    @property
    def notes(self) -> tuple[str, ...]:
        """What the judge has to say about itself."""
        return tuple(note for judge in (self._judge, self._outer) if isinstance(judge, Noted) for note in judge.notes)

    def prompts(self, story: Story) -> tuple[str, ...]:
        """The exact texts that a model reads for the story; none where the judge asks no model, or is not asked."""
        screened = screen(story, self.rubric, self._max_story_chars)
        if isinstance(screened, Verdict) or not isinstance(self._judge, Prompting):
            return ()
        return () if isinstance(self._judge.prepare(screened), Verdict) else self._judge.prompts(screened)

    def admit(
        self,
        stories: Sequence[Story],
        *,
        patient: bool = False,
        fresh: bool = False,
        stop: threading.Event | None = None,
    ) -> "Admission":
        """Take stories in: remembered verdicts are looked up, the others made ready and put in line.

        Args:
            stories: any number.
            patient: wait for room where there is none, until `stop` is set.
            fresh: look nothing up; what is judged now takes the place of what was remembered.

        Raises:
            BusyError: there is no room, and the caller is not patient.
            JudgeUnavailableError: the teacher is shutting down.
        """
        if stories and not patient:
            self._batcher.turn_away_if_full()
        known: Sequence[Verdict | None] = [None] * len(stories)
        if self._cache and not fresh:
            known = self._cache.get_many(self._remembered_as, stories)
        prepared = [verdict or self._outer.prepare(story) for story, verdict in zip(stories, known, strict=True)]
        asked = [item for item in prepared if isinstance(item, Asked)]
        ticket = self._batcher.submit(asked, patient=patient, stop=stop)
        return Admission(self, stories, prepared, ticket)

    def settle(self, stories: Sequence[Story], prepared: Sequence[Asked | Verdict], ticket: Ticket) -> list[Verdict]:
        """The verdicts in order, once the ticket is done; new ones are remembered and counted."""
        answers = ticket.future.result()
        if self._cache:
            # By the text as it came, which is what the next request is looked up by.
            asked = [story for story, item in zip(stories, prepared, strict=True) if isinstance(item, Asked)]
            self._cache.put_many(self._remembered_as, zip(asked, answers, strict=True))
        news = iter(answers)
        verdicts = [next(news) if isinstance(item, Asked) else item for item in prepared]
        self._metrics.verdicts(verdicts)
        return verdicts

    def close(self) -> None:
        """Finish what was admitted, then let the judge go."""
        self._batcher.close()
        self._judge.close()


@dataclass(frozen=True)
class Admission:
    """Stories that were taken in at one desk."""

    desk: Desk
    stories: Sequence[Story]
    prepared: Sequence[Asked | Verdict]
    ticket: Ticket

    def finish(self) -> list[Verdict]:
        """Wait for the verdicts; see `Desk.settle`."""
        return self.desk.settle(self.stories, self.prepared, self.ticket)


class Work:
    """A request in hand."""

    def __init__(self, panel: "Panel", admissions: Mapping[str, Admission]) -> None:
        self._panel = panel
        self._admissions = admissions

    @property
    def futures(self) -> list["Future[list[Verdict]]"]:
        """All are done when `finish` need not wait."""
        return [admission.ticket.future for admission in self._admissions.values()]

    def cancel(self) -> None:
        """Nobody waits for the answer any more: what has not begun is dropped."""
        for admission in self._admissions.values():
            admission.ticket.cancel()

    def finish(self) -> Judged:
        """The answer; blocks until it is there.

        Raises:
            JudgeUnavailableError: a teacher could not judge.
        """
        try:
            columns = {name: admission.finish() for name, admission in self._admissions.items()}
        except BaseException:
            self.cancel()
            raise
        tickets = [admission.ticket for admission in self._admissions.values()]
        return Judged(
            verdicts=self._panel.merge(columns),
            identity=self._panel.identity,
            members=self._panel.members,
            queue_s=max(ticket.queue_s for ticket in tickets),
            inference_s=max(ticket.inference_s for ticket in tickets),
        )


class Panel:
    """Who answers a request: one teacher, or several as an ensemble.

    Raises:
        ValueError: the teachers judge by different rubrics.
    """

    def __init__(self, desks: Mapping[str, Desk]) -> None:
        self._desks = dict(desks)
        self._first = next(iter(self._desks.values()))
        identities = {name: desk.identity for name, desk in self._desks.items()}
        self.members = identities if len(identities) > 1 else {}
        self.identity = ensemble_identity(identities) if self.members else self._first.identity

    @property
    def rubric(self) -> Rubric:
        """What all of them judge by."""
        return self._first.rubric

    def admit(
        self,
        stories: Sequence[Story],
        *,
        patient: bool = False,
        fresh: bool = False,
        stop: threading.Event | None = None,
    ) -> Work:
        """Take stories in at every desk, or at none; see `Desk.admit`."""
        admissions: dict[str, Admission] = {}
        try:
            for name, desk in self._desks.items():
                admissions[name] = desk.admit(stories, patient=patient, fresh=fresh, stop=stop)
        except BaseException:
            for admission in admissions.values():
                admission.ticket.cancel()
            raise
        return Work(self, admissions)

    def prompts(self, story: Story) -> dict[str, tuple[str, ...]]:
        """Each teacher's prompts for the story."""
        return {name: desk.prompts(story) for name, desk in self._desks.items()}

    def merge(self, columns: Mapping[str, Sequence[Verdict]]) -> tuple[Verdict, ...]:
        """One verdict a story from the columns of verdicts, one a teacher."""
        if len(columns) == 1:
            return tuple(*columns.values())
        rows = zip(*columns.values(), strict=True)
        return tuple(combine(dict(zip(columns, row, strict=True))) for row in rows)
