"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from verl_twgrpo.platforms.torchvision_ops import declare_missing_ops

# before any test module imports transformers' processors
declare_missing_ops()

SHARED_FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Real data and real model outputs; they lie beside the checkout, as their licences forbid shipping them."""
    if not SHARED_FIXTURES.is_dir():
        pytest.skip(f"the shared fixtures are not beside this checkout ({SHARED_FIXTURES})")
    return SHARED_FIXTURES
