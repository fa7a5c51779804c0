"""Runs on several ranks (gloo, on the CPU) against the same runs on one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ebert_core.config import EncoderConfig, OptimizerConfig, PretrainConfig
from ebert_core.data.dataset import Dataset
from ebert_core.model.checkpoint import load_weights
from ebert_core.model.device import Device
from ebert_core.training import loop
from ebert_core.training.journal import read_journal
from ebert_core.training.loop import Surroundings
from ebert_core.training.pretrain import PretrainData, pretrain
from ebert_core.training.resume import resume_points
from ebert_core.training.run_folder import RunTarget

PROGRAM = Path(__file__).with_name("rank_program.py")
ROOT = Path(__file__).resolve().parents[2]
CONFIG = PretrainConfig(
    encoder=EncoderConfig(width=16, num_layers=2, num_heads=2, stem_channels=8),
    optimizer=OptimizerConfig(learning_rate=0.01, ema_decay=0.5),
    window_bp=1_000,
    global_batch=7,
    micro_batch=2,
    steps=6,
    valid_windows=5,
    evaluate_every=3,
    checkpoint_every=2,
)


# An evaluation after each step, and no resume point between them.
OFTEN = {"evaluate_every": 1, "checkpoint_every": 0}


def start(dataset: Dataset, size: int, jobs: list[dict[str, Any]]) -> list[subprocess.Popen[str]]:
    """One process per rank, as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", PROGRAM, dataset.path, json.dumps(jobs)],
            env={**os.environ, **place, "RANK": str(rank), "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ended(ranks: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each."""
    found = []
    for process in ranks:
        try:
            out, err = process.communicate(timeout=90)
        finally:
            process.kill()
        found.append((process.returncode, out, err))
    return found


def job(folder: Path, name: str, **values: Any) -> dict[str, Any]:
    changes = values.pop("changes", {})
    return {"config": CONFIG.model_copy(update=changes).model_dump(), "output": str(folder / name), **values}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(toy_dataset: Dataset, folder: Path) -> Callable[..., Path]:
    """A function that makes a run on one rank, in this process, once."""
    made: dict[str, Path] = {}

    def run(name: str = "alone", resume: bool = False, **changes: Any) -> Path:
        if name not in made or resume:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "_LOG_EVERY", 1)
                data = PretrainData.choose(toy_dataset, [], [], [], [])
                target = RunTarget(folder / name, resume=resume)
                around = Surroundings(Device(torch.device("cpu"), bf16=False))
                made[name] = pretrain(data, CONFIG.model_copy(update=changes), target, around)
        return made[name]

    return run


def assert_same_to_rounding(found: Path, expected: Path) -> None:
    """Every figure of every step and evaluation, and the published weights."""
    journals = [read_journal(path / "journal.jsonl") for path in (found, expected)]
    assert len(journals[0]) == len(journals[1]) == CONFIG.steps + 2
    for ours, theirs in zip(*journals, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "speed", "event", "baselines"}:
            assert ours[name] == pytest.approx(theirs[name], rel=2e-5, abs=1e-6), (name, ours["step"])
    weights = [load_weights(path / "weights.safetensors") for path in (found, expected)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=2e-5)
    manifests = [json.loads((path / "ebert.json").read_text()) for path in (found, expected)]
    for key in ("num_parameters", "best_step", "data", "vocabulary"):
        assert manifests[0][key] == manifests[1][key]


@pytest.fixture(scope="module")
def two(toy_dataset: Dataset, folder: Path, alone: Callable[..., Path]) -> list[dict[str, Any]]:
    """What rank 0 of two said of each job."""
    fsdp = {"parallel": "fsdp"}
    jobs = [
        job(folder, "ddp2"),
        job(folder, "fsdp2", changes=fsdp),
        job(folder, "even2", changes={"global_batch": 8}),
        job(folder, "small2", small_memory_on=1),
        job(folder, "not_finite2", not_finite_on=1),
        job(folder, "begun_by_two", stop_at=3),
        job(folder, "ddp_fsdp", stop_at=4),
        job(folder, "ddp_fsdp", changes=fsdp, resume=True),
        job(folder, "tiny_batch", changes={"global_batch": 1, "valid_windows": 1}),
        job(folder, "worse2", never_better=True, changes=fsdp | OFTEN),
        job(folder, "again2", stops_evaluation=True, changes=fsdp),
        job(folder, "again2", resume=True, changes=fsdp),
        job(folder, "failed", fails_on=1),
    ]
    ranks = ended(start(toy_dataset, 2, jobs))
    # The last job fails on rank 1: both end, and one of them says why.
    assert [code for code, _, _ in ranks] == [1, 1]
    assert [err for _, _, err in ranks] == ["", "error: rank 1: the disk fell off\nhint: put it back\n"]
    assert ranks[1][1] == "", "only rank 0 speaks"
    return [json.loads(line) for line in ranks[0][1].splitlines()]


