"""What can be wrong with a corpus."""


class CorpusError(ValueError):
    """The corpus is missing, empty or malformed; the message names the place and the cure."""
