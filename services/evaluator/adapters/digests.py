"""What a suite's result depends on, as digests: where they are equal, a finished suite is not measured again."""

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from fabula_proto import TeacherIdentity
from services.evaluator.adapters.eval_data import local_folder
from services.evaluator.adapters.run_config import RunConfig
from services.evaluator.errors import EvaluatorError
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.suites import glue, storytelling

_WITHOUT_EFFECT = {
    *("runs_dir", "redis_url", "teacher_url", "suites", "worker", "allowed_dirs", "niceness", "torch_threads"),
    *("token_budget", "teacher_chunk", "teacher_timeout_s", "teacher_patience_s", "lease_s", "max_deliveries"),
}
_OF_STORIES = {"stories", "prompt", "max_new_tokens", "story_batch"}


def digest(value: Any) -> str:
    """A short digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def files_digest(paths: Iterable[Path]) -> str:
    """Of files by name, size and time of change: their contents may be gigabytes."""
    stats = ((path, path.stat()) for path in sorted(paths) if path.is_file())
    return digest([(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats])


def checkpoint_digest(folder: Path) -> str:
    """Of a checkpoint's own files, without `trainer_state`."""
    return files_digest(folder.iterdir())


def data_digest(eval_data: Path | str | None) -> str:
    """Of the evaluation data: a folder's files, those of what was fetched from the Hub, or our own items."""
    if eval_data is None:
        return "generated"
    try:
        return files_digest(local_folder(eval_data).rglob("*"))
    except EvaluatorError:
        return "absent"  # the suites that need them say why


def suite_digest(
    suite: str,
    settings: EvaluatorSettings,
    run: RunConfig,
    checkpoint: str,
    data: str,
    teacher: TeacherIdentity | None,
) -> str:
    """Of everything that decides a suite's numbers."""
    ours: dict[str, Any] = settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    parts: dict[str, Any] = {"version": metadata.version("fabula"), "checkpoint": checkpoint, "data": data}
    if suite == storytelling.NAME:
        parts |= {"run": run.model_dump(mode="json"), "teacher": teacher and teacher.model_dump(mode="json")}
    else:
        ours = {name: value for name, value in ours.items() if name not in _OF_STORIES}
    if suite != glue.NAME:
        ours = {name: value for name, value in ours.items() if not name.startswith("glue_")}
    return digest({"suite": suite, "settings": ours, **parts})
