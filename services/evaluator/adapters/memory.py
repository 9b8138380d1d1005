"""How much memory a checkpoint's weights take, and how much there is."""

from math import prod
from pathlib import Path

import torch
from safetensors import safe_open

_MEMINFO = Path("/proc/meminfo")
_LIMIT, _IN_USE = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Bytes of the folder's weights once they are loaded as `dtype`: of all tensors in its safetensors files.

    Raises:
        SafetensorError: a file is damaged.
        OSError: a file cannot be read.
    """
    numbers = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            numbers += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return numbers * dtype.itemsize


def free_bytes(device: torch.device) -> int | None:
    """What may still be allocated there: of the GPU, or of this machine or container; none where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    if not _MEMINFO.is_file():
        return None
    fields = dict(line.split(":") for line in _MEMINFO.read_text(encoding="utf-8").splitlines())
    free = int(fields["MemAvailable"].removesuffix("kB")) * 1024
    if _LIMIT.is_file() and (limit := _LIMIT.read_text(encoding="utf-8").strip()) != "max":
        free = min(free, int(limit) - int(_IN_USE.read_text(encoding="utf-8")))
    return free
