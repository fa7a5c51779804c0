"""Losses and validation figures, recomputed with numpy from what the model was shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from ebert_core.config import EncoderConfig, FinetuneConfig, MaskingConfig, PretrainConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.masking import MaskedBatch
from ebert_core.data.windows import Batch
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region, overlap_bp
from ebert_core.inference.calls import ThresholdTable
from ebert_core.model.calibration import Calibration
from ebert_core.model.checkpoint import BindingModel, PretrainingModel
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.training import finetune as finetune_module
from ebert_core.training import pretrain as pretrain_module
from ebert_core.training.finetune import BindingObjective, _thinned
from ebert_core.training.finetune_data import FinetuneChoice, LabelledBatch, choose_data
from ebert_core.training.pretrain import MaskedLanguageObjective, PretrainData
from ebert_core.vocabulary import reverse_complement

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
PRETRAIN = PretrainConfig(
    encoder=TINY,
    masking=MaskingConfig(dna_rate=0.3, state_rate=0.5, state_dropout=0.2, state_loss_weight=0.4),
    window_bp=1_000,
    global_batch=8,
    micro_batch=4,
    valid_windows=8,
)
FINETUNE = FinetuneConfig(window_bp=1_000, context_bp=200, global_batch=4, micro_batch=4)


def shaken(module: torch.nn.Module) -> Any:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module.eval()


# --- pre-training


@pytest.fixture
def language(toy_dataset: Dataset, device: Device) -> MaskedLanguageObjective:
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    return MaskedLanguageObjective(data, PRETRAIN, shaken(PretrainingModel(TINY, 18)), device)


@pytest.fixture
def with_n() -> bool:
    """Whether the batches hold hidden N."""
    return False


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, with_n: bool) -> list[MaskedBatch]:
    """What the objective masked, in order."""
    batches: list[MaskedBatch] = []
    mask_batch = pretrain_module.mask_batch

    def spy(*args: Any) -> MaskedBatch:
        batch = mask_batch(*args)
        # Some of what is hidden is N: nobody can say it, so it must not count.
        targets = np.where(np.arange(batch.base_targets.shape[1]) % 9 == 0, np.uint8(4), batch.base_targets)
        batches.append(MaskedBatch(**{**vars(batch), "base_targets": targets}) if with_n else batch)
        return batches[-1]

    monkeypatch.setattr(pretrain_module, "mask_batch", spy)
    return batches


def by_hand(module: PretrainingModel, batch: MaskedBatch) -> tuple[float, float, float]:
    """(nats per hidden base, nats per hidden state, accuracy), one token and one bin at a time."""
    tokens = module.encoder(torch.from_numpy(batch.bases), torch.from_numpy(batch.states))
    truths, guesses, state_truths, state_guesses = [], [], [], []
    for row in range(len(batch.bases)):
        for token in np.flatnonzero(batch.base_mask[row]):
            logits = module.head.bases(tokens[row, token]).view(10, 4).softmax(dim=-1)
            for base, probabilities in zip(batch.base_targets[row, token * 10 :][:10], logits, strict=True):
                if base < 4:
                    truths.append(base)
                    guesses.append(probabilities.tolist())
        for place in np.flatnonzero(batch.state_mask[row]):
            own = tokens[row, place * 20 : place * 20 + 20].mean(dim=0)
            state_truths.append(batch.state_targets[row, place])
            state_guesses.append(module.head.states(own).softmax(dim=-1).tolist())
    states = np.array(state_guesses)
    return (
        log_loss(truths, np.array(guesses, dtype=np.float64), labels=range(4)),
        log_loss(state_truths, states / states.sum(axis=1, keepdims=True), labels=range(1, 19)),
        accuracy_score(state_truths, states.argmax(axis=1) + 1),
    )


@pytest.mark.parametrize("with_n", [False, True])
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
def test_language_loss_by_hand(language: MaskedLanguageObjective, shown: list[MaskedBatch]) -> None:
    loss, figures = language.loss(3, 1)
    base_loss, state_loss, _ = by_hand(language.module, shown[0])
    assert shown[0].base_mask.any()
    assert figures["bits_per_base"] == pytest.approx(base_loss / np.log(2), rel=1e-4)
    assert figures["state_loss"] == pytest.approx(state_loss, rel=1e-4)
    assert loss.item() == pytest.approx(base_loss + 0.4 * state_loss, rel=1e-4)


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
def test_language_evaluation_by_hand(
    toy_dataset: Dataset, device: Device, shown: list[MaskedBatch], language: MaskedLanguageObjective
) -> None:
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    objective = MaskedLanguageObjective(data, PRETRAIN, language.module, device)
    with torch.inference_mode():  # as the loop does
        figures = objective.evaluate()
    halves = [
        MaskedBatch(**{name: array[part] for name, array in vars(shown[-1]).items()})
        for part in (slice(0, 4), slice(4, 8))
    ]
    base_loss, state_loss, accuracy = np.mean([by_hand(objective.module, half) for half in halves], axis=0)
    assert figures["valid_bits_per_base"] == pytest.approx(base_loss / np.log(2), rel=1e-4)
    assert figures["valid_bits_per_state"] == pytest.approx(state_loss / np.log(2), rel=1e-4)
    assert figures["valid_state_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert figures["score"] == -figures["valid_bits_per_base"]
    with torch.inference_mode():
        assert objective.evaluate() == figures


def test_batches_are_a_function_of_seed_step_and_part(
    language: MaskedLanguageObjective, shown: list[MaskedBatch]
) -> None:
    for step, part in ((0, 0), (0, 1), (1, 0), (0, 1)):
        language.loss(step, part)
    assert np.array_equal(shown[1].bases, shown[3].bases)
    assert np.array_equal(shown[1].states, shown[3].states)
    assert len({batch.base_targets.tobytes() for batch in shown}) == 3


def test_windows_lie_in_their_own_part(toy_dataset: Dataset, device: Device, shown: list[MaskedBatch]) -> None:
    """Training windows never reach into the validation part, nor the other way."""
    valid = [Region("chr1", 10_100, 15_950)]
    data = PretrainData.choose(toy_dataset, ["GM12878"], ["chr1"], valid, [])
    objective = MaskedLanguageObjective(data, PRETRAIN, shaken(PretrainingModel(TINY, 18)), device)
    for step in range(40):
        objective.loss(step, 0)
    forward = {toy_dataset.flat_sequence[at : at + 1_000].tobytes(): at for at in range(0, 100_000, 50)}
    backward = {
        reverse_complement(toy_dataset.flat_sequence[at : at + 1_000]).tobytes(): at for at in range(0, 100_000, 50)
    }
    starts = [[(forward | backward)[row.tobytes()] for row in batch.base_targets] for batch in shown]
    assert all(start >= 10_100 and start + 1_000 <= 15_950 for start in starts[0])
    trained = np.concatenate(starts[1:])
    assert ((trained + 1_000 <= 10_100) | (trained >= 15_950)).all()
    strands = [row.tobytes() in forward for batch in shown for row in batch.base_targets]
    assert 0.3 < np.mean(strands) < 0.7
    assert (trained % 200 == 0).all()
    for start, end in ((20_000, 23_010), (40_010, 41_000)):
        # An N-run or an excluded region of which a window would hold more than half a state bin.
        assert ((trained + 1_000 <= start + 200) | (trained >= end - 200)).all()


def test_pretraining_choices(toy_dataset: Dataset, copied_dataset: Callable[[], Dataset]) -> None:
    choose = PretrainData.choose
    assert choose(toy_dataset, [], [], [], []).cells == ("GM12878", "HepG2", "MyCell")
    assert choose(toy_dataset, ["e116", "MYCELL"], [], [], []).cells == ("GM12878", "MyCell")
    assert choose(toy_dataset, [], [], [], ["E116"]).cells == ("HepG2", "MyCell")
    data = choose(toy_dataset, [], ["2", "chr1"], [], [])
    assert overlap_bp(data.train, data.valid) == 0
    assert sum(region.length for region in (*data.train, *data.valid)) == 60_000 + 41_337
    for cells, exclude in (([], ["E116", "HepG2", "MyCell"]), (["HepG2"], ["HepG2"])):
        with pytest.raises(EbertError, match="no cell type is left"):
            choose(toy_dataset, cells, [], [], exclude)
    for cells, chroms, exclude in ((["HepG3"], [], []), ([], ["chr9"], []), ([], [], ["HepG3"])):
        with pytest.raises(UnknownNameError):
            choose(toy_dataset, cells, chroms, [], exclude)
    stateless = copied_dataset()
    stateless.state_model = None
    with pytest.raises(EbertError, match="no chromatin states"):
        choose(stateless, [], [], [], [])


def test_pretraining_description_names_what_was_read(
    toy_dataset: Dataset, copied_dataset: Callable[[], Dataset]
) -> None:
    def described(dataset: Dataset) -> dict[str, Any]:
        return PretrainData.choose(dataset, ["HepG2"], [], [], []).describe()

    plain = described(toy_dataset)
    for change in ("sequence", "excluded", "states"):
        dataset = copied_dataset()
        entry = dataset.manifest[change]
        (entry["HepG2"] if change == "states" else entry)["sha256"] = "0" * 64
        assert described(dataset) != plain
    dataset = copied_dataset()
    dataset.manifest["states"]["MyCell"]["sha256"] = "0" * 64
    assert described(dataset) == plain


@pytest.mark.parametrize("valid", [[], [Region("chr1", 0, 900)]])
def test_parts_without_a_window_are_an_error(toy_dataset: Dataset, device: Device, valid: list[Region]) -> None:
    data = PretrainData.choose(toy_dataset, [], [], valid, [])
    config = PRETRAIN.model_copy(update={"window_bp": 4_000 if not valid else 1_000})
    with pytest.raises(EbertError, match="no window of"):
        MaskedLanguageObjective(data, config, PretrainingModel(TINY, 18), device)


# --- fine-tuning


@pytest.fixture
def binding(toy_dataset: Dataset, device: Device) -> BindingObjective:
    data = choose_data(toy_dataset, FinetuneChoice(("all",), held_out_cells=("HepG2",)))
    return BindingObjective(data, FINETUNE, shaken(BindingModel(Encoder(TINY, 18), 2)), device)


@pytest.fixture
def drawn(binding: BindingObjective, monkeypatch: pytest.MonkeyPatch) -> list[LabelledBatch]:
    batches: list[LabelledBatch] = []
    draw = binding.windows.draw

    def spy(*args: Any) -> LabelledBatch:
        batches.append(draw(*args))
        return batches[-1]

    monkeypatch.setattr(binding.windows, "draw", spy)
    return batches


def test_binding_loss_by_hand(binding: BindingObjective, drawn: list[LabelledBatch]) -> None:
    loss, _ = binding.loss(2, 0)
    (batch,) = drawn
    logits = binding.module(torch.from_numpy(batch.windows.bases), torch.from_numpy(batch.windows.states))
    probabilities = logits.sigmoid().detach().double().numpy()
    terms = [
        -np.log(probabilities[place] if batch.bound[place] else 1 - probabilities[place])
        for place in zip(*np.nonzero(batch.counts), strict=True)
    ]
    assert len(terms) > 20
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-4)


def test_a_batch_without_any_labelled_bin_weighs_nothing(
    binding: BindingObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = binding.windows.draw

    def unlabelled(*args: Any) -> LabelledBatch:
        batch = draw(*args)
        return LabelledBatch(batch.windows, batch.bound, np.zeros_like(batch.counts))

    monkeypatch.setattr(binding.windows, "draw", unlabelled)
    loss, _ = binding.loss(0, 0)
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in binding.module.parameters())


def fingerprint(codes: np.ndarray, states: np.ndarray | None = None) -> float:
    """A number that tells 200 bp from any others."""
    return float(np.sin(np.arange(200) * 0.37) @ codes)


def fake_score(module: Any, device: Device, *, both_strands: bool) -> Callable[[Batch], np.ndarray]:
    """Logits that say what each bin's bases were; TF t adds 100 t, states add 1000 each."""

    def score(batch: Batch) -> np.ndarray:
        rows = []
        for bases, states in zip(batch.bases, batch.states, strict=True):
            places = range(0, len(bases) - 199, 50)
            own = [fingerprint(bases[at : at + 200]) + 1000.0 * states[(at + 100) // 200] for at in places]
            rows.append([[value, value + 100] for value in own])
        return np.array(rows, dtype=np.float32)

    return score


@pytest.mark.parametrize("regions", [[("chr1", 3_000, 9_050), ("chr2", 30_000, 41_337)], [("chr2", 5_125, 12_300)]])
@pytest.mark.parametrize("use_states", [True, False])
def test_validation_reads_every_labelled_bin_of_its_regions_once(
    toy_dataset: Dataset,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    regions: list[tuple[str, int, int]],
    use_states: bool,
) -> None:
    monkeypatch.setattr(finetune_module, "model_score", fake_score)
    valid = tuple(Region(*region) for region in regions)
    data = choose_data(toy_dataset, FinetuneChoice(("MAX", "CTCF"), valid=valid, valid_cells=("HepG2",)))
    config = FINETUNE.model_copy(update={"use_states": use_states})
    objective = BindingObjective(data, config, BindingModel(Encoder(TINY, 18), 2), device)
    found = objective.validate(data.valid)
    assert set(found) == {("MAX", "HepG2"), ("CTCF", "HepG2")}
    for t, tf in enumerate(("MAX", "CTCF")):
        logits, bound = [], []
        for chrom, start, end in regions:
            labels, codes = toy_dataset.labels(tf, "HepG2", chrom), toy_dataset.sequence(chrom)
            states = toy_dataset.states("HepG2", chrom)
            for at in range(0, len(codes) - 199, 50):
                if start <= at and at + 200 <= end and labels[at // 50] in (BOUND, UNBOUND):
                    state = float(states[(at + 100) // 200]) if use_states else 0.0
                    logits.append(fingerprint(codes[at : at + 200]) + 1000 * state + 100 * t)
                    bound.append(labels[at // 50] == BOUND)
        np.testing.assert_allclose(found[tf, "HepG2"][0], logits, atol=1e-2)
        assert found[tf, "HepG2"][1].tolist() == bound
        assert any(bound)


def test_evaluation_is_the_mean_auprc(binding: BindingObjective) -> None:
    figures = binding.evaluate()
    found = binding.validate(binding._regions)
    expected = {f"{tf}/{cell}": measure(*values).auprc for (tf, cell), values in found.items()}
    assert set(expected) == {"CTCF/GM12878", "MAX/GM12878"}
    assert figures["by_pair"] == expected
    assert figures["score"] == figures["valid_auprc"] == pytest.approx(np.mean(list(expected.values())))


def test_calibration_is_made_on_the_whole_validation_part(binding: BindingObjective) -> None:
    """On both strands, as `ebert predict` reads."""
    calibrations, measures = binding.calibrate()
    found = binding.validate(binding._data.valid, both_strands=True)
    assert set(calibrations) == {"CTCF", "MAX"}
    for (tf, cell), (logits, bound) in found.items():
        known = calibrations[tf]
        calibration = Calibration(known["slope"], known["intercept"])
        probabilities = calibration.probabilities(logits)
        assert probabilities.mean() == pytest.approx(bound.mean(), abs=0.02)
        assert measures[f"{tf}/{cell}"]["num_bound"] == bound.sum()
        table = ThresholdTable.from_json(known["thresholds"])
        assert (table.num_bound, table.num_unbound) == (bound.sum(), (~bound).sum())
        for row, threshold in enumerate(table.thresholds):
            called = probabilities >= threshold
            assert table.precision[row] == pytest.approx(bound[called].mean())
            assert table.recall[row] == pytest.approx(called[bound].mean())


def test_thinned_pieces_lie_in_their_regions_and_spread() -> None:
    regions = [Region("chr1", 1_050, 1_000_130), Region("chr2", 77, 500_000)]
    for most in (100_000, 350_000, 700_000):
        pieces = _thinned(regions, most)
        assert len(pieces) == len(set(pieces))
        assert sum(piece.length for piece in pieces) <= most
        assert overlap_bp(pieces, regions) == sum(piece.length for piece in pieces)
    assert {piece.chrom for piece in _thinned(regions, 350_000)} == {"chr1", "chr2"}
    assert _thinned(regions, 10**9) == regions