@pytest.fixture(scope="module")
def three(toy_dataset: Dataset, folder: Path, two: object) -> list[dict[str, Any]]:
    jobs = [job(folder, "ddp3"), job(folder, "begun_by_two", resume=True), job(folder, "killed", killed=1)]
    ranks = ended(start(toy_dataset, 3, jobs))
    # In the last job, rank 1 is killed: the others end by themselves.
    assert [code for code, _, _ in ranks] == [1, -9, 1]
    told = "".join(err for _, _, err in ranks)
    assert told.count("error: ") == told.count("lost another rank (") == 1
    assert "--resume" in told
    assert "Traceback" not in told
    return [json.loads(line) for line in ranks[0][1].splitlines()]


@pytest.mark.parametrize("name", ["ddp2", "fsdp2"])
def test_two_ranks_do_what_one_does(two: object, folder: Path, alone: Callable[..., Path], name: str) -> None:
    """Seven windows on two ranks; with all weights on each, and with shares of them (FSDP2)."""
    assert_same_to_rounding(folder / name, alone())


@pytest.mark.slow
def test_three_ranks_do_what_one_does(three: object, folder: Path, alone: Callable[..., Path]) -> None:
    assert_same_to_rounding(folder / "ddp3", alone())


def test_a_batch_that_divides(two: object, folder: Path, alone: Callable[..., Path]) -> None:
    assert_same_to_rounding(folder / "even2", alone("even1", global_batch=8))


def test_more_ranks_than_windows(two: object, folder: Path, alone: Callable[..., Path]) -> None:
    assert_same_to_rounding(folder / "tiny_batch", alone("tiny1", global_batch=1, valid_windows=1))


@pytest.mark.slow
def test_a_run_of_two_ranks_goes_on_with_three(three: object, folder: Path, alone: Callable[..., Path]) -> None:
    assert_same_to_rounding(folder / "begun_by_two", alone())


def test_a_run_goes_on_in_shards(two: list[dict[str, Any]], folder: Path, alone: Callable[..., Path]) -> None:
    assert two[6]["error"] == "interrupted"
    assert_same_to_rounding(folder / "ddp_fsdp", alone())


def test_shards_train_on_their_own_weights_after_the_average_was_scored(
    two: object, folder: Path, alone: Callable[..., Path]
) -> None:
    """Also where the score is no better, so that nothing is copied out of the shards."""
    losses = [
        [event["loss"] for event in read_journal(path / "journal.jsonl") if event["event"] == "train"]
        for path in (folder / "worse2", alone("often1", **OFTEN))
    ]
    assert len(losses[0]) == CONFIG.steps
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)


def test_shards_stopped_in_an_evaluation_go_on_with_it(
    two: list[dict[str, Any]], folder: Path, alone: Callable[..., Path]
) -> None:
    assert two[10]["error"] == "interrupted"
    assert_same_to_rounding(folder / "again2", alone())


def test_too_little_memory_on_one_rank_halves_the_micro_batch_of_all(
    two: list[dict[str, Any]], folder: Path, alone: Callable[..., Path]
) -> None:
    assert two[3]["warnings"] == [
        "out of memory: micro-batches of 1 windows from here on; the global batch stays the same"
    ]
    assert_same_to_rounding(folder / "small2", alone())


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_and_names_its_windows(
    two: list[dict[str, Any]], folder: Path
) -> None:
    assert "not finite at step 4 (loss nan, examples 3 to 4)" in two[4]["error"]
    saved = load_weights(folder / "not_finite2.partial" / "not-finite-step-00000004.safetensors")
    assert saved["bases"].shape == (2, 1_000)
    assert [path.name for path in resume_points(folder / "not_finite2.partial")][-1] == "resume-step-00000002"


@pytest.mark.slow
def test_a_killed_rank_costs_no_resume_point(three: object, folder: Path, alone: Callable[..., Path]) -> None:
    assert [path.name for path in resume_points(folder / "killed.partial")] == ["resume-step-00000002"]
    assert_same_to_rounding(alone("killed", resume=True), alone())
