"""Flags by single marks: claimed scores, openers, control tokens, fences, invisible characters."""

import re
from collections.abc import Iterator
from functools import lru_cache

from services.teacher.flags.words import Found
from services.teacher.rubric import Rubric

_LINE = r"(?:(?<=\n)|\A)[ \t]{0,3}"  # the start of a line

# The list of arXiv 2507.08794 with its other languages, and their like.
_OPENERS = "|".join(
    (
        r"thought[ _-]?process|reasoning|explanation|analysis|solution|answer|(?:final|my|the|correct) answer(?: is)?",
        r"gedankengang|l[oö]sung|antwort|raisonnement|r[eé]ponse|respuesta|soluci[oó]n|resposta|solu[cç][aã]o",
        r"soluzione|risposta|решение|ответ|解|解答|答案|答|回答|思考过程|思考過程|解説|かいせつ|풀이|해설|답|الحل|الجواب",
    )
)
_OPENER = re.compile(rf"{_LINE}[#*_>-]{{0,4}} ?(?:{_OPENERS})[*_]{{0,2}} ?(?:[:：]|\Z|(?=\n))", re.IGNORECASE)
_SYMBOLS = re.compile(r"[:：]|[^\w]{1,200}\Z")  # at the start of the text

_TAGS = (
    "s|pad|unk|mask|bos|eos|cls|sep|eot|eod|start_of_turn|end_of_turn|think|thinking|answer|assistant|user|system|"
    r"tool_call|story|submission|text|extra_id_\d{1,2}|0x[0-9a-f]{2}"
)
_ROLES = "assistant|system|user|human|instructions?|response|input|output"
_CONTROL_TOKEN = re.compile(
    "|".join(
        (
            r"<[|｜][^\s<>|｜]{1,40}[|｜]>",  # <|eot_id|>, <|im_start|>, and DeepSeek's wide bars
            rf"</?(?:{_TAGS})>",
            r"\[/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|SYSTEM_PROMPT|UNK|PAD|MASK|CLS|SEP)\]",
            r"<</?SYS>>",
            r"\\boxed\{",
            rf"{_LINE}#{{1,4}} ?(?:{_ROLES})\b",
            rf"{_LINE}(?:assistant|system|ai) ?:",
        )
    ),
    re.IGNORECASE,
)

_RULE = r"[-=*_#~]"
_WORK = r"(?:the )?(?:student'?s? )?(?:story|text|submission|essay)"
_CODE = r"[0-9a-f]{4,64}"
_ENDS = r"(?:begin|start|end)"
_FENCE = re.compile(
    rf"{_RULE}{{2,40}}+ ?(?:(?:{_ENDS}(?: of)? )?{_WORK}(?: {_CODE})?|{_ENDS} {_CODE}) ?{_RULE}{{2}}", re.IGNORECASE
)
_BRACKETS = re.compile(rf"\[ ?{_ENDS} of {_WORK} ?\]", re.IGNORECASE)
_BLOCK = re.compile(r'```|"""')

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
    # Joiners and variation selectors are at home in emoji and in many scripts, not behind Latin letters.
    "|(?<=[ -\u024f])[\u200c\u200d\ufe00-\ufe0e]|(?<=[A-Za-z ])\ufe0f"
)
_NATION = re.compile("\U0001f3f4[\U000e0061-\U000e007a]{4,6}\U000e007f")  # the flag of England is spelt with tags
_OF_ITSELF = re.compile(r"(?<![\w/.,])(\d{1,3}) ?/ ?\1(?![\w/])")  # 9/9


@lru_cache(maxsize=64)
def _scores(names: tuple[str, ...]) -> re.Pattern[str]:
    """A name and a number: `Readability: 3`, `"creativity": 2`, `score = 9/9`."""
    named = "|".join(re.escape(name.replace("_", " ")) for name in names)
    return re.compile(
        rf"\b(?:{named}|scores?|rating|grade|marks|points)[\"'*]{{0,3}} ?[:=] ?[\"'*]{{0,3}}\d", re.IGNORECASE
    )


def find(text: str, rubric: Rubric) -> Iterator[Found]:
    """Every place that one of the patterns marks."""
    for name, pattern in (
        ("score_tail", _scores(tuple(c.name for c in rubric.criteria))),
        ("score_tail", _OF_ITSELF),
        ("master_key", _OPENER),
        ("control_token", _CONTROL_TOKEN),
        ("fence", _FENCE),
        ("fence", _BRACKETS),
        ("fence", _BLOCK),
    ):
        for match in pattern.finditer(text):
            yield name, match.start(), match.end()
    if symbols := _SYMBOLS.match(text):
        yield "master_key", 0, symbols.end()
    nations = {i for m in _NATION.finditer(text) for i in range(*m.span())}
    for match in _INVISIBLE.finditer(text):
        if match.start() not in nations:
            yield "invisible", match.start(), match.end()
