"""What a word is, for every budget and every count: a run of characters between whitespace."""


def count_words(text: str) -> int:
    """Whitespace-separated words of `text`, as BabyLM counts them."""
    return len(text.split())
