"""Fine-tunes a fresh copy of the checkpoint on each GLUE task whose files are there."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch

from services.evaluator.adapters import eval_data
from services.evaluator.adapters.digests import checkpoint_digest, digest, files_digest
from services.evaluator.adapters.encoder import load_encoder
from services.evaluator.adapters.eval_data.glue import TaskRows, load_glue
from services.evaluator.adapters.finished_tasks import FinishedTask, FinishedTasks
from services.evaluator.bench import Bench, Measured
from services.evaluator.errors import MissingDataError
from services.evaluator.finetuning import FineTuning, fine_tune
from services.evaluator.suites import glue

RESULTS_PATH = "finetune"
KEPT = ".glue"
"""Folder beside the report for the tasks that are done; they stay, for an evaluation with more tasks."""


def run(bench: Bench) -> Measured:
    """The tasks of `settings.glue_tasks`; those without files are left out and named."""
    place = eval_data.require(bench.settings.eval_data, glue.NAME)
    wanted = bench.settings.glue_tasks or tuple(glue.TASKS)
    found = {task: load_glue(place, task) for task in wanted}
    rows = {task: task_rows for task, task_rows in found.items() if task_rows is not None}
    absent = [task for task in wanted if task not in rows]
    if not rows:
        raise MissingDataError(
            f"{place} has no <task>.train.jsonl and <task>.valid.jsonl of {', '.join(absent)}; {eval_data.GET_IT}"
        )
    plans = {task: _plan(bench, task) for task in rows}
    total = sum(plan.steps(len(rows[task].train), len(rows[task].valid)) for task, plan in plans.items())
    answers, before = {}, 0
    for task, plan in plans.items():
        finished = _finished(bench, task, plan, rows[task], _counter(bench, before, total))
        answers[task] = glue.Answers(tuple(row.label for row in rows[task].valid), finished.predictions)
        before += plan.steps(len(rows[task].train), len(rows[task].valid))
    note = f"{', '.join(absent)} left out, for lack of files; the average is over {', '.join(rows)}" if absent else None
    return Measured(glue.evaluate(answers, str(place), bench.settings.seed), note, RESULTS_PATH)


def _plan(bench: Bench, task: str) -> FineTuning:
    defaults, settings = glue.TASKS[task], bench.settings
    return FineTuning(
        labels=defaults.labels,
        batch_size=defaults.batch_size,
        epochs=settings.glue_epochs or defaults.epochs,
        metric=defaults.metric,
        seed=settings.seed,
        position=settings.glue_position,
        device=bench.checkpoint.model.device,
    )


def _finished(bench: Bench, task: str, plan: FineTuning, rows: TaskRows, done: Callable[[], None]) -> FinishedTask:
    """One task's result: from an evaluation that was stopped, or fine-tuned now and kept."""
    place = eval_data.require(bench.settings.eval_data, glue.NAME)
    path, device = bench.request.path, plan.device
    parts = [
        checkpoint_digest(path),
        files_digest(place.glob(f"{task}.*.jsonl")),
        (plan.seed, plan.epochs, plan.position, device.type, bench.settings.dtype),
    ]
    kept, name = FinishedTasks(bench.request.output / KEPT), f"{task}-{digest(parts)}"
    finished = None if bench.request.again else kept.get(name)
    if finished is None or len(finished.predictions) != len(rows.valid):
        # Weights stay fp32: bf16 ones would lose updates as small as fine-tuning's.
        bfloat16 = bench.settings.dtype == "bfloat16"
        precision = partial(torch.autocast, device.type, torch.bfloat16) if bfloat16 else nullcontext
        tuned = fine_tune(
            lambda: load_encoder(path, device, bench.settings.trust_remote_code),
            rows.train,
            rows.valid,
            plan,
            done,
            precision,
        )
        finished = FinishedTask(epoch=tuned.epoch, predictions=tuned.predictions)
        kept.keep(name, finished)
    return finished


def _counter(bench: Bench, before: int, total: int) -> Callable[[], None]:
    """Counts batches from `before` on."""
    count, report = before, bench.done(glue.NAME)

    def done() -> None:
        nonlocal count
        count += 1
        report(count, total)

    return done
