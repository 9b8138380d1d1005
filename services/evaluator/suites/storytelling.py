"""Story quality: the checkpoint writes stories from the training prompt, a teacher judges them.

A failed or refused verdict is counted and left out, never a number; past a tenth of such verdicts the suite fails.
Measures, over all stories where nothing else is said:

| measure | meaning |
|---|---|
| `total` (headline), `criterion/<name>`, `reward` | points, 0..3, 0..1; over stories with a verdict |
| `words`, `ended`, `unjudged` | length; share that closed themselves; share without a verdict |
| `entropy_per_word` | nats: -log p of all sampled tokens, end tokens too, over all words; an estimate of |
| | the entropy of what the checkpoint tells at temperature 1, as these stories are samples of it |
| `distinct_1`, `_2`, `_3` | distinct over all n-grams within a story |
| `own_bigrams` | share of a story's distinct bigrams that no other story has |
| `self_bleu` | BLEU-4 of a story against the others, of the first 100: it grows with their number |
| `longest_copy` | words of the longest run that the training text has too, word for word; where there is that text |
| `entities`, `entities_kept` | entities a story introduces; share that it comes back to (texts.cast: a rough count) |

Intervals resample stories; those of `own_bigrams` and `self_bleu` keep what each story is compared with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

from fabula_proto import Measure, SampleStory, ScoreResponse, Story, Verdict, VerdictStatus
from services.evaluator.errors import SuiteFailedError
from services.evaluator.statistics import mean_interval, ratio_interval
from services.evaluator.suites.outcome import SuiteOutcome, as_json, as_measure
from services.evaluator.texts import cast, distinct, own_bigrams, self_bleu
from services.evaluator.writing import WrittenStory

NAME = "storytelling"
HEADLINE = "total"
MAXIMUM_FAILED_SHARE = 0.1
SAMPLES = 12
COMPARED_STORIES = 100


class Judge(Protocol):
    """A teacher, wherever it is."""

    def judge(self, stories: Sequence[Story]) -> ScoreResponse:
        """One verdict a story, in order."""


@dataclass(frozen=True, slots=True)
class Written:
    """The stories of one checkpoint and how they were asked for.

    `copied`: words of each story's longest copy from the training text; none where there is no such text.
    """

    stories: tuple[WrittenStory, ...]
    prompt: str
    seed: int
    copied: tuple[int, ...] | None = None


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
    values["unjudged"] = [1.0] * missing + [0.0] * len(ok)
    values |= _of_texts(written)
    measures = {name: as_measure(mean_interval(sample, seed)) for name, sample in values.items() if sample}
    words = [s.words for s in written.stories]
    if any(words):
        entropy = ratio_interval([s.surprisal for s in written.stories], words, seed)
        measures["entropy_per_word"] = as_measure(entropy)
    return measures


def _of_texts(written: Written) -> dict[str, list[float]]:
    """Measures that need no teacher, a value a story that has one."""
    texts = [story.text for story in written.stories]
    values = {
        "words": [float(s.words) for s in written.stories],
        "ended": [float(s.ended) for s in written.stories],
    }
    for n in (1, 2, 3):
        values[f"distinct_{n}"] = [share for text in texts if (share := distinct(text, n)) is not None]
    values["own_bigrams"] = own_bigrams(texts)
    values["self_bleu"] = self_bleu(texts[:COMPARED_STORIES])
    values["longest_copy"] = [float(words) for words in written.copied or ()]
    casts = [cast(text) for text in texts]
    values["entities"] = [float(c.introduced) for c in casts]
    values["entities_kept"] = [c.kept / c.introduced for c in casts if c.introduced]
    return values


def _rows(written: Written, response: ScoreResponse) -> dict[str, Any]:
    return {
        "prompt": written.prompt,
        "seed": written.seed,
        "teacher": response.teacher.model_dump(mode="json"),
        "stories": [
            {
                "text": s.text,
                "words": s.words,
                "ended": s.ended,
                "surprisal": s.surprisal,
                "longest_copy": copied,
                "verdict": v.model_dump(mode="json"),
            }
            for s, v, copied in zip(written.stories, response.verdicts, written.copied or repeat(None), strict=False)
        ],
    }


def _samples(written: Written, verdicts: Sequence[Verdict]) -> tuple[SampleStory, ...]:
    pairs = list(zip(written.stories, verdicts, strict=True))[:SAMPLES]
    return tuple(SampleStory(seed=written.seed, prompt=written.prompt, text=s.text, total=v.total) for s, v in pairs)
