"""A run folder as Prometheus is told of it: where the run is, what its last update was like, what its checkpoints got.

All are gauges, sums too: a run that is started again does its last updates anew, and a counter must not fall.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from fabula_proto import AlarmAction, EvaluationReport, PretrainMetrics, StepMetrics
from services.evaluator.views import RunDetail, RunMetrics

SUITE_STATES = ("ok", "failed", "skipped")
Sample = tuple[tuple[str, ...], float]
"""Values of the labels after `run`, and the number."""


def run_families(known: Mapping[str, tuple[RunDetail, RunMetrics]]) -> Iterator[Metric]:
    """Every family with the samples of all runs in `known`, which is by the run's name."""
    families = {
        name: GaugeMetricFamily(f"fabula_{name}", said, labels=["run", *labels])
        for name, (said, labels) in _FAMILIES.items()
    }
    for run, (detail, metrics) in known.items():
        for name, samples in _samples(detail, metrics).items():
            for values, number in samples:
                families[name].add_metric([run, *values], number)
    yield from families.values()


_FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "run_changed_timestamp_seconds": ("Last change of the run's folder, in Unix time.", ()),
    "run_paused": ("1 while the run waits for its file PAUSED to be removed.", ()),
    "run_finished": ("1 when the checkpoint of the whole word budget is there.", ()),
    "run_word_budget": ("Words that the phase may take.", ("phase",)),
    "run_words": ("Words so far, as the ledger counts them; pretraining: words seen.", ("kind",)),
    "run_alarms": ("Alarms that the guards raised so far.", ("action",)),
    "run_suites": ("Suites in the reports of the run's checkpoints.", ("status",)),
    "run_unreadable": ("Lines of metrics.jsonl and reports that cannot be read.", ()),
    "run_pretraining_loss_nats": ("Cross-entropy a token over the last interval of pretraining.", ()),
    "run_updates": ("Updates done.", ()),
    "run_score": ("Mean total of the last update's verdicts, in points.", ()),
    "run_criterion_score": ("Mean level of the last update's verdicts.", ("criterion",)),
    "run_reward": ("Mean reward of the last update's stories, before KL.", ()),
    "run_kl_nats": ("KL from the reference, summed over a story, mean of the last update's.", ()),
    "run_kl_coefficient": ("Weight of the KL in the last update.", ()),
    "run_entropy_nats": ("Entropy of the next token, mean of the last update.", ()),
    "run_story_words": ("Words of a story, mean of the last update.", ()),
    "run_stories": ("Stories of the last update; failed: without a usable verdict.", ("status",)),
    "run_update_seconds": ("Time of the last update, by what the student did.", ("part",)),
    "run_teacher_idle_seconds": ("Time before the last verdicts in which the teacher had no story of this run.", ()),
    "checkpoint_score": ("Headline measure of a suite.", ("checkpoint", "suite", "unit")),
}


def _samples(detail: RunDetail, metrics: RunMetrics) -> dict[str, list[Sample]]:
    return {
        "run_changed_timestamp_seconds": [((), detail.updated_at)],
        "run_paused": [((), metrics.paused)],
        "run_unreadable": [((), metrics.unreadable_lines + len(detail.unreadable))],
        **_budgets(detail),
        **_words(detail.latest_pretrain, detail.latest_step),
        **_counts(detail, metrics),
        **_last_update(detail.latest_step),
        "checkpoint_score": [sample for report in detail.reports for sample in _scores(report)],
    }


def _budgets(detail: RunDetail) -> dict[str, list[Sample]]:
    budgets = {phase: _budget(detail.config, phase) for phase in ("pretrain", "interact")}
    found: dict[str, list[Sample]] = {
        "run_word_budget": [((phase,), words) for phase, words in budgets.items() if words is not None]
    }
    if (budget := budgets["interact"]) is not None:
        spent = max((c.interaction_words for c in detail.checkpoints if c.complete), default=0)
        found["run_finished"] = [((), spent >= budget)]
    return found


def _budget(config: Mapping[str, Any], phase: str) -> int | None:
    block = config.get(phase)
    words = block.get("word_budget") if isinstance(block, dict) else None
    return words if isinstance(words, int) else None


def _words(pretrain: PretrainMetrics | None, step: StepMetrics | None) -> dict[str, list[Sample]]:
    words: list[Sample] = []
    found = {"run_words": words}
    if pretrain is not None:
        words.append((("pretraining",), pretrain.words_seen))
        found["run_pretraining_loss_nats"] = [((), pretrain.loss)]
    if step is not None:
        kinds = ("prompt", "teacher", "corpus", "student")
        words += [((kind,), getattr(step, f"words_{kind}")) for kind in kinds]
    return found


def _counts(detail: RunDetail, metrics: RunMetrics) -> dict[str, list[Sample]]:
    alarms = Counter(alarm.action for alarm in metrics.alarms)
    suites = Counter[str](suite.status for report in detail.reports for suite in report.suites)
    return {
        "run_updates": [((), metrics.interact_lines)],
        # Those that have not happened are there as 0: the first one is then a change that Prometheus can see.
        "run_alarms": [((action,), alarms[action]) for action in get_args(AlarmAction)],
        "run_suites": [((status,), suites[status]) for status in SUITE_STATES],
    }


def _last_update(step: StepMetrics | None) -> dict[str, list[Sample]]:
    if step is None:
        return {}
    parts = {"write": step.write_s, "wait_for_teacher": step.wait_for_teacher_s, "learn": step.learn_s}
    return {
        "run_score": [((), step.score_mean)],
        "run_criterion_score": [((criterion,), level) for criterion, level in step.criteria_mean.items()],
        "run_reward": [((), step.reward_mean)],
        "run_kl_nats": [((), step.kl_mean)],
        "run_kl_coefficient": [((), step.kl_coefficient)],
        "run_entropy_nats": [((), step.entropy_mean)],
        "run_story_words": [((), step.story_words_mean)],
        "run_stories": [(("ok",), step.verdicts_ok), (("failed",), step.verdicts_failed)],
        "run_update_seconds": [((part,), seconds) for part, seconds in parts.items()],
        "run_teacher_idle_seconds": [((), step.wait_for_student_s)],
    }


def _scores(report: EvaluationReport) -> Iterator[Sample]:
    for suite in report.suites:
        if suite.headline is not None:
            yield (report.checkpoint, suite.suite, suite.unit or ""), suite.measures[suite.headline].value
