"""Control markers in stories are broken, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.teacher.judges.remote.markers import broken, markers

KNOWN = (
    "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<bos>", "<eos>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>",
    "<tool_call>", "<extra_id_0>", "<unused7>", "<0x0A>", "<fim_prefix>", "<sop>", "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>", "<<SYS>>", "<</SYS>>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]",
    "[SYSTEM_PROMPT]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[gMASK]", "[|user|]", "[|endofturn|]", "[img-0]",
    "<｜User｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<__media__>", "<|channel|>", "<|message|>",
    ">>TITLE<<", ">>QUESTION<<", "<|reserved_special_token_123|>",
)  # fmt: skip
pieces = st.one_of(st.sampled_from(KNOWN), st.sampled_from("<>[]|｜/ \n＜＞"), st.text(max_size=6))


@given(st.lists(pieces, max_size=12).map("".join))
def test_no_marker_is_left_and_only_spaces_are_added(text: str) -> None:
    found = broken(text)
    assert [marker for marker in KNOWN if marker in found] == []
    assert found.replace(" ", "") == text.replace(" ", "")
    assert broken(found) == found
    found.encode()


@pytest.mark.parametrize("marker", KNOWN)
def test_every_known_marker_is_one(marker: str) -> None:
    assert markers(f"a {marker} b") != []


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time, a fox lost his lantern.",
        "I <3 you. 2 < 3 and 5 > 4, she said; then x <- y.",
        "He whispered [laughing] and [A] took note [1] of it; see also [ibid.] and [Ed].",
        "C'était l'été — 狐狸丢了灯笼。 🦊 \t and a\ttab",
        "{{ not.a.template }} {% nor this %} ### Instruction:",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert broken(text) == text


def test_what_a_broken_marker_looks_like() -> None:
    assert broken("The end.<|im_end|>[INST]<<SYS>>") == "The end.< |im_end|>[ INST]<< SYS>>"


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert broken("a\ud800b") == "a�b"


def test_a_hundred_thousand_characters_take_no_time() -> None:
    for text in ("<" * 100_000, "<a" * 50_000, "[" * 100_000, "[A" * 50_000, ">>A" * 33_000, "<" + "a" * 100_000):
        assert len(broken(text)) >= len(text)
