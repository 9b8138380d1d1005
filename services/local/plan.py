"""What one `fabula up` is about: settings, the run's name and folder, the teacher, the evaluation data."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.local.choices import DEFAULT_TEACHER, checked_eval_data, checked_teacher, chosen_teacher
from services.local.errors import CommandError
from services.student_trainer import config
from services.student_trainer.files import write_atomically
from services.student_trainer.initial_model import initial_folder
from services.student_trainer.settings import GRAMMAR, RunSettings
from services.student_trainer.student_errors import StudentError

DEFAULT_PRESET = "laptop"
RUN_FILE = "run.yaml"
UP_FILE = "up.json"
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Request:
    """What the user asked for; none means not said."""

    runs_dir: Path
    preset: str | None = None
    run: str | None = None
    corpus: str | None = None
    eval_data: str | None = None
    teacher: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A run that is fully said. `eval_data` none means the evaluator's generated items."""

    run: str
    folder: Path
    settings: RunSettings
    teacher: str
    eval_data: str | None


def make_plan(request: Request) -> Plan:
    """Resolve the request. Where it names a known run and no preset, what it does not say is as in that run.

    Writes nothing.

    Raises:
        CommandError: a setting is wrong, a file is missing, or the run exists with other settings.
    """
    runs_dir = request.runs_dir.expanduser().resolve()
    if request.run is not None and not _RUN_NAME.fullmatch(request.run):
        raise CommandError(
            f"--run {request.run!r} cannot name a folder and a stream; use letters, digits, '.', '_' and '-', "
            "at most 100, starting with a letter or digit"
        )
    if request.run is not None and request.preset is None and (runs_dir / request.run / RUN_FILE).exists():
        return _changed(read_plan(runs_dir / request.run), request)
    settings = _settings(request)
    teacher = checked_teacher(chosen_teacher(request.teacher))
    eval_data = checked_eval_data(request.eval_data)
    name = request.run or f"{settings.preset}-{_identity(settings, teacher, eval_data)}"
    return Plan(name, runs_dir / name, settings, teacher, eval_data)


def read_plan(folder: Path) -> Plan:
    """The plan of an existing run.

    Raises:
        CommandError: the folder holds no run, or its files cannot be read.
    """
    if not (folder / RUN_FILE).is_file():
        raise CommandError(f"{folder} holds no run: there is no {RUN_FILE} in it; start one with `fabula up`")
    try:
        settings = config.load(folder / RUN_FILE)
        options = json.loads((folder / UP_FILE).read_text(encoding="utf-8")) if (folder / UP_FILE).exists() else {}
    except (config.ConfigError, OSError, ValueError) as error:
        raise CommandError(f"the run in {folder} cannot be read: {error}") from error
    eval_data = options.get("eval_data")
    return Plan(
        folder.name,
        folder.resolve(),
        settings,
        options.get("teacher", DEFAULT_TEACHER),
        eval_data or None,
    )


def open_folder(plan: Plan) -> Plan | None:
    """Make the run's folder, and nothing in it: a run may be at work there. The plan that it holds, none if it is new.

    Raises:
        CommandError: the run exists with other settings, or the folder cannot be made.
    """
    if not (plan.folder / RUN_FILE).exists():
        try:
            plan.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(plan, error) from error
        return None
    known = read_plan(plan.folder)
    if different := sorted(_differences(_facts(known), _facts(plan))):
        raise CommandError(
            f"run {plan.run} exists with other settings: {'; '.join(different)}. Repeat the settings it was "
            f"started with, or start another run with `--run NAME`; `fabula up --run {plan.run} "
            f"--runs-dir {plan.folder.parent}` alone continues it as it is"
        )
    return known


def changes(known: Plan, plan: Plan) -> list[str]:
    """How the settings differ, such as `interact.guards.kl.threshold is 25.0, asked for 3.0`."""
    return list(_differences(known.settings.model_dump(mode="json"), plan.settings.model_dump(mode="json")))


def write_plan(plan: Plan) -> None:
    """Write run.yaml and up.json where the run is new; compare where it is not. What decides no result may change.

    For the holder of the run's lock, right before the settings are used: run.yaml is what a card tells of the run.

    Raises:
        CommandError: the run exists with other settings, or the folder cannot be written.
    """
    known = open_folder(plan)
    if known is not None and known.settings == plan.settings:
        return
    try:
        options = {"teacher": plan.teacher, "eval_data": plan.eval_data}
        write_atomically(plan.folder / UP_FILE, json.dumps(options, indent=2) + "\n")
        write_atomically(plan.folder / RUN_FILE, config.dump(plan.settings, plan.run))
    except OSError as error:
        raise _not_writable(plan, error) from error


def _not_writable(plan: Plan, error: OSError) -> CommandError:
    return CommandError(
        f"the run folder {plan.folder} cannot be written: {error}; choose another place with --runs-dir"
    )


def _changed(known: Plan, request: Request) -> Plan:
    """A known run's plan with what the request says otherwise."""
    return replace(
        known,
        settings=_settings(request, known.settings.model_dump(mode="json"))
        if request.overrides or request.corpus is not None
        else known.settings,
        teacher=known.teacher if request.teacher is None else checked_teacher(request.teacher),
        eval_data=known.eval_data if request.eval_data is None else checked_eval_data(request.eval_data),
    )


def _settings(request: Request, base: Mapping[str, Any] | None = None) -> RunSettings:
    """The request's settings over `base`, or over its preset."""
    try:
        data = config.apply_overrides(
            config.load_preset(request.preset or DEFAULT_PRESET) if base is None else base, request.overrides
        )
        if request.corpus is not None:
            data["corpus"] = {**data.get("corpus", {}), "source": request.corpus}
        settings = config.parse(data)
        folder = initial_folder(settings.student.init) if settings.student.init is not None else None
    except (config.ConfigError, StudentError) as error:
        raise CommandError(str(error)) from error
    if folder is not None:
        data["student"] = {**data["student"], "init": str(folder)}
        settings = config.parse(data)
    source = settings.corpus.source
    if source == GRAMMAR or source.startswith("hf:"):
        return settings
    path = Path(source).expanduser().resolve()
    if not path.exists():
        raise CommandError(
            f"the corpus {source} does not exist (looked for {path}); give a .txt, .train, .jsonl or .jsonl.gz file, a "
            "folder of them, hf:<dataset id>, or leave it out for the built-in story grammar"
        )
    data["corpus"] = {**data["corpus"], "source": str(path)}
    return config.parse(data)


def _identity(settings: RunSettings, teacher: str, eval_data: str | None) -> str:
    """6 hexadecimal digits over all that decides the run's outcome: the same command finds its run again."""
    parts = (settings.decisive_json, teacher, eval_data or "")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        **json.loads(plan.settings.decisive_json),
        "teacher": plan.teacher,
        "eval_data": plan.eval_data or "generated items",
    }


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key} is {before}, asked for {after}"
