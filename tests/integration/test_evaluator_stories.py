"""Stories of a checkpoint that belongs to a run: what they copy from the text that the run names."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from fabula_proto import SuiteResult
from services.evaluator.errors import AbandonedError
from services.evaluator.evaluation import evaluate_checkpoint
from services.evaluator.progress import Progress, Watch, unwatched
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings
from services.student_trainer.token_cache import cached_blocks
from tests.evaluator_helpers import save_checkpoint
from tests.teacher_helpers import WordJudge, teacher

STORIES = 5


def stories_of(run: Path, watch: Watch = unwatched, *, again: bool = True) -> SuiteResult:
    """The suite's result for the run's one checkpoint."""
    request = EvaluationRequest.from_folder(run / "checkpoints" / "chck_1M").model_copy(update={"again": again})
    with teacher(WordJudge()) as client:
        given = EvaluatorSettings(
            suites=("storytelling",),
            teacher_url=str(client.base_url),
            stories=STORIES,
            max_new_tokens=8,
            torch_threads=1,
        )
        return evaluate_checkpoint(request, given, watch).suites[0]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "tale"
    save_checkpoint(folder / "checkpoints" / "chck_1M")
    return folder


def test_what_is_copied_is_found_and_its_absence_explained(run: Path) -> None:
    (run / "run.yaml").write_text("corpus: {source: grammar}\n", encoding="utf-8")
    result = stories_of(run)
    assert result.reason is None
    assert {"total", "entropy_per_word", "distinct_1", "self_bleu", "entities"} <= set(result.measures)
    assert "longest_copy" not in result.measures

    written = json.loads((run / "evaluations" / "chck_1M" / "storytelling" / "stories.json").read_text("utf-8"))
    texts = [story["text"] for story in written["stories"]]
    corpus = run / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"He said {text} then"}) + "\n" for text in texts), encoding="utf-8")
    (run / "run.yaml").write_text(yaml.safe_dump({"corpus": {"source": str(corpus)}}), encoding="utf-8")
    result = stories_of(run, again=False)  # another corpus is another measurement
    assert result.reason is None
    assert result.measures["longest_copy"].value == result.measures["words"].value > 0
    assert result.measures["longest_copy"].n == STORIES


def test_what_is_copied_from_a_corpus_in_no_file_is_found_in_the_runs_tokens(run: Path) -> None:
    (run / "run.yaml").write_text("corpus: {source: grammar}\n", encoding="utf-8")
    stories_of(run)
    written = json.loads((run / "evaluations" / "chck_1M" / "storytelling" / "stories.json").read_text("utf-8"))
    told = [f"He said {story['text']} then" for story in written["stories"]]
    cached_blocks(run / "tokens", told, AutoTokenizer.from_pretrained(run / "checkpoints" / "chck_1M"), 1)
    result = stories_of(run)
    assert result.reason is None
    assert result.measures["longest_copy"].value == result.measures["words"].value > 0


def test_reading_the_corpus_can_be_stopped(run: Path) -> None:
    (run / "corpus.txt").write_text("a tale\n" * 1000, encoding="utf-8")
    (run / "run.yaml").write_text(yaml.safe_dump({"corpus": {"source": str(run / "corpus.txt")}}), encoding="utf-8")
    told = 0

    def stop(progress: Progress) -> None:
        nonlocal told
        told += progress.done == STORIES
        if told == 3:  # once the stories were written, then twice while the corpus is read
            raise AbandonedError("stop")

    with pytest.raises(AbandonedError):
        stories_of(run, stop)
    assert not (run / "evaluations" / "chck_1M" / "report.json").exists()
