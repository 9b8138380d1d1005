"""Benchmark data in the BabyLM 2025 `evaluation_data` layout: a folder, or a dataset on the Hugging Face Hub."""

from services.evaluator.adapters.eval_data.hub import is_hub, local_folder
from services.evaluator.adapters.eval_data.items import (
    load_blimp,
    load_blimp_supplement,
    load_comps,
    load_entity_tracking,
    load_ewok,
    load_wug_adj,
    load_wug_past,
)
from services.evaluator.adapters.eval_data.layout import GET_IT, check_folder, find, require

__all__ = [
    "GET_IT",
    "check_folder",
    "find",
    "is_hub",
    "load_blimp",
    "load_blimp_supplement",
    "load_comps",
    "load_entity_tracking",
    "load_ewok",
    "load_wug_adj",
    "load_wug_past",
    "local_folder",
    "require",
]
