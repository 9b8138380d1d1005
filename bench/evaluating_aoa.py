"""Surprisals for the age of acquisition side by side, of two checkpoints.

The pipeline's script asks the Hub for a model's revisions chck_1M, chck_2M, ... and cannot take them from folders: of a
folder it would measure the same weights for each. So it is given a cache of the Hub, offline, with two revisions of a
model that exists nowhere: the checkpoint, and the same with its weights a tenth smaller. It reports the other revisions
as errors and goes on. `fabula evaluate` measures the two folders in two processes, whose seconds are added.
"""

import argparse
import copy
import json
from collections.abc import Mapping
from math import inf, isnan
from pathlib import Path

import torch

from bench.evaluating_process import Seconds, fabula, pipeline, print_times
from services.evaluator.adapters.checkpoint import LoadedCheckpoint
from services.evaluator.adapters.eval_data.layout import find

NAME, REVISIONS = "bench/aoa", ("chck_1M", "chck_2M")
TOLERANCE = 1e-3  # nats

Rows = dict[tuple[str, str, int], float]  # (revision, word, which context) -> nats


def compare_aoa(options: argparse.Namespace, model: Path, loaded: LoadedCheckpoint, work: Path) -> None:
    """Run both sides, and print what came out."""
    source = find(options.data, "aoa")
    if source is None:
        print(f"aoa: no data in {options.data}", flush=True)
        return
    words = json.loads(source.read_text(encoding="utf-8"))
    data = work / "aoa-data" / "full_eval" / "cdi_childes" / "cdi_childes.json"
    data.parent.mkdir(parents=True)
    data.write_text(json.dumps(dict(list(words.items())[: options.limit])), encoding="utf-8")
    checkpoints = dict(zip(REVISIONS, (model, _smaller(model, loaded, work / "smaller")), strict=True))
    cache = _cache(checkpoints, work / "hub")
    rounds = []
    for _ in range(options.rounds):
        there = _there(options, data, loaded.backend, cache, work)
        rounds.append((there, _here(options, data, loaded.backend, checkpoints, work)))
    (_, there_rows), (_, here_rows) = rounds[-1]
    if there_rows.keys() != here_rows.keys():
        raise SystemExit(f"the two sides have other contexts: {sorted(there_rows.keys() ^ here_rows.keys())[:5]}")
    gaps = [_gap(value, here_rows[key]) for key, value in there_rows.items()]
    equal, largest = sum(gap <= TOLERANCE for gap in gaps), max(gaps)
    print(f"aoa: {len(gaps)} surprisals of {len(REVISIONS)} checkpoints; equal {equal}/{len(gaps)}", end="; ")
    print(f"largest difference {largest:.1e} of {max(v for v in there_rows.values() if not isnan(v)):.1f} nats")
    print_times([(theirs[0], ours[0]) for theirs, ours in rounds])


def _gap(there: float, here: float) -> float:
    """0 where neither has a number: a context that is too long."""
    return 0.0 if isnan(there) and isnan(here) else inf if isnan(there) or isnan(here) else abs(there - here)


def _there(options: argparse.Namespace, data: Path, backend: str, cache: Path, work: Path) -> tuple[Seconds, Rows]:
    output = work / "there-aoa"
    arguments = ["--model_name", NAME, "--backend", backend, "--track_name", "strict-small"]
    arguments += ["--word_path", str(data), "--output_dir", str(output)]
    seconds = pipeline(options, "AoA_word.run", arguments, HF_HUB_CACHE=str(cache))
    return seconds, _rows(output / Path(NAME).stem / "main" / "zero_shot" / backend / "AoA_word" / "surprisal.json")


def _here(
    options: argparse.Namespace, data: Path, backend: str, checkpoints: Mapping[str, Path], work: Path
) -> tuple[Seconds, Rows]:
    wall, cpu, rows = 0.0, 0.0, Rows()
    for revision, model in checkpoints.items():
        output = work / f"here-aoa-{revision}"
        seconds = fabula(options, "aoa", data.parent.parent, model, backend, output)
        wall, cpu = wall + seconds[0], cpu + seconds[1]
        rows |= {(revision, *key[1:]): value for key, value in _rows(output / "aoa" / "surprisal.json").items()}
    return (wall, cpu), rows


def _rows(file: Path) -> Rows:
    rows = json.loads(file.read_text(encoding="utf-8"))["results"]
    return {(row["step"], row["target_word"], row["context_id"]): float(row["surprisal"]) for row in rows}


@torch.no_grad()
def _smaller(model: Path, loaded: LoadedCheckpoint, folder: Path) -> Path:
    """The checkpoint again, every weight a tenth smaller."""
    changed = copy.deepcopy(loaded.model)
    for weight in changed.parameters():
        weight.mul_(0.9)
    changed.save_pretrained(folder)
    for file in model.iterdir():
        if not (folder / file.name).exists() and file.suffix != ".safetensors":
            (folder / file.name).symlink_to(file.resolve())
    return folder


def _cache(checkpoints: Mapping[str, Path], folder: Path) -> Path:
    """What the Hub's client would keep of a model with these revisions."""
    place = folder / f"models--{NAME.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "snapshots").mkdir()
    for number, (revision, checkpoint) in enumerate(checkpoints.items(), start=1):
        commit = f"{number:040x}"
        (place / "refs" / revision).write_text(commit, encoding="utf-8")
        (place / "snapshots" / commit).symlink_to(checkpoint)
    return folder
