"""The first position of a causal model: it depends on the first token alone, so a text need not be read further.

With dropout this changes the random numbers: masks of a whole batch (B, T, ...) are drawn where only those of the
first position are wanted. `FullWidthDropout` draws the whole masks and takes the first position of each, which costs
little beside the model, so that fine-tuning goes the way it would have gone with whole texts.
"""

from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

_TOLERANCE = 1e-4  # rounding changes with the shape; a model that looks ahead differs by far more


@torch.no_grad()
def reads_only_itself(model: PreTrainedModel) -> bool:
    """Whether the first position's hidden state stays as it is (to rounding), whatever follows. Draws nothing."""
    training = model.training
    model.eval()
    vocab = int(model.config.vocab_size)
    first_B = torch.arange(8, device=model.device) * (vocab // 8)
    rest_BT = (torch.arange(8 * 15, device=model.device).view(8, 15) * 7919 + 13) % vocab
    hidden_BD = model(input_ids=first_B[:, None]).last_hidden_state[:, 0]
    longer_BD = model(input_ids=torch.cat([first_B[:, None], rest_BT], dim=1)).last_hidden_state[:, 0]
    model.train(training)
    return bool((hidden_BD - longer_BD).abs().max() <= _TOLERANCE * hidden_BD.abs().max())


class FullWidthDropout(TorchFunctionMode):
    """Within it, dropout draws its masks as if T were `width` and keeps the first position's.

    That is dropout on (B, 1, D), on attention weights (B, H, 1, 1), and within `scaled_dot_product_attention`, whose
    weight on the only position is 1. Dropout on (B, D), as in a classifier head, stays as it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            return self._dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention and kwargs.get("dropout_p", 0.0) > 0.0:
            p = kwargs.pop("dropout_p")
            attended_BH1D = func(*args, **kwargs)
            return attended_BH1D * self._mask(attended_BH1D[..., :1], p)
        return func(*args, **kwargs)

    def _dropout(self, values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not training or p == 0.0 or values.dim() < 3:
            return functional.dropout(values, p, training, inplace)
        return values * self._mask(values, p)

    def _mask(self, values: torch.Tensor, p: float) -> torch.Tensor:
        """Of shape (B, 1, D) or (B, H, 1, 1), 0 or 1 / (1 - p); drawn as torch does on a CPU."""
        shape = list(values.shape)
        axes = [1] if len(shape) == 3 else [2, 3]
        for axis in axes:
            shape[axis] = self._width
        mask = torch.empty(shape, dtype=torch.bool, device=values.device).bernoulli_(1 - p)  # the draws of any dtype
        for axis in axes:
            mask = mask.narrow(axis, 0, 1)
        return mask.to(values.dtype) / (1 - p)
