"""Several batches through one model at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from transformers import PreTrainedModel

Work = TypeVar("Work")
Result = TypeVar("Result")

MAXIMUM_WORKERS = 8  # each holds a batch's activations and logits


def at_once(model: PreTrainedModel, work: Sequence[Work], run: Callable[[Work], Result]) -> Iterator[Result]:
    """`run(w)` for each `w`, in order; on a CPU in several threads that share torch's threads among them.

    One batch of some hundred tokens on all threads waits at each operator for the slowest of them; a batch for each
    does not (a tenth faster on two cores). Close the iterator where it is not read to its end: what has not begun is
    then dropped, and torch has its threads again.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(work), MAXIMUM_WORKERS)
    if workers < 2 or not _is_reentrant(model):
        yield from map(run, work)
        return

    def inferred(one: Work) -> Result:
        with torch.inference_mode():  # a thread's own affair
            return run(one)

    torch.set_num_threads(threads // workers)
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(inferred, work)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _is_reentrant(model: PreTrainedModel) -> bool:
    """Whether calls from several threads leave each other alone, as they do where a forward changes nothing.

    Rotary frequencies that follow the text's length are written by each call; what a checkpoint's own code does is not
    known; a GPU works one call after the other.
    """
    rope = str(getattr(model.config, "rope_parameters", None))
    ours = type(model).__module__.startswith("transformers.")
    return ours and model.device.type == "cpu" and "dynamic" not in rope and "longrope" not in rope
