"""Where the released files lie."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--released", type=Path, required=True, help="folder of the released files")


@pytest.fixture(scope="session")
def released(request) -> Path:
    return request.config.getoption("--released")
