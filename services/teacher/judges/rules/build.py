"""Build the data files (word list, class model, filter of word pairs) from corpora. Only counts leave them, no text.

    python -m services.teacher.judges.rules.build --corpora FOLDER

FOLDER holds childrens_stories.jsonl, tinystories_sample.jsonl and short_fiction.jsonl.gz; only rows of split `train`
are read. Needs numpy and, for the parts of speech that a word form can have, `lemminflect` 0.2.3 (MIT; after the NIH
SPECIALIST Lexicon): `pip install lemminflect`. Neither is needed to judge. The same input gives the same files.

The class model is a bigram hidden Markov model over word classes, trained by expectation maximisation with a dictionary
that says which classes a word can have (Kupiec 1992; Merialdo 1994); frequent function words are classes of their own.
"""

import argparse
import gzip
import importlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from services.teacher.judges.rules.classes import MARKS, OPEN, closed_group, coarse_classes, encode_table, fine_classes
from services.teacher.judges.rules.em import Tagger
from services.teacher.judges.rules.pairs import COMMON_ZIPF, encode
from services.teacher.judges.rules.text import Sentence, read

DATA = Path(__file__).parent / "data"
SOURCES = {"childrens_stories.jsonl": 10**9, "tinystories_sample.jsonl": 10**9, "short_fiction.jsonl.gz": 3_000_000}
MIN_PAIR = 8
MIN_COUNT, MIN_COUNT_UNLISTED, MAX_LENGTH = 4, 60, 18
EM_SENTENCES, EM_LENGTH, EM_ROUNDS = 60_000, 28, 6
_TAGS = {"NN": "NN", "NNS": "NNS", "VB": "VB", "VBD": "VBD", "VBN": "VBN", "VBG": "VBG", "VBZ": "VBZ"} | {
    "JJ": "JJ", "JJR": "JJ", "JJS": "JJ", "RB": "RB", "RBR": "RB", "RBS": "RB"
}  # fmt: skip


def read_train(folder: Path, name: str, most: int) -> Iterator[str]:
    """The texts of split `train` of one corpus, until `most` words have been read."""
    path, words = folder / name, 0
    with gzip.open(path, "rt", encoding="utf-8") if name.endswith(".gz") else path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["split"] == "train" and words < most:
                words += len(row["text"].split())
                yield row["text"]


def train_texts(folder: Path, *, everything: bool = False) -> Iterator[str]:
    """The training texts of all corpora, at most the stated number of words a source unless `everything` is wanted."""
    for name, most in SOURCES.items():
        yield from read_train(folder, name, 10**9 if everything else most)


def dictionary_tags(words: list[str]) -> dict[str, tuple[str, ...]]:
    """The open classes each word form can have, by lemminflect; empty for a word it does not know."""
    lemminflect: Any = importlib.import_module("lemminflect")
    tags: dict[str, tuple[str, ...]] = {}
    for word in words:
        found: set[str] = set()
        for pos, lemmas in lemminflect.getAllLemmas(word).items():
            for lemma in lemmas:
                for tag, forms in lemminflect.getAllInflections(lemma, upos=pos).items():
                    if word in forms and tag in _TAGS:
                        found.add(_TAGS[tag])
        if "NN" in found and not word.endswith("s"):
            found.discard("NNS")  # listed as its own plural: ability, fish
        tags[word] = tuple(sorted(found))
    return tags


def count_words(sentences: list[Sentence]) -> tuple[Counter[str], Counter[str]]:
    """Occurrences of each lower-case word, and how many of them were capitalised where no sentence starts."""
    counts: Counter[str] = Counter()
    capitals: Counter[str] = Counter()
    for sentence in sentences:
        for token in sentence.tokens:
            if token.kind == "word":
                counts[token.lower] += 1
                capitals[token.lower] += token.surface[0].isupper() and not token.first
    return counts, capitals


