"""The student: a GPT-2 of any size, initialised from a seed."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from services.student_trainer.settings import StudentSettings

# Eager attention is the fastest at these lengths on a CPU, and gives the same numbers with and without gradients.
ATTENTION = "eager"


def build_student(settings: StudentSettings, tokenizer: PreTrainedTokenizerBase, seed: int) -> GPT2LMHeadModel:
    """A student with random weights that depend on `seed` alone, in training mode, fp32, on the CPU.

    torch's global random state is left as it was found. The vocabulary is exactly the tokenizer's; input and output
    embeddings are tied.
    """
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        activation_function="gelu_pytorch_tanh",  # gelu_new by one kernel instead of eight operations
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: GPT2LMHeadModel = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    model.train()
    return model


def load_student(path: Path) -> GPT2LMHeadModel:
    """The student of a checkpoint, in evaluation mode, on the CPU.

    Raises:
        TypeError: the checkpoint holds another kind of model.
        OSError: there is no model at `path`.
    """
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation=ATTENTION)
    if not isinstance(model, GPT2LMHeadModel):
        raise TypeError(f"{path} holds a {type(model).__name__}; expected a GPT2LMHeadModel student")
    model.eval()  # type: ignore[no-untyped-call]
    return model


def parameter_count(model: torch.nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())
