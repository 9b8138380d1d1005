"""A whole RL step, the teacher left out, against TRL: one model, one machine, one run.

    .venv/bin/python -m bench.learning --trl-python OLD --grpo-python NEW [--threads 2] [--rounds 5]
    .venv/bin/python -m bench.learning --device cuda --dtype bfloat16 --graph

A randomly initialised GPT-2 of 7.4M parameters (vocabulary 16,000) writes 32 stories of 90 tokens to one prompt, and
learns from 32 such stories in 4 passes over the whole batch:

- ppo: our `decode`, then `PPO.gather` and `update`
- trl ppo: `PPOTrainer.generate` and `.step` of TRL 0.9.4, as arXiv 2509.15714 calls them
- grpo: our `decode`, then `GRPO.gather` and `update`, with a KL penalty
- trl grpo: `GRPOTrainer` of current TRL, its batch written by transformers' `generate`; gradient checkpointing off
- generate: transformers' `generate` of this environment, in one batch; it only writes, and is held against ppo

Ours learns from tokens drawn at random, as TRL 0.9.4 does: from the very same ones, whose weights are then compared.
`--dtype bfloat16` is `interact.dtype`: what is written stays fp32. `--graph` is `interact.cuda_graph`.
TRL runs in processes of its own, on the CPU in fp32; either Python may be left out. To make them:

    python3.11 -m venv OLD && OLD/bin/pip install torch==2.13.0 trl==0.9.4 transformers==4.53.3 rich
    python3.11 -m venv NEW && NEW/bin/pip install torch==2.13.0 trl==1.16.0

All run in turn, round by round, after one round that does not count. Times are medians, ratios medians of the rounds'
ratios. CPU seconds count all threads, those that wait for another included.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.decoding import EOS, PROMPT_TOKENS, Task, build, generate, where
from fabula_proto.allocator import keep_freed_memory
from services.student_trainer.algorithms.experience import Algorithm, JudgedStories
from services.student_trainer.algorithms.grpo import GRPO
from services.student_trainer.algorithms.ppo import PPO
from services.student_trainer.algorithms.updating import make_optimizer, update
from services.student_trainer.decoding import decode
from services.student_trainer.learning_settings import GRPOSettings, PPOSettings
from services.student_trainer.policy import Policy
from services.student_trainer.sampling import story_uniforms
from services.student_trainer.student import ATTENTION

EPOCHS, LEARNING_RATE, KL_PPO, KL_GRPO = 4, 1e-6, 0.2, 0.04
PROMPT = [5 + 7 * i for i in range(PROMPT_TOKENS)]
PARTS = ("write", "learn")

Times = dict[str, dict[str, float]]  # part -> wall and cpu seconds


def timed(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Wall and CPU seconds of a call, until the device has done it all."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


class Ours:
    """One of our algorithms on its own copy of the model."""

    def __init__(
        self, algorithm: Algorithm, kl: float, folder: Path, batch: dict[str, Tensor], options: argparse.Namespace
    ) -> None:
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=ATTENTION).to(options.device)
        self.algorithm, self.kl = algorithm, kl
        self.cuda_graph = options.graph
        self.policy = Policy.from_student(model, seed=1, value_head=algorithm.needs_value_head)
        self.policy.bfloat16 = options.dtype == "bfloat16"
        self.optimizer = make_optimizer(self.policy, algorithm.settings)
        batch = {name: tensor.to(options.device) for name, tensor in batch.items()}
        scores = batch["scores"]
        self.judged = JudgedStories(
            torch.cat([batch["queries"], batch["responses"]], dim=1),
            torch.ones(batch["responses"].shape, device=scores.device),
            scores,
            torch.ones_like(scores),
        )

    def write(self) -> None:
        """Decode a batch."""
        stories, tokens = self.judged.mask_BT.shape
        uniforms_BT = story_uniforms(42, 0, range(stories), tokens)
        decode(
            self.policy.model,
            [PROMPT] * stories,
            uniforms_BT,
            temperature=1.0,
            eos_token_id=EOS,
            pad_token_id=1,
            cuda_graph=self.cuda_graph,
        )

    def learn(self) -> None:
        """One update."""
        gathered = self.algorithm.gather(self.policy, self.judged, self.kl, 1.0)
        update(self.algorithm, self.policy, self.optimizer, gathered, 1.0, torch.Generator().manual_seed(0))

    def __call__(self) -> Times:
        device = self.policy.model.device
        return {"write": timed(self.write, device), "learn": timed(self.learn, device)}

    def weights(self) -> dict[str, Tensor]:
        """By the names of TRL's policy with a value head."""
        head = {} if self.policy.value_head is None else self.policy.value_head.state_dict()
        weights: dict[str, Tensor] = self.policy.model.state_dict()
        return weights | {f"v_head.{name}": tensor for name, tensor in head.items()}


