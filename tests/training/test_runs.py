"""Whole runs of pretrain and finetune on the toy dataset: equal bits, resume, and data that are never read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ebert_core.artifacts import exclusive_lock, file_entry
from ebert_core.config import (
    EncoderConfig,
    FinetuneConfig,
    FusionConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
)
from ebert_core.data.batches import MaskedBatch, MaskedBatches
from ebert_core.data.dataset import Dataset
from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.errors import EbertError, OutputExistsError
from ebert_core.genome.regions import Region
from ebert_core.model.checkpoint import PretrainingModel, load_weights, read_checkpoint, read_model
from ebert_core.model.device import Device, choose_device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training import loop, run_folder
from ebert_core.training.distributed import Ranks
from ebert_core.training.finetune import BindingLosses, BindingObjective, finetune, starting_encoder
from ebert_core.training.finetune_data import FinetuneChoice, choose_data
from ebert_core.training.journal import read_journal
from ebert_core.training.loop import Surroundings
from ebert_core.training.pretrain import LanguageLosses, MaskedLanguageObjective, PretrainData, pretrain
from ebert_core.training.resume import resume_points
from ebert_core.training.run_folder import RunTarget

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8, dropout=0.1)
PRETRAIN = PretrainConfig(
    encoder=TINY,
    masking=MaskingConfig(dna_rate=0.2),
    window_bp=1_000,
    global_batch=4,
    micro_batch=2,
    steps=7,
    valid_windows=4,
    evaluate_every=3,
    checkpoint_every=2,
    checkpoints_kept=1,
)
FINETUNE = FinetuneConfig(
    fusion=FusionConfig(width=16, num_layers=2),
    window_bp=1_000,
    context_bp=200,
    global_batch=4,
    micro_batch=2,
    steps=7,
    evaluate_every=3,
    valid_bp=10_000,
)
CHOICE = FinetuneChoice(("CTCF", "MAX"), held_out_cells=("HepG2",), held_out=(Region("chr2", 0, 20_000),))


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@dataclass
class Runner:
    """Runs either command with the same arguments."""

    kind: str
    dataset: Dataset
    device: Device
    folder: Path
    reporter: Reporter = SILENT

    def __call__(self, name: str, seed: int = 0, steps: int = 7, **target: bool) -> Path:
        where = RunTarget(self.folder / name, **target)
        changes = {"seed": seed, "steps": steps}
        if self.kind == "pretrain":
            data = PretrainData.choose(self.dataset, [], [], [], [])
            return pretrain(data, PRETRAIN.model_copy(update=changes), where, Surroundings(self.device, self.reporter))
        start = functools.partial(starting_encoder, None, TINY, self.dataset.require_state_model())
        data = choose_data(self.dataset, CHOICE)
        return finetune(
            data, FINETUNE.model_copy(update=changes), start, [], where, Surroundings(self.device, self.reporter)
        )

    @property
    def objective(self) -> type:
        return MaskedLanguageObjective if self.kind == "pretrain" else BindingObjective

    @property
    def losses(self) -> type:
        return LanguageLosses if self.kind == "pretrain" else BindingLosses


@pytest.fixture(params=["pretrain", "finetune"])
def go(
    request: pytest.FixtureRequest,
    toy_dataset: Dataset,
    device: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Runner:
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)
    return Runner(request.param, toy_dataset, device, tmp_path)


@pytest.fixture(scope="module")
def unbroken(toy_dataset: Dataset, device: Device, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function: kind, seed -> the output of a run that nothing disturbed, made once; do not change it."""
    folder = tmp_path_factory.mktemp("unbroken")

    def of(kind: str, seed: int = 0) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "_LOG_EVERY", 1)
            made = folder / f"{kind}{seed}"
            return made if made.exists() else Runner(kind, toy_dataset, device, folder)(made.name, seed)

    return of


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    """(weights, journal without its times, manifest without its times)."""
    timed = {"seconds", "speed"}
    events = [{k: v for k, v in event.items() if k not in timed} for event in read_journal(folder / "journal.jsonl")]
    manifest = json.loads((folder / "ebert.json").read_text())
    for key in ("created_utc", "command"):
        del manifest[key]
    return (folder / "weights.safetensors").read_bytes(), events, manifest


