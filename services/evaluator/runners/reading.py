"""Reading times: surprisals of the words that people read."""

from math import nan

from services.evaluator.adapters.eval_data import require
from services.evaluator.adapters.reading_data import load_reading
from services.evaluator.bench import Bench, Measured
from services.evaluator.suites import reading
from services.evaluator.surprisal import WordInContext, causal_surprisals, masked_surprisals


def run(bench: Bench) -> Measured:
    """Self-paced reading and eye tracking; nothing of our own stands in for the data."""
    data = load_reading(require(bench.settings.eval_data, reading.NAME))
    own = [WordInContext(word.item, word.word) for word in data.words]
    before = [
        WordInContext(word.prev_item, word.prev_word) if word.prev_item is not None else None for word in data.words
    ]
    asked = list(dict.fromkeys([*own, *(word for word in before if word is not None)]))
    found = dict(zip(asked, _surprisals(bench, asked), strict=True))
    outcome = reading.evaluate(
        data,
        [found[word] for word in own],
        [nan if word is None else found[word] for word in before],
        bench.settings.seed,
    )
    return Measured(outcome, results_path=f"zero_shot/{bench.checkpoint.backend}/reading")


def _surprisals(bench: Bench, words: list[WordInContext]) -> list[float]:
    checkpoint, done = bench.checkpoint, bench.done(reading.NAME)

    def part_done(part: float) -> None:
        done(int(part * len(words)), len(words))

    if checkpoint.backend == "causal":
        return causal_surprisals(bench.engine, checkpoint.tokenizer, words, part_done)
    return masked_surprisals(
        checkpoint.model,
        checkpoint.tokenizer,
        words,
        part_done,
        backend=checkpoint.backend,
        context=bench.engine.context,
        token_budget=bench.engine.token_budget,
    )
