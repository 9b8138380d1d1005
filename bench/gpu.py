"""`make gpu-bench`: what this project could not measure without a GPU, in one go.

    .venv/bin/python -m bench.gpu [--device cpu] [--rounds 5] [options of the benches]

Runs `bench.decoding` and `bench.learning` in fp32 and bf16, with and without CUDA graphs, then `pytest tests/gpu`.
`--device cpu` takes the same paths where there is no GPU; its numbers say nothing about one.
"""

import argparse
import subprocess
import sys

import torch


def main() -> None:
    """Run them one after the other; exits with 1 where one failed, with 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options, others = parser.parse_known_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} finds no CUDA GPU (a +cpu build never does: install PyPI's instead); "
            "--device cpu tries the same paths",
            file=sys.stderr,
        )
        raise SystemExit(2)
    where = ["--device", options.device, *others]
    commands = [["bench.decoding", *where, "--graph", "--dtype", dtype] for dtype in ("float32", "bfloat16")]
    for dtype in ("float32", "bfloat16"):
        commands += [["bench.learning", *where, "--dtype", dtype, *graph] for graph in ([], ["--graph"])]
    failed = 0
    for command in [*commands, ["pytest", "-q", "tests/gpu"]]:
        print(f"\n== {' '.join(command)}", flush=True)
        failed += subprocess.run([sys.executable, "-m", *command], check=False).returncode != 0  # noqa: S603
    raise SystemExit(min(failed, 1))


if __name__ == "__main__":
    main()
