"""A real Prometheus scrapes teacher and evaluator while a student learns; rules and dashboard are asked of it."""

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fabula_proto.streams import Streams
from services.evaluator.app import create_app
from services.evaluator.settings import EvaluatorSettings
from services.redis_server import LocalRedis
from services.student_trainer import config
from services.student_trainer.run import Trainer
from services.student_trainer.run_folder import RunFolder
from tests.e2e.up_helpers import wait_until
from tests.observability import Prometheus, filled, names, queries, rules, running_prometheus, tool
from tests.teacher_helpers import serving, teacher, until_ready
from tests.trainer_helpers import tiny_settings

RUN = "watched"
LAST = "chck_1k_rl_58"
# What the last scrape must have seen before anything is asked.
ENDS = (
    'fabula_teacher_stories_total{source="http"} == 4',
    "fabula_evaluator_checkpoints_total == 1",
    f'fabula_checkpoint_score{{checkpoint="{LAST}"}}',
    "fabula_run_finished == 1",
)
STORY = "Once upon a time, a fox lost his lantern."


@dataclass(frozen=True)
class Watched:
    """A finished run of three updates, and the Prometheus that looked on from before it began."""

    prometheus: Prometheus
    begin: float
    end: float

    def over(self, expression: str) -> list[float]:
        """The values of an expression while the run went on; NaN, as of 0 / 0, left out."""
        # A second more: the last of the steps since `begin` would lie before the last scrape.
        values = self.prometheus.over(filled(expression, RUN), self.begin, self.end + 1)
        return [value for value in values if not math.isnan(value)]


@pytest.fixture(scope="module")
def watched(redis_server: LocalRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    tool("prometheus")
    torch.set_num_threads(1)
    redis_url = redis_server.url.rsplit("/", 1)[0] + "/5"  # earlier tests may have left something in 0
    runs_dir = tmp_path_factory.mktemp("runs")
    measured = EvaluatorSettings(
        runs_dir=runs_dir, redis_url=redis_url, suites=("entity_tracking",), torch_threads=1, worker="evaluator"
    )
    with (
        teacher(None, redis_url=redis_url, teacher="rules:", worker="teacher") as judging,
        serving(create_app(measured)) as measuring,
    ):
        until_ready(judging)
        targets = {"teacher": judging.base_url.netloc.decode(), "evaluator": measuring.base_url.netloc.decode()}
        with running_prometheus(tmp_path_factory.mktemp("prometheus"), targets) as prometheus:
            wait_until(lambda: [value for _, value in prometheus.now("up")] == [1, 1, 1], 60)
            begin = time.time()
            judging.post("/score", json={"stories": [f"{STORY} 3 3 3"]})  # raises a flag
            learn(runs_dir / RUN, redis_url)
            judging.post("/score", json={"stories": [STORY] * 3})
            wait_until(lambda: all(prometheus.now(last) for last in ENDS), 60)
            yield Watched(prometheus, begin, time.time())


def learn(folder: Path, redis_url: str) -> None:
    """Pretrain a very small student and let it learn from the teacher in three updates."""
    settings = config.parse(
        {
            **tiny_settings().model_dump(),
            "student": {"layers": 2, "heads": 2, "width": 16, "context": 256},
            "corpus": {"grammar_words": 2_000},
            "pretrain": {"word_budget": 1000, "block_tokens": 32, "log_every": 1},
            "evaluation": {"checkpoints": "ends"},
        }
    )
    folder.mkdir()
    (folder / "run.yaml").write_text(config.dump(settings, folder.name), encoding="utf-8")
    # The checkpoint after interaction alone is announced, at the end: transformers loads models under switches of the
    # whole process, so that this thread and the evaluator's must not do so at once.
    Trainer(RunFolder(folder), threading.Event(), False, None).pretrain()
    with Streams(redis_url) as streams:
        Trainer(RunFolder(folder), threading.Event(), False, streams).interact()


def test_every_service_is_scraped(watched: Watched) -> None:
    targets = watched.prometheus.get("targets")["activeTargets"]
    assert {target["labels"]["job"]: (target["health"], target["lastError"]) for target in targets} == {
        "teacher": ("up", ""),
        "evaluator": ("up", ""),
        "prometheus": ("up", ""),
    }


def test_prometheus_knows_what_the_loop_did(watched: Watched) -> None:
    def one(expression: str) -> float:
        [(_, value)] = watched.prometheus.now(expression)
        return value

    assert one('sum(fabula_teacher_stories_total{source="queue"})') == 3 * 6
    assert one('sum(fabula_teacher_stories_total{source="http"})') == 4
    assert one(f'fabula_run_updates{{run="{RUN}"}}') == 3
    assert one('sum(fabula_run_words{kind=~"prompt|teacher|corpus"})') == 58
    assert one("sum(fabula_queue_entries)") == 0
    [(labels, _)] = watched.prometheus.now("fabula_checkpoint_score")
    assert (labels["checkpoint"], labels["suite"], labels["unit"]) == (LAST, "entity_tracking", "accuracy")
    # A counter starts at 0, so that its first increase shows; `over` sees it before and after.
    verdicts = watched.over("sum(fabula_teacher_verdicts_total)")
    assert (min(verdicts), max(verdicts)) == (0, 3 * 6 + 4)


@pytest.mark.parametrize(("panel", "expression"), queries(), ids=[panel for panel, _ in queries()])
def test_every_query_of_the_dashboard_has_an_answer(watched: Watched, panel: str, expression: str) -> None:
    assert watched.over(expression), f"{panel}: {filled(expression, RUN)} finds nothing"


def test_the_choice_of_runs_has_the_run(watched: Watched) -> None:
    assert watched.prometheus.get("label/run/values", **{"match[]": "fabula_run_updates"}) == [RUN]


def test_every_rule_is_evaluated_and_none_fires_while_all_is_well(watched: Watched) -> None:
    found = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    states = {rule["name"]: (rule["health"], rule["state"]) for rule in found}
    assert states == dict.fromkeys(rules(), ("ok", "inactive"))


@pytest.mark.parametrize("alert", sorted(rules()))
def test_the_metrics_of_a_rule_are_there(watched: Watched, alert: str) -> None:
    # Of a queue in which nothing waits there is no oldest entry; test_evaluator_metrics.py has one.
    for name in names(rules()[alert]["expr"]) - {"fabula_queue_oldest_timestamp_seconds"}:
        assert watched.prometheus.now(name), f"{alert} asks for {name}, and nobody tells it"
