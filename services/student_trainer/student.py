"""The student: a causal language model of any kind and size that transformers has, initialised from a seed."""

import dataclasses
import difflib
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from services.student_trainer.initial_model import initial_folder
from services.student_trainer.settings import StudentSettings
from services.student_trainer.student_errors import StudentError

__all__ = [
    "StudentError",
    "build_student",
    "check_teachable",
    "load_initial",
    "load_student",
    "parameter_count",
    "student_config",
]

# Eager attention is the fastest at these lengths on a CPU, and gives the same numbers with and without gradients.
ATTENTION = "eager"
_DROPOUTS = (
    *("attention_dropout", "hidden_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"),
    *("attn_dropout", "resid_dropout", "embed_dropout", "dropout"),
)


def build_student(settings: StudentSettings, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A student with random weights that depend on `seed` alone, in training mode, fp32, on the CPU.

    torch's global random state is left as it was found. The vocabulary is exactly the tokenizer's; input and output
    embeddings are tied, unless `student.config` says otherwise.

    Raises:
        StudentError: `student.model` or `student.config` is wrong.
    """
    config = student_config(settings, tokenizer)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # and no GPU's, which would not be set back
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    except (ValueError, TypeError, RuntimeError) as error:
        raise StudentError(f"transformers cannot build student.model {settings.model}: {error}") from error
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    check_teachable(model, settings.model)
    model.train()
    return model


def student_config(settings: StudentSettings, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedConfig:
    """The configuration of a new student; without a tokenizer its vocabulary is transformers' default.

    Raises:
        StudentError: transformers has no such causal language model, or it has no such fields.
    """
    kind = _kind(settings.model)
    fields = {field.name for field in dataclasses.fields(kind)}
    known = fields | set(kind.attribute_map)
    shape: dict[str, Any] = {
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "hidden_size": settings.width,
        "max_position_embeddings": settings.context,
    }
    if missing := sorted(set(shape) - known):
        raise StudentError(
            f"student.model {settings.model}: its configuration has no {', '.join(missing)}; try gpt2, llama or qwen3"
        )
    if tokenizer is not None:
        shape["vocab_size"] = len(tokenizer)
        shape |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if clashes := sorted((set(shape) | {kind.attribute_map.get(name, name) for name in shape}) & set(settings.config)):
        raise StudentError(
            f"student.config sets {', '.join(clashes)}, which student.layers, heads, width, context or the tokenizer "
            "decides; leave it out"
        )
    if unknown := sorted(set(settings.config) - known):
        near = difflib.get_close_matches(unknown[0], sorted(known), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(fields))}"
        raise StudentError(f"student.config.{unknown[0]} is no field of {settings.model}'s configuration; {hint}")
    usual: dict[str, Any] = dict.fromkeys(_DROPOUTS, settings.dropout) | {
        "intermediate_size": 4 * settings.width,
        "num_key_value_heads": settings.heads,
        "head_dim": settings.width // settings.heads,
        "tie_word_embeddings": True,
    }
    if settings.model == "gpt2":
        usual["activation_function"] = "gelu_pytorch_tanh"  # gelu_new by one kernel instead of eight operations
    chosen = {name: value for name, value in usual.items() if name in fields} | settings.config
    try:
        return kind(**shape, **chosen)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise StudentError(
            f"transformers refuses the configuration of student.model {settings.model}: {error}"
        ) from error


def load_student(path: Path | str) -> PreTrainedModel:
    """The student of a checkpoint, or the model of a Hub id, in evaluation mode, fp32, on the CPU.

    Raises:
        OSError: there is no model at `path`.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path, attn_implementation=ATTENTION, dtype=torch.float32
    )
    return model.eval()  # type: ignore[no-any-return,no-untyped-call,unused-ignore]


def load_initial(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that `student.init` names, a folder or a Hub id, with its own tokenizer; in training mode, fp32.

    A tokenizer without a padding token pads with its end token: what is padding is known by lengths here.

    Raises:
        StudentError: there is no such folder, it cannot be taught, or its tokenizer does not fit.
        OSError: it cannot be fetched.
    """
    place = initial_folder(name) or name
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
        model = load_student(place)
    except ValueError as error:
        raise StudentError(f"student.init {name} cannot be read as a causal language model: {error}") from error
    if tokenizer.eos_token_id is None or not tokenizer.is_fast:
        raise StudentError(
            f"student.init {name}: its tokenizer must be a fast one with an end token; it is {tokenizer}"
        )
    vocabulary = len(cast(torch.nn.Embedding, model.get_input_embeddings()).weight)
    if len(tokenizer) > vocabulary:
        raise StudentError(f"student.init {name}: {len(tokenizer)} tokens do not fit its {vocabulary} embeddings")
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        raise StudentError(
            f"student.init {name}: its tokenizer ends every text with {tokenizer.eos_token}, so no prompt can be "
            "continued; remove that from its tokenizer.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_teachable(model, f"student.init {name}")
    model.train()
    return model, tokenizer


@torch.no_grad()
def check_teachable(model: PreTrainedModel, name: str) -> None:
    """Whether decoding and learning may assume of `model` what they do.

    Raises:
        StudentError: it keeps a state instead of keys and values, sees later tokens, or does more to its hidden states
            than to multiply them by the output embedding.
    """
    if getattr(model, "_is_stateful", False):
        raise StudentError(f"{name} keeps a state instead of keys and values, which decoding cannot do without")
    training = model.training
    model.train(False)
    tokens_BT = torch.tensor([[1, 2, 3, 0], [1, 2, 3, 4]], device=model.device)
    mask_BT = torch.ones_like(tokens_BT)
    # Large logits, for a cap on them is hardly felt by the small ones of random weights.
    enlarged = model.get_output_embeddings().register_forward_hook(lambda _, __, logits: 1000 * logits)
    try:
        logits_BTV = model(tokens_BT, attention_mask=mask_BT, use_cache=False).logits
        hidden_BTD = model.base_model(tokens_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        expected_BTV = model.get_output_embeddings()(hidden_BTD)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise StudentError(f"{name} cannot read four tokens in this shape: {error}") from error
    finally:
        enlarged.remove()
        model.train(training)
    if not torch.allclose(logits_BTV[0, :3], logits_BTV[1, :3], rtol=1e-3, atol=1e-2):
        raise StudentError(f"{name} sees the tokens that it is to predict: it is no causal language model")
    if not torch.allclose(logits_BTV, expected_BTV, rtol=1e-3, atol=1e-2):
        raise StudentError(
            f"{name} scales or caps its logits, which learning does not do; "
            "switch that off in its configuration, or choose another model"
        )


def parameter_count(model: torch.nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _kind(name: str) -> type[PreTrainedConfig]:
    """The configuration class of a causal language model by its name in transformers."""
    if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        near = difflib.get_close_matches(name, list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "try gpt2, llama, mistral, qwen2 or qwen3"
        raise StudentError(f"student.model {name!r} is no causal language model of transformers; {hint}")
    kind: type[PreTrainedConfig] = CONFIG_MAPPING[name]
    return kind
