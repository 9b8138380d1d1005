"""Writes `collated.json`: what the BabyLM 2025 pipeline's collate_preds.py makes of the made-up run.

    .venv/bin/python -m tests.submission.record DIR PYTHON

DIR is a checkout of github.com/babylm/evaluation-pipeline-2025 (recorded with bf55c11), PYTHON one with its
requirements. The script runs as it is, but for the tables of sizes and revisions that it checks against: they are
set to those of `made_up`, for the leaderboard's would make a file of 30 MB.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.submission import made_up

RECORDED = Path(__file__).parent / "collated.json"
RUN = """
import json, sys
from evaluation_pipeline import collate_preds
for name, value in json.loads(sys.argv.pop(1)).items():
    assert type(getattr(collate_preds, name)) is type(value), name
    setattr(collate_preds, name, value)
collate_preds.main()
"""


def tables() -> dict[str, Any]:
    """The script's constants: a number where all paradigms have equally many, or one for each."""
    sizes = made_up.expected()
    fast = {name: part.items for name, part in sizes.fast.items()}
    full = {name: part.items for name, part in sizes.full.items()}
    single = ("reading", "wug_adj", "wug_past")
    return {
        "STRICT_SMALL_FAST_REVISIONS": list(made_up.REVISIONS),
        "AOA_SIZE": sizes.aoa,
        "FAST_SIZES": {n: p if n == "entity_tracking" else next(iter(p.values())) for n, p in fast.items()},
        "FULL_SIZES": {n: p[n] if n in single else p for n, p in full.items()} | sizes.glue,
    }


def main(pipeline: Path, python: Path) -> None:
    """Make the run, let both sides collate it, keep the pipeline's file."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data = made_up.write_data(work / "evaluation_data" / "fast_eval")
        ours = made_up.write_submission(made_up.write_run(work / "tiny", data), work)
        ours.unlink()
        options = ["--model_path_or_name", "tiny", "--backend", "causal", "--fast", "--track", made_up.TRACK]
        options += ["--results_dir", f"{work}/results", "--fast_eval_dir", str(data)]
        subprocess.run([python, "-c", RUN, json.dumps(tables()), *options], cwd=pipeline, check=True)
        RECORDED.write_text(json.dumps(json.loads(ours.read_text(encoding="utf-8")), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).absolute())
