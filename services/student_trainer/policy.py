"""The policy that learns: a causal language model, where PPO wants one a value head on it, and a frozen reference."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from services.student_trainer.ranks import Ranks
from services.student_trainer.sharding import Hollow, shard, whole_model
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


class ActorCritic(nn.Module):
    """A causal language model and, where there is one, a value head: what one forward goes through.

    Divided among processes, the weights are gathered for its two methods (see `Policy.divide`).
    """

    def __init__(self, model: PreTrainedModel, value_head: ValueHead | None) -> None:
        super().__init__()
        self.model = model
        self.value_head = value_head

    def score(
        self, sequences_BS: Tensor, mask_BT: Tensor, temperature: float, *, entropy: bool, bfloat16: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probability, value and, if wanted, entropy of the N response tokens under the mask, [N], row by row."""
        with torch.autocast(sequences_BS.device.type, torch.bfloat16, enabled=bfloat16):
            hidden_ND = _hidden_before(self.model, sequences_BS, mask_BT)
        hidden_ND = hidden_ND.float() if bfloat16 else hidden_ND
        head = self.model.get_output_embeddings()
        tokens_N = sequences_BS[:, -mask_BT.shape[1] :][mask_BT]
        logprobs_N, entropy_N = token_logprobs(
            hidden_ND, head.weight, head.bias, tokens_N, temperature, entropy=entropy
        )
        # Not a view: a change in place would lose the hook that FSDP hangs on what is returned.
        values_N = None if self.value_head is None else self.value_head(hidden_ND).clone()
        return logprobs_N, values_N, entropy_N

    def next_word_loss(self, tokens_RT: Tensor, *, bfloat16: bool) -> Tensor:
        """Mean cross-entropy of each next token of blocks [R, T], in nats."""
        with torch.autocast(tokens_RT.device.type, torch.bfloat16, enabled=bfloat16):
            logits_RTV = self.model(tokens_RT, use_cache=False).logits[:, :-1]
        return nn.functional.cross_entropy(logits_RTV.flatten(0, 1).float(), tokens_RT[:, 1:].flatten())


class Policy:
    """Model, value head and reference, all in eval mode: no dropout when sampling, scoring or learning."""

    def __init__(self, model: PreTrainedModel, value_head: ValueHead | None, reference: PreTrainedModel) -> None:
        self.actor = ActorCritic(model, value_head).eval()
        self.model, self.value_head, self.reference = model, value_head, reference
        self._frozen = ActorCritic(reference, None).eval().requires_grad_(False)
        self._hollow: Hollow | None = None
        self.ranks = Ranks()  # the processes that score and learn together
        self.bfloat16 = False  # autocast in the transformer's body; the output layer and what follows stay fp32

    @classmethod
    def from_student(cls, model: PreTrainedModel, seed: int, *, value_head: bool = True) -> "Policy":
        """Start of interaction: the reference is a copy of the student; a value head is fresh, drawn by `seed`."""
        reference = copy.deepcopy(model)
        head = ValueHead(model.config.get_text_config().hidden_size, seed).to(model.device) if value_head else None
        return cls(model, head, reference)

    def divide(self) -> None:
        """Divide weights and gradients among `ranks`, the reference's too; the optimiser is made afterwards.

        From now on all processes score, learn and read `whole` together.
        """
        self._hollow = Hollow(self.model)
        shard(self.actor, self.ranks, "score", "next_word_loss")
        shard(self._frozen, self.ranks, "score")

    @property
    def divided(self) -> bool:
        """Whether each process holds a part only."""
        return self._hollow is not None

    def whole(self) -> AbstractContextManager[PreTrainedModel]:
        """The model with all its weights, to write with or to save; not to be learned with."""
        return whole_model(self.model, self._hollow)

    def parameters(self) -> Iterator[nn.Parameter]:
        """What learns: the model's parameters, then those of a value head."""
        yield from self.actor.parameters()

    def own_micro_batches(self, rows_M: Tensor, size: int | None) -> list[tuple[Tensor, float]]:
        """This process's share of the rows in parts of `size` at most (none: in one), each with its weight, 1.

        A divided policy computes only where all processes do: one with fewer parts than another goes over a row once
        more, at weight 0.
        """
        own_O = self.ranks.own(rows_M)
        parts = [(rows, 1.0) for rows in own_O.split(size or len(own_O))] if len(own_O) else []
        if self.divided:
            largest_share = -(-len(rows_M) // self.ranks.world)
            parts += [(rows_M[:1], 0.0)] * (-(-largest_share // (size or largest_share)) - len(parts))
        return parts

    def sum_gradients(self) -> None:
        """Each parameter's gradient becomes the sum over the processes."""
        if not self.divided:  # or the backward pass has summed
            self.ranks.sum_gradients(self.parameters())

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
        logprobs_N, values_N, entropy_N = self.actor.score(
            sequences_BS, mask_BT, temperature, entropy=entropy, bfloat16=self.bfloat16
        )
        return TokenScores(
            logprobs_BT=_scatter(logprobs_N, mask_BT),
            values_BT=None if values_N is None else _scatter(values_N, mask_BT),
            entropy_BT=None if entropy_N is None else _scatter(entropy_N, mask_BT),
        )

    @torch.no_grad()
    def reference_logprobs(self, sequences_BS: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        """Log-probabilities [B, T] of the response tokens under the reference, 0 where the mask is 0."""
        mask_BT = mask_BT > 0
        logprobs_N, _, _ = self._frozen.score(sequences_BS, mask_BT, temperature, entropy=False, bfloat16=self.bfloat16)
        return _scatter(logprobs_N, mask_BT)

    def next_word_loss(self, tokens_RT: Tensor) -> Tensor:
        """Mean cross-entropy of each next token of blocks [R, T], in nats."""
        loss: Tensor = self.actor.next_word_loss(tokens_RT, bfloat16=self.bfloat16)
        return loss


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


def _scatter(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Values back at their places, [B, T]; 0 elsewhere."""
    return torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device).masked_scatter(mask_BT, values_N)
