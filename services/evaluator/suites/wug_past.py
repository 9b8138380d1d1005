"""Wug past tense (Weissweiler et al. 2023): which past tense for a nonce verb?

Headline: Spearman's correlation with people's preferences, as in wug.py.
"""

from services.evaluator.suites.wug import evaluate

__all__ = ["NAME", "evaluate"]

NAME = "wug_past"
