"""Work, speed and the share of the peak, against sums by hand; and what a dry run says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ebert_core.config import PRESETS, EncoderConfig, PretrainConfig
from ebert_core.data.dataset import Dataset
from ebert_core.model.checkpoint import PretrainingModel
from ebert_core.model.device import Device
from ebert_core.model.encoder import count_parameters
from ebert_core.training import probe, progress
from ebert_core.training.loop import Surroundings
from ebert_core.training.pretrain import MaskedLanguageObjective, PretrainData, flops_per_window
from ebert_core.training.progress import Meter, measured_peak, no_content, training_flops

TINY = PretrainConfig(
    encoder=EncoderConfig(width=16, num_layers=2, num_heads=2, stem_channels=8),
    window_bp=1_000,
    global_batch=8,
    micro_batch=2,
    valid_windows=2,
)


def test_the_work_of_a_linear_layer() -> None:
    one, two = nn.Linear, lambda *shape: nn.Sequential(nn.Linear(*shape), nn.Linear(5, 4))
    sizes = []
    for make in (one, two):
        sizes.append(training_flops(lambda make=make: make(7, 5), lambda m: m(torch.empty(3, 7, device="meta"))))
    # Nobody asks for the gradient of the input.
    assert sizes == [2 * (2 * 3 * 7 * 5), 2 * (2 * 3 * 7 * 5) + 3 * (2 * 3 * 5 * 4)]
    assert no_content(2, 3).shape == (2, 3)


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_the_work_of_training_by_hand(preset: str) -> None:
    """Two operations per weight and token in every product, attention's two; backward is twice that, or once."""
    config, num_states = PRESETS[preset], 18
    shape, tokens = config.encoder, config.window_bp // config.encoder.token_bp
    d, c = shape.width, shape.stem_channels
    block = (3 * d * d + d * d + 2 * shape.mlp_ratio * d * d) * tokens + 2 * tokens * tokens * d
    # What reads the bases needs no gradient of them.
    reading = config.window_bp * 5 * c * shape.stem_kernel_bp + tokens * d * 5 * shape.token_bp
    hidden = round(config.masking.dna_rate * tokens), round(config.masking.state_rate * config.window_bp / 200 + 1e-9)
    heads = hidden[0] * (d * d + d * 4 * shape.token_bp) + hidden[1] * d * num_states
    expected = 3 * 2 * (shape.num_layers * block + tokens * d * c + heads) + 2 * 2 * reading
    assert flops_per_window(config, num_states) == pytest.approx(expected, rel=2e-3)


def test_the_peak_is_a_rate_that_a_product_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_CPU_SIZE", 256)
    monkeypatch.setattr(progress, "_PEAK_SECONDS", 0.02)
    assert 1e8 < measured_peak(Device(torch.device("cpu"), bf16=False)) < 1e14


def test_a_meter_by_hand(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "measured_peak", lambda device: 4e6)
    meter = Meter(1_000, lambda: 3e6, device, num_devices=2)
    assert meter.read(9) == {}
    assert meter.note() == ""
    for _ in range(4):
        meter.add(2.0)
    clock[0] = 110.0
    # 8 s of steps in 10 s: too early for the peak.
    assert meter.read(6) == {"tokens_per_second": 500.0, "seconds_left": 15.0}
    for _ in range(4):
        meter.add(4.0)
    clock[0] = 130.0
    # 3e6 operations in 4 s on two devices of 4e6 per second; 30 s for 8 steps.
    assert meter.read(2) == {"tokens_per_second": 250.0, "mfu": 0.0938, "seconds_left": 7.5}
    assert meter.note() == "250 tokens/s, MFU 9%"
    assert meter.read(2)["mfu"] == 0.0938, "nothing new: as before"
    # Faster than the peak: that was measured on a busy device.
    monkeypatch.setattr(progress, "measured_peak", lambda device: 3e7)
    meter.add(0.1)
    assert meter.read(1)["mfu"] == 0.5


