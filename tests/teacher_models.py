"""Tiny language models as judges: three families with three ways to write numbers, a short rubric, and stories."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from fabula_proto import Story
from services.teacher.judges.lm.loading import LoadedModel
from services.teacher.judges.transformers_judge import TransformersJudge
from services.teacher.rubric import Rubric, load_rubric
from tests.tiny_models import make_tiny_llama, make_tiny_neox, make_tiny_qwen2

MAKERS: dict[str, Callable[[Path], Path]] = {
    "llama": partial(make_tiny_llama, pairs=True),
    "qwen2": make_tiny_qwen2,
    "neox": make_tiny_neox,
}
TEXTS = (
    "The fox ran home.",
    "Once upon a time a king lost his crown. He asked the owl. They found it at dawn, and the whole town sang.",
    "A bear slept. " * 20,
    "Two ants met a cloud, and it rained tea.",
)
STORIES = tuple(Story(id=str(i), text=text) for i, text in enumerate(TEXTS))
PAPER = load_rubric()
# As many criteria and levels, in a tenth of the tokens: what is plainly computed token by token stays quick.
SHORT = Rubric.model_validate(
    {
        "name": "short",
        "version": "1",
        "instructions": "Grade.",
        "reminder": "Grade it.",
        "criteria": [
            {"name": name, "question": "?", "levels": ["no", "some", "much", "all"]} for name in ("a", "b", "c")
        ],
    }
)
ANSWERS = [f"{a} {b} {c}" for a in range(4) for b in range(4) for c in range(4)]


def spellings(loaded: LoadedModel, answer: str) -> list[list[int]]:
    """How the model's tokenizer writes an answer: on its own and, where a space joins the first digit, after one."""
    texts = [answer, " " + answer] if loaded.tokenizer.tokenize(" 2") == ["Ġ2"] else [answer]
    return [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def whole_prompt(loaded: LoadedModel, judge: TransformersJudge, text: str, question: int = 0) -> list[int]:
    """All tokens of a prompt, the rubric's included."""
    return [*judge.scorers[question].question.head, *judge.prompt_tokens(text)[question]]


def next_logprobs(loaded: LoadedModel, tokens: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities (V,) of the token after `tokens`, by a plain forward pass over all of them."""
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(torch.tensor([tokens])).logits[0, -1]
    return (logits.double() / temperature).log_softmax(-1)


def teach_answers(loaded: LoadedModel, judge: TransformersJudge, text: str, temperature: float) -> None:
    """Rewrite the model's output rows so that after `text` it gives mostly valid answers at `temperature`.

    Random weights answer once in millions of draws. Least squares makes the tokens that go on with an answer have about
    nine tenths of the probability at every node of the tree, unevenly spread.
    """
    (scorer,) = judge.scorers
    tree, head = scorer.question.tree, loaded.model.get_output_embeddings()
    seen: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0][0].double()))
    (logits_KV,) = scorer.forward.tree_logits(judge.prompt_tokens(text), scorer.prefix)
    hook.remove()
    tokens = sorted(set(tree.tokens))
    wanted_KN = torch.full((len(logits_KV), len(tokens)), -2.0, dtype=torch.double)
    generator = torch.Generator().manual_seed(1)
    for node in range(len(logits_KV)):
        children = [tokens.index(t) for t, parent in zip(tree.tokens, tree.parents, strict=True) if parent == node - 1]
        others = (logits_KV[node].double() / temperature).logsumexp(-1)
        spread = (2 * torch.rand(len(children), generator=generator, dtype=torch.double)).log_softmax(-1)
        wanted_KN[node, children] = temperature * (others + spread + 2.0)
    rows = torch.linalg.lstsq(seen[0], wanted_KN, driver="gelsd", rcond=1e-3).solution
    with torch.no_grad():
        head.weight[tokens] = rows.T.float()
