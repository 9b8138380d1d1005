"""The policy that learns: a causal language model, where PPO wants one a value head on it, and a frozen reference."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from services.student_trainer.ranks import Ranks
from services.student_trainer.token_logprobs import token_logprobs


class ValueHead(nn.Module):
    """Dropout(0.1) then Linear(width, 1), as TRL 0.9.4's. In interaction it runs in eval mode, like the model."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.1)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # and no GPU's, which would not be set back
            self.summary = nn.Linear(width, 1)

    @torch.no_grad()
    def start_at(self, value: float) -> None:
        """Predict `value` everywhere.

        A random head is wrong by much more than stories differ. Until it has learned, GAE's decay towards the start of
        a story turns that into a preference for ending early.
        """
        self.summary.weight.zero_()
        self.summary.bias.fill_(value)

    def forward(self, hidden: Tensor) -> Tensor:
        """Values of hidden states [..., D], without the last axis."""
        values: Tensor = self.summary(self.dropout(hidden)).squeeze(-1)
        return values


@dataclass(frozen=True)
class TokenScores:
    """What a forward pass says of response tokens; every tensor is [B, T], and 0 where the mask is 0."""

    logprobs_BT: Tensor
    values_BT: Tensor | None  # none without a value head
    entropy_BT: Tensor | None


class Policy:
    """Model, value head and reference, all in eval mode: no dropout when sampling, scoring or learning."""

    def __init__(self, model: PreTrainedModel, value_head: ValueHead | None, reference: PreTrainedModel) -> None:
        self.model = model.eval()
        self.value_head = None if value_head is None else value_head.eval()
        self.reference = reference.eval().requires_grad_(False)
        self.ranks = Ranks()  # the processes that score and learn together
        self.bfloat16 = False  # autocast in the transformer's body; the output layer and what follows stay fp32

    @classmethod
    def from_student(cls, model: PreTrainedModel, seed: int, *, value_head: bool = True) -> "Policy":
        """Start of interaction: the reference is a copy of the student; a value head is fresh, drawn by `seed`."""
        reference = copy.deepcopy(model)
        head = ValueHead(model.config.get_text_config().hidden_size, seed).to(model.device) if value_head else None
        return cls(model, head, reference)

    def parameters(self) -> Iterator[nn.Parameter]:
        """What learns: the model's parameters, then those of a value head."""
        yield from self.model.parameters()
        if self.value_head is not None:
            yield from self.value_head.parameters()

    def token_scores(
        self, sequences_BS: Tensor, mask_BT: Tensor, temperature: float, *, entropy: bool = False
    ) -> TokenScores:
        """Log-probability, value and, if wanted, entropy (nats) for the response tokens of prompt + response [B, S].

        The response is the last T of the S tokens; the rest is the prompt, the same in every row. Position t is the
        state before response token t: the hidden state that predicts it. Logits are computed where `mask_BT` is 1 and
        nowhere else. Attention needs no padding mask: padding stands to the right, where a causal model cannot see it.

        Raises:
            ValueError: the rows' prompts differ.
        """
        mask_BT = mask_BT > 0
        hidden_ND = self._hidden_before(self.model, sequences_BS, mask_BT)
        logprobs_N, entropy_N = _at_tokens(self.model, hidden_ND, sequences_BS, mask_BT, temperature, entropy=entropy)
        return TokenScores(
            logprobs_BT=_scatter(logprobs_N, mask_BT),
            values_BT=None if self.value_head is None else _scatter(self.value_head(hidden_ND), mask_BT),
            entropy_BT=None if entropy_N is None else _scatter(entropy_N, mask_BT),
        )

    @torch.no_grad()
    def reference_logprobs(self, sequences_BS: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        """Log-probabilities [B, T] of the response tokens under the reference, 0 where the mask is 0."""
        mask_BT = mask_BT > 0
        hidden_ND = self._hidden_before(self.reference, sequences_BS, mask_BT)
        logprobs_N, _ = _at_tokens(self.reference, hidden_ND, sequences_BS, mask_BT, temperature, entropy=False)
        return _scatter(logprobs_N, mask_BT)

    def _hidden_before(self, model: PreTrainedModel, sequences_BS: Tensor, mask_BT: Tensor) -> Tensor:
        with torch.autocast(sequences_BS.device.type, torch.bfloat16, enabled=self.bfloat16):
            hidden_ND = _hidden_before(model, sequences_BS, mask_BT)
        return hidden_ND.float() if self.bfloat16 else hidden_ND


def _hidden_before(model: PreTrainedModel, sequences_BS: Tensor, mask_BT: Tensor) -> Tensor:
    """Hidden states [N, D] that predict the N response tokens under the mask, row by row.

    The prompt is read once and its keys and values serve every row. The last token predicts nothing and is not read.
    """
    rows, tokens = mask_BT.shape
    prompt_1P, responses_BT = sequences_BS[:1, :-tokens], sequences_BS[:, -tokens:]
    if not bool((sequences_BS[:, :-tokens] == prompt_1P).all()):
        raise ValueError("the rows' prompts differ; score stories of different prompts in different calls")
    cache = DynamicCache(config=model.config)
    read = model.base_model(prompt_1P, past_key_values=cache, use_cache=True)
    hidden_BTD = read.last_hidden_state[:, -1:].expand(rows, -1, -1)
    if tokens > 1:
        cache.batch_repeat_interleave(rows)
        seen_BS = torch.ones_like(sequences_BS[:, :-1])  # padding stands to the right, where nothing can see it
        read = model.base_model(responses_BT[:, :-1], attention_mask=seen_BS, past_key_values=cache, use_cache=True)
        hidden_BTD = torch.cat([hidden_BTD, read.last_hidden_state], dim=1)
    hidden_ND: Tensor = hidden_BTD[mask_BT]
    return hidden_ND


def _at_tokens(
    model: PreTrainedModel,
    hidden_ND: Tensor,
    sequences_BS: Tensor,
    mask_BT: Tensor,
    temperature: float,
    *,
    entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the response tokens under the mask, and if wanted entropies before them, both [N]."""
    head = model.get_output_embeddings()
    tokens_N = sequences_BS[:, -mask_BT.shape[1] :][mask_BT]
    return token_logprobs(hidden_ND, head.weight, head.bias, tokens_N, temperature, entropy=entropy)


def _scatter(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Values back at their places, [B, T]; 0 elsewhere."""
    return torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device).masked_scatter(mask_BT, values_N)
