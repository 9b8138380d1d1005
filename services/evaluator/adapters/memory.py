"""How much memory a checkpoint's weights take, and how much there is."""

import gc
import json
import struct
from math import prod
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_LIMIT, _IN_USE = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Bytes of the folder's weights once they are loaded as `dtype`: of all tensors in its safetensors files.

    Only the files' headers are read. Of weights in the older format nothing but the files' size is known.

    Raises:
        ValueError: a file is damaged or cut short.
        OSError: a file cannot be read.
    """
    if files := sorted(folder.glob("*.safetensors")):
        return dtype.itemsize * sum(_numbers(file) for file in files)
    return sum(file.stat().st_size for file in folder.glob("pytorch_model*.bin"))


def _numbers(file: Path) -> int:
    """Numbers in a safetensors file: 8 bytes for the header's length, the header as JSON, the numbers themselves."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        begin = opened.read(8)
        length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{file.name} is cut short: it ends after {size} bytes, within its header")
        tensors = json.loads(opened.read(length))
    tensors.pop("__metadata__", None)
    end = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if size < end:
        raise ValueError(f"{file.name} is cut short: it has {size} of {end} bytes")
    return sum(prod(tensor["shape"]) for tensor in tensors.values())


def give_back() -> None:
    """Let other processes have the GPU memory that nothing here uses any more. Nothing happens without a GPU in use."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """What may still be allocated there: of the GPU, or of this machine or container; none where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # The allocator keeps what was freed in this process, and the driver counts that as taken.
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if not _MEMINFO.is_file():
        return None
    fields = dict(line.split(":") for line in _MEMINFO.read_text(encoding="utf-8").splitlines())
    free = int(fields["MemAvailable"].removesuffix("kB")) * 1024
    if _LIMIT.is_file() and (limit := _LIMIT.read_text(encoding="utf-8").strip()) != "max":
        free = min(free, int(limit) - int(_IN_USE.read_text(encoding="utf-8")))
    return free
