"""`fabula card`: a model card from a run's own records. No number stands in it that the run's folder does not hold."""

from collections.abc import Iterator
from pathlib import Path

from services.local.card_facts import Kept, RunFacts, read_facts
from services.local.card_scores import results, scores
from services.local.card_text import inline, markdown_table, model_place, place, rows_table, said
from services.local.errors import CommandError, not_installed
from services.local.run_command import BLOCKS, run_command
from services.student_trainer.settings import GRAMMAR, InteractSettings

try:
    from huggingface_hub import ModelCard, ModelCardData
except ImportError as error:
    raise not_installed(error) from error

OF_THEIR_OWN = frozenset({"algorithm", "kl", "reward", "guards", "prompt", *BLOCKS.values()})
PACE = frozenset({"save_every_s", "log_every", "verdict_timeout_s"})
SIZES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "context": ("max_position_embeddings", "n_positions", "n_ctx"),
}
"""What config.json calls the sizes of a model."""
NOT_COUNTED = "words that the initial model had read are not counted here"
PAPER = "[arXiv 2509.15714](https://arxiv.org/abs/2509.15714)"


def card(run_dir: Path, checkpoint: str | None, repository: str) -> str:
    """The card of a run's checkpoint, its final one where none is named.

    Raises:
        CommandError: there is no such run or checkpoint, or a file of the run cannot be read.
    """
    facts = read_facts(run_dir)
    names = [kept.name for kept in facts.kept]
    if checkpoint is not None and checkpoint not in names:
        raise CommandError(f"run {facts.run} has no checkpoint {checkpoint}; it has {', '.join(names)}")
    chosen = facts.kept[names.index(checkpoint) if checkpoint is not None else -1]
    return write_card(facts, chosen, repository, final=checkpoint is None)


