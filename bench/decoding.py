"""Decoding: ours against our former path, transformers' `generate` and TRL 0.9.4's, one model, one machine, one run.

    .venv/bin/python -m bench.decoding [--trl-python PATH] [--threads 2] [--rounds 7]
    .venv/bin/python -m bench.decoding --device cuda --dtype bfloat16

A randomly initialised GPT-2 of 7.4M parameters continues one prompt 32 times for 90 tokens at temperature 1:

- ours: `services.student_trainer.decoding.decode`
- graph: the same with `cuda_graph`, where `--graph` asks for it; on a CPU its steps run one by one
- former: the same sampling and random streams over the model's own forward and a growing `DynamicCache`
- generate: transformers' `generate(do_sample=True, top_k=0)`, all stories in one batch
- trl: `PPOTrainer.generate` of TRL 0.9.4, as arXiv 2509.15714 calls it (batches of 4), in a process of its own.
  It needs an environment with torch 2.13.0, trl 0.9.4, transformers 4.53 and rich; `--trl-python` names its Python.
  On the CPU and in fp32 only.

They run in turn, round by round. Times are medians, ratios medians of the rounds' ratios. CPU seconds count all threads
and suffer less from a machine that others use too.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, cast

import torch
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, PreTrainedModel

from bench.decoding_trl import Times, timed
from fabula_proto.allocator import keep_freed_memory
from services.student_trainer.decoding import decode
from services.student_trainer.sampling import story_uniforms
from services.student_trainer.student import ATTENTION

PROMPT_TOKENS = 19  # the paper's prompt with a vocabulary of 16,000
EOS = 2


class Task(NamedTuple):
    """What each way of decoding is asked to do."""

    prompt: list[int]
    stories: int
    tokens: int


def build(folder: Path, options: argparse.Namespace) -> None:
    """Write a random student to `folder`."""
    config = GPT2Config(
        vocab_size=options.vocab,
        n_positions=512,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=0,
        eos_token_id=EOS,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def loaded(folder: str | Path, options: argparse.Namespace, **how: str) -> PreTrainedModel:
    """The student as the options want it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.dtype), **how)
    return cast(PreTrainedModel, model.to(options.device).eval())


def where(options: argparse.Namespace) -> str:
    """Precision and machine, in words."""
    on = torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} threads"
    return f"{options.dtype}, {on}, torch {torch.__version__}"


def ours(model: PreTrainedModel, task: Task, *, cuda_graph: bool = False) -> Callable[[], int]:
    """Our decoder."""

    def write() -> int:
        uniforms_BT = story_uniforms(42, 0, range(task.stories), task.tokens)
        prompts = [task.prompt] * task.stories
        decoded = decode(
            model, prompts, uniforms_BT, temperature=1.0, eos_token_id=EOS, pad_token_id=1, cuda_graph=cuda_graph
        )
        return int(decoded.lengths_B.sum())

    return write