@contextmanager
def process(python: Path, script: str, task: dict[str, Any]) -> Iterator[Callable[[str], Any]]:
    """A process that answers each line with a line of JSON."""
    path = Path(__file__).with_name(script)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(task["threads"]),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with subprocess.Popen(  # noqa: S603
        [python, path, json.dumps(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as running:
        orders, answers = cast(IO[str], running.stdin), cast(IO[str], running.stdout)

        def ask(order: str) -> Any:
            orders.write(order + "\n")
            orders.flush()
            for line in answers:
                if line.startswith("{"):
                    return json.loads(line)
            raise SystemExit(f"{python} {path} ended with {running.wait()}; what it said stands above")

        yield ask
        orders.close()
        answers.read()  # what a trainer says at its end


def compare(ours: Ours, start: dict[str, Tensor], theirs: dict[str, Tensor]) -> str:
    """How far the weights moved, and how far apart they ended."""
    mine = ours.weights()
    moved = max(float((mine[name] - start[name]).abs().max()) for name in mine)
    apart = max(float((mine[name] - theirs[name]).abs().max()) for name in mine)
    return f"weights after one ppo step: moved by up to {moved:.1e}, differ from TRL 0.9.4's by at most {apart:.1e}"


def report(rounds: list[dict[str, Times]]) -> None:
    """Medians, and how many times longer than ours of the same algorithm."""
    print(f"{'':10}{'part':7}{'wall s':>8}{'CPU s':>8}{'wall / ours':>13}{'CPU / ours':>12}")
    for name, first in rounds[0].items():
        own = "ppo" if name == "generate" else name.removeprefix("trl ")
        for part in (*PARTS, "step") if len(first) == len(PARTS) else first:
            parts = PARTS if part == "step" else (part,)

            def seconds(round_: dict[str, Times], who: str, clock: str, parts: tuple[str, ...] = parts) -> float:
                return sum(round_[who][p][clock] for p in parts)

            cells = [f"{statistics.median(seconds(r, name, c) for r in rounds):8.2f}" for c in ("wall", "cpu")]
            ratios = [
                statistics.median(seconds(r, name, c) / seconds(r, own, c) for r in rounds) for c in ("wall", "cpu")
            ]
            print(f"{name:10}{part:7}{cells[0]}{cells[1]}{ratios[0]:13.2f}{ratios[1]:12.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"stories": 32, "tokens": 90, "layers": 4, "heads": 4, "width": 256, "vocab": 16_000}
    for name, default in (numbers | {"threads": 2, "rounds": 5}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="as interact.dtype")
    parser.add_argument("--graph", action="store_true", help="write with a CUDA graph")
    parser.add_argument("--trl-python", type=Path, help="Python of an environment with TRL 0.9.4")
    parser.add_argument("--grpo-python", type=Path, help="Python of an environment with current TRL")
    options = parser.parse_args()
    if (options.trl_python or options.grpo_python) and (options.device, options.dtype) != ("cpu", "float32"):
        parser.error("TRL is measured on the CPU in float32; leave out --device and --dtype")
    keep_freed_memory()  # as the trainer does
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name, ExitStack() as processes:
        folder, generator = Path(name), torch.Generator().manual_seed(0)
        build(folder, options)
        batch = {
            "queries": torch.tensor([PROMPT] * options.stories),
            "responses": torch.randint(3, options.vocab, (options.stories, options.tokens), generator=generator),
            "scores": torch.rand(options.stories, generator=generator),
        }
        torch.save(batch, folder / "batch.pt")
        ppo = Ours(PPO(PPOSettings(epochs=EPOCHS, learning_rate=LEARNING_RATE), "k1"), KL_PPO, folder, batch, options)
        settings = GRPOSettings(epochs=EPOCHS, learning_rate=LEARNING_RATE, max_grad_norm=1.0)
        grpo = Ours(GRPO(settings, "k3", options.tokens), KL_GRPO, folder, batch, options)
        if ppo.policy.value_head is not None:
            torch.save(ppo.policy.value_head.summary.state_dict(), folder / "value_head.pt")
        task = {name: getattr(options, name) for name in ("threads", "stories", "tokens")} | {
            "model": name,
            "batch": str(folder / "batch.pt"),
            "value_head": str(folder / "value_head.pt"),
            "prompt": PROMPT,
            "epochs": EPOCHS,
            "learning_rate": LEARNING_RATE,
            "kl": KL_GRPO,
        }
        runs: dict[str, Callable[[], Times]] = {"ppo": ppo}
        if options.trl_python is not None:
            old = processes.enter_context(process(options.trl_python, "learning_trl.py", task))
            runs["trl ppo"] = lambda: {part: old(part) for part in PARTS}
        runs["grpo"] = grpo
        if options.grpo_python is not None:
            new = processes.enter_context(process(options.grpo_python, "learning_grpo.py", task))
            runs["trl grpo"] = lambda: cast(Times, new("go"))
        writer = AutoModelForCausalLM.from_pretrained(folder).to(options.device).eval()
        write = generate(writer, Task(PROMPT, options.stories, options.tokens))
        runs["generate"] = lambda: {"write": timed(write, writer.device)}
        start = {name: tensor.clone() for name, tensor in ppo.weights().items()}
        for run in runs.values():
            run()
        verdict = "weights were not compared with TRL's: give --trl-python"
        if options.trl_python is not None:
            old(f"save {folder / 'theirs.pt'}")
            verdict = compare(ppo, start, torch.load(folder / "theirs.pt"))
        rounds = [{name: run() for name, run in runs.items()} for _ in range(options.rounds)]
    print(f"{sum(p.numel() for p in ppo.policy.model.parameters()):,} parameters, {options.stories} stories x", end=" ")
    graph = ", cuda_graph" if options.graph else ""
    print(f"{options.tokens} tokens, {EPOCHS} passes, {where(options)}{graph}, {options.rounds} rounds in turn")
    report(rounds)
    print(verdict)


if __name__ == "__main__":
    main()
