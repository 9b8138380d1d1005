"""Benchmark data from a folder in the BabyLM 2025 `evaluation_data` layout, or of original BLiMP files."""

from services.evaluator.adapters.eval_data.items import load_blimp, load_blimp_supplement, load_entity_tracking
from services.evaluator.adapters.eval_data.layout import GET_IT, check_folder, find, require

__all__ = [
    "GET_IT",
    "check_folder",
    "find",
    "load_blimp",
    "load_blimp_supplement",
    "load_entity_tracking",
    "require",
]