def test_equal_seeds_give_equal_bytes_and_others_do_not(go: Runner, unbroken: Callable[..., Path]) -> None:
    first, second, other = (outcome(folder) for folder in (go("a"), unbroken(go.kind), unbroken(go.kind, 1)))
    assert first == second
    assert other[0] != first[0]
    assert [e["step"] for e in first[1] if e["event"] == "train"] == list(range(1, 8))
    assert [e["step"] for e in first[1] if e["event"] == "evaluate"] == [3, 6, 7]


@pytest.mark.parametrize("stop", [(0, 2), (2, 0), (4, 2), (6, 0)])
def test_stopped_and_resumed_equals_unbroken(
    go: Runner, unbroken: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, stop: tuple[int, int]
) -> None:
    draw = go.objective.draw

    def stopping(self: Any, step: int, first: int, count: int) -> Any:
        if (step, first) == stop:
            raise KeyboardInterrupt
        return draw(self, step, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(go.objective, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            go("broken")
    assert not (go.folder / "broken").exists()
    assert [path.name for path in resume_points(go.folder / "broken.partial")] == [f"resume-step-{stop[0]:08d}"]
    with pytest.raises(EbertError, match="unfinished run") as caught:
        go("broken")
    assert "--resume" in caught.value.hint
    for changed in ({"seed": 5}, {"steps": 9}):
        with pytest.raises(EbertError, match="other settings"):
            go("broken", resume=True, **changed)
    assert outcome(go("broken", resume=True)) == outcome(unbroken(go.kind))
    assert not (go.folder / "broken.partial").exists()


def test_a_stop_in_the_final_evaluation(
    go: Runner, unbroken: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is over, the output is not there yet."""
    evaluate, calls = go.objective.evaluate, []

    def stopping(self: Any, ranks: Ranks) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(self, ranks)

    with monkeypatch.context() as patch:
        patch.setattr(go.objective, "evaluate", stopping)
        with pytest.raises(KeyboardInterrupt):
            go("broken")
    assert outcome(go("broken", resume=True)) == outcome(unbroken(go.kind))


def test_a_stop_between_training_and_its_output(
    go: Runner, unbroken: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are done, calibration or publishing is stopped: nothing is trained again."""

    def stopping(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BindingObjective, "calibrate", stopping)
        patch.setattr(run_folder, "finish_run", stopping)
        with pytest.raises(KeyboardInterrupt):
            go("broken")
    assert [point.name[-1] for point in resume_points(go.folder / "broken.partial")] == ["7"]
    with monkeypatch.context() as patch:
        patch.setattr(go.objective, "draw", lambda *_: pytest.fail("trained again"))
        resumed = go("broken", resume=True)
    assert outcome(resumed) == outcome(unbroken(go.kind))


def test_overwrite_starts_an_unfinished_run_anew(
    go: Runner, unbroken: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(go.objective, "evaluate", lambda self, ranks: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go("a")
    assert resume_points(go.folder / "a.partial") or go.kind == "finetune"
    assert outcome(go("a", seed=1, overwrite=True)) == outcome(unbroken(go.kind, 1))


def test_a_finished_output_is_not_touched(go: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = go("a")
    before = outcome(folder)
    for target in ({}, {"resume": True}):
        with monkeypatch.context() as patch:
            patch.setattr(go.objective, "draw", lambda *_: pytest.fail("trained for nothing"))
            with pytest.raises(OutputExistsError) as caught:
                go("a", seed=1, **target)
        assert "--overwrite" in caught.value.hint
    assert outcome(folder) == before
    assert outcome(go("a", seed=1, overwrite=True))[0] != before[0]
    assert sorted(path.name for path in go.folder.iterdir()) == ["a"]


def test_a_failed_overwrite_leaves_the_old_output(go: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outcome(go("a"))

    def failing(self: Any, step: int, first: int, count: int) -> Any:
        raise EbertError("no")

    monkeypatch.setattr(go.objective, "draw", failing)
    with pytest.raises(EbertError):
        go("a", overwrite=True)
    assert outcome(go.folder / "a") == before


def test_two_runs_do_not_write_one_output(go: Runner) -> None:
    """Whoever comes second is told before any work is done."""
    with exclusive_lock(go.folder / "a"), pytest.raises(EbertError, match="another run is writing"):
        go("a")
    assert list(go.folder.iterdir()) == []


def test_resume_without_an_unfinished_run_begins(go: Runner, unbroken: Callable[..., Path]) -> None:
    assert outcome(go("a", resume=True)) == outcome(unbroken(go.kind))


def test_a_loss_of_nan_keeps_the_resume_point(
    go: Runner, unbroken: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    draw = go.objective.draw

    def counted(self: Any, step: int, first: int, count: int) -> Any:
        steps.append(step)
        return draw(self, step, first, count)

    forward = go.losses.forward

    def sick(self: Any, batch: Any) -> Any:
        return forward(self, batch) * (float("nan") if steps[-1] == 5 and self.training else 1)

    with monkeypatch.context() as patch:
        patch.setattr(go.objective, "draw", counted)
        patch.setattr(go.losses, "forward", sick)
        with pytest.raises(EbertError, match=r"not finite at step 6 \(loss nan, examples 0 to 1\)"):
            go("a")
    saved = load_weights(go.folder / "a.partial" / "not-finite-step-00000006.safetensors")
    assert saved["bases"].shape == (2, 1_000)
    assert {"states", "step", "first_example", "loss"} < saved.keys()
    assert [p.name[-1] for p in resume_points(go.folder / "a.partial")] == ["4" if go.kind == "pretrain" else "3"]
    assert outcome(go("a", resume=True)) == outcome(unbroken(go.kind))


def test_the_published_weights_are_those_of_the_best_evaluation(go: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are made to fall, so the first evaluation's weights are the ones to keep."""
    evaluate = go.objective.evaluate
    calls, kept = [], {}

    def falling(self: Any, ranks: Ranks) -> Any:
        calls.append(1)
        if len(calls) == 1:
            kept.update({name: tensor.clone() for name, tensor in self.module.state_dict().items()})
        return {**evaluate(self, ranks), "score": -float(len(calls))}

    monkeypatch.setattr(go.objective, "evaluate", falling)
    folder = go("a")
    saved = load_weights(folder / "weights.safetensors")
    assert saved.keys() == kept.keys()
    assert all(torch.equal(saved[name], kept[name]) for name in saved)
    assert json.loads((folder / "ebert.json").read_text())["best_step"] == 3


def test_bf16_runs_are_repeatable_and_resume_too(
    go: Runner, unbroken: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    go.device = choose_device("cpu", "bf16")
    whole = outcome(go("whole"))
    draw = go.objective.draw

    def stopping(self: Any, step: int, first: int, count: int) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return draw(self, step, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(go.objective, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            go("broken")
    assert outcome(go("broken", resume=True)) == whole
    assert outcome(unbroken(go.kind))[0] != whole[0]


# --- what comes out


def test_a_checkpoint_says_what_it_is(toy_dataset: Dataset, unbroken: Callable[..., Path]) -> None:
    folder = unbroken("pretrain")
    module, states, manifest = read_checkpoint(folder)
    assert states == toy_dataset.state_model
    assert PretrainConfig(**manifest["config"]) == PRETRAIN
    assert manifest["data"]["assembly"]["digest"] == toy_dataset.assembly.digest
    assert manifest["data"]["cells"] == ["GM12878", "HepG2", "MyCell"]
    assert manifest["num_parameters"] == sum(p.numel() for p in module.parameters())
    assert sorted(path.name for path in folder.iterdir()) == ["ebert.json", "journal.jsonl", "weights.safetensors"]


def test_a_model_says_what_it_is(toy_dataset: Dataset, unbroken: Callable[..., Path]) -> None:
    folder = unbroken("finetune")
    _, states, manifest = read_model(folder)
    assert states == toy_dataset.state_model
    assert manifest["tfs"] == ["CTCF", "MAX"]
    assert FinetuneConfig(**manifest["config"]) == FINETUNE
    assert manifest["data"]["cells"] == manifest["data"]["valid_cells"] == ["GM12878"]
    assert manifest["data"]["held_out_cells"] == ["HepG2"]
    assert all(not (r[0] == "chr2" and r[1] < 20_000) for part in ("train", "valid") for r in manifest["data"][part])
    assert set(manifest["calibration"]) == {"CTCF", "MAX"}
    assert set(manifest["calibration"]["MAX"]) == {"slope", "intercept", "thresholds"}
    assert set(manifest["validation"]) == {"CTCF/GM12878", "MAX/GM12878"}


def test_finetuning_begins_with_the_pretrained_encoder(
    toy_dataset: Dataset, device: Device, tmp_path: Path, unbroken: Callable[..., Path]
) -> None:
    checkpoint = unbroken("pretrain")
    encoder, origin = starting_encoder(checkpoint, TINY, toy_dataset.require_state_model(), 0)
    pretrained = load_weights(checkpoint / "weights.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, pretrained[f"encoder.{name}"])
    assert origin["weights"] == json.loads((checkpoint / "ebert.json").read_text())["files"]
    # An encoder's rate of 0 leaves it as it was, and the head learns.
    config = FINETUNE.model_copy(update={"encoder_rate": 0.0, "steps": 2})
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"weight_decay": 0.0})})
    model = finetune(
        choose_data(toy_dataset, CHOICE),
        config,
        lambda seed: (encoder, origin),
        [],
        RunTarget(tmp_path / "m"),
        Surroundings(device),
    )
    tuned = load_weights(model / "weights.safetensors")
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in tuned.items() if name.startswith("encoder."))
    assert not (tuned["head.out.weight"] == 0).all()


def test_a_checkpoint_of_other_states_is_refused(unbroken: Callable[..., Path]) -> None:
    checkpoint = unbroken("pretrain")
    with pytest.raises(EbertError, match=r"18 states of roadmap18.*15 states of roadmap15"):
        starting_encoder(checkpoint, TINY, BUILT_IN["roadmap15"], 0)


# --- what is never read


def corrupt(dataset: Dataset, spoil: Callable[[str, str, np.ndarray], np.ndarray]) -> Dataset:
    """Change the packed labels of a copied dataset, and let its manifest vouch for them."""
    for tf, cell in dataset.label_pairs:
        entry = dataset.manifest["labels"][tf][cell]
        path = dataset.path / entry["file"]
        packed = spoil(tf, cell, np.load(path))
        path.unlink()
        np.save(path, packed)
        entry.update(file_entry(path))
    (dataset.path / "ebert.json").write_text(json.dumps(dataset.manifest))
    return Dataset.open(dataset.path)


def test_held_out_labels_are_never_read(
    toy_dataset: Dataset,
    copied_dataset: Callable[[], Dataset],
    device: Device,
    tmp_path: Path,
    unbroken: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noise in place of the labels of a held-out cell type and of a held-out region changes no bit."""
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)
    rng = np.random.default_rng(0)
    offset = toy_dataset.assembly.offset("chr2") // 200

    def spoil(tf: str, cell: str, packed: np.ndarray) -> np.ndarray:
        noise = rng.integers(0, 256, len(packed), dtype=np.uint8)
        if cell == "HepG2":
            return noise
        packed[offset : offset + 100] = noise[offset : offset + 100]
        return packed

    clean = unbroken("finetune")
    dirty = Runner("finetune", corrupt(copied_dataset(), spoil), device, tmp_path)("dirty")
    weights, events, manifest = outcome(clean)
    assert outcome(dirty)[:2] == (weights, events)
    for key in ("calibration", "validation"):
        assert outcome(dirty)[2][key] == manifest[key]

    def spoil_training(tf: str, cell: str, packed: np.ndarray) -> np.ndarray:
        packed[offset + 100 :] = np.roll(packed[offset + 100 :], 3)
        return packed

    other = Runner("finetune", corrupt(copied_dataset(), spoil_training), device, tmp_path)("other")
    assert outcome(other)[0] != weights, "the test can tell"


def test_labels_of_a_held_out_cell_are_not_even_opened(
    toy_dataset: Dataset, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, read = [], Dataset.flat_packed_labels

    def spy(self: Dataset, tf: str, cell: str) -> Any:
        opened.append((tf, cell))
        return read(self, tf, cell)

    monkeypatch.setattr(Dataset, "flat_packed_labels", spy)
    Runner("finetune", toy_dataset, device, tmp_path)("a")
    assert set(opened) == {("CTCF", "GM12878"), ("MAX", "GM12878")}


def test_an_excluded_cell_is_not_read_while_pretraining(
    toy_dataset: Dataset, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, read = [], Dataset.flat_states

    def spy(self: Dataset, cell: str) -> Any:
        opened.append(cell)
        return read(self, cell)

    monkeypatch.setattr(Dataset, "flat_states", spy)
    pretrain(
        PretrainData.choose(toy_dataset, [], [], [], ["HepG2"]),
        PRETRAIN,
        RunTarget(tmp_path / "a"),
        Surroundings(device),
    )
    assert set(opened) == {"GM12878", "MyCell"}


def test_training_after_a_prediction_in_one_process(
    toy_dataset: Dataset, device: Device, tmp_path: Path, unbroken: Callable[..., Path]
) -> None:
    """Evaluation runs in inference mode; nothing it caches may reach a backward pass."""
    (model,), *_ = read_model(unbroken("finetune"))
    with torch.inference_mode():
        codes = torch.zeros(1, 1_000, dtype=torch.uint8)
        model(codes, codes[:, :5], torch.zeros(1, 20, model.shape.num_tracks))
    Runner("finetune", toy_dataset, device, tmp_path)("b")


def test_pretraining_learns(toy_dataset: Dataset, device: Device, tmp_path: Path) -> None:
    """Where every hidden base is an A, 40 steps are enough to say so."""
    faster = OptimizerConfig(learning_rate=0.02)
    config = PRETRAIN.model_copy(update={"steps": 40, "evaluate_every": 40, "optimizer": faster})
    draw = MaskedBatches.draw

    def all_a(self: MaskedBatches, *numbers: int) -> MaskedBatch:
        batch = draw(self, *numbers)
        return replace(batch, base_targets=torch.zeros_like(batch.base_targets))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedBatches, "draw", all_a)
        data = PretrainData.choose(toy_dataset, [], [], [], [])
        folder = pretrain(data, config, RunTarget(tmp_path / "a"), Surroundings(device))
    assert json.loads((folder / "ebert.json").read_text())["held_out"]["valid_bits_per_base"] < 0.7


# --- memory, layout, states


def test_too_little_memory_halves_the_micro_batch_and_changes_nothing_else(
    go: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that holds three windows at most, from step 3 on: the steps are the same to rounding."""
    go.reporter = Told()
    whole = outcome(go("whole"))
    assert go.reporter.warnings == []
    forward, held = go.losses.forward, [4]

    def small(self: Any, batch: Any) -> Any:
        if self.training:
            held.append(len(batch.bases))
            if len(held) > 8 and len(batch.bases) > 1:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(go.losses, "forward", small)
        found = outcome(go("small"))
    assert go.reporter.warnings == [
        "out of memory: micro-batches of 1 windows from here on; the global batch stays the same"
    ]
    assert held[-4:] == [1, 1, 1, 1]
    # Dropout's noise belongs to the piece, so only what comes before is the same.
    for before, after in zip(whole[1][:3], found[1][:3], strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-6)
    assert found[2]["config"] == whole[2]["config"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_for_not_even_one_window_is_one_error(
    go: Runner, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def none(self: Any, batch: Any) -> Any:
        raise error

    monkeypatch.setattr(go.losses, "forward", none)
    with pytest.raises(EbertError, match="not enough memory on cpu for a single window") as caught:
        go("a")
    assert "window_bp" in caught.value.hint


def test_another_runtime_error_is_not_taken_for_a_lack_of_memory(go: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, batch: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(go.losses, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        go("a")


LAYOUTS = [
    {"micro_batch": 4}, {"micro_batch": 3}, {"micro_batch": 1}, {"activation_checkpointing": True},
    {"checkpoint_every": 1, "checkpoints_kept": 5, "checkpoint_minutes": 0.0},
]  # fmt: skip


# Dropout's noise belongs to the piece of work.
STILL = PRETRAIN.model_copy(update={"encoder": TINY.model_copy(update={"dropout": 0.0})})


@pytest.fixture(scope="module")
def whole_events(
    toy_dataset: Dataset, device: Device, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], list[dict[str, Any]]]:
    """A function: the journal of STILL, run once and never stopped."""
    made = tmp_path_factory.mktemp("still") / "b"

    def events() -> list[dict[str, Any]]:
        if not made.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "_LOG_EVERY", 1)
                data = PretrainData.choose(toy_dataset, [], [], [], [])
                pretrain(data, STILL, RunTarget(made), Surroundings(device))
        return outcome(made)[1]

    return events


@pytest.mark.parametrize("layout", LAYOUTS)
def test_how_the_work_is_laid_out_changes_rounding_only_and_may_change_in_a_run(
    toy_dataset: Dataset,
    device: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole_events: Callable[[], list[dict[str, Any]]],
    layout: dict[str, Any],
) -> None:
    """Also in the middle: stopped with one layout, resumed with another."""
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    other = STILL.model_copy(update=layout)
    draw = MaskedLanguageObjective.draw

    def stopping(self: Any, step: int, first: int, count: int) -> Any:
        if step == 4:
            raise KeyboardInterrupt
        return draw(self, step, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedLanguageObjective, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            pretrain(data, STILL, RunTarget(tmp_path / "a"), Surroundings(device))
    changed = outcome(pretrain(data, other, RunTarget(tmp_path / "a", resume=True), Surroundings(device)))
    for found, expected in zip(changed[1], whole_events(), strict=True):
        assert found.keys() == expected.keys()
        for name in found.keys() - {"baselines", "event"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name


def test_without_states_nothing_of_them_is_learned(toy_dataset: Dataset, device: Device, tmp_path: Path) -> None:
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    config = PRETRAIN.model_copy(update={"use_states": False})
    shown: list[MaskedBatch] = []
    forward = LanguageLosses.forward

    def spy(self: LanguageLosses, batch: MaskedBatch) -> torch.Tensor:
        shown.append(batch)
        return forward(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageLosses, "forward", spy)
        folder = pretrain(data, config, RunTarget(tmp_path / "a"), Surroundings(device))
    assert all((batch.states == 0).all() for batch in shown)
    held_out = json.loads((folder / "ebert.json").read_text())["held_out"]
    assert set(held_out) == {"score", "valid_bits_per_base", "baselines"}
    assert set(held_out["baselines"]) == {"markov_order", "markov_bits_per_base"}
    after = load_weights(folder / "weights.safetensors")
    torch.manual_seed(config.seed)
    fresh = PretrainingModel(config.encoder, 18).state_dict()
    weight = after["head.states.weight"]
    # Weight decay alone moved the states' head: every weight by the same share.
    assert ((weight / fresh["head.states.weight"]) - (weight / fresh["head.states.weight"]).mean()).abs().max() < 1e-4
    assert not torch.equal(after["head.bases.0.weight"], fresh["head.bases.0.weight"])


def test_the_held_out_figures_stand_beside_baselines(unbroken: Callable[..., Path]) -> None:
    folder = unbroken("pretrain")
    held_out = json.loads((folder / "ebert.json").read_text())["held_out"]
    baselines = held_out["baselines"]
    assert set(baselines) == {"markov_order", "markov_bits_per_base", "neighbour_state_accuracy"}
    assert baselines["markov_bits_per_base"] == pytest.approx(2.0, abs=0.05), "the toy genome is random letters"
    assert 0 < baselines["neighbour_state_accuracy"] < 1
    evaluations = [event for event in read_journal(folder / "journal.jsonl") if event["event"] == "evaluate"]
    assert all(event["baselines"] == baselines for event in evaluations)
