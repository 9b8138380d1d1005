"""Current TRL's part of `bench.learning`: its GRPOTrainer; runs in an environment of its own."""

import json
import sys
import tempfile
import time
from typing import Any

from decoding_trl import word_tokenizer  # type: ignore[import-not-found,unused-ignore]

Times = dict[str, float]


def now() -> tuple[float, float]:
    """Wall and CPU time so far, in seconds."""
    return time.perf_counter(), time.process_time()


def between(start: tuple[float, float], end: tuple[float, float]) -> Times:
    """Seconds from one moment to another."""
    return {"wall": end[0] - start[0], "cpu": end[1] - start[1]}


def main() -> None:
    """Write a batch and learn from it `epochs` times for each line of standard input, and print the times."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found,unused-ignore]

    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    marks: dict[str, tuple[float, float]] = {}

    class Timed(GRPOTrainer):  # type: ignore[misc,unused-ignore]
        def _generate(self, *args: Any) -> Any:
            made = super()._generate(*args)
            marks["written"] = now()
            return made

    class InTurn(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % task["epochs"] == 0:
                written = marks["written"]
                print(json.dumps({"write": between(marks["begun"], written), "learn": between(written, now())}))
                sys.stdout.flush()
                control.should_training_stop = not sys.stdin.readline()
                marks["begun"] = now()

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [len(set(ids)) / task["tokens"] for ids in completion_ids]

    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    prompt = " ".join(f"w{i}" for i in task["prompt"])
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=task["stories"],
            num_generations=task["stories"],
            num_iterations=task["epochs"],
            max_completion_length=task["tokens"],
            learning_rate=task["learning_rate"],
            lr_scheduler_type="constant",
            loss_type="grpo",
            beta=task["kl"],
            max_steps=10**6,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Timed(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [prompt] * 64}),
            processing_class=word_tokenizer(model.config.vocab_size),
            callbacks=[InTurn()],
        )
        if sys.stdin.readline():
            marks["begun"] = now()
            trainer.train()


if __name__ == "__main__":
    main()
