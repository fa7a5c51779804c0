from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ebert_cli.app import app


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


def _run(*arguments: object) -> Done:
    """Run `ebert ARGUMENTS` in this process; an exception that escapes fails the test with its traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def ebert(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """A function that runs `ebert ARGUMENTS`; C libraries may not print past the program's own streams."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        done = _run(*arguments)
        assert capfd.readouterr() == ("", ""), arguments
        return done

    return run


@pytest.fixture(scope="session")
def walked(toy_files, tmp_path_factory) -> Path:
    """A folder in which prepare, pretrain, finetune and predict were run on the toy world; do not change it."""
    folder = tmp_path_factory.mktemp("walked")
    before = Path.cwd()
    os.chdir(folder)
    try:
        tiny = ["--set", "optimizer.warmup_fraction=0", "--threads", "1", "--quiet"]
        shape = [f"--set=encoder.{name}" for name in ("width=16", "num_layers=1", "num_heads=2", "stem_channels=8")]
        prepare = ["--genome", toy_files.genome, "--states", toy_files.states, "--chip", toy_files.chip]
        for command in (
            ["prepare", *prepare, "--accessibility", toy_files.accessibility, "--exclude", toy_files.exclude],
            ["pretrain", "--steps", 1, "--set", "valid_windows=1", "--valid-chrom", "chr2", *shape, *tiny],
            ["finetune", "--tf", "CTCF", "--steps", 1, "--set", "valid_bp=4000", *tiny],
            ["predict", "--tf", "CTCF", "--cell", "HepG2", "--chrom", "chr2:0-4000", "--threads", "1", "--quiet"],
        ):
            done = _run(*command)
            assert done.exit_code == 0, (command, done.stderr)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def road(walked, tmp_path, monkeypatch) -> Path:
    """A copy of `walked` as the working folder."""
    folder = shutil.copytree(walked, tmp_path / "road")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def here(road: Path) -> Path:
    """The road without its prediction."""
    shutil.rmtree(road / "predictions")
    return road
