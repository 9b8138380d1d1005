"""What a run reads from the Hugging Face Hub: teachers' models, a student to begin with, corpus, evaluation data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from services.local.errors import CommandError
from services.local.plan import Plan, Request, make_plan
from services.student_trainer.corpus_hub import HUB_PREFIX, dataset_of
from services.student_trainer.initial_model import is_path
from services.student_trainer.settings import GRAMMAR

Role = Literal["teacher", "student", "corpus", "evaluation data"]
_PLAIN = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".md")  # configuration, tokenizer, and the model's terms
# Of several copies of the weights, the first that is there: what from_pretrained loads, and no second copy beside it.
_WEIGHTS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Source:
    """A repository. `revision` none is the newest; `wanted` are patterns of its files, none where all are."""

    role: Role
    repository: str
    revision: str | None = None
    wanted: tuple[str, ...] = ()

    @property
    def repo_type(self) -> Literal["model", "dataset"]:
        """As the Hub calls it."""
        return "model" if self.role in ("teacher", "student") else "dataset"

    @property
    def name(self) -> str:
        """ORG/NAME, with the revision where one was asked for."""
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Which of a repository's files a run reads.

        Raises:
            CommandError: there is nothing to read among them.
        """
        if self.repo_type == "model":
            chosen = _of_a_model(names)
        else:
            chosen = [n for n in names if not self.wanted or any(fnmatch(n, pattern) for pattern in self.wanted)]
        if not chosen:
            wanted = ", ".join(_WEIGHTS if self.repo_type == "model" else self.wanted or ("any file",))
            raise CommandError(
                f"{self.role} {self.name} holds nothing to read: none of its {len(names)} files is one of {wanted}; "
                "name another repository"
            )
        return chosen


def sources_of(request: Request) -> tuple[list[Source], list[str]]:
    """The repositories that the requested run reads, and what else it reads that is not on the Hub.

    Raises:
        CommandError: a setting is wrong, or a file is missing.
    """
    plan = make_plan(replace(request, eval_data=None))  # which would be fetched, to be looked into
    found = [*_teachers(plan), *_student(plan), *_corpus(plan), *_eval_data(request.eval_data)]
    sources = [one for one in found if isinstance(one, Source)]
    return list(dict.fromkeys(sources)), [one for one in found if isinstance(one, str)]


def _teachers(plan: Plan) -> Iterator[Source | str]:
    """The plan's own, and all that the teachers file names: a run may be put on another one."""
    # Imported here: it reads the environment, which most commands have no use for.
    from services.teacher.roster import read_roster
    from services.teacher.settings import TeacherSettings

    try:
        specs = read_roster(TeacherSettings(teacher=plan.teacher)).teachers.values()
    except ValueError as error:
        raise CommandError(str(error)) from error
    for spec in specs:
        target = spec.target
        if target.url is not None:
            yield f"teacher {spec.judge}: its server has its own model and must answer there"
        elif target.model is not None and (is_path(target.model) or Path(target.model).is_dir()):
            yield f"teacher: the folder {target.model}"
        elif target.model is not None:
            yield Source("teacher", target.model, spec.teacher_revision)


def _student(plan: Plan) -> Iterator[Source | str]:
    initial = plan.settings.student.init
    if initial is not None:
        yield f"student: the folder {initial}" if is_path(initial) else Source("student", initial)


def _corpus(plan: Plan) -> Iterator[Source | str]:
    source = plan.settings.corpus.source
    if plan.settings.pretrain.word_budget == 0 and not plan.settings.interact.mixed.batches_per_update:
        return  # nothing is read of it
    if source.startswith(HUB_PREFIX):
        dataset, _ = dataset_of(source.removeprefix(HUB_PREFIX))
        yield f"corpus: the folder {dataset}" if Path(dataset).is_dir() else Source("corpus", dataset)
    elif source != GRAMMAR:
        yield f"corpus: {source}"


def _eval_data(given: str | None) -> Iterator[Source | str]:
    if given is None:
        return
    # Imported here: its package loads torch.
    from services.evaluator.adapters.eval_data.hub import FILES, is_hub, parse
    from services.evaluator.errors import EvaluatorError

    if not is_hub(given):
        yield f"evaluation data: the folder {given}"
        return
    try:
        repository, revision = parse(given)
    except EvaluatorError as error:
        raise CommandError(str(error)) from error
    yield Source("evaluation data", repository, revision, FILES)


def _of_a_model(names: Sequence[str]) -> list[str]:
    """What from_pretrained reads of a model and its tokenizer, and its card and licence; nothing without weights."""
    top = [name for name in names if "/" not in name]
    found = ([name for name in top if fnmatch(name, pattern)] for pattern in _WEIGHTS)
    weights = next((group for group in found if group), [])
    plain = [n for n in top if n.endswith(_PLAIN) or n.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))]
    templates = [name for name in names if fnmatch(name, "additional_chat_templates/*.jinja")]
    return [*weights, *plain, *templates] if weights else []
