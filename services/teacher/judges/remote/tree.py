"""Answers as a tree of tokens, and the distribution over them from next-token probabilities. Pure mathematics.

The same definition as `services.teacher.judges.joint`, for servers that answer one next-token question at a time: an
answer "d d d" counts with every tokenisation that the model's tokenizer may give it, its probability is the product of
the conditionals along the path, spaces included, and it is complete as soon as its last digit is written.

A token is an id, or its text where a server gives no ids. A path is what is written so far.

What a server leaves out: where only its most probable tokens come back, an answer's token that is not among them has
no probability here, which makes coverage a lower bound. Temperature t divides the logits before a softmax over the
whole vocabulary, so that p becomes p^(1/t) / Z; of Z, what did not come back is counted as one token. At t = 1 that is
exact. Below 1 it overstates the rest by its (1/t)-th power at most; above 1 it understates it.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

Token = int | str
Path = tuple[Token, ...]
ROOT: Path = ()

# Rounding on the server: bfloat16 probabilities summed, and log-probabilities just above 0.
SUM_TOLERANCE, LOGPROB_TOLERANCE = 0.02, 1e-3
# A branch with less than this share of the probability of the best one at its depth is not asked about.
NEGLIGIBLE = 1e-7


class MalformedAnswerError(ValueError):
    """The server's answer cannot be what it should be."""


@dataclass(frozen=True)
class AnswerTree:
    """`children` of each inner path, the root first and parents before their children; `leaves` to answers' indices."""

    children: Mapping[Path, tuple[Token, ...]]
    leaves: Mapping[Path, int]
    answers: int

    @property
    def depth(self) -> int:
        """Tokens of the longest answer."""
        return max(map(len, self.leaves))

    def forced(self, path: Path) -> Path | None:
        """The one inner path that `path` can go on to, if it is the only one: a space after a digit."""
        first, *others = self.children[path]
        return (*path, first) if not others and (*path, first) in self.children else None


@dataclass(frozen=True)
class Reached:
    """Log-probability of having written a path: as the model is, and at the judge's temperature."""

    plain: float
    tempered: float


def answer_levels(criteria: int, levels: int) -> list[tuple[int, ...]]:
    """All answers as tuples of levels, the last criterion counting fastest; length L^C."""
    return list(product(range(levels), repeat=criteria))


def build_tree(tokenisations: Sequence[Collection[Path]]) -> AnswerTree:
    """Merge `tokenisations[answer]`, the paths that spell it, into a tree.

    Raises:
        ValueError: an answer has no path, or a path is empty, spells two answers, or begins another.
    """
    leaves: dict[Path, int] = {}
    for answer, paths in enumerate(tokenisations):
        if not paths:
            raise ValueError(f"answer {answer} has no tokens; give at least one tokenisation")
        for path in paths:
            if leaves.setdefault(path, answer) != answer:
                raise ValueError(f"tokens {path} spell both answer {leaves[path]} and answer {answer}")
    children: dict[Path, dict[Token, None]] = {}
    inner = {path[:i] for path in leaves for i in range(len(path))}
    for path in sorted(inner, key=lambda path: (len(path), str(path))):
        children[path] = {}
    if ambiguous := (inner | {ROOT}) & set(leaves):
        raise ValueError(f"tokens {min(ambiguous, key=str)} are an answer and the beginning of another, or empty")
    for path in leaves:
        for i, token in enumerate(path):
            children[path[:i]].setdefault(token)
    return AnswerTree({path: tuple(tokens) for path, tokens in children.items()}, leaves, len(tokenisations))


def checked(logprobs: Mapping[Token, object]) -> dict[Token, float]:
    """Next-token log-probabilities as they should be: at most 0, and their probabilities at most 1 together.

    Raises:
        MalformedAnswerError: they are not.
    """
    found: dict[Token, float] = {}
    for token, value in logprobs.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value <= LOGPROB_TOLERANCE:
            raise MalformedAnswerError(f"the log-probability of token {token!r} is {value!r}, which none can be")
        found[token] = min(0.0, float(value))
    total = sum(math.exp(value) for value in found.values())
    if total > 1.0 + SUM_TOLERANCE:
        raise MalformedAnswerError(f"the probabilities of {len(found)} different tokens sum to {total:.3f}, above 1")
    return found


