"""What a checkpoint's stories are measured by beside the teacher's points."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from fabula_proto import CriterionScore, ScoreResponse, Story, TeacherIdentity, Verdict, VerdictStatus
from services.evaluator.adapters.run_config import read_run_config
from services.evaluator.adapters.training_text import tokenised_documents, training_documents
from services.evaluator.errors import MissingDataError
from services.evaluator.suites import storytelling
from services.evaluator.suites.storytelling import Written
from services.evaluator.writing import WrittenStory, write_stories
from services.student_trainer.token_cache import cached_blocks
from tests.evaluator_helpers import no_progress, tiny_gpt2, tiny_tokenizer

PROMPT = "Once upon a time"


def test_surprisal_is_that_of_a_forward_pass_over_each_story() -> None:
    tokenizer = tiny_tokenizer()
    model: Any = tiny_gpt2(len(tokenizer))
    with torch.no_grad():
        model.get_input_embeddings().weight[2] *= 8  # the end token, so that some stories close themselves
    start = tokenizer(PROMPT)["input_ids"]
    kept: list[list[int]] = []
    generate = model.generate

    def remembering(*args: Any, **kwargs: Any) -> Any:
        output = generate(*args, **kwargs)
        kept.extend(output.tolist())
        return output

    model.generate = remembering
    stories = write_stories(
        model, tokenizer, PROMPT, stories=9, seed=1, max_new_tokens=12, batch_size=5, done=no_progress
    )
    assert {story.ended for story in stories} == {True, False}
    for story, ids in zip(stories, kept, strict=True):
        whole = ids[: len(start) + story.tokens]
        with torch.no_grad():
            logp_TV = torch.log_softmax(model(input_ids=torch.tensor([whole])).logits[0], dim=-1)
        expected = -sum(float(logp_TV[i - 1, whole[i]]) for i in range(len(start), len(whole)))
        assert story.surprisal == pytest.approx(expected, rel=1e-4)


class OneJudge:
    """Gives every story one point in one criterion."""

    def judge(self, stories: Sequence[Story]) -> ScoreResponse:
        teacher = TeacherIdentity(
            backend="test", model="m", revision="r", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="r"
        )
        score = CriterionScore.from_probabilities([0.0, 1.0, 0.0, 0.0])
        verdicts = [
            Verdict(story_id=s.id, status=VerdictStatus.OK, criteria={"r": score}, total=1.0, reward=0.1, coverage=1.0)
            for s in stories
        ]
        return ScoreResponse(verdicts=tuple(verdicts), teacher=teacher)


def written(*texts: str, copied: tuple[int, ...] | None = None) -> Written:
    stories = (WrittenStory(t, len(t.split()), len(t.split()), True, 3.0 * len(t.split())) for t in texts)
    return Written(tuple(stories), "Once", 7, copied)


def test_measures_of_texts() -> None:
    told = written("a fox ran and the fox hid", "an owl", copied=(4, 0))
    outcome = storytelling.evaluate(told, OneJudge(), 0)
    values = {name: measure.value for name, measure in outcome.measures.items()}
    assert values["entropy_per_word"] == 3.0
    assert values["distinct_1"] == pytest.approx((6 / 7 + 1) / 2)
    assert values["distinct_2"] == 1.0
    assert outcome.measures["distinct_3"].n == 1  # two words hold no trigram
    assert values["self_bleu"] == 0.0
    assert values["longest_copy"] == 2.0
    assert values["entities"] == 1.0
    assert values["entities_kept"] == 0.5
    rows = json.loads(outcome.files["stories.json"])["stories"]
    assert [(row["longest_copy"], row["surprisal"]) for row in rows] == [(4, 21.0), (0, 6.0)]


def test_measures_that_do_not_apply_are_absent() -> None:
    outcome = storytelling.evaluate(written(""), OneJudge(), 0)
    absent = {"entropy_per_word", "distinct_1", "self_bleu", "longest_copy", "entities_kept", "own_bigrams"}
    assert absent.isdisjoint(outcome.measures)
    assert json.loads(outcome.files["stories.json"])["stories"][0]["longest_copy"] is None


def test_self_bleu_compares_the_first_hundred() -> None:
    same = ["one tale told again and again"] * 100
    outcome = storytelling.evaluate(written(*same, *["another"] * 20), OneJudge(), 0)
    assert outcome.measures["self_bleu"].value == pytest.approx(1.0)
    assert outcome.measures["self_bleu"].n == 100


def test_training_documents_of_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": "held out", "split": "validation"}, {"text": "two", "split": "train"}, {"x": 1}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": "three"}))
    (tmp_path / "c.txt").write_text("\nfour\nfive\n\n \nsix\n", encoding="utf-8")
    (tmp_path / "d.train").write_text("seven\neight\n\n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("not a corpus", encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("hidden", encoding="utf-8")
    found = [document.split() for document in training_documents(str(tmp_path), "text")]
    assert found == [["one"], ["two"], ["three"], ["four", "five"], ["six"], ["seven"], ["eight"]]
    assert list(training_documents(str(tmp_path / "d.train"), "text")) == ["seven\n", "eight\n"]


@pytest.mark.parametrize(
    ("source", "message"),
    [(None, "names no corpus"), ("grammar", "corpus grammar is no file"), ("hf:a/b", "corpus hf:a/b is no file")],
)
def test_no_training_text_is_said(source: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=message):
        list(training_documents(source, "text"))


def test_damaged_training_text_is_no_training_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"te', encoding="utf-8")
    with pytest.raises(MissingDataError, match=r"a\.jsonl cannot be read"):
        list(training_documents(str(tmp_path), "text"))
    (tmp_path / "a.jsonl").rename(tmp_path / "a.md")
    with pytest.raises(MissingDataError, match=r"holds no file that ends in \.txt"):
        list(training_documents(str(tmp_path), "text"))


def test_a_corpus_that_is_in_no_file_is_read_as_it_was_tokenised(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    documents = ["The old fox said </s> and hid.", "A naïve  king\n\nslept.", "The box is by the door of the garden."]
    place = cached_blocks(tmp_path / "tokens", documents, tokenizer, 8)
    found = list(tokenised_documents(tmp_path, tokenizer))
    assert found[:2] == documents[:2]
    assert documents[2].startswith(found[2])  # what fills no block was not learned from
    assert len(documents[2]) - len(found[2]) < 40

    def refused(message: str, folder: Path | None = tmp_path, by: PreTrainedTokenizerFast = tokenizer) -> None:
        with pytest.raises(MissingDataError, match=message):
            list(tokenised_documents(folder, by))

    refused("holds 0 tokenised corpora", None)
    refused("holds 0 tokenised corpora", tmp_path / "tokens")
    refused(r"another tokenizer than the checkpoint's made .*tokens\.i32", by=tiny_tokenizer(300))
    (place / "tokens.i32").write_bytes((place / "tokens.i32").read_bytes()[:-4])
    refused(r"tokens\.i32 cannot be read: it is not what its manifest says")
    (place / "manifest.json").write_text("{}", encoding="utf-8")
    refused(r"tokens\.i32 cannot be read")
    (place / "tokens.i32").unlink()
    refused("No such file")


def test_the_runs_corpus_is_read_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("corpus: {source: /data/tales.jsonl, text_field: story}\n", encoding="utf-8")
    config = read_run_config(tmp_path)
    assert (config.corpus, config.text_field) == ("/data/tales.jsonl", "story")
    assert read_run_config(None).corpus is None
