"""GBNF, llama.cpp's grammars, as regular expressions. Rules that need themselves are beyond a regular expression.

Source: llama.cpp, grammars/README.md and src/llama-grammar.cpp.
"""

import regex  # type: ignore[import-untyped]

from tests.wire.constraint import BadGrammarError, Constraint

_TOKENS = regex.compile(
    r"""(?P<space>[ \t]+|\#[^\n]*)|(?P<line>\r?\n)|(?P<define>::=)|(?P<text>"(?:[^"\\\n]|\\.)*")"""
    r"""|(?P<set>\[(?:[^\]\\\n]|\\.)*\])|(?P<name>[A-Za-z][A-Za-z0-9-]*)|(?P<count>\{[0-9]+(?:,[0-9]*)?\})"""
    r"""|(?P<sign>[()|*+?.])"""
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "[": "[", "]": "]"}


def gbnf_constraint(grammar: str) -> Constraint:
    """The language of the rule `root`.

    Raises:
        BadGrammarError: no GBNF, or rules that call themselves.
    """
    rules: dict[str, str] = {}
    for name, body in _rules(grammar):
        rules[name] = body
    if "root" not in rules:
        raise BadGrammarError("grammar does not contain a 'root' symbol")
    return Constraint(_expand("root", rules, ()))


def _rules(grammar: str) -> list[tuple[str, str]]:
    """Each rule's name and body; a body may go on over lines until the next `name ::=`."""
    found = list(regex.finditer(r"(?m)^\s*([A-Za-z][A-Za-z0-9-]*)\s*::=", grammar))
    if not found or grammar[: found[0].start()].strip():
        raise BadGrammarError(f"expecting name at {grammar[:20]!r}")
    ends = [match.start() for match in found[1:]] + [len(grammar)]
    return [(match[1], grammar[match.end() : end]) for match, end in zip(found, ends, strict=True)]


def _expand(name: str, rules: dict[str, str], above: tuple[str, ...]) -> str:
    if name not in rules:
        raise BadGrammarError(f"Undefined rule identifier '{name}'")
    if name in above:
        raise BadGrammarError(f"rule '{name}' calls itself; only regular grammars are known here")
    pattern, body, at = "", rules[name], 0
    while at < len(body):
        token = _TOKENS.match(body, at)
        if token is None:
            raise BadGrammarError(f"expecting newline or end at {body[at : at + 20]!r}")
        at = token.end()
        match token.lastgroup:
            case "text":
                pattern += "(?:" + regex.escape(_unescape(token[0][1:-1])) + ")"
            case "name":
                pattern += _expand(token[0], rules, (*above, name))
            case "set" | "count":
                pattern += token[0]
            case "sign":
                pattern += {"(": "(?:", ".": r"[\s\S]"}.get(token[0], token[0])
    return f"(?:{pattern})"


def _unescape(text: str) -> str:
    return str(regex.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text))
