"""From what a client asks for to what is measured, with settings and folders checked."""

from pathlib import Path

from pydantic import ValidationError

from fabula_proto import EvaluationJob, EvaluationOrder
from services.evaluator.adapters.run_folder import RunFolders
from services.evaluator.errors import OrderError, RunNotFoundError
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings

JOBS = ".evaluations"  # in runs_dir; its dot keeps it from being taken for a run


def checkpoint_folder(order: EvaluationOrder, settings: EvaluatorSettings) -> Path:
    """The folder that an order's checkpoint names.

    Raises:
        OrderError: there is no checkpoint, or it lies where this evaluator must not read.
    """
    run, _, name = order.checkpoint.partition("/")
    given = order.checkpoint
    try:
        checkpoints = RunFolders(settings.runs_dir).folder(run) / "checkpoints"
    except RunNotFoundError:
        pass  # then it is the path of a folder
    else:
        if not name or "/" in name or not (checkpoints / name / "config.json").is_file():
            there = sorted(path.parent.name for path in checkpoints.glob("*/config.json"))
            has = ", ".join(there) or "none yet"
            raise OrderError(f"checkpoint {given!r}: the run {run} has no checkpoint {name!r}; it has {has}")
        given = str(checkpoints / name)
    path = _allowed("checkpoint", given, settings)
    if not (path / "config.json").is_file():
        raise OrderError(
            f"checkpoint {order.checkpoint!r}: no config.json in {path}; give <run>/<checkpoint> of "
            f"{settings.runs_dir}, or the folder of a checkpoint saved by transformers"
        )
    return path


def order_settings(order: EvaluationOrder, settings: EvaluatorSettings) -> EvaluatorSettings:
    """This evaluator's settings with what the order changes.

    Raises:
        OrderError: a suite is unknown, or the data lie where this evaluator must not read.
    """
    given = {name: getattr(order, name) for name in ("suites", "stories", "seed") if getattr(order, name) is not None}
    if order.data is not None and order.data.startswith("hub:"):
        raise OrderError(
            f"data {order.data!r}: what is fetched from the Hub is set for the whole service; start it with "
            f"--eval-data {order.data}"
        )
    if order.data is not None:
        given["eval_data"] = _allowed("data", order.data, settings)
        if not given["eval_data"].is_dir():
            raise OrderError(f"data {order.data!r}: no folder; give a folder in the BabyLM evaluation_data layout")
    try:
        return EvaluatorSettings.model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise OrderError(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from error


def request_for(job: EvaluationJob, settings: EvaluatorSettings) -> EvaluationRequest:
    """What a job measures. The report of a checkpoint that belongs to no run lies beside the job.

    Raises:
        OrderError: the checkpoint is gone.
    """
    path = checkpoint_folder(job.order, settings)
    request = EvaluationRequest.from_folder(path)
    output = request.output if request.run_folder is not None else settings.runs_dir / JOBS / job.id
    measured_again = tuple(result.suite for result in job.results if result.status == "ok")
    return request.model_copy(
        update={"output": output.resolve(), "again": job.order.again, "measured_again": measured_again}
    )


def _allowed(what: str, given: str, settings: EvaluatorSettings) -> Path:
    """`given` as an absolute path inside a folder that may be read over HTTP."""
    try:
        path = Path(given).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise OrderError(f"{what} {given!r}: {error}; give a path on the evaluator's machine") from error
    roots = [settings.runs_dir, *settings.allowed_dirs]
    if isinstance(settings.eval_data, Path):
        roots.append(settings.eval_data)
    if not any(path.is_relative_to(root.expanduser().resolve()) for root in roots):
        raise OrderError(
            f"{what} {given!r} is outside the folders that this evaluator reads for others "
            f"({', '.join(map(str, roots))}); give <run>/<checkpoint>, or start it with "
            "FABULA_EVALUATOR_ALLOWED_DIRS, a JSON list of further folders"
        )
    return path