def extend(
    tree: AnswerTree, path: Path, reached: Reached, logprobs: Mapping[Token, float], temperature: float
) -> dict[Path, Reached]:
    """The paths one token longer than `path`, with their log-probabilities.

    Args:
        tree: the answers.
        path: an inner one.
        reached: its own log-probability.
        logprobs: of next tokens after it, at temperature 1: the tree's children as far as they are known, and others.
        temperature: of the judge, see the module.
    """
    rest = max(0.0, 1.0 - sum(map(math.exp, logprobs.values())))
    terms = [value / temperature for value in logprobs.values()]
    normaliser = 0.0 if temperature == 1.0 else logsumexp([*terms, math.log(rest) / temperature] if rest else terms)
    grown = {}
    for token in tree.children[path]:
        if token in logprobs:
            tempered = logprobs[token] / temperature - normaliser
            grown[(*path, token)] = Reached(reached.plain + logprobs[token], reached.tempered + tempered)
    return grown


def worth_asking(tree: AnswerTree, grown: Mapping[Path, Reached]) -> list[Path]:
    """Those of the inner paths among `grown`, all of one depth, that can still matter."""
    inner = [path for path in grown if path in tree.children]
    bars = [
        max((getattr(reached, name) for reached in grown.values()), default=-math.inf) + math.log(NEGLIGIBLE)
        for name in ("plain", "tempered")
    ]
    return [path for path in inner if grown[path].plain >= bars[0] or grown[path].tempered >= bars[1]]


def answer_probabilities(tree: AnswerTree, reached: Mapping[Path, Reached]) -> tuple[list[float], float]:
    """The distribution over answers given that the answer is valid, at the judge's temperature, and the coverage.

    Coverage is the probability, at temperature 1, that the answer is valid.

    Raises:
        MalformedAnswerError: no answer has any probability.
    """
    tempered: list[list[float]] = [[] for _ in range(tree.answers)]
    plain = []
    for path, answer in tree.leaves.items():
        if path in reached:
            tempered[answer].append(reached[path].tempered)
            plain.append(reached[path].plain)
    logs = [logsumexp(terms) for terms in tempered]
    whole = logsumexp(logs)
    if whole == -math.inf:
        raise MalformedAnswerError("none of the answers is among the tokens that the server returned")
    return [math.exp(value - whole) for value in logs], min(1.0, math.exp(logsumexp(plain)))


def marginals(probabilities: Sequence[float], criteria: int, levels: int) -> list[list[float]]:
    """P(level) of each criterion (C x L) from the answers' probabilities (L^C)."""
    tables = [[0.0] * levels for _ in range(criteria)]
    for answer, p in zip(answer_levels(criteria, levels), probabilities, strict=True):
        for own, level in enumerate(answer):
            tables[own][level] += p
    return tables


def halos(probabilities: Sequence[float], criteria: int, levels: int) -> list[float]:
    """How much each criterion leans on the others, 0..1: mutual information over entropy; see `CriterionScore.halo`."""
    whole, found = _entropy(probabilities), []
    for own, table in enumerate(marginals(probabilities, criteria, levels)):
        others: dict[tuple[int, ...], float] = {}
        for answer, p in zip(answer_levels(criteria, levels), probabilities, strict=True):
            rest = answer[:own] + answer[own + 1 :]
            others[rest] = others.get(rest, 0.0) + p
        entropy = _entropy(table)
        share = (entropy + _entropy(others.values()) - whole) / entropy if entropy > 1e-9 else 0.0
        found.append(min(1.0, max(0.0, share)))
    return found


def logsumexp(values: Sequence[float]) -> float:
    """Logarithm of the sum of exponentials; -inf of nothing."""
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(value - top) for value in values))


def _entropy(probabilities: Iterable[float]) -> float:
    return -sum(p * math.log(p) for p in probabilities if p > 0.0)
