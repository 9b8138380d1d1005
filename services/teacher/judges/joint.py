"""Exact distribution over all answers "d d d" of a rubric from one forward pass of a language model. Pure mathematics.

With C criteria of L levels there are A = L^C answers. Their token sequences, whatever the tokenizer makes of them, are
merged into a tree whose root is the last token of the prompt. Every inner node is fed to the model once, at the
position it has in its answer, and sees the prompt, its ancestors and itself: the logits there are those of teacher
forcing each answer on its own, so that the product of the conditionals along a path is P(answer | prompt), exactly.

An answer counts as soon as its last digit is written, whatever would follow it: no end token is asked for. The sum
over the answers is the coverage; divided by it, they are the distribution given that the answer is valid.

Shapes: B stories, A answers, N edges of the tree (one for every node but the root), M inner nodes without the root,
C criteria, L levels, V vocabulary, S tokens of a prompt without its cached prefix, P tokens of the prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import log

import torch
from torch import Tensor

ROOT = -1
NO_ENTROPY = 1e-9  # nats; a thousandth of this is rounding in double precision


@dataclass(frozen=True)
class AnswerTree:
    """The answers' tokens as a tree; `tokens`, `parents` and `depths` have one entry an edge, inner nodes first.

    `parents` holds indices of inner nodes, ROOT for the last token of the prompt. `leaf_edges` and `leaf_answers` have
    one entry a tokenisation: the edge that completes it, and the answer that it spells.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    inner: int
    leaf_edges: tuple[int, ...]
    leaf_answers: tuple[int, ...]
    answers: int


def answer_levels(criteria: int, levels: int) -> list[tuple[int, ...]]:
    """All answers as tuples of levels, the last criterion counting fastest; length L^C."""
    return list(product(range(levels), repeat=criteria))


def build_tree(tokenisations: Sequence[Sequence[Sequence[int]]]) -> AnswerTree:
    """Merge `tokenisations[answer]`, each a list of token sequences that spell the answer, into a tree.

    Raises:
        ValueError: a sequence is empty, is the beginning of another, or spells two answers.
    """
    ends: dict[tuple[int, ...], int] = {}
    for answer, sequences in enumerate(tokenisations):
        if not sequences:
            raise ValueError(f"answer {answer} has no tokens; give at least one tokenisation")
        for sequence in sequences:
            path = tuple(sequence)
            if not path:
                raise ValueError(f"answer {answer} has an empty tokenisation; each needs a token")
            if ends.setdefault(path, answer) != answer:
                raise ValueError(f"tokens {path} spell both answer {ends[path]} and answer {answer}")
    inner_paths = sorted({path[:i] for path in ends for i in range(1, len(path))}, key=lambda path: (len(path), path))
    if ambiguous := set(inner_paths) & set(ends):
        raise ValueError(f"tokens {min(ambiguous)} are an answer and the beginning of another")
    nodes = inner_paths + sorted(ends)
    index = {path: i for i, path in enumerate(nodes)} | {(): ROOT}
    return AnswerTree(
        tokens=tuple(path[-1] for path in nodes),
        parents=tuple(index[path[:-1]] for path in nodes),
        depths=tuple(len(path) for path in nodes),
        inner=len(inner_paths),
        leaf_edges=tuple(range(len(inner_paths), len(nodes))),
        leaf_answers=tuple(ends[path] for path in nodes[len(inner_paths) :]),
        answers=len(tokenisations),
    )


def path_to(tree: AnswerTree, edge: int) -> list[int]:
    """The edges from the root to `edge`, both ends included."""
    path: list[int] = []
    while edge != ROOT:
        path.insert(0, edge)
        edge = tree.parents[edge]
    return path


def ancestors_MM(tree: AnswerTree) -> Tensor:
    """Boolean (M, M): whether inner node i sees inner node j, that is j is i or an ancestor of i."""
    seen = torch.eye(tree.inner, dtype=torch.bool)
    for node, parent in enumerate(tree.parents[: tree.inner]):
        if parent != ROOT:
            seen[node] |= seen[parent]
    return seen


def attention_BQK(lengths: Sequence[int], tree: AnswerTree, prefix: int) -> Tensor:
    """Boolean (B, S+M, P+S+M): what each token sees. Prompts of `lengths` tokens stand right-aligned in S columns.

    Padding sees the prefix and itself, so that no row is empty; nobody sees padding.
    """
    S, M = max(lengths), tree.inner
    B, Q = len(lengths), S + M
    padding_B1 = S - torch.tensor(lengths).unsqueeze(1)
    real_BS = torch.arange(S).expand(B, S) >= padding_B1
    allowed = torch.zeros(B, Q, prefix + Q, dtype=torch.bool)
    allowed[:, :, :prefix] = True
    allowed[:, :S, prefix : prefix + S] = torch.ones(S, S, dtype=torch.bool).tril() & real_BS.unsqueeze(1)
    allowed[:, S:, prefix : prefix + S] = real_BS.unsqueeze(1)
    allowed[:, S:, prefix + S :] = ancestors_MM(tree)
    own = torch.arange(Q)
    allowed[:, own, prefix + own] = True
    return allowed