def former(model: PreTrainedModel, task: Task) -> Callable[[], int]:
    """The decoder that stood here before: the model's forward, a growing cache, every row to the end."""

    @torch.no_grad()
    def write() -> int:
        device, cache, written = model.device, DynamicCache(config=model.config), 0
        uniforms_BT = story_uniforms(42, 0, range(task.stories), task.tokens).to(device)
        inputs = torch.tensor([task.prompt], device=device).expand(task.stories, -1)
        open_B = torch.ones(task.stories, dtype=torch.bool, device=device)
        for position in range(task.tokens):
            seen_BS = torch.ones(task.stories, len(task.prompt) + position, dtype=torch.long, device=device)
            output = model(inputs, attention_mask=seen_BS, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cdf_BV = torch.softmax(output.logits[:, -1].float(), dim=-1).cumsum(dim=-1)
            inputs = torch.searchsorted(cdf_BV, uniforms_BT[:, position, None].float() * cdf_BV[:, -1:], right=True)
            inputs.clamp_(max=cdf_BV.shape[1] - 1)  # a uniform may round to 1
            written += int(open_B.sum())
            open_B &= inputs[:, 0] != EOS
            if not open_B.any():
                break
        return written

    return write


def generate(model: PreTrainedModel, task: Task) -> Callable[[], int]:
    """transformers' `generate`, in one batch."""
    prompts = torch.tensor([task.prompt] * task.stories, device=model.device)

    def write() -> int:
        written = model.generate(  # type: ignore[operator]
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, max_new_tokens=task.tokens
        )
        return sum(_length(row) for row in written[:, len(task.prompt) :].tolist())

    return write


def _length(row: list[int]) -> int:
    return row.index(EOS) + 1 if EOS in row else len(row)


@contextmanager
def trl(python: Path, folder: Path, task: Task, threads: int) -> Iterator[Callable[[], Times]]:
    """A process that decodes once for each line it is sent, and answers with its times."""
    script = Path(__file__).with_name("decoding_trl.py")
    arguments = json.dumps({"model": str(folder), "threads": threads, **task._asdict()})
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(  # noqa: S603
        [python, script, arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        requests, answers = cast(IO[str], process.stdin), cast(IO[str], process.stdout)

        def write() -> Times:
            requests.write("go\n")
            requests.flush()
            for line in answers:
                if line.startswith("{"):
                    return Times(**json.loads(line))
            raise SystemExit(f"{python} {script} ended with {process.wait()}; what it said stands above")

        yield write
        requests.close()


def report(rounds: list[dict[str, Times]]) -> None:
    """A table: medians, and how many times longer than ours."""
    print(f"{'':10}{'wall s':>9}{'CPU s':>9}{'wall / ours':>13}{'CPU / ours':>12}{'tokens':>9}")
    for name in rounds[0]:
        walls, cpus = [r[name].wall for r in rounds], [r[name].cpu for r in rounds]
        wall_ratio = statistics.median(r[name].wall / r["ours"].wall for r in rounds)
        cpu_ratio = statistics.median(r[name].cpu / r["ours"].cpu for r in rounds)
        print(
            f"{name:10}{statistics.median(walls):9.2f}{statistics.median(cpus):9.2f}"
            f"{wall_ratio:13.2f}{cpu_ratio:12.2f}{rounds[0][name].tokens:9,}"
        )


def where_time_goes(model: PreTrainedModel, task: Task) -> None:
    """The operators that take most of our decoder's CPU time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        ours(model, task)()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    print("\nours by operator, share of CPU time:")
    for event in events[:14]:
        print(f"  {event.key:38}{event.self_cpu_time_total / whole:7.1%}{event.count:8} calls")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"stories": 32, "tokens": 90, "layers": 4, "heads": 4, "width": 256, "vocab": 16_000}
    for name, default in (numbers | {"threads": 2, "rounds": 7}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model's weights")
    parser.add_argument("--graph", action="store_true", help="measure our decoder with a CUDA graph, too")
    parser.add_argument("--trl-python", type=Path, help="Python of an environment with TRL 0.9.4")
    parser.add_argument("--profile", action="store_true", help="show where our decoder's time goes, too")
    options = parser.parse_args()
    if options.trl_python is not None and (options.device, options.dtype) != ("cpu", "float32"):
        parser.error("--trl-python measures on the CPU in float32; leave out --device and --dtype")
    keep_freed_memory()  # as the trainer does
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), options)
        task = Task([5 + 7 * i for i in range(PROMPT_TOKENS)], options.stories, options.tokens)
        eager = loaded(folder, options, attn_implementation=ATTENTION)
        ways = {"ours": ours(eager, task)}
        if options.graph:
            ways["graph"] = ours(eager, task, cuda_graph=True)
        ways |= {"former": former(eager, task), "generate": generate(loaded(folder, options), task)}
        runs: dict[str, Callable[[], Times]] = {name: partial(timed, way) for name, way in ways.items()}
        if options.trl_python is None:
            rounds = measure(runs, options.rounds)
        else:
            with trl(options.trl_python, Path(folder), task, options.threads) as run_trl:
                rounds = measure(runs | {"trl": run_trl}, options.rounds)
        parameters = sum(parameter.numel() for parameter in eager.parameters())
        print(f"{parameters:,} parameters, {task.stories} stories x {task.tokens} tokens, {where(options)}")
        print(f"medians of {options.rounds} rounds taken in turn")
        report(rounds)
        if options.trl_python is None:
            print("trl was not run: give --trl-python")
        if options.profile:
            where_time_goes(eager, task)


def measure(runs: dict[str, Callable[[], Times]], rounds: int) -> list[dict[str, Times]]:
    """Each once a round, after one round that does not count."""
    return [{name: run() for name, run in runs.items()} for _ in range(rounds + 1)][1:]


if __name__ == "__main__":
    main()
