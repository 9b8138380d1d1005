"""The text of best_temperature_report.txt as the BabyLM 2025 pipeline writes it beside its predictions. Pure.

The same headings and two decimals. The pipeline lists paradigms in the order in which the file system lists their
files, we in the order of the files' names.
"""

from collections.abc import Mapping, Sequence

from services.evaluator.statistics import Tally

REPORT_FILE = "best_temperature_report.txt"
_TEMPERATURE = 1.0

Section = tuple[str, Mapping[str, float]]
"""A heading without its metric, and the values below it."""


def report_text(sections: Sequence[Section], average: float, metric: str = "ACCURACY") -> str:
    """The whole file; accuracies in percent."""
    lines = [f"TEMPERATURE: {_TEMPERATURE:.2f}", ""]
    for heading, values in sections:
        lines += [f"### {heading} {metric}", *(f"{name}: {value:.2f}" for name, value in values.items()), ""]
    return "\n".join([*lines, f"### AVERAGE {metric}", f"{average:.2f}", "", ""])


def percentages(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """Accuracy in percent, stratum by stratum."""
    return {name: 100.0 * tally.right / tally.total for name, tally in tallies.items()}


def accuracy_report(sections: Mapping[str, Mapping[str, Tally]]) -> str:
    """Heading to tallies, `UID` among them: the average is over the accuracies below that heading."""
    values = [(heading, percentages(tallies)) for heading, tallies in sections.items()]
    return report_text(values, _mean(list(dict(values)["UID"].values())))


def split_report(tallies: Mapping[str, Tally], splits: Sequence[str]) -> str:
    """Entity tracking: accuracies by `<split>_<n>_ops`, the mean of each split that there is, the mean of those."""
    values = percentages(tallies)
    parts = {split: [value for name, value in values.items() if name.startswith(split)] for split in splits}
    means = {split: _mean(part) for split, part in parts.items() if part}
    return report_text([("UID", values | means)], _mean(list(means.values())))


def _mean(values: Sequence[float]) -> float:
    # Summed one after the other, as the pipeline does: the exact sum could round to another second decimal.
    return sum(values) / len(values)
