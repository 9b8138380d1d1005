"""The processes that share a run's work, as `torchrun` or `accelerate launch` started them; one process is the default.

Every process does the same things in the same order, holds the same weights and comes to the same decisions. Each does
its own share of the expensive work; the main process alone writes files and speaks. Accelerate finds out from the
environment who we are, picks device and backend (gloo on CPUs, NCCL on GPUs) and connects the processes.

What is on a GPU is summed over NCCL, everything else goes over gloo: it needs no GPU, and it reports a process that is
gone, where NCCL lets the others wait until its watchdog or the launcher ends them.
"""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

T = TypeVar("T")
Beat = Callable[[], None]
SILENCE_S = 1800.0
"""Longest silence of a process before the others give it up, in seconds. One that dies is noticed at once over gloo."""
BUCKET = 1 << 24
"""Numbers whose gradients are summed at a time: 64 MB in fp32; more is never held beside the gradients."""


class RankLostError(RuntimeError):
    """Another process of the run died or hangs; the message says what is known of it."""


class RankFailedError(RuntimeError):
    """Another process of the run raised an error that cannot be passed on as it is; the message quotes it."""


@dataclass(frozen=True)
class _Failure:
    """An error on its way to the other processes."""

    rank: int
    text: str
    pickled: bytes

    @classmethod
    def of(cls, rank: int, error: Exception) -> "_Failure":
        text = f"process {rank} failed: {type(error).__name__}: {error}"
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)  # noqa: S301 - our own bytes
        except (pickle.PickleError, TypeError, AttributeError, ValueError):
            pickled = b""
        return cls(rank, text, pickled)

    def error(self) -> Exception:
        if self.pickled:
            return cast(Exception, pickle.loads(self.pickled))  # noqa: S301 - from a process of this run
        return RankFailedError(self.text)


_BEAT = "beat"


def _default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Ranks:
    """This process (`rank`, from 0) among `world` processes."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=_default_device)
    gloo: distributed.ProcessGroup | None = None

    @classmethod
    def from_environment(cls, silence_s: float = SILENCE_S) -> "Ranks":
        """The processes that a launcher started; one where none did. Waits until all are there.

        Raises:
            RankLostError: the others do not come.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState  # a second to import, and one process needs none of it

        with _in_touch(int(os.environ.get("RANK", "0"))):
            # Without a GPU it must be told so, or it takes each process for the only one.
            cpu = _default_device().type == "cpu" or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
            state = PartialState(cpu=cpu, timeout=timedelta(seconds=silence_s))
            gloo = distributed.new_group(backend="gloo", timeout=timedelta(seconds=silence_s))
            distributed.barrier(gloo)
        return cls(state.process_index, state.num_processes, torch.device("cpu") if cpu else state.device, gloo)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of `count` things are this process's. Shares follow each other and differ by one at most."""
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def own(self, rows: Tensor) -> Tensor:
        """This process's share of a tensor's rows."""
        share = self.share(len(rows))
        return rows[share.start : share.stop]

    def everywhere(self, work: Callable[[], T]) -> list[T]:
        """Do `work` in each process. What each came to, in the order of ranks; an error in one is raised in all."""
        if self.world == 1:
            return [work()]
        try:
            result = work()
        except Exception as error:
            self._gather(_Failure.of(self.rank, error))
            raise
        results = self._gather(result)
        for other in results:
            if isinstance(other, _Failure):
                raise other.error()
        return results

    def on_main(self, work: Callable[[Beat], T]) -> T:
        """Do `work` in the main process. Its result, or its error, reaches all.

        The others wait. Work that may take longer than `SILENCE_S` calls what it is given now and then, to say that it
        is alive.
        """
        if self.world == 1:
            return work(lambda: None)
        if not self.main:
            while (message := self._from_main(None)) == _BEAT:
                pass
            if isinstance(message, _Failure):
                raise message.error()
            (result,) = message
            return cast(T, result)
        try:
            done = work(lambda: self._from_main(_BEAT))
        except RankLostError:
            raise
        except Exception as error:
            self._from_main(_Failure.of(self.rank, error))
            raise
        self._from_main((done,))
        return done

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor([float(flag)])).item())

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes of a tensor of one shape, on the tensor's device."""
        return values if self.world == 1 else self._sum_in_place(values.clone())

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The processes' rows below each other, in the order of ranks. They may differ in number, not in width."""
        if self.world == 1:
            return rows
        return torch.cat([part.to(rows.device) for part in self._gather(rows.cpu())])

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Each parameter's gradient becomes the sum over the processes; one that no process has stays absent."""
        if self.world == 1:
            return
        for bucket in _buckets(parameters):
            present = torch.tensor([p.grad is not None for p in bucket], dtype=bucket[0].dtype, device=bucket[0].device)
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = self._sum_in_place(torch.cat([present, *[g.reshape(-1) for g in gradients]]))
            had, *parts = flat.split([len(bucket), *[p.numel() for p in bucket]])
            for parameter, part, some in zip(bucket, parts, had.tolist(), strict=True):
                parameter.grad = part.view_as(parameter) if some else None

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """Work in which torch itself exchanges, as FSDP does: where it reports a process that is gone, say so.

        Raises:
            RankLostError: another process died or hangs.
        """
        with _in_touch(self.rank, _of_a_backend):
            yield

    def close(self) -> None:
        """Part from the others."""
        if self.world > 1:
            distributed.destroy_process_group()

    def _sum_in_place(self, values: Tensor) -> Tensor:
        with _in_touch(self.rank):
            distributed.all_reduce(values, group=self.gloo if values.device.type == "cpu" else None)
        return values

    def _gather(self, item: Any) -> list[Any]:
        items: list[Any] = [None] * self.world
        with _in_touch(self.rank):
            distributed.all_gather_object(items, item, group=self.gloo)
        return items

    def _from_main(self, message: Any) -> Any:
        messages = [message]
        with _in_touch(self.rank):
            distributed.broadcast_object_list(messages, src=0, group=self.gloo)
        return messages[0]


def _buckets(parameters: Iterable[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Parameters of one type and device together, in their order, `BUCKET` numbers or a single larger one at a time."""
    buckets: list[list[torch.nn.Parameter]] = []
    last: dict[tuple[torch.dtype, torch.device], list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        kind = (parameter.dtype, parameter.device)
        if kind not in last or sum(p.numel() for p in (*last[kind], parameter)) > BUCKET:
            last[kind] = []
            buckets.append(last[kind])
        last[kind].append(parameter)
    return buckets


def _of_a_backend(error: RuntimeError) -> bool:
    """Whether NCCL raised it, or gloo, which has no error of its own but names its source file."""
    return isinstance(error, distributed.DistError) or (type(error) is RuntimeError and "/gloo/" in str(error))


@contextmanager
def _in_touch(rank: int, means_lost: Callable[[RuntimeError], bool] = lambda _: True) -> Iterator[None]:
    """torch.distributed reports a lost connection and a timeout as RuntimeError; name what it means."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RankLostError) or not means_lost(error):
            raise
        raise RankLostError(
            f"process {rank} lost touch with the others: one died or hangs, and the launcher's output says which. "
            f"Start the run again: it goes on from its last saved state. ({error})"
        ) from error
