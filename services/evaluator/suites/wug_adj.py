"""Wug adjective nominalisation (Hofmann et al. 2024): -ity or -ness for a nonce adjective?

Headline: Spearman's correlation with people's preferences, as in wug.py.
"""

from services.evaluator.suites.wug import evaluate

__all__ = ["NAME", "evaluate"]

NAME = "wug_adj"
