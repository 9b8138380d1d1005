"""Our PPO against what TRL 0.9.4 made of the same tensors and the same model, as recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trl.comparison import STEPS, assert_losses_are_trls, assert_step_is_trls


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "trl" / "ppo.json"
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def test_losses_and_gradients_are_trls(recorded: dict[str, Any]) -> None:
    assert_losses_are_trls(recorded["losses"])


@pytest.mark.parametrize("name", list(STEPS))
def test_weights_after_a_step_are_trls(recorded: dict[str, Any], name: str) -> None:
    assert_step_is_trls(recorded[name], STEPS[name])
