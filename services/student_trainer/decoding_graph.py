"""GPT-2's decoding steps as a CUDA graph: a step's many small kernels start by one call.

A graph has one batch size. Rows that end are dropped by letting their places compute what nobody reads, until half of
the places are idle; then a smaller graph is captured, by the next step if there is one. Where there is no GPU the same
steps run without a graph, for tests. On a GPU this file has not been run by its authors.
"""

from functools import cache

import torch
from torch import Tensor

from services.student_trainer.decoding_gpt2 import Gpt2Steps

FEW_ROWS = 8
"""From here on a step waits for the weights to be read, not for its rows, and a smaller graph would not pay."""


class GraphSteps:
    """`Gpt2Steps` with `fixed`, captured once for each batch size that it comes down to."""

    def __init__(self, steps: Gpt2Steps) -> None:
        self.steps = steps
        self.graph: torch.cuda.CUDAGraph | None = None
        self.tokens_M: Tensor | None = None

    def __call__(self, tokens_N: Tensor) -> Tensor:
        """Logits [N, V] after `tokens_N`; the next call overwrites them."""
        if self.tokens_M is None:
            self.tokens_M = torch.zeros(self.steps.rows, dtype=torch.long, device=tokens_N.device)
            self._try(self.tokens_M)
            if tokens_N.device.type == "cuda":
                self._capture(self.tokens_M)
        self.tokens_M[: len(tokens_N)] = tokens_N
        if self.graph is None:
            self.logits_MV = self.steps(self.tokens_M)
        else:
            self.graph.replay()
        return self.logits_MV[: len(tokens_N)]

    def keep(self, rows_N: Tensor) -> None:
        """Go on with these rows, in this order."""
        captured = 0 if self.tokens_M is None else len(self.tokens_M)
        self.steps.keep(rows_N)
        if len(rows_N) <= captured // 2 and captured > FEW_ROWS:
            self.tokens_M = None
        elif captured:
            self.steps.rows = captured

    def _try(self, tokens_M: Tensor) -> None:
        """Two steps that leave no trace: what allocates or tunes itself at first use must have done so before capture.

        They write into the slot that the next step writes before anybody reads it; the counters are set back.
        """
        steps = self.steps
        counters = [steps.slot_1] if steps.positions_B is None else [steps.slot_1, steps.positions_B]
        before = [counter.clone() for counter in counters]
        aside = _side_stream(tokens_M.device) if tokens_M.device.type == "cuda" else None
        if aside is not None:
            aside.wait_stream(torch.cuda.current_stream(tokens_M.device))
        with torch.cuda.stream(aside):
            for _ in range(2):
                steps(tokens_M)
                for counter, value in zip(counters, before, strict=True):
                    counter.copy_(value)
        if aside is not None:
            torch.cuda.current_stream(tokens_M.device).wait_stream(aside)

    def _capture(self, tokens_M: Tensor) -> None:
        self.graph = torch.cuda.CUDAGraph()
        # What other threads ask of the device, as NCCL's do, is no part of this.
        with torch.cuda.graph(self.graph, stream=_side_stream(tokens_M.device), capture_error_mode="thread_local"):
            self.logits_MV = self.steps(tokens_M)


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures on a device: the libraries keep a workspace for each stream that they ever saw."""
    return torch.cuda.Stream(device)
