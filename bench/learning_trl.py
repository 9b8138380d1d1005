"""TRL 0.9.4's part of `bench.learning`; runs in an environment of its own, for which it imports nothing of ours."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from decoding_trl import paper_generate, word_tokenizer  # type: ignore[import-not-found,unused-ignore]


def trainer_of(task: dict[str, Any]) -> Any:
    """A PPOTrainer with the paper's settings, on the model, value head and learning rate of the task."""
    import torch
    from trl import (  # type: ignore[import-not-found,unused-ignore]
        AutoModelForCausalLMWithValueHead,
        PPOConfig,
        PPOTrainer,
    )

    torch.set_num_threads(task["threads"])
    model = AutoModelForCausalLMWithValueHead.from_pretrained(task["model"])
    stories = task["stories"]
    config = PPOConfig(
        batch_size=stories, mini_batch_size=stories, ppo_epochs=task["epochs"], learning_rate=task["learning_rate"]
    )
    trainer = PPOTrainer(config, model, None, word_tokenizer(model.config.vocab_size))
    trainer.model.v_head.summary.load_state_dict(torch.load(task["value_head"]))
    return trainer


def main() -> None:
    """Write or learn once for each line of standard input, `write`, `learn` or `save <file>`, and print the times."""
    import torch

    task = json.loads(sys.argv[1])
    trainer = trainer_of(task)
    batch = torch.load(task["batch"])
    queries, responses, scores = ([*batch[name]] for name in ("queries", "responses", "scores"))

    for line in sys.stdin:
        order, *rest = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        if order == "write":
            paper_generate(trainer, queries, task["tokens"])
        elif order == "learn":
            trainer.step(list(queries), list(responses), list(scores))
        else:
            torch.save(trainer.model.state_dict(), Path(rest[0]))
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
