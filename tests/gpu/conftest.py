"""Where a test runs: on the CPU, and on a GPU where there is one."""

import pytest
import torch


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU that PyTorch can use; torch.cuda.is_available() is False here")
    return torch.device(request.param)
