"""Judging stories: the exact joint in one forward pass, against what others do, same random Llama, one process.

    .venv/bin/python -m bench.judging [--stories 16] [--words 80] [--layers 4] [--width 256] [--rounds 5]

The rivals: 21 questions for the next token, one after each beginning of an answer ("", "2 ", "2 1 "), which give the
same conditionals if the spaces are taken for certain; and `generate`, six tokens, which gives one sample. Both have the
rubric's keys and values computed once, as the joint has, and the 21 questions the story's too; `generate` is also shown
as it is usually called, with nothing computed before. Prints medians, and the median of the ratios in each round,
measured in turn. Machines are noisy: quote the ratio.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.utils.logging import set_verbosity_error

from fabula_proto import Story
from services.student_trainer.grammar import generate_documents
from services.teacher.judges.base import Asked
from services.teacher.judges.lm.loading import LoadedModel
from services.teacher.judges.lm.prompt import messages
from services.teacher.judges.transformers_judge import TransformersJudge
from services.teacher.rubric import load_rubric
from tests.tiny_models import load_tiny, make_small_llama

BEGINNINGS = ["", *(f"{r} " for r in range(4)), *(f"{r} {n} " for r in range(4) for n in range(4))]


class Rivals:
    """The other ways, on the judge's own prompts; padding stands between the rubric and the story."""

    def __init__(self, loaded: LoadedModel, judge: TransformersJudge, prompts: Sequence[Sequence[int]]) -> None:
        (scorer,) = judge.scorers
        self.model, self.head = loaded.model, list(scorer.question.head)
        self.layers = scorer.prefix.layers
        longest = max(map(len, prompts))
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        real = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self.story_ids, self.story_mask = torch.tensor(padded), torch.tensor(real)
        heads = torch.tensor([self.head] * len(prompts))
        self.ids = torch.cat([heads, self.story_ids], dim=1)
        self.mask = torch.cat([torch.ones_like(heads), self.story_mask], dim=1)
        digits = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in BEGINNINGS]
        self.beginnings = [torch.tensor([tokens] * len(prompts)) for tokens in digits]

    def rubric(self) -> DynamicCache:
        """The rubric's keys and values for every story."""
        count = len(self.ids)
        return DynamicCache([(k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1)) for k, v in self.layers])

    @torch.inference_mode()
    def questions(self) -> list[Tensor]:
        """Next-token logits after each of the 21 beginnings."""
        positions = self.mask.cumsum(1) - 1
        begun = self.model(
            input_ids=self.story_ids,
            attention_mask=self.mask,
            position_ids=positions[:, len(self.head) :].clamp(min=0),
            past_key_values=self.rubric(),
            logits_to_keep=1,
        )
        found = [begun.logits]
        story = begun.past_key_values
        for tokens in self.beginnings[1:]:
            mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
            step = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions[:, -1:] + 1 + torch.arange(tokens.shape[1]),
                past_key_values=story,
                logits_to_keep=1,
            )
            story.crop(-tokens.shape[1])
            found.append(step.logits)
        return found

    @torch.inference_mode()
    def generate(self, *, cached: bool) -> Tensor:
        """Six tokens each, at the paper's temperature."""
        past = {"past_key_values": self.rubric()} if cached else {}
        written: Tensor = self.model.generate(
            input_ids=self.ids,
            attention_mask=self.mask,
            do_sample=True,
            temperature=0.2,
            top_k=0,
            min_new_tokens=6,
            max_new_tokens=6,
            pad_token_id=0,
            **past,
        )
        return written


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("stories", 16), ("words", 80), ("layers", 4), ("width", 256), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    set_verbosity_error()
    rubric = load_rubric()
    documents = [document.text for document in generate_documents(20_000, seed=1)]
    words = " ".join(documents).split()
    texts = [" ".join(words[i * options.words :][: options.words]) for i in range(options.stories)]
    chat = " ".join(message["content"] for message in messages(rubric, system=True))
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_small_llama(
            Path(temporary) / "llama",
            [*documents, *[chat] * 50],
            layers=options.layers,
            width=options.width,
            vocab=8000,
        )
        loaded = load_tiny(folder)
    judge = TransformersJudge(loaded, rubric)
    prepared = [judge.prepare(Story(id=str(i), text=text)) for i, text in enumerate(texts)]
    asked = [item for item in prepared if isinstance(item, Asked)]
    rivals = Rivals(loaded, judge, [item.payload[0] for item in asked])
    ways: dict[str, Callable[[], object]] = {
        "joint, one forward": lambda: judge.judge(asked),
        "21 next-token questions": rivals.questions,
        "generate 6, rubric cached": lambda: rivals.generate(cached=True),
        "generate 6": lambda: rivals.generate(cached=False),
    }
    for warm_up in ways.values():
        warm_up()
    rounds = [{name: seconds(work) for name, work in ways.items()} for _ in range(options.rounds)]
    ours, *_ = ways
    parameters = sum(p.numel() for p in loaded.model.parameters())
    print(f"{parameters:,} parameters, {len(asked)} stories of {options.words} words, fp32")
    print(
        f"{len(rivals.head)} tokens of rubric, {rivals.story_ids.shape[1]} of story; {torch.get_num_threads()} threads"
    )
    for name in ways:
        ratio = statistics.median(times[name] / times[ours] for times in rounds)
        print(f"{name:28} {statistics.median(times[name] for times in rounds):7.3f} s   x {ratio:.2f}")


if __name__ == "__main__":
    main()
