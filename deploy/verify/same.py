"""Run in the trainer's image: two runs ended alike, but for their names and for who judged when."""

import hashlib
import sys
from pathlib import Path

from pyarrow import parquet

ITS_OWN = {"run", "worker", "story_id"}
one, other = (Path("/runs") / name for name in sys.argv[1:3])
wrong = []


def weights(run: Path) -> dict[str, str]:
    files = sorted(run.glob("checkpoints/*/model.safetensors"))
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stories(run: Path) -> list[dict[str, object]]:
    parts = sorted(run.glob("stories/*.parquet"))
    return [
        {k: v for k, v in row.items() if k not in ITS_OWN} for p in parts for row in parquet.read_table(p).to_pylist()
    ]


if weights(one) != weights(other) or not weights(one):
    wrong.append(f"weights differ: {weights(one)} and {weights(other)}")
if (one / "ledger.json").read_text() != (other / "ledger.json").read_text():
    wrong.append("ledgers differ")
if stories(one) != stories(other) or not stories(one):
    wrong.append(f"stories differ: {len(stories(one))} and {len(stories(other))}")
print(f"      {len(weights(one))} checkpoints and {len(stories(one))} stories compared")
sys.exit("; ".join(wrong) if wrong else 0)
