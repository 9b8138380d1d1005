"""The policy that learns: a causal language model, a value head on its last hidden state, and a frozen reference."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class ValueHead(nn.Module):
    """Dropout(0.1) then Linear(width, 1), as TRL 0.9.4's. In interaction it runs in eval mode, like the model."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.summary = nn.Linear(width, 1)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Values [B, T] of hidden states [B, T, D]."""
        values: Tensor = self.summary(self.dropout(hidden_BTD)).squeeze(-1)
        return values


@dataclass(frozen=True)
class TokenScores:
    """What a forward pass says of response tokens; every tensor is [B, T]."""

    logprobs_BT: Tensor
    entropy_BT: Tensor
    values_BT: Tensor


class Policy:
    """Model, value head and reference, all in eval mode: no dropout when sampling, scoring or learning."""

    def __init__(self, model: PreTrainedModel, value_head: ValueHead, reference: PreTrainedModel) -> None:
        self.model = model.eval()
        self.value_head = value_head.eval()
        self.reference = reference.eval().requires_grad_(False)

    @classmethod
    def from_student(cls, model: PreTrainedModel, seed: int) -> "Policy":
        """Start of interaction: the reference is a copy of the student, the value head is fresh."""
        reference = copy.deepcopy(model)
        head = ValueHead(model.config.get_text_config().hidden_size, seed)
        return cls(model, head.to(model.device), reference)

    def parameters(self) -> Iterator[nn.Parameter]:
        """What learns: the model's parameters, then the value head's."""
        yield from self.model.parameters()
        yield from self.value_head.parameters()

    def token_scores(self, sequences_BS: Tensor, prompt_tokens: int, temperature: float) -> TokenScores:
        """Log-probability, entropy (nats) and value for each response token of prompt + response [B, S].

        T = S - prompt_tokens. Position t is the state before response token t: the hidden state that predicts it.
        Nothing needs masking: padding stands to the right, where a causal model cannot see it.
        """
        hidden_BSD = _hidden(self.model, sequences_BS)
        hidden_BTD = hidden_BSD[:, prompt_tokens - 1 : -1]
        all_logprobs_BTV = _log_softmax(self.model, hidden_BTD, temperature)
        responses_BT = sequences_BS[:, prompt_tokens:]
        logprobs_BT = all_logprobs_BTV.gather(-1, responses_BT[..., None]).squeeze(-1)
        with torch.no_grad():
            entropy_BT = -(all_logprobs_BTV.exp() * all_logprobs_BTV).sum(-1)
        return TokenScores(logprobs_BT, entropy_BT, self.value_head(hidden_BTD))

    @torch.no_grad()
    def reference_logprobs(self, sequences_BS: Tensor, prompt_tokens: int, temperature: float) -> Tensor:
        """Log-probabilities [B, T] of the response tokens under the reference."""
        hidden_BSD = _hidden(self.reference, sequences_BS)
        all_logprobs_BTV = _log_softmax(self.reference, hidden_BSD[:, prompt_tokens - 1 : -1], temperature)
        return all_logprobs_BTV.gather(-1, sequences_BS[:, prompt_tokens:, None]).squeeze(-1)


def _hidden(model: PreTrainedModel, sequences_BS: Tensor) -> Tensor:
    mask_BS = torch.ones_like(sequences_BS)
    hidden_BSD: Tensor = model.base_model(sequences_BS, attention_mask=mask_BS, use_cache=False).last_hidden_state
    return hidden_BSD


def _log_softmax(model: PreTrainedModel, hidden_BTD: Tensor, temperature: float) -> Tensor:
    logits_BTV: Tensor = model.get_output_embeddings()(hidden_BTD)
    return torch.log_softmax(logits_BTV.float() / temperature, dim=-1)