def countable_nouns(sentences: list[Sentence]) -> set[str]:
    """Words that follow a determiner where they could stand bare: at most 3 % of at least 15 such places are bare."""
    determiners = closed_group("determiners") | {"'s", "one", "own", "first", "other", "same", "last"}
    places = closed_group("prepositions") | closed_group("be_have_do") | {"and", "but", "saw", "took", "got", "made"}
    bare: Counter[str] = Counter()
    determined: Counter[str] = Counter()
    for sentence in sentences:
        words = [t.lower if t.kind == "word" else "," for t in sentence.tokens]
        for before, word in pairwise(words):
            bare[word] += before in places
            determined[word] += before in determiners
    return {w for w, n in determined.items() if n + bare[w] >= 15 and bare[w] <= 0.03 * (n + bare[w])}


def symbols(sentence: Sentence, lexicon: dict[str, tuple[str, ...]]) -> list[str]:
    """A sentence as lexicon entries: words, marks, and `<NAME>`-like stand-ins for what the lexicon lacks."""
    out = []
    for token in sentence.tokens:
        if token.kind == "word":
            capital = token.surface[0].isupper()
            if token.lower in lexicon and not (capital and not token.first and lexicon[token.lower][0] in OPEN):
                out.append(token.lower)
            else:
                out.append("<NAME>" if capital else "<UNKNOWN>")
        else:
            out.append({"end": ".", "pause": "," if token.surface == "," else ";", "number": "<NUM>"}[token.kind])
    return out


