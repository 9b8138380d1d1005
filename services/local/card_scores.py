"""The evaluator's scores on a model card: a table for people, results for the Hub."""

from collections.abc import Iterator

from fabula_proto import EvaluationReport, Measure, SuiteResult
from services.local import table
from services.local.card_facts import Kept, RunFacts
from services.local.card_text import markdown_table, place
from services.local.errors import not_installed
from services.local.summary import CRITERION

try:
    from huggingface_hub import EvalResult
except ImportError as error:
    raise not_installed(error) from error


def results(report: EvaluationReport | None) -> Iterator[EvalResult]:
    """For the metadata's `model-index`: each suite's headline."""
    for suite in _measured(report):
        headline = suite.measures[suite.headline or ""]
        yield EvalResult(
            task_type="text-generation",
            dataset_type=suite.suite,
            dataset_name=f"{suite.suite} ({place(suite.source)})",
            metric_type=suite.unit or "value",
            metric_name=suite.headline,
            metric_value=headline.value,
            metric_args={"low_95": headline.low, "high_95": headline.high, "items": headline.n},
        )


def _measured(report: EvaluationReport | None) -> list[SuiteResult]:
    return [suite for suite in report.suites if suite.status == "ok"] if report is not None else []


def scores(facts: RunFacts, checkpoint: Kept) -> Iterator[str]:
    """The paragraphs and the table of the section: what interaction started from, and the checkpoint."""
    columns = [one for one in (facts.start, checkpoint) if one is not None and one.report is not None]
    columns = [one for place, one in enumerate(columns) if one not in columns[:place]]
    if not columns:
        yield "None: no report of the evaluator lies in the run's folder."
        return
    suites = {suite.suite: suite for one in columns for suite in _measured(one.report)}
    rows = [
        (title, *(_cell(one.report, suite.suite, key) for one in columns))
        for suite in suites.values()
        for key, title in _parts(suite)
    ]
    yield markdown_table(("", *(f"`{one.name}`" for one in columns)), rows)
    yield "In brackets 95 % bootstrap intervals over items; in parentheses the number of items."


def _parts(suite: SuiteResult) -> Iterator[tuple[str, str]]:
    """The measures that are shown: the headline, and the rubric's criteria."""
    yield suite.headline or "", f"{suite.suite}, {suite.unit or suite.headline} ({place(suite.source)})"
    for key in suite.measures:
        if key.startswith(CRITERION):
            yield key, f"{suite.suite}, {key.removeprefix(CRITERION)}"


def _cell(report: EvaluationReport | None, name: str, key: str) -> str:
    suite = next((one for one in _measured(report) if one.suite == name), None)
    measure: Measure | None = suite.measures.get(key) if suite is not None else None
    if measure is None:
        return "-"
    _, scale, digits = table.suite_titles(name)
    value, low, high = (f"{number * scale:.{digits}f}" for number in (measure.value, measure.low, measure.high))
    return f"{value}{' %' if scale == 100 else ''} [{low}, {high}] ({measure.n:,})"
