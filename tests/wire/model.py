"""A tiny Llama folder that behaves like a judge: random, but where an answer is due it writes a digit or a space."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_models import HEADERS, make_tiny_llama

SIGNAL = 6.0  # size of the two channels that say whether the last token was a digit
FOCUS = 3.0  # makes attention look at few tokens, so that verdicts differ from story to story
LIFT = 5.0  # weight that turns the signal into logits: about nine nats for a digit or a space


def make_judge_folder(folder: Path, *, lift: float = LIFT, begins_each_text: bool = True, heads: int = 4) -> Path:
    """Write a tiny Llama with Llama 3's chat template.

    Args:
        folder: where to.
        lift: after anything but a digit the digits' logits are lifted by this, after a digit that of the space. 5
            gives answers "d d d" more than nine tenths of the probability, 0 leaves the random model as it is.
        begins_each_text: whether the tokenizer puts a beginning token before each text, as Llama 3's own does; the
            chat template does in any case.
        heads: of its attention; vLLM's kernels for CPUs want them 32 wide, which is two.
    """
    make_tiny_llama(folder, heads=heads)
    if begins_each_text:
        _begin_each_text(folder)
    if lift:
        _lift_answers(folder, lift)
    return folder


def _begin_each_text(folder: Path) -> None:
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    begin = HEADERS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin} $B",
        special_tokens=[(begin, tokenizer.token_to_id(begin))],
    )
    tokenizer.save(path)


def _lift_answers(folder: Path, lift: float) -> None:
    """Channel 0 says "the last token is no digit", channel 1 "it is one"; nothing writes to them on the way."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    (space,) = tokenizer.encode(" ", add_special_tokens=False)
    with torch.no_grad():
        words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        words *= 8.0  # or else the two channels drown what the story says
        words[:, 0], words[:, 1] = SIGNAL, 0.0
        words[digits, 0], words[digits, 1] = 0.0, SIGNAL
        for layer in model.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                part.weight *= FOCUS
            layer.self_attn.o_proj.weight[:2] = 0.0
            layer.mlp.down_proj.weight[:2] = 0.0
        head[:, :2] = 0.0
        head[digits] *= 2.0
        head[digits[:4], 0] = lift
        head[space, 1] = lift
    model.save_pretrained(folder)