@given(st.lists(st.integers(0, 60), min_size=1, unique=True), st.integers(1, 9))
def test_covered_bases_by_marking_them(starts: list[int], window: int) -> None:
    marked = np.zeros(80, dtype=bool)
    for start in starts:
        marked[start : start + window] = True
    assert probe.covered_bp(np.array(starts), window) == marked.sum()


def test_a_dry_run_by_hand(
    toy_dataset: Dataset, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_STEPS", 3)
    monkeypatch.setattr(probe, "measured_peak", lambda device: 1e9)
    monkeypatch.chdir(tmp_path)
    data = PretrainData.choose(toy_dataset, ["GM12878", "HepG2"], ["chr1"], [], [])
    found = probe.dry_run(data, TINY, Surroundings(device))
    assert list(tmp_path.iterdir()) == []
    module = PretrainingModel(TINY.encoder, 18)
    run, whole, memory, timed = found["run"], found["pass"], found["memory_bytes"], found["probe"]
    assert run["parameters"] == count_parameters(module)
    assert run["tokens_per_step"] == 800
    assert run["flops_per_token"] == pytest.approx(flops_per_window(TINY, 18) / 100)
    # chr1 without its last 2 %, an N-run and the excluded bins, on the grid of 200 bp.
    covered = whole["tokens"] * 10 / 2
    assert 54_000 < covered <= 60_000 * 0.98 - 3_000 - 800
    assert whole["steps"] == pytest.approx(covered * 2 / 1_000 / 8)
    assert whole["seconds"] == pytest.approx(whole["steps"] * timed["seconds_per_step"])
    assert run["passes"] == pytest.approx(TINY.steps / whole["steps"])
    assert memory["weights_and_gradients"] == memory["optimiser"] == 8 * run["parameters"]
    assert timed["steps"] == 3
    assert timed["mfu"] == pytest.approx(8 * flops_per_window(TINY, 18) / timed["seconds_per_step"] / 1e9)
    # What two windows of 100 tokens keep: more than their inputs' embeddings, less than a megabyte per layer.
    assert 2 * 100 * 16 * 4 < memory["activations"] < 4e6


def test_checkpointed_activations_keep_less(
    toy_dataset: Dataset, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_STEPS", 1)
    monkeypatch.setattr(probe, "measured_peak", lambda device: 1e9)
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    deep = TINY.model_copy(update={"encoder": TINY.encoder.model_copy(update={"num_layers": 8})})
    kept = [
        probe.dry_run(data, config, Surroundings(device))["memory_bytes"]["activations"]
        for config in (deep, deep.model_copy(update={"activation_checkpointing": True}))
    ]
    assert kept[1] < kept[0] / 2


def test_activations_beside_the_weights_grow_with_the_micro_batch(toy_dataset: Dataset) -> None:
    """Under bf16 a copy of each weight is kept, once for all windows."""
    shape = EncoderConfig(width=256, num_layers=1, num_heads=2, stem_channels=8)
    config = PretrainConfig(encoder=shape, window_bp=1_000, valid_windows=1)
    device = Device(torch.device("cpu"), bf16=True)
    data = PretrainData.choose(toy_dataset, ["HepG2"], [], [], [])
    module = PretrainingModel(shape, 18)
    objective = MaskedLanguageObjective(data, config, module, device)
    one, two, four = (probe._kept_bytes(objective, device, size) for size in (1, 2, 4))
    copies = 2 * sum(p.numel() for p in module.encoder.blocks.parameters() if p.dim() == 2)
    assert four - two == 2 * (two - one)
    assert one - (two - one) >= copies


def test_no_memory_for_measuring_the_peak_does_not_end_a_run(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(device: Device) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(progress, "measured_peak", too_large)
    monkeypatch.setattr(progress, "_SETTLED_SECONDS", 0.0)
    meter = Meter(100, lambda: 1.0, device)
    for _ in range(2):
        meter.add(1.0)
        found = meter.read(3)
        assert found["tokens_per_second"] == 100
        assert "mfu" not in found
