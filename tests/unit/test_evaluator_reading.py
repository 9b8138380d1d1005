"""Reading times: the pipeline's predictions reproduce its reports; surprisals equal one forward a question."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from services.evaluator.adapters.reading_data import load_reading
from services.evaluator.engine import LogProbabilityEngine
from services.evaluator.errors import BadDataError, ItemsError, SuiteFailedError
from services.evaluator.suites import reading
from services.evaluator.surprisal import Questioner, WordInContext, causal_surprisals, masked_surprisals
from tests.evaluator_helpers import SHARED, tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.evaluator_models import tiny_bert, tiny_mamba, tiny_roberta
from tests.reading_tables import COLUMNS, rows, write

REFERENCE = SHARED / "reference" / "mamba-1024" / "main" / "zero_shot" / "causal" / "reading"
DATA = SHARED / "eval" / "fast_eval" / "reading" / "reading_data.csv"


def nobody(_part: float) -> None:
    """Progress that nobody watches."""


@pytest.mark.skipif(
    not (REFERENCE.is_dir() and DATA.is_file()), reason=f"needs {DATA} and the pipeline's output in {REFERENCE}"
)
def test_the_pipelines_predictions_reproduce_its_reports() -> None:
    theirs = [json.loads(line) for line in (REFERENCE / "prediction.jsonl").read_text(encoding="utf-8").splitlines()]
    data = load_reading(DATA)
    outcome = reading.evaluate(data, [row["Logprob"] for row in theirs], [row["Prev_Logprob"] for row in theirs], 0)
    for name in ("report.txt", "correlations.txt", "prediction.jsonl"):
        assert outcome.files[name] == (REFERENCE / name).read_text(encoding="utf-8"), name
    for name in ("predictive_power.jsonl", "predictive_power_spillover.jsonl"):
        expected = [json.loads(line) for line in (REFERENCE / name).read_text(encoding="utf-8").splitlines()]
        found = [json.loads(line) for line in outcome.files[name].splitlines()]
        assert [row.pop("Predicted variable") for row in found] == [row.pop("Predicted variable") for row in expected]
        for mine, other in zip(found, expected, strict=True):
            assert mine == {key: pytest.approx(value, rel=1e-9, abs=1e-13) for key, value in other.items()}
    headline = outcome.measures["eye_tracking"]
    assert (outcome.headline, outcome.unit, round(headline.value, 2), headline.n) == (
        "eye_tracking",
        "percent",
        0.30,
        1696,
    )
    assert headline.low < headline.value < headline.high
    assert round(outcome.measures["self_paced"].value, 2) == 0.10
    assert outcome.measures["spillover/self_paced_reading_time"] == outcome.measures["self_paced"]


def asked_one_by_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, word: WordInContext, kind: str
) -> float:
    """A forward for each token of the word, the text rebuilt each time; no batch, no padding."""
    text, total = word.context, 0.0
    pieces = tokenizer(word.word, add_special_tokens=False)["input_ids"]
    for n, piece in enumerate(pieces):
        asked = piece if n == 0 else tokenizer(tokenizer.decode(piece), add_special_tokens=False)["input_ids"][0]
        read = tokenizer(text if kind == "causal" else text + "<mask><mask><mask>")["input_ids"]
        masks = [i for i, token in enumerate(read) if token == 4]
        place = {"causal": len(read) - 1, "mlm": masks[0] if masks else 0, "mntp": masks[0] - 1 if masks else 0}[kind]
        with torch.no_grad():
            logits_TV = model(input_ids=torch.tensor([read])).logits[0]
        total -= float(torch.log_softmax(logits_TV[place], dim=-1)[asked])
        text += str(tokenizer.decode(piece))
    return total


def words_in_context() -> list[WordInContext]:
    words = [WordInContext(row["item"], row["word"]) for row in rows()]
    assert len(set(words)) == len(words)
    return [*words, words[0]]


@pytest.mark.parametrize(
    ("make", "add_bos"), [(tiny_gpt2, False), (tiny_gpt2, True), (tiny_llama, False), (tiny_mamba, False)]
)
def test_causal_surprisals_equal_one_forward_a_question(make: Callable[[int], PreTrainedModel], add_bos: bool) -> None:
    tokenizer = tiny_tokenizer(add_bos=add_bos)
    model, words = make(len(tokenizer)), words_in_context()
    expected = [asked_one_by_one(model, tokenizer, word, "causal") for word in words]
    found = causal_surprisals(LogProbabilityEngine(model, tokenizer, token_budget=100), tokenizer, words, nobody)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "add_bos", "backend"),
    [(tiny_bert, True, "mlm"), (tiny_bert, False, "mlm"), (tiny_roberta, True, "mntp"), (tiny_roberta, False, "mntp")],
)
def test_masked_surprisals_equal_one_forward_a_question(
    make: Callable[[int], PreTrainedModel], add_bos: bool, backend: Literal["mlm", "mntp"]
) -> None:
    tokenizer = tiny_tokenizer(add_bos=add_bos)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    model, words, parts = make(len(tokenizer)), words_in_context(), list[float]()
    expected = [asked_one_by_one(model, tokenizer, word, backend) for word in words]
    found = masked_surprisals(model, tokenizer, words, parts.append, backend=backend, context=254, token_budget=100)
    assert found == pytest.approx(expected, abs=1e-4)
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    with pytest.raises(ItemsError, match="does not fit the checkpoint's context of 9"):
        masked_surprisals(model, tokenizer, words, nobody, backend=backend, context=9)


def test_what_cannot_be_asked_is_said() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(ItemsError, match="backend mlm needs a mask token"):
        Questioner(tokenizer, "mlm")
    with pytest.raises(ItemsError, match="makes no token of ''; leave the row out"):
        Questioner(tokenizer, "causal").questions(WordInContext("The", ""))
    with pytest.raises(ItemsError, match="the context '' has no token that predicts the next"):
        Questioner(tokenizer, "causal").questions(WordInContext("", "The"))


def test_the_table_is_read_as_pandas_reads_it(tmp_path: Path) -> None:
    table = rows()
    table[0]["Subtlex_log10"] = ""
    data = load_reading(write(tmp_path / "reading_data.csv", table))
    assert math.isnan(data.words[0].numbers["Subtlex_log10"])
    none = [word for word in data.words if word.sentence == "1"]
    # `None` as a cell is a missing value to pandas; the pipeline puts it back into item, not into prev_item.
    assert (none[0].item, none[0].prev_item) == ("None", None)
    assert (none[1].item, none[1].prev_item) == ("None of", None)
    assert (none[2].item, none[2].prev_item, none[2].prev_word) == ("None of the", "None of", "the")


def test_an_outcome_leaves_out_what_is_missing_and_writes_the_pipelines_files(tmp_path: Path) -> None:
    table = rows(sentences=60)
    table[3]["RTgopast"] = ""
    data = load_reading(write(tmp_path / "reading_data.csv", table))
    own = [10 + 3 * math.cos(1.1 * i) for i in range(len(data.words))]
    before = [math.nan if word.prev_item is None else 5 + math.sin(0.7 * i) for i, word in enumerate(data.words)]
    outcome = reading.evaluate(data, own, before, 0)
    whole = sum(math.isfinite(value) for value in before)
    assert outcome.measures["own/RTfirstfix"].n == len(table)
    assert outcome.measures["own/RTgopast"].n == len(table) - 1
    assert outcome.measures["eye_tracking"].n == len(table) - 1
    assert outcome.measures["self_paced"].n == whole
    parts = [outcome.measures[f"own/{name}"].value for name in reading.EYE_TRACKING]
    assert outcome.measures["eye_tracking"].value == pytest.approx(sum(parts) / 4)
    saved = json.loads(outcome.files["predictions.json"])["reading"]["predictions"]
    assert saved[1] == {"id": 1, "pred": own[1], "prev_pred": before[1]}
    assert '"Prev_Logprob": NaN}' in outcome.files["prediction.jsonl"].splitlines()[0]
    assert outcome.files["report.txt"].startswith("EYE TRACKING SCORE: ")
    assert outcome.files["correlations.txt"].count("\n") == len(reading.DEPENDENT)
    assert outcome == reading.evaluate(data, own, before, 0)
    with pytest.raises(SuiteFailedError, match="RTfirstfix cannot be regressed on the surprisals: the predictor is a"):
        reading.evaluate(data, [1.0] * len(own), before, 0)


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    def error(table: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> str:
        with pytest.raises(BadDataError) as caught:
            load_reading(write(tmp_path / "reading_data.csv", table, columns))
        return str(caught.value)

    assert "line 3: found RTgopast = 'slow'; expected a number" in error(
        [*rows()[:1], {**rows()[1], "RTgopast": "slow"}]
    )
    assert "line 2: found P600 = 'inf'; expected a number" in error([{**rows()[0], "P600": "inf"}])
    assert "line 2: found word = ''; expected a word" in error([{**rows()[0], "word": ""}])
    assert "line 3: found prev_word = ''" in error([rows()[0], {**rows()[1], "prev_word": ""}])
    assert "found no column prev_length" in error(rows(), tuple(c for c in COLUMNS if c != "prev_length"))
    assert "found no row" in error([])
    file = tmp_path / "broken.csv"
    for content, expected in (
        (b"", "no column item"),
        (b"\xff\xfe\x00", "a readable UTF-8 table"),
        (",".join(COLUMNS).encode() + b"\n0,short row\n", "line 2: .* cells"),
        (",".join(COLUMNS).encode() + b'\n0,"open', "a readable UTF-8 table"),
    ):
        file.write_bytes(content)
        with pytest.raises(BadDataError, match=expected):
            load_reading(file)
    with pytest.raises(BadDataError, match="No such file"):
        load_reading(tmp_path / "absent.csv")
