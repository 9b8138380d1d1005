"""A language model behind a server as the judge.

Source: the answer format of arXiv 2509.15714. The definitions are those of the in-process judge, in
`services.teacher.judges.transformers_judge`; where a server does not give enough to keep them, its dialect's file says
what is different.
"""

import logging
import sys
from collections.abc import Sequence

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.judges.base import Asked, JudgeUnavailableError
from services.teacher.judges.lm.prompt import PROMPT_VERSION, fenced
from services.teacher.judges.modes import mode_name
from services.teacher.judges.remote.asking import Question, drawn, open_question, parsed, scored
from services.teacher.judges.remote.dialect import Description, Dialect, DialectError, Draw, StoryRefusedError
from services.teacher.judges.remote.http import LoopThread, RequestRefusedError, ServerFaultError, together
from services.teacher.judges.remote.markers import broken
from services.teacher.judges.remote.probe import probe
from services.teacher.judges.remote.tree import MalformedAnswerError
from services.teacher.rubric import Rubric
from services.teacher.spec import TeacherSpec

log = logging.getLogger(__name__)

MIN_COVERAGE = 0.5
MAX_ANSWERS = 1024
LANES = 2  # while the last questions of one batch are answered, the next batch's first ones are asked
# No text that people write has more bytes a token than this; a story that is too long even so is not sent.
MOST_BYTES_A_TOKEN, USUAL_BYTES_A_TOKEN = 16, 4
UNSEEDED = "the seed has no effect on this server; SGLang heeds it when started with --enable-deterministic-inference"
TOO_LONG = ("context", "too long", "max_new_tokens", "maximum", "exceed", "must have less than")


