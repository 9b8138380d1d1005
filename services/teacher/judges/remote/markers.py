"""Control markers in a story are broken before it is sent: most servers parse them out of any text that they are given.

A space after the first sign is enough, since a marker is matched as a whole: `<|im_end|>` becomes `< |im_end|>`. It
stays readable to the judge, who is to see that the story carried it. What is broken is whatever looks like a marker,
whether or not the server's model has it:

- anything in angle brackets on one line, up to 100 characters, full-width brackets included: `<|...|>`, `<s>`,
  `</s>`, `<start_of_turn>`, `<think>`, `<<SYS>>`, DeepSeek's `<｜User｜>`, llama.cpp's `<__media__>`
- bracketed names without small letters, and those with bars: `[INST]`, `[/INST]`, `[TOOL_CALLS]`, `[|user|]`, also
  `[gMASK]` and Ollama's `[img-0]`
- Falcon's `>>TITLE<<`
"""

import re

MARKER = re.compile(
    r"[<＜][^\s<>＜＞][^<>＜＞\n]{0,99}[>＞]"
    r"|\[(?:/?[A-Z][A-Z0-9_/-]+|gMASK|/?[|｜][^\[\]\n]{0,99}|img-\d+)\]"
    r"|>>[A-Z]+<<"
)
# Found where it begins, so that overlapping markers are all found.
_BEGINNING = re.compile(f"(?={MARKER.pattern})(?:>>|.)")
_SURROGATE = re.compile("[\ud800-\udfff]")


def broken(text: str) -> str:
    """`text` with a space inside each marker, and U+FFFD for each lone surrogate, which no JSON can carry."""
    return _BEGINNING.sub(lambda found: found.group() + " ", _SURROGATE.sub("�", text))


def markers(text: str) -> list[str]:
    """The markers in `text`, in order, without overlap."""
    return MARKER.findall(text)
