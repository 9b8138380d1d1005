"""Before the first story: does the tree agree with teacher forcing on this model, and was the model ever trained?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from services.teacher.judges import joint
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.judges.lm.forward import Prefix, TreeForward

# Of different lengths, so that padding is part of what is compared.
PROBE = ("The fox found a lamp. It shone all night.", "Once upon a time there was a king who could not sleep at all.")
# Greatest difference of a log-probability, in nats. In 16 bits two ways to compute the same differ by tenths.
TOLERANCE_32, TOLERANCE_16 = 1e-3, 0.5


@dataclass(frozen=True)
class ProbeResult:
    """What was found."""

    difference: float  # nats, between the tree and teacher forcing, the greatest along one answer
    entropy_share: float  # of the next token where an answer is due; 1 is a uniform guess over the vocabulary


def probe(forward: TreeForward, prefix: Prefix, prompts: Sequence[Sequence[int]]) -> ProbeResult:
    """Score `prompts` (after the prefix) as stories are scored, and the first of them by plain teacher forcing too.

    Raises:
        JudgeUnavailableError: the two disagree, so the architecture does something else with masks or positions.
    """
    tree = forward.tree
    logits = forward.tree_logits(prompts, prefix)
    edges = joint.edge_logprobs_BN(logits, tree)[0]
    path = joint.path_to(tree, tree.leaf_edges[len(tree.leaf_edges) // 2])
    tokens = [tree.tokens[edge] for edge in path]
    plain = forward.sequence_logits([*prefix.tokens, *prompts[0], *tokens[:-1]])[-len(tokens) :]
    expected = plain.float().log_softmax(dim=-1)[torch.arange(len(tokens)), tokens]
    difference = float((edges[path] - expected).abs().max())
    tolerance = TOLERANCE_32 if forward.full_precision else TOLERANCE_16
    if not difference <= tolerance:
        raise JudgeUnavailableError(
            f"joint scoring differs from teacher forcing by {difference:.2g} nats, more than {tolerance:g}: the "
            "architecture ignores 4-D masks or positions; take a decoder with ordinary attention, such as Llama or Qwen"
        )
    return ProbeResult(difference, joint.entropy_share(logits[0][0]))
