"""Train the topic vectors (data/topics.json.gz) on stories: which words belong together in one story.

    python -m services.teacher.judges.rules.build_topics --corpora FOLDER

FOLDER as for `build`; only rows of split `train` are read, only vectors leave. Needs torch; a few minutes of one core.
The same input gives the same file on the same kind of processor.

Self-supervised: the new words of a sentence, summed, are to find the words before it among those before the 1,023 other
sentences of the batch, all of one corpus so that no style gives them away, and the other way round (InfoNCE: van den
Oord et al. 2018; the task is the next-sentence choice of quick thoughts, Logeswaran & Lee 2018). What a word's
vector times the context's learns is the log-odds that the sentence goes on with this story rather than another one.
"""

import argparse
import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, softplus

from services.teacher.judges.rules.build import DATA, SOURCES, read_train
from services.teacher.judges.rules.classes import OPEN
from services.teacher.judges.rules.lexicon import model
from services.teacher.judges.rules.text import read
from services.teacher.judges.rules.topics import MEMORY, STEPS, may_count

DIMENSIONS, MIN_COUNT = 24, 60
WORDS = {"childrens_stories.jsonl": 10**9, "tinystories_sample.jsonl": 10**9, "short_fiction.jsonl.gz": 6_000_000}
REPEATS = {"childrens_stories.jsonl": 3, "tinystories_sample.jsonl": 3, "short_fiction.jsonl.gz": 1}  # an epoch
EPOCHS, BATCH, RATE, DROPPED = 4, 1024, 1e-2, 0.15
CONTEXT, NEW = 40, 10  # words before and new words that an example keeps
LONGEST = 60_000  # characters read of one text, so that no novel counts for a hundred tales
SPREAD = 0.99  # share of the vectors' entries within the range of the code

Story = list[list[str]]
Ids = NDArray[np.int16]


def stories(folder: Path, name: str) -> Iterator[Story]:
    """The content words of each sentence of each text."""
    tagger = model()
    open_words = {w for w, entry in tagger.entries.items() if tagger.classes[entry.classes[0][0]] in OPEN}
    for text in read_train(folder, name, WORDS[name]):
        yield [
            [t.lower for t in s.tokens if may_count(t) and t.lower in open_words]
            for s in read(text[:LONGEST]).sentences
        ]


def examples(story: Story, index: dict[str, int]) -> Iterator[tuple[list[int], list[int]]]:
    """(words before, latest first; new words) of each sentence that has both."""
    before: list[int] = []
    for sentence in story:
        words = [index[w] for w in sentence if w in index]
        new = [w for w in dict.fromkeys(words) if w not in before[-MEMORY:]]
        if new and len(before) >= 3:
            yield before[: -CONTEXT - 1 : -1], new[:NEW]
        before += words


def padded(rows: list[list[int]], width: int) -> Ids:
    """(N, width) with zeros after each row."""
    out = np.zeros((len(rows), width), dtype=np.int16)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


class Vectors(torch.nn.Module):
    """The vectors, how sharply their product counts, and how fast the words before fade."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(words + 1, DIMENSIONS, padding_idx=0)
        torch.nn.init.normal_(self.table.weight, std=0.2)
        with torch.no_grad():
            self.table.weight[0] = 0.0
        self.log_scale = torch.nn.Parameter(torch.tensor(1.5))
        self.fading = torch.nn.Parameter(torch.tensor(-3.0))

    def forward(self, before_BN: torch.Tensor, new_BM: torch.Tensor) -> torch.Tensor:
        """(B, B): how well the new words of each sentence (columns) go with the words before each (rows)."""
        kept = (before_BN > 0) & (torch.rand(before_BN.shape) > DROPPED)
        weight = kept * torch.exp(-softplus(self.fading) * torch.arange(before_BN.shape[1]))
        context = (self.table(before_BN) * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(0.5)
        said = (self.table(new_BM) * (torch.rand(new_BM.shape) > DROPPED)[..., None]).sum(1)
        scores: torch.Tensor = self.log_scale.exp() * (context @ said.T)
        return scores


def train(sources: list[tuple[Ids, Ids, int]], words: int) -> Vectors:
    """Vectors after EPOCHS over the (before, new, repeats) of each corpus."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shuffle = np.random.default_rng(0)
    vectors = Vectors(words)
    optimiser = torch.optim.Adam(vectors.parameters(), lr=RATE)
    steps = EPOCHS * sum(repeats * (len(new) // BATCH) for _, new, repeats in sources)
    fade = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.02, 1.0 - step / max(1, steps)))
    answer = torch.arange(BATCH)
    for epoch in range(EPOCHS):
        batches = [
            (source, order[i : i + BATCH])
            for source, (_, new, repeats) in enumerate(sources)
            for order in [shuffle.permutation(len(new)) for _ in range(repeats)]
            for i in range(0, len(new) - BATCH + 1, BATCH)
        ]
        total = 0.0
        for at in shuffle.permutation(len(batches)):
            source, rows = batches[at]
            before, new, _ = sources[source]
            scores = vectors(torch.from_numpy(before[rows]).long(), torch.from_numpy(new[rows]).long())
            loss = cross_entropy(scores, answer) + cross_entropy(scores.T, answer)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            fade.step()
            total += loss.item() / 2
        print(f"epoch {epoch + 1}: {total / max(1, len(batches)):.4f} nats a choice among {BATCH}", flush=True)
    return vectors


def main() -> None:
    """Read the corpora, train, write the data file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    folder = parser.parse_args().corpora
    corpora = {name: list(stories(folder, name)) for name in SOURCES}
    counts = Counter(w for told in corpora.values() for story in told for s in story for w in s)
    words = sorted(w for w, n in counts.items() if n >= MIN_COUNT)
    index = {w: i + 1 for i, w in enumerate(words)}
    sources = []
    for name, told in corpora.items():
        pairs = [pair for story in told for pair in examples(story, index)]
        sources.append((padded([b for b, _ in pairs], CONTEXT), padded([n for _, n in pairs], NEW), REPEATS[name]))
    vectors = train(sources, len(words))
    with torch.no_grad():
        table = (vectors.table.weight[1:] * torch.exp(0.5 * vectors.log_scale)).numpy()
        keep = float(torch.exp(-softplus(vectors.fading)))
    step = float(np.quantile(np.abs(table), SPREAD)) / (STEPS / 2 - 1)
    codes = np.clip(np.rint(table / step) + STEPS / 2, 0, STEPS - 1).astype(np.uint8).ravel()
    packed = (codes[0::2] << 4 | codes[1::2]).tobytes()
    content = {
        "words": " ".join(words),
        "dimensions": DIMENSIONS,
        "step": round(step, 5),
        "keep": round(keep, 5),
        "codes": base64.b64encode(packed).decode(),
    }
    text = json.dumps(content, separators=(",", ":"))
    (DATA / "topics.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(words)} words from {sum(len(n) for _, n, _ in sources)} sentences")


if __name__ == "__main__":
    main()
