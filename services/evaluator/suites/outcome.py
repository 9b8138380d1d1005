"""What a suite hands back, and the arithmetic that ranking suites share."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fabula_proto import Measure, SampleStory, TeacherIdentity
from services.evaluator.batching import grouped
from services.evaluator.comparison import CHOICES_FILE
from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.items import Item, ItemSet, chosen, tied
from services.evaluator.statistics import Estimate, Tally, macro_accuracy
from services.evaluator.suites.pipeline_report import REPORT_FILE, accuracy_report

ACCURACY = "accuracy"
PARADIGM = "paradigm"
PREDICTIONS_FILE = "predictions.json"
TIES_FILE = "ties.json"


@dataclass(frozen=True, slots=True)
class SuiteOutcome:
    """A suite's numbers. `files`: path below the suite's folder to its text, to be written beside the report."""

    source: str
    headline: str
    unit: str
    measures: dict[str, Measure]
    files: dict[str, str] = field(default_factory=dict)
    teacher: TeacherIdentity | None = None
    stories: tuple[SampleStory, ...] = ()


def as_json(value: Any) -> str:
    """A JSON document on one line."""
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Which candidate the model preferred, item by item, and which ones shared the highest score, if several did."""

    items: tuple[Item, ...]
    choices: tuple[int, ...]
    ties: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, items: tuple[Item, ...], scores: Sequence[Sequence[float]]) -> "Ranking":
        """The most probable candidate of each item; the first of equals."""
        return cls(items, tuple(map(chosen, scores)), tuple(map(tied, scores)))

    def tallies(self, group: str | None = None) -> dict[str, Tally]:
        """Right and all items by paradigm, or by the value of `group` (items without that group are left out)."""
        keys = [item.uid if group is None else dict(item.groups).get(group) for item in self.items]
        return {
            key: Tally(sum(self.choices[i] == 0 for i in indices), len(indices))
            for key, indices in grouped(keys).items()
            if key is not None
        }

    def ids(self) -> list[str]:
        """The pipeline's name of each item: its paradigm and its number there."""
        seen: Counter[str] = Counter()
        names = []
        for item in self.items:
            names.append(f"{item.uid}_{seen[item.uid]}")
            seen[item.uid] += 1
        return names

    def predictions(self, *, whole_texts: bool = False) -> dict[str, Any]:
        """The BabyLM pipeline's predictions.json: paradigm -> {"predictions": [{"id", "pred"}]}.

        `pred` is the completion that was chosen, or with `whole_texts` all that the model read.
        """
        by_uid: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for name, item, choice in zip(self.ids(), self.items, self.choices, strict=True):
            candidate = item.candidates[choice]
            pred = candidate.text if whole_texts else candidate.completion
            by_uid.setdefault(item.uid, {"predictions": []})["predictions"].append({"id": name, "pred": pred})
        return by_uid

    def chosen_by_paradigm(self) -> dict[str, list[int]]:
        """Paradigm -> index of the candidate chosen, item by item; 0 is right."""
        uids = grouped([item.uid for item in self.items])
        return {uid: [self.choices[i] for i in indices] for uid, indices in uids.items()}

    def files(self, report: str, *, whole_texts: bool = False) -> dict[str, str]:
        """The pipeline's predictions.json and its report, the choices as indices, and the ties."""
        return {
            PREDICTIONS_FILE: json.dumps(self.predictions(whole_texts=whole_texts)),
            REPORT_FILE: report,
            CHOICES_FILE: as_json(self.chosen_by_paradigm()),
            TIES_FILE: self.ties_file(),
        }

    def ties_file(self) -> str:
        """How many ties there were, and each one: the item's id in the predictions, the candidates as indices."""
        named = zip(self.ids(), self.ties, strict=True)
        rows = [{"id": name, "candidates": indices} for name, indices in named if indices]
        return as_json({"ties": len(rows), "items": rows})


def rank(item_set: ItemSet, scorer: Scorer, done: ItemsDone) -> Ranking:
    """Score every item and take the most probable candidate; the first of equals."""
    return Ranking.of(item_set.items, scorer.score(item_set.items, done))


def as_measure(estimate: Estimate) -> Measure:
    """The message for an estimate."""
    return Measure(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)


def single(tally: Tally, seed: int) -> Measure:
    """Accuracy of one stratum."""
    return as_measure(macro_accuracy({"all": tally}, seed))


def accuracy_outcome(
    item_set: ItemSet, ranking: Ranking, seed: int, headings: Mapping[str, str], *, whole_texts: bool = False
) -> SuiteOutcome:
    """Of a suite whose headline is the mean accuracy over paradigms.

    Args:
        item_set: What was ranked.
        ranking: How.
        seed: Of the bootstrap.
        headings: The pipeline's report's, in its order, each with the group of items that it lists. UID, whose
            group is the paradigm, is one of them.
        whole_texts: Whether predictions name all that the model read.
    """
    return SuiteOutcome(
        source=item_set.source,
        headline=ACCURACY,
        unit=ACCURACY,
        measures=minimal_pair_measures(ranking, seed, [group for group in headings.values() if group != PARADIGM]),
        files=ranking.files(accuracy_report(sections(ranking, headings)), whole_texts=whole_texts),
    )


def sections(ranking: Ranking, headings: Mapping[str, str]) -> dict[str, dict[str, Tally]]:
    """Heading to what stands below it, for `accuracy_report`."""
    return {name: ranking.tallies(None if group == PARADIGM else group) for name, group in headings.items()}


def minimal_pair_measures(ranking: Ranking, seed: int, groups: Sequence[str] = ()) -> dict[str, Measure]:
    """The pipeline's averages: `accuracy` over paradigms, each group's items pooled, each paradigm.

    Keys: `accuracy`, `<group>/<value>` for each of `groups`, `paradigm/<uid>`.
    """
    paradigms = ranking.tallies()
    measures = {ACCURACY: as_measure(macro_accuracy(paradigms, seed))}
    for group in groups:
        measures |= {f"{group}/{value}": single(tally, seed) for value, tally in ranking.tallies(group).items()}
    return measures | {f"paradigm/{uid}": single(tally, seed) for uid, tally in paradigms.items()}


def nested_measures(by_split: Mapping[str, Mapping[str, Tally]], seed: int) -> dict[str, Measure]:
    """Average over splits of the average over a split's strata, with strata and splits named.

    Keys: `accuracy`, `<split>`, `<split>/<stratum>`.
    """
    weights = {
        f"{split}/{stratum}": 1.0 / (len(by_split) * len(strata))
        for split, strata in by_split.items()
        for stratum in strata
    }
    tallies = {f"{split}/{stratum}": t for split, strata in by_split.items() for stratum, t in strata.items()}
    measures = {ACCURACY: as_measure(macro_accuracy(tallies, seed, weights))}
    measures |= {split: as_measure(macro_accuracy(strata, seed)) for split, strata in by_split.items()}
    return measures | {name: single(tally, seed) for name, tally in tallies.items()}
