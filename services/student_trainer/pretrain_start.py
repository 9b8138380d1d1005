"""What a pretraining begins with: tokenizer, blocks of tokens, the student, new or taken over, its optimiser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import resolve_revision
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from services.student_trainer import checkpoints
from services.student_trainer.corpus import Corpus, CorpusError
from services.student_trainer.dataset import Blocks
from services.student_trainer.initial_model import initial_folder
from services.student_trainer.ranks import Beat
from services.student_trainer.settings import PretrainSettings, RunSettings
from services.student_trainer.student import StudentError, build_student, load_initial, parameter_count, student_config
from services.student_trainer.token_cache import cached_blocks
from services.student_trainer.tokenizer import save_tokenizer, train_tokenizer

Facts = Mapping[str, Any]


def prepare(run_dir: Path, corpus: Corpus, settings: RunSettings, beat: Beat) -> Path:
    """Tokenizer and blocks in the run folder, made at the first start; where the blocks are."""
    folder = run_dir / "tokenizer"
    if not folder.is_dir():
        run_dir.mkdir(parents=True, exist_ok=True)
        building = folder.with_name(f".building-{folder.name}")
        save_tokenizer(_new_tokenizer(corpus, settings), building)
        building.rename(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return cached_blocks(run_dir / "tokens", corpus.train, tokenizer, settings.pretrain.block_tokens, beat)


def filled(blocks: Blocks, corpus: Corpus) -> Blocks:
    """The blocks, if there are any.

    Raises:
        CorpusError: the corpus fills no block.
    """
    if not int(blocks.words_N.sum()):
        raise CorpusError(
            f"{corpus.train_words} training words do not fill one block of {blocks.tokens_NT.shape[1]} tokens; "
            "give more text or set pretrain.block_tokens lower"
        )
    return blocks


def first_student(settings: RunSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The student before its first step, in training mode, on the CPU.

    Raises:
        StudentError: it cannot be built, or has no room for a block.
    """
    if settings.student.init is None:
        return build_student(settings.student, tokenizer, settings.seed)
    model, _ = load_initial(settings.student.init)
    context = context_of(model.config)
    if context is not None and settings.pretrain.block_tokens > context:
        raise StudentError(
            f"pretrain.block_tokens {settings.pretrain.block_tokens} exceeds the {context} positions of "
            f"student.init {settings.student.init}; lower it"
        )
    return model


def make_optimizer(model: PreTrainedModel, settings: PretrainSettings) -> torch.optim.Optimizer:
    """AdamW; weight decay, where there is any, spares biases and layer norms."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def keep_initial(run_dir: Path, run: str, settings: RunSettings) -> Path:
    """Keep the model that `student.init` names as the run's checkpoint `chck_0`; where that is.

    Raises:
        StudentError: it cannot be taught, or has no room for prompt and story.
        OSError: it cannot be fetched.
    """
    init = str(settings.student.init)
    model, tokenizer = load_initial(init)
    check_room(settings, tokenizer, context_of(model.config))
    facts: Facts = {
        "run": run,
        "stage": "pretrain",
        "step": 0,
        "milestone": 0,
        "init": init,
        "init_revision": None if initial_folder(init) else resolve_revision(init, local_files_only=True).resolved,
        "pretraining_words": 0,
        "interaction_words": 0,
        "parameters": parameter_count(model),
        "seed": settings.seed,
    }
    return checkpoints.save(run_dir / "checkpoints" / checkpoints.pretrain_name(0), model, tokenizer, {}, facts)


def check_student(settings: RunSettings) -> None:
    """Find mistakes in `student.model`, `student.config` and `student.init` before anything is read or tokenised.

    Raises:
        StudentError: there are some.
    """
    if settings.student.init is None:
        student_config(settings.student, None)
    else:
        initial_folder(settings.student.init)


def check_start(settings: RunSettings, start: Path) -> None:
    """Whether stories fit the checkpoint that interaction starts from.

    Raises:
        StudentError: they do not.
    """
    shape = AutoConfig.from_pretrained(start)
    check_room(settings, AutoTokenizer.from_pretrained(start), context_of(shape))


def check_room(settings: RunSettings, tokenizer: PreTrainedTokenizerBase, context: int | None) -> None:
    """Whether a prompt and the longest story fit `context`, the student's positions in tokens; none has no end.

    Raises:
        StudentError: they do not.
    """
    prompt, longest = len(tokenizer(settings.interact.prompt)["input_ids"]), settings.interact.max_new_tokens
    if context is not None and prompt + longest > context:
        raise StudentError(
            f"interact.prompt has {prompt} tokens; with interact.max_new_tokens {longest} they do not fit the "
            f"student's context of {context}; write at most {max(0, context - prompt)} tokens, or shorten the prompt"
        )


def context_of(config: PreTrainedConfig) -> int | None:
    """Positions a model has; none where its configuration names no number."""
    context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return context


def _new_tokenizer(corpus: Corpus, settings: RunSettings) -> PreTrainedTokenizerBase:
    if settings.student.init is None:
        tokenizer: PreTrainedTokenizerBase = train_tokenizer(corpus.train, settings.tokenizer)
        check_room(settings, tokenizer, settings.student.context)
    else:
        model, tokenizer = load_initial(settings.student.init)
        check_room(settings, tokenizer, context_of(model.config))
    return tokenizer
