"""Story quality: the checkpoint writes stories from the training prompt, a teacher judges them.

A failed or refused verdict is counted and left out, never a number; past a tenth of such verdicts the suite fails.
Measures: `total` (headline, points), each criterion (points), `reward` (0..1), `words`, `ended` (share that closed
themselves), `distinct_2`, `own_bigrams` (texts.py) over all stories.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fabula_proto import Measure, SampleStory, ScoreResponse, Story, Verdict, VerdictStatus
from services.evaluator.errors import SuiteFailedError
from services.evaluator.statistics import mean_interval
from services.evaluator.suites.outcome import SuiteOutcome, as_json, as_measure
from services.evaluator.texts import distinct_2, own_bigrams
from services.evaluator.writing import WrittenStory

NAME = "storytelling"
HEADLINE = "total"
MAXIMUM_FAILED_SHARE = 0.1
SAMPLES = 12


class Judge(Protocol):
    """A teacher, wherever it is."""

    def judge(self, stories: Sequence[Story]) -> ScoreResponse:
        """One verdict a story, in order."""


@dataclass(frozen=True, slots=True)
class Written:
    """The stories of one checkpoint and how they were asked for."""

    stories: tuple[WrittenStory, ...]
    prompt: str
    seed: int


def evaluate(written: Written, judge: Judge, seed: int) -> SuiteOutcome:
    """Have `written` judged.

    Raises:
        SuiteFailedError: more than a tenth of the verdicts carry no numbers.
        TeacherError: from the judge.
    """
    stories = [Story(id=str(i), prompt=written.prompt, text=s.text) for i, s in enumerate(written.stories)]
    response = judge.judge(stories)
    ok = [verdict for verdict in response.verdicts if verdict.status is VerdictStatus.OK]
    missing = [verdict for verdict in response.verdicts if verdict.status is not VerdictStatus.OK]
    if len(missing) > MAXIMUM_FAILED_SHARE * len(stories):
        raise SuiteFailedError(
            f"the teacher gave no verdict on {len(missing)} of {len(stories)} stories (at most "
            f"{MAXIMUM_FAILED_SHARE:.0%} may be missing); its first reason: {missing[0].reason}"
        )
    return SuiteOutcome(
        source=f"stories written from the prompt, seed {written.seed}",
        headline=HEADLINE,
        unit="points",
        measures=_measures(written, ok, len(missing), seed),
        files={"stories.json": as_json(_rows(written, response))},
        teacher=response.teacher,
        stories=_samples(written, response.verdicts),
    )


def _measures(written: Written, ok: Sequence[Verdict], missing: int, seed: int) -> dict[str, Measure]:
    values: dict[str, list[float]] = {HEADLINE: [v.total for v in ok if v.total is not None]}
    for verdict in ok:
        for name, score in (verdict.criteria or {}).items():
            values.setdefault(f"criterion/{name}", []).append(score.mean)
    values["reward"] = [v.reward for v in ok if v.reward is not None]
    values["words"] = [float(s.words) for s in written.stories]
    values["ended"] = [float(s.ended) for s in written.stories]
    values["distinct_2"] = [share for s in written.stories if (share := distinct_2(s.text)) is not None]
    values["own_bigrams"] = own_bigrams([s.text for s in written.stories])
    values["unjudged"] = [1.0] * missing + [0.0] * len(ok)
    return {name: as_measure(mean_interval(sample, seed)) for name, sample in values.items() if sample}


def _rows(written: Written, response: ScoreResponse) -> dict[str, Any]:
    return {
        "prompt": written.prompt,
        "seed": written.seed,
        "teacher": response.teacher.model_dump(mode="json"),
        "stories": [
            {"text": s.text, "words": s.words, "ended": s.ended, "verdict": v.model_dump(mode="json")}
            for s, v in zip(written.stories, response.verdicts, strict=True)
        ],
    }


def _samples(written: Written, verdicts: Sequence[Verdict]) -> tuple[SampleStory, ...]:
    pairs = list(zip(written.stories, verdicts, strict=True))[:SAMPLES]
    return tuple(SampleStory(seed=written.seed, prompt=written.prompt, text=s.text, total=v.total) for s, v in pairs)
