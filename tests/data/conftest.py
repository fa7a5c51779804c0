"""What the tests of preparing share."""

from __future__ import annotations

import pytest

from ebert_core.reporting import Reporter


class Recorder(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def log(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture
def said() -> Recorder:
    """A reporter that keeps what it was told."""
    return Recorder()
