"""One suite of two checkpoints: what changed, where their items are the same; else why that cannot be said."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from scipy.stats import spearmanr

from fabula_proto import SuiteResult
from services.evaluator.comparison import (
    CHOICES_FILE,
    RESAMPLES_FILE,
    Change,
    Choices,
    Switches,
    holm,
    paired_change,
    paired_mean_change,
    unpaired_change,
)
from services.evaluator.correlation import PREFERENCES_FILE, spearman_replicates
from services.evaluator.statistics import percentile_interval
from services.local.evaluated import Evaluated

SEED = 42
WUGS = ("wug_adj", "wug_past")
READING = "reading"
AOA, SURPRISALS_FILE = "aoa", "surprisal.json"
STORYTELLING, STORIES_FILE = "storytelling", "stories.json"
CHOICES = TypeAdapter(dict[str, Annotated[list[int], Field(min_length=1)]])
_OPERATIONS = re.compile(r"^(?P<split>.+)_\d+_ops$")


class _Verdict(BaseModel):
    total: float | None = None


class _Row(BaseModel):
    verdict: _Verdict


class Stories(BaseModel):
    """What is read here of the judged stories."""

    model_config = ConfigDict(extra="ignore")

    prompt: str
    stories: Annotated[tuple[_Row, ...], Field(min_length=1)]

    @property
    def totals(self) -> list[float]:
        """The scores of the stories that have one."""
        return [row.verdict.total for row in self.stories if row.verdict.total is not None]


class _Surprisal(BaseModel):
    target_word: str
    surprisal: float


class Surprisals(BaseModel):
    """What is read here of a checkpoint's surprisals, in nats."""

    results: tuple[_Surprisal, ...]

    def by_word(self) -> dict[str, float]:
        """Mean over the contexts that were measured; a word without any is left out."""
        found: dict[str, list[float]] = {}
        for row in self.results:
            if isfinite(row.surprisal):
                found.setdefault(row.target_word, []).append(row.surprisal)
        return {word: sum(values) / len(values) for word, values in found.items()}


class Resamples(BaseModel):
    """What is read here of a regression's resamples."""

    drawn: str
    values: Annotated[tuple[float, ...], Field(min_length=1)]


SURPRISALS = TypeAdapter(Surprisals)
RESAMPLES = TypeAdapter(Resamples)
PREFERENCES = TypeAdapter(Annotated[list[tuple[float, float]], Field(min_length=1)])
STORIES = TypeAdapter(Stories)


@dataclass(frozen=True)
class Comparison:
    """Change of a suite's headline and of its paradigms; without one, `why_not`, unless there is nothing to compare."""

    headline: Change | None = None
    paradigms: dict[str, Change] = field(default_factory=dict)
    why_not: str | None = None

    def corrected(self) -> dict[str, float]:
        """Paradigm -> its McNemar p after Holm's correction over all of them."""
        raw = {name: change.p for name, change in self.paradigms.items() if change.p is not None}
        return dict(zip(raw, holm(list(raw.values())), strict=True))


def weights(paradigms: Sequence[str]) -> dict[str, float]:
    """What each paradigm counts in the pipeline's average: the same, or within its split of entity tracking."""
    splits: dict[str, list[str]] = {}
    for uid in paradigms:
        match = _OPERATIONS.match(uid)
        splits.setdefault(match["split"] if match else uid, []).append(uid)
    return {uid: 1.0 / (len(splits) * len(uids)) for uids in splits.values() for uid in uids}


def compare(base: Evaluated, other: Evaluated, suite: str) -> Comparison:
    """From `base` to `other`.

    Paired over the items where both wrote which answers were right; unpaired for stories, which are never the same.

    Raises:
        CommandError: a file of the suite cannot be read.
    """
    before, after = base.result(suite), other.result(suite)
    if after is None or after.status != "ok":
        return Comparison()
    if before is None or before.status != "ok":
        return Comparison(why_not=f"{base.name} has no result")
    if suite == STORYTELLING:
        return _compare_stories(base, other, before, after)
    if before.source != after.source or before.reason != after.reason:
        return Comparison(why_not=f"other items: {_items(after)}; {base.name} had {_items(before)}")
    if suite in WUGS:
        return _compare_preferences(base, other, suite)
    if suite == AOA:
        return _compare_surprisals(base, other)
    if suite == READING:
        return _compare_resamples(base, other, before, after)
    old, new = (one.read(suite, CHOICES_FILE, CHOICES) for one in (base, other))
    if old is None or new is None:
        return Comparison(why_not=f"no {CHOICES_FILE} says which items were right")
    if {uid: len(row) for uid, row in old.items()} != {uid: len(row) for uid, row in new.items()}:
        return Comparison(why_not=f"other numbers of items than in {base.name}")
    return _compare_choices(old, new, before, after)


