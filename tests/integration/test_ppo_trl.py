"""Our PPO against TRL 0.9.4 itself, where an environment with it is named by FABULA_TRL_PYTHON."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.trl import record_ppo
from tests.trl.comparison import STEPS, assert_losses_are_trls, assert_step_is_trls

PYTHON = "FABULA_TRL_PYTHON"


@pytest.mark.skipif(
    PYTHON not in os.environ, reason=f"set {PYTHON} to the Python of an environment as tests/trl/record_ppo.py says"
)
def test_losses_gradients_and_steps_are_trls() -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    script = Path(record_ppo.__file__)
    run = subprocess.run(
        [os.environ[PYTHON], script], capture_output=True, text=True, check=True, env=environment, timeout=250
    )
    record = json.loads(run.stdout.splitlines()[-1])
    assert_losses_are_trls(record["losses"])
    for name, epochs in STEPS.items():
        assert_step_is_trls(record[name], epochs)