def positions_BQ(lengths: Sequence[int], tree: AnswerTree, prefix: int) -> Tensor:
    """Integer (B, S+M): each token's position in its own text; 0 for padding."""
    S = max(lengths)
    lengths_B1 = torch.tensor(lengths).unsqueeze(1)
    prompt_BS = (torch.arange(S).expand(len(lengths), S) - (S - lengths_B1)).clamp(min=0) + prefix
    tree_BM = prefix + lengths_B1 - 1 + torch.tensor(tree.depths[: tree.inner], dtype=torch.long)
    return torch.cat([prompt_BS, tree_BM], dim=1)


def edge_logprobs_BN(logits: Tensor | Sequence[Tensor], tree: AnswerTree, temperature: float = 1.0) -> Tensor:
    """Log-probability (B, N), in nats, of each edge's token after its parent, the conditionals tempered.

    Args:
        logits: a story's (1+M, V) each, at the root and then at the inner nodes.
        tree: the answers.
        temperature: divides the logits before the softmax over the whole vocabulary; 1 leaves them as they are.
    """
    device = logits[0].device
    parents = torch.tensor(tree.parents, device=device) + 1  # the root's logits stand first
    tokens = torch.tensor(tree.tokens, device=device)
    rows = []
    for logits_KV in logits:  # a story at a time: float32 copies of a large vocabulary for a whole batch fill a GPU
        scaled = logits_KV.float() / temperature
        rows.append(scaled[parents, tokens] - scaled.logsumexp(dim=-1)[parents])
    return torch.stack(rows)


def answer_logprobs_BA(edges: Tensor, tree: AnswerTree) -> Tensor:
    """Log-probability (B, A), in nats, of each answer: its tokens' product, summed over its tokenisations.

    Double precision: the product of many small conditionals must not vanish.
    """
    edges = edges.double()
    paths = edges.clone()
    for node, parent in enumerate(tree.parents):  # parents stand before their children
        if parent != ROOT:
            paths[:, node] = paths[:, parent] + edges[:, node]
    answers = torch.full((edges.shape[0], tree.answers), -torch.inf, dtype=torch.double, device=edges.device)
    for edge, answer in zip(tree.leaf_edges, tree.leaf_answers, strict=True):
        answers[:, answer] = torch.logaddexp(answers[:, answer], paths[:, edge])
    return answers


def marginals_BCL(answers: Tensor, criteria: int, levels: int) -> Tensor:
    """P(level | valid answer) of each criterion, (B, C, L), from the answers' log-probabilities (B, A)."""
    joint = answers.softmax(dim=-1).view(-1, *[levels] * criteria)
    if criteria == 1:
        return joint.unsqueeze(1)
    every = range(1, criteria + 1)
    return torch.stack([joint.sum(dim=[other for other in every if other != own]) for own in every], dim=1)


def halos_BC(answers: Tensor, criteria: int, levels: int) -> Tensor:
    """How much each criterion leans on the others, (B, C) in 0..1, from the answers' log-probabilities (B, A).

    The mutual information between a criterion's level and the other criteria's levels together, as a share of its
    entropy: 0 where they are independent, 1 where the others settle it, and 0 where it has no entropy to explain.
    """
    joint = answers.double().softmax(dim=-1)
    shape = [len(joint), *[levels] * criteria]
    every = torch.special.entr(joint).sum(dim=-1)
    shares = []
    for own in range(1, criteria + 1):
        table_BLO = joint.view(shape).movedim(own, 1).reshape(len(joint), levels, -1)
        entropy = torch.special.entr(table_BLO.sum(dim=2)).sum(dim=-1)
        others = torch.special.entr(table_BLO.sum(dim=1)).sum(dim=-1)
        share = ((entropy + others - every) / entropy.clamp(min=NO_ENTROPY)).clamp(0.0, 1.0)
        shares.append(share.where(entropy > NO_ENTROPY, 0.0))
    return torch.stack(shares, dim=1)


def draw(answers: Tensor, uniform: float) -> int | None:
    """The answer that `uniform`, a number in [0, 1), picks by log-probabilities (A,); None: it is no valid answer.

    What sampling token after token gives: an answer comes with its tokens' product, and something else with the rest.
    """
    reached = answers.double().exp().cumsum(dim=0)
    index = int(torch.searchsorted(reached, torch.tensor(uniform, dtype=torch.double), right=True))
    return index if index < len(answers) else None


def entropy_share(logits: Tensor) -> float:
    """Entropy of the next token by logits (V,), as a share of the largest possible one, ln V."""
    return float(torch.special.entr(logits.double().softmax(dim=-1)).sum() / log(len(logits)))