def main() -> None:
    """Read the corpora, train, write the data files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    folder = parser.parse_args().corpora
    sentences = [s for text in train_texts(folder) for s in read(text).sentences]
    counts, capitals = count_words(sentences)
    tags = dictionary_tags([w for w, n in sorted(counts.items()) if n >= MIN_COUNT])
    own = set(fine_classes())
    lexicon: dict[str, tuple[str, ...]] = {w: (w,) for w in sorted(own - set(OPEN) - set(MARKS) - {"^"})}
    for word, possible in tags.items():
        name = capitals[word] > 0.6 * counts[word]
        if word not in own and len(word) <= MAX_LENGTH and not name and len(word) > 1:
            if possible:
                lexicon[word] = possible
            elif counts[word] >= MIN_COUNT_UNLISTED:
                lexicon[word] = ("NN", "JJ", "RB")
    entries = lexicon | {",": (",",), ";": (";",), ".": (".",), "<NAME>": ("NAME",), "<NUM>": ("NUM",)}
    entries["<UNKNOWN>"] = ("NN", "NNS", "JJ", "VB", "VBD", "VBG", "RB")
    tagger = Tagger(entries)
    batches, rest = em_batches(sentences, tagger, lexicon)
    for round_ in range(EM_ROUNDS):
        print(f"round {round_ + 1}: {tagger.expectation_maximisation(batches):.4f} nats a token")
    write_lexicon(lexicon, tagger, counts, countable_nouns(sentences))
    write_grammar(tagger, batches)
    write_pairs(folder, lexicon, counts)
    print(f"{len(lexicon)} words, {len(tagger.classes)} classes, {rest} sentences not used")


def write_pairs(folder: Path, lexicon: dict[str, tuple[str, ...]], counts: Counter[str]) -> None:
    """The filter of neighbouring common words that occur at least MIN_PAIR times in all of the corpora."""
    common = {w for w in lexicon if zipf10(w, counts) >= 10 * COMMON_ZIPF}
    seen: Counter[tuple[str, str]] = Counter()
    for text in train_texts(folder, everything=True):
        for sentence in read(text).sentences:
            words = [t.lower if t.kind == "word" and t.lower in common else "" for t in sentence.tokens]
            seen.update((a, b) for a, b in pairwise(words) if a and b)
    members = [pair for pair, count in seen.items() if count >= MIN_PAIR]
    (DATA / "pairs.bloom").write_bytes(encode(members))
    print(f"{len(members)} pairs of {len(common)} common words")


def zipf10(word: str, counts: Counter[str]) -> int:
    """10 x Zipf frequency of a word: log10 of its occurrences per billion words."""
    return round(10 * math.log10(max(counts[word], 1) / counts.total() * 1e9))


def em_batches(
    sentences: list[Sentence], tagger: Tagger, lexicon: dict[str, tuple[str, ...]]
) -> tuple[list[np.ndarray[Any, Any]], int]:
    """Sentences of equal length together, at most EM_SENTENCES, spread evenly over the corpora."""
    by_length: defaultdict[int, list[list[int]]] = defaultdict(list)
    step = max(1, len(sentences) // EM_SENTENCES)
    for sentence in sentences[::step]:
        ids = [tagger.words[s] for s in symbols(sentence, lexicon)]
        if 3 <= len(ids) <= EM_LENGTH and sentence.closed:
            by_length[len(ids)].append(ids)
    batches = [
        np.array(group[i : i + 1024]) for _, group in sorted(by_length.items()) for i in range(0, len(group), 1024)
    ]
    return batches, len(sentences) - sum(len(b) for b in batches)


def write_lexicon(
    lexicon: dict[str, tuple[str, ...]], tagger: Tagger, counts: Counter[str], countable: set[str]
) -> None:
    """word, classes by probability, 10 x Zipf frequency (log10 per billion words), `c` for a countable noun."""
    lines = []
    for word in sorted(lexicon):
        row = tagger.posterior_VK[tagger.words[word]]
        ranked = sorted(lexicon[word], key=lambda c: (-round(float(row[tagger.index[c]]), 6), c))
        # Expectation maximisation is too sure of itself between past tense and participle: both stay possible.
        kept = [c for c in ranked if row[tagger.index[c]] >= 0.08 or c in {"VBD", "VBN"}] or ranked[:1]
        shares = [
            f"{c}:{max(8, min(99, round(100 * float(row[tagger.index[c]]))))}" if len(kept) > 1 else c for c in kept
        ]
        lines.append(f"{word}\t{' '.join(shares)}\t{zipf10(word, counts)}\t{'c' if word in countable else ''}")
    text = "\n".join(lines) + "\n"
    (DATA / "lexicon.tsv.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def write_grammar(tagger: Tagger, batches: list[np.ndarray[Any, Any]]) -> None:
    """Association tables in nats: of neighbours (K, K), and what the word before them adds (coarse classes, cubed)."""
    k, m = len(tagger.classes), max(coarse_classes().values()) + 1
    coarse = np.array([coarse_classes()[c] for c in tagger.classes])
    pairs, triples = np.zeros((k, k)), np.zeros((m, m, m))
    for ids in batches:
        path = tagger.decode(ids)
        start = np.full((len(ids), 1), tagger.index["^"])
        path = np.concatenate([start, start, path], axis=1)
        np.add.at(pairs, (path[:, 1:-1], path[:, 2:]), 1)
        c = coarse[path]
        np.add.at(triples, (c[:, :-2], c[:, 1:-1], c[:, 2:]), 1)
    unigram = (pairs.sum(0) + 1.0) / (pairs.sum() + k)
    smooth = 20.0
    conditional = (pairs + smooth * unigram) / (pairs.sum(1, keepdims=True) + smooth)
    pmi = np.log(conditional / unigram)
    coarse_pairs = triples.sum(0)
    backoff = (coarse_pairs + 1e-3) / (coarse_pairs + 1e-3).sum(1, keepdims=True)
    given = (triples + 30.0 * backoff[None]) / (triples.sum(2, keepdims=True) + 30.0)
    gain = np.log(given / backoff[None])
    grammar = {
        "classes": tagger.classes,
        "pairs": encode_table(pmi.ravel().tolist()),
        "triples": encode_table(gain.ravel().tolist()),
    }
    text = json.dumps(grammar, separators=(",", ":"))
    (DATA / "grammar.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
