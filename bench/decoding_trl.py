"""TRL 0.9.4's part of `bench.decoding`; runs in an environment of its own, for which it imports nothing of ours."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Times(NamedTuple):
    """Seconds of one call, and the tokens it wrote."""

    wall: float
    cpu: float
    tokens: int


def timed(work: Callable[[], int]) -> Times:
    """Wall and CPU time of one call, which returns a number of tokens."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = work()
    return Times(time.perf_counter() - wall, time.process_time() - cpu, tokens)


def word_tokenizer(vocabulary: int) -> Any:
    """`w0 w1 ...`: TRL wants a tokenizer, but only pads with it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w3"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w0", pad_token="w1", eos_token="w2")  # noqa: S106


def paper_generate(trainer: Any, prompts: list[Any], tokens: int) -> Any:
    """Prompts and stories as arXiv 2509.15714 has them written, `tokens` at most."""
    import torch

    with torch.no_grad():
        return trainer.generate(
            prompts,
            max_new_tokens=tokens,
            min_length=-1,
            top_k=0,
            top_p=1.0,
            do_sample=True,
            num_beams=1,
            pad_token_id=trainer.tokenizer.eos_token_id,
        )


def main() -> None:
    """Decode once for each line of standard input, and print a line with the times."""
    import torch
    from trl import (  # type: ignore[import-not-found,unused-ignore]
        AutoModelForCausalLMWithValueHead,
        PPOConfig,
        PPOTrainer,
    )

    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    model = AutoModelForCausalLMWithValueHead.from_pretrained(task["model"])
    tokenizer = word_tokenizer(model.config.vocab_size)
    stories = task["stories"]
    trainer = PPOTrainer(PPOConfig(batch_size=stories, mini_batch_size=stories), model, None, tokenizer)
    model.eval()
    prompt = torch.tensor(task["prompt"])

    def write() -> int:
        return sum(len(text) - len(prompt) for text in paper_generate(trainer, [prompt] * stories, task["tokens"]))

    for _ in sys.stdin:
        print(json.dumps(timed(write)._asdict()), flush=True)


if __name__ == "__main__":
    main()
