"""Run in the trainer's image: who judged a run's stories, by its table of stories."""

import argparse
import collections
import sys
from pathlib import Path

from pyarrow import parquet

parser = argparse.ArgumentParser()
parser.add_argument("run", help="name, or how it begins")
parser.add_argument("--workers", type=int, required=True)
parser.add_argument("--backend", required=True)
asked = parser.parse_args()
[folder] = [path for path in Path("/runs").iterdir() if path.name.startswith(asked.run)]
rows = [row for part in sorted(folder.glob("stories/*.parquet")) for row in parquet.read_table(part).to_pylist()]
workers = collections.Counter(row["worker"] for row in rows)
backends = collections.Counter(row["teacher_backend"] for row in rows)
status = collections.Counter(row["status"] for row in rows)
print(f"      {folder.name}: {len(rows)} stories, {dict(status)}, by {dict(backends)}, workers {dict(workers)}")
if not rows or set(backends) != {asked.backend} or len(workers) != asked.workers or set(status) != {"ok"}:
    sys.exit(f"expected stories, all ok, judged by {asked.backend} in {asked.workers} processes")