def save(text: str, path: Path) -> None:
    """Write the card to a file.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"the card cannot be written to {path}: {error.strerror}", exit_code=1) from error


def write_card(facts: RunFacts, checkpoint: Kept, repository: str = "ORG/NAME", *, final: bool = False) -> str:
    """README.md for the branch of `checkpoint`, metadata first; `final` says that the branch is `main`."""
    revision = "main" if final else checkpoint.name
    body = "\n\n".join(_body(facts, checkpoint, repository, revision))
    return str(ModelCard(f"---\n{_metadata(facts, checkpoint).to_yaml()}\n---\n\n{body}\n"))


def _metadata(facts: RunFacts, checkpoint: Kept) -> ModelCardData:
    settings = facts.settings
    source = settings.corpus.source
    tags = ["babylm", "fabula", "storytelling", str(checkpoint.shape["model_type"])]
    if checkpoint.learned:
        tags += ["reinforcement-learning", settings.interact.algorithm]
    # The text's language is nowhere recorded; of our grammar, and of who continues the paper's prompt, it is known.
    english = (facts.read_corpus and source == GRAMMAR) or settings.interact.prompt == InteractSettings().prompt
    return ModelCardData(
        language="en" if english else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=tags,
        datasets=[source.removeprefix("hf:")] if facts.read_corpus and source.startswith("hf:") else None,
        model_name=facts.run,
        eval_results=list(results(checkpoint.report)) or None,
    )


def _body(facts: RunFacts, checkpoint: Kept, repository: str, revision: str) -> Iterator[str]:
    yield f"# {facts.run}: {checkpoint.name}"
    yield _summary(facts, checkpoint)
    yield "## Use\n\n" + _use(facts, repository, revision)
    yield "## Student and pretraining\n\n" + rows_table(dict(_student(facts, checkpoint)))
    if any(kept.learned for kept in facts.kept):
        yield "## Learning from a teacher\n\n" + "\n\n".join(_interaction(facts))
    yield "## Scores\n\n" + "\n\n".join(scores(facts, checkpoint))
    yield "## Not measured\n\n" + "\n".join(f"- {line}" for line in _unmeasured(facts, checkpoint))
    yield f"## The run again\n\n```sh\n{run_command(facts)}\n```"


def _summary(facts: RunFacts, checkpoint: Kept) -> str:
    words = f"{checkpoint.facts['pretraining_words']:,} words of next-word prediction"
    if checkpoint.learned:
        words += (
            f" and {checkpoint.facts['interaction_words']:,} words of interaction with a teacher that judges stories"
        )
    init = facts.settings.student.init
    if init is not None:
        words += f", begun from {model_place(init)}; {NOT_COUNTED}"
    return (
        f"A student of {checkpoint.parameters:,} parameters after {words}. Made with Fabula, which follows *Once Upon "
        f"a Time: Interactive Learning for Storytelling with Small Language Models* ({PAPER})."
    )


def _use(facts: RunFacts, repository: str, revision: str) -> str:
    rows = [
        (
            f"`{kept.name}`" + (", `main`" if kept is facts.kept[-1] else ""),
            f"{kept.facts['pretraining_words']:,}",
            f"{kept.facts['interaction_words']:,}",
        )
        for kept in facts.kept
    ]
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{repository}", revision="{revision}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repository}", revision="{revision}")\n```\n\n'
        f"The student continues a prompt: `{facts.settings.interact.prompt}`\n\n"
        + markdown_table(("revision", "words of pretraining", "words of interaction"), rows)
    )


def _student(facts: RunFacts, checkpoint: Kept) -> Iterator[tuple[str, object]]:
    settings, shape = facts.settings, checkpoint.shape
    init = settings.student.init
    yield "architecture", ", ".join(shape.get("architectures") or [shape["model_type"]])
    yield "parameters", f"{checkpoint.parameters:,}"
    if vocabulary := checkpoint.size("vocab_size"):
        yield "vocabulary", f"{vocabulary:,}"
    if init is None:
        yield "student", inline(facts.recorded.get("student", {}))
    else:  # the settings' own shape does not count then
        sizes = {title: checkpoint.size(*names) for title, names in SIZES.items()}
        yield "student", inline(sizes)
        yield "initial model", _initial(init, facts.kept[0])
    if facts.read_corpus:
        yield "corpus", f"{place(settings.corpus.source)}{' of Fabula' if settings.corpus.source == GRAMMAR else ''}"
    if settings.pretrain.word_budget > 0:
        yield "pretraining", inline(facts.recorded.get("pretrain", {}), but=PACE)
    read = next((one.facts for one in reversed(facts.kept) if not one.learned), None)
    if read is not None:
        yield "words seen, repetitions counted", f"{read['pretraining_words']:,}"
        if read.get("epochs") is not None:
            yield "epochs", f"{read['epochs']:.2f}"
        if read.get("validation_loss") is not None:
            yield "validation loss, nats per token", f"{read['validation_loss']:.4f}"
    yield "seed", settings.seed


def _initial(init: str, first: Kept) -> str:
    """Which model it is, and at what revision of the Hub where that is recorded."""
    revision = first.facts.get("init_revision")
    return f"{model_place(init)}{f' at {revision}' if revision else ''}; {NOT_COUNTED}"


def _interaction(facts: RunFacts) -> Iterator[str]:
    name, recorded = facts.settings.interact.algorithm, facts.recorded.get("interact", {})
    rows = {
        "algorithm": f"{name}: {inline(recorded.get(BLOCKS[name], {}))}",
        "KL": inline(recorded.get("kl", {})),
        "reward": inline(recorded.get("reward", {})),
        "interaction": inline(recorded, but=PACE | OF_THEIR_OWN),
    }
    if watched := {guard: options for guard, options in recorded.get("guards", {}).items() if options}:
        rows["guards"] = "; ".join(f"{guard}: {inline(options)}" for guard, options in watched.items())
    yield rows_table(rows)
    yield "The teacher, by the verdicts that the student learned from:"
    names = ("backend", "model", "revision", "rubric", "rubric_version", "rubric_hash", "mode")
    teachers = [(*(place(getattr(who, name)) for name in names), f"{count:,}") for who, count in facts.teachers]
    yield markdown_table((*names, "stories"), teachers)
    ok, failed = facts.verdicts
    yield f"{ok:,} verdicts were ok; {failed:,} stories had none, or none that counts, and were left out."
    account = facts.ledger.account
    if account is not None:
        yield markdown_table(
            ("words", "prompt, once", "teacher's", "spent", "budget", "student's own, free"),
            [
                (
                    "",
                    *(
                        f"{n:,}"
                        for n in (account.prompt, account.teacher, account.spent, account.budget, account.student)
                    ),
                )
            ],
        )
    if facts.alarms:
        alarms = [f"- after update {alarm.step}, {alarm.guard}: {said(alarm.message)}" for alarm in facts.alarms]
        yield "Alarms of the guards:\n\n" + "\n".join(alarms)
    elif watched:
        yield "The guards raised no alarm."


def _unmeasured(facts: RunFacts, checkpoint: Kept) -> Iterator[str]:
    if checkpoint.report is None:
        yield f"`{checkpoint.name}` was not evaluated."
    else:
        for suite in checkpoint.report.suites:
            if suite.status != "ok":
                yield f"{suite.suite} ({suite.status}): {said(suite.reason or '')}"
        yield "Any suite of the BabyLM evaluation that has no row above."
    without = [f"`{one.name}`" for one in facts.kept if one.report is None and one is not checkpoint]
    if without:
        yield f"Checkpoints without a report: {', '.join(without)}."
    yield f"Other seeds: this is one run, of seed {facts.settings.seed}; the intervals say nothing about another one."