def _compare_choices(old: Choices, new: Choices, before: SuiteResult, after: SuiteResult) -> Comparison:
    shares = weights(list(old))
    for choices, result in ((old, before), (new, after)):
        average = sum(shares[uid] * row.count(0) / len(row) for uid, row in choices.items())
        if abs(average - result.measures[result.headline or ""].value) > 1e-9:
            return Comparison(why_not=f"the headline is no average over the paradigms of {CHOICES_FILE}")
    switches = {uid: Switches.between(old[uid], new[uid]) for uid in old}
    return Comparison(
        paired_change(switches, shares, SEED),
        {uid: paired_change({uid: one}, {uid: 1.0}, SEED) for uid, one in switches.items()},
    )


def _compare_preferences(base: Evaluated, other: Evaluated, suite: str) -> Comparison:
    old, new = (one.read(suite, PREFERENCES_FILE, PREFERENCES) for one in (base, other))
    if old is None or new is None:
        return Comparison(why_not=f"no {PREFERENCES_FILE} with people's preferences")
    (people, earlier), (the_same, later) = (np.array(one).T for one in (old, new))
    if not np.array_equal(people, the_same):
        return Comparison(why_not=f"other items than in {base.name}")
    change = float(spearmanr(later, people).statistic - spearmanr(earlier, people).statistic)
    replicates = spearman_replicates(later, people, SEED) - spearman_replicates(earlier, people, SEED)
    return Comparison(Change(change, *percentile_interval(replicates[np.isfinite(replicates)])))


def _compare_surprisals(base: Evaluated, other: Evaluated) -> Comparison:
    old, new = (one.read(AOA, SURPRISALS_FILE, SURPRISALS) for one in (base, other))
    if old is None or new is None:
        return Comparison(why_not=f"no {SURPRISALS_FILE}")
    earlier, later = old.by_word(), new.by_word()
    if earlier.keys() != later.keys():
        return Comparison(why_not=f"other words than in {base.name}")
    return Comparison(paired_mean_change([later[word] - earlier[word] for word in earlier], SEED))


def _compare_resamples(base: Evaluated, other: Evaluated, before: SuiteResult, after: SuiteResult) -> Comparison:
    """Resample r drew the same sentences for both, and both were fitted anew to them."""
    old, new = (one.read(READING, RESAMPLES_FILE, RESAMPLES) for one in (base, other))
    if old is None or new is None:
        return Comparison(why_not=f"no {RESAMPLES_FILE}; measure both again with --again")
    if old.drawn != new.drawn or len(old.values) != len(new.values):
        return Comparison(why_not=f"other words, or another seed of the resampling, than in {base.name}")
    earlier, later = (result.measures[result.headline or ""].value for result in (before, after))
    return Comparison(Change(later - earlier, *percentile_interval(np.subtract(new.values, old.values))))


def _compare_stories(base: Evaluated, other: Evaluated, before: SuiteResult, after: SuiteResult) -> Comparison:
    if before.teacher != after.teacher:
        return Comparison(why_not=f"another teacher than in {base.name}")
    old, new = (one.read(STORYTELLING, STORIES_FILE, STORIES) for one in (base, other))
    if old is None or new is None:
        return Comparison(why_not=f"no {STORIES_FILE} with the verdicts")
    if old.prompt != new.prompt:
        return Comparison(why_not=f"another prompt than in {base.name}")
    return Comparison(unpaired_change(old.totals, new.totals, SEED))


def _items(result: SuiteResult) -> str:
    return f"{result.source} ({result.reason})" if result.reason else result.source