class RemoteJudge:
    """Asks a server about each story; the server batches. Build it with `build_remote_judge`."""

    def __init__(self, spec: TeacherSpec, rubric: Rubric, dialect: Dialect, loop: LoopThread) -> None:
        self.rubric = rubric
        self._dialect, self._loop = dialect, loop
        self._mode, self._temperature = spec.chosen_mode, spec.chosen_temperature
        self._min_coverage = MIN_COVERAGE if spec.min_coverage is None else spec.min_coverage
        self._draw = Draw(len(rubric.criteria), rubric.levels, self._temperature, spec.sample_seed)
        try:
            self._server, self._questions, self.notes = loop.run(self._open())
        except DialectError as error:
            raise JudgeUnavailableError(f"teacher {spec.judge!r} cannot judge: {error}") from error
        except (RequestRefusedError, MalformedAnswerError, StoryRefusedError) as error:
            raise JudgeUnavailableError(f"teacher {spec.judge!r} fails its probe: {error}") from error
        except ServerFaultError as error:
            raise JudgeUnavailableError(f"teacher {spec.judge!r} is not ready: {error}", passing=True) from error
        revision = (
            f"{spec.teacher_revision}+{self._server.revision}" if spec.teacher_revision else self._server.revision
        )
        self._identity = TeacherIdentity(
            backend=dialect.backend,
            model=self._server.model,
            revision=f"{revision}+prompt{PROMPT_VERSION}",
            rubric=rubric.name,
            rubric_version=rubric.version,
            rubric_hash=rubric.hash,
            mode=mode_name(self._mode, self._temperature, spec.sample_seed),
        )

    @property
    def identity(self) -> TeacherIdentity:
        """The model as the server names it, its revision or the server's version, rubric, mode."""
        return self._identity

    @property
    def lanes(self) -> int:
        """Two."""
        return LANES

    def prepare(self, story: Story) -> Asked | Verdict:
        """The story fenced and without markers; no network. Its tokens are estimated: UTF-8 bytes / 4, and the answer.

        Refused here is what cannot fit the server's context whatever its tokenizer does; the rest is the server's word.
        """
        text = fenced(broken(story.text))
        size = len(text.encode())
        context = self._server.context
        if context is not None and size > context * MOST_BYTES_A_TOKEN:
            reason = f"the story has {size} bytes, far beyond the {context} tokens of the server's context: shorten it"
            return _without_numbers(story, VerdictStatus.REFUSED, reason)
        return Asked(story, (size // USUAL_BYTES_A_TOKEN + self._draw.max_tokens) * len(self._questions), text)

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a story, in order; all are asked about at once. See `Judge.judge`."""
        return self._loop.run(self._judge(asked))

    def prompts(self, story: Story) -> tuple[str, ...]:
        """The exact texts that the model reads, one a question; a chat server's messages one after the other."""
        text = fenced(broken(story.text))
        return tuple(self._dialect.shown(question.frame, text) for question in self._questions)

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._loop.run(self._dialect.http.close())
        self._loop.close()

    async def _open(self) -> tuple[Description, tuple[Question, ...], tuple[str, ...]]:
        if self._dialect.health is not None:
            await self._dialect.http.ready(self._dialect.health)
        server = await self._dialect.describe()
        rubrics = self.rubric.split() if self._mode == "independent" else (self.rubric,)
        answers = self.rubric.levels ** len(rubrics[0].criteria)
        if answers > MAX_ANSWERS:
            raise DialectError(
                f"rubric {self.rubric.name!r} has {answers} possible answers; at most {MAX_ANSWERS} can be scored "
                "together: use fewer criteria or levels, or FABULA_MODE=independent"
            )
        questions = tuple([await open_question(self._dialect, rubric) for rubric in rubrics])
        found = await probe(self._dialect, questions, self._mode, self._draw)
        log.info("%s at %s: %s", self._dialect.backend, self._dialect.http.url, found)
        unseeded = self._mode == "sample" and not server.seeded
        return server, questions, (found, UNSEEDED) if unseeded else (found,)

    async def _judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        outcomes = await together(*(self._outcome(item) for item in asked))
        faults = [outcome for outcome in outcomes if isinstance(outcome, ServerFaultError)]
        if faults and len(faults) == len(outcomes):
            raise JudgeUnavailableError(f"the judge's server fails on every story: {faults[0]}", passing=True)
        await self._same_server()
        return [
            _without_numbers(item.story, VerdictStatus.FAILED, f"the judge's server failed on this story: {outcome}")
            if isinstance(outcome, ServerFaultError)
            else outcome
            for item, outcome in zip(asked, outcomes, strict=True)
        ]

    async def _same_server(self) -> None:
        """After a lost connection another model may answer at the same address; no verdict is given in its name."""
        if not self._dialect.http.lost:
            return
        try:
            now = await self._dialect.describe()
        except (DialectError, MalformedAnswerError) as error:
            raise JudgeUnavailableError(f"the judge's server came back as another one: {error}") from error
        except (RequestRefusedError, ServerFaultError) as error:
            raise JudgeUnavailableError(f"the judge's server is not back: {error}", passing=True) from error
        if (now.model, now.revision) != (self._server.model, self._server.revision):
            raise JudgeUnavailableError(
                f"{self._dialect.http.url} now holds {now.model} {now.revision}, no more {self._server.model} "
                f"{self._server.revision}; restart the teacher, so that its identity is true"
            )
        self._dialect.http.lost = False

    async def _outcome(self, item: Asked) -> Verdict | ServerFaultError:
        try:
            return await (self._drawn(item) if self._mode == "sample" else self._scored(item))
        except ServerFaultError as error:
            return error
        except StoryRefusedError as error:
            return _without_numbers(item.story, VerdictStatus.REFUSED, f"the story is refused: {error}")
        except RequestRefusedError as error:
            too_long = error.status == 413 or any(sign in str(error).lower() for sign in TOO_LONG)
            status = VerdictStatus.REFUSED if too_long else VerdictStatus.FAILED
            return _without_numbers(item.story, status, f"the judge's server refuses the story: {error}")
        except MalformedAnswerError as error:
            return _without_numbers(item.story, VerdictStatus.FAILED, str(error))

    async def _scored(self, item: Asked) -> Verdict:
        found = await together(
            *(scored(self._dialect, question, item.payload, self._temperature) for question in self._questions)
        )
        coverage = min(each.coverage for each in found)
        if reason := self._too_little(coverage):
            return _without_numbers(item.story, VerdictStatus.FAILED, reason)
        names = [criterion.name for criterion in self.rubric.criteria]
        levels = [row for each in found for row in each.levels]
        halo = dict(zip(names, found[0].halos, strict=True)) if self._mode == "joint" else None
        return self.rubric.verdict(item.story.id, dict(zip(names, levels, strict=True)), coverage=coverage, halo=halo)

    async def _drawn(self, item: Asked) -> Verdict:
        answer, coverage = await drawn(self._dialect, self._questions[0], item.payload, self._draw)
        if reason := self._too_little(coverage):
            return _without_numbers(item.story, VerdictStatus.FAILED, reason)
        levels = parsed(answer, self._draw.criteria, self._draw.levels)
        sure = {
            criterion.name: [float(i == level) for i in range(self.rubric.levels)]
            for criterion, level in zip(self.rubric.criteria, levels, strict=True)
        }
        return self.rubric.verdict(item.story.id, sure, coverage=coverage)

    def _too_little(self, coverage: float) -> str | None:
        needed = max(self._min_coverage, sys.float_info.min)
        if coverage >= needed:
            return None
        return (
            f"the judge gave {coverage:.2g} of its probability to valid answers, less than {needed:g}; it would say "
            "something else: check its chat template, or lower FABULA_MIN_COVERAGE"
        )


def _without_numbers(story: Story, status: VerdictStatus, reason: str) -> Verdict:
    return Verdict(story_id=story.id, status=status, reason=reason)
