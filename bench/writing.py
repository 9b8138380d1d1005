"""Writing stories: our decoder against transformers' `generate`, same student, same stories, one process.

    .venv/bin/python -m bench.writing [--stories 32] [--tokens 90] [--layers 4] [--width 128] [--rounds 5]

Prints the median time of each and the median of the ratios, measured in turn. Machines are noisy: quote the ratio.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from services.student_trainer.grammar import generate_documents
from services.student_trainer.rollout import write_stories
from services.student_trainer.settings import StudentSettings, TokenizerSettings
from services.student_trainer.student import build_student, parameter_count
from services.student_trainer.tokenizer import train_tokenizer

PROMPT = "Let me tell you a long, magical tale. Once upon a time, in a faraway land,"


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("stories", 32), ("tokens", 90), ("layers", 4), ("width", 128), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    texts = [document.text for document in generate_documents(20_000, seed=1)]
    tokenizer = train_tokenizer(texts, TokenizerSettings(vocab_size=2000))
    shape = StudentSettings(layers=options.layers, heads=4, width=options.width, context=256)
    model = build_student(shape, tokenizer, seed=1).eval()
    prompts = tokenizer([PROMPT] * options.stories, return_tensors="pt")

    def ours() -> None:
        write_stories(
            model, tokenizer, PROMPT, seed=1, step=0, indices=range(options.stories), max_new_tokens=options.tokens
        )

    def theirs() -> None:
        model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            do_sample=True,
            top_k=0,
            max_new_tokens=options.tokens,
        )

    for warm_up in (ours, theirs):
        warm_up()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(options.rounds)]
    print(f"{parameter_count(model):,} parameters, {options.stories} stories x {options.tokens} tokens, fp32")
    print(f"{torch.get_num_threads()} threads, medians of {options.rounds} rounds taken in turn")
    print(f"ours      {statistics.median(a for a, _ in pairs):6.2f} s")
    print(f"generate  {statistics.median(b for _, b in pairs):6.2f} s")
    print(f"generate / ours, median of pairs: {statistics.median(b / a for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
