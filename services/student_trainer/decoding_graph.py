"""GPT-2's decoding steps as a CUDA graph: a step's many small kernels start by one call.

A graph has one batch size. Rows that end are dropped by letting their places compute what nobody reads, until half of
the places are idle; then a smaller graph is captured. Where there is no GPU the same step runs without a graph, for
tests. On a GPU this file has not been run by its authors.
"""

import torch
from torch import Tensor

from services.student_trainer.decoding_gpt2 import Gpt2Steps


class GraphSteps:
    """`Gpt2Steps` with `fixed`, captured once for each batch size that it comes down to."""

    def __init__(self, steps: Gpt2Steps) -> None:
        self.steps = steps
        self.graph: torch.cuda.CUDAGraph | None = None
        self._capture(steps.rows)

    def __call__(self, tokens_N: Tensor) -> Tensor:
        """Logits [N, V] after `tokens_N`; the next call overwrites them."""
        self.tokens_M[: len(tokens_N)] = tokens_N
        if self.graph is None:
            self.logits_MV = self.steps(self.tokens_M)
        else:
            self.graph.replay()
        return self.logits_MV[: len(tokens_N)]

    def keep(self, rows_N: Tensor) -> None:
        """Go on with these rows, in this order."""
        captured = len(self.tokens_M)
        self.steps.keep(rows_N)
        if 2 * len(rows_N) <= captured:
            self._capture(len(rows_N))
        else:
            self.steps.rows = captured

    def _capture(self, rows: int) -> None:
        steps = self.steps
        device = steps.cache.device
        self.tokens_M = torch.zeros(rows, dtype=torch.long, device=device)
        if device.type != "cuda":
            return
        slot_1, positions_B = steps.slot_1.clone(), None if steps.positions_B is None else steps.positions_B.clone()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(2):  # what allocates or tunes itself at first use must have done so before the capture
                steps(self.tokens_M)
        torch.cuda.current_stream(device).wait_stream(stream)
        # The trial steps wrote into slots that are written again before anybody reads them; only the counters moved.
        steps.slot_1.copy_(slot_1)
        if steps.positions_B is not None and positions_B is not None:
            steps.positions_B.copy_(positions_B)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits_MV = steps(self.tokens_M)
