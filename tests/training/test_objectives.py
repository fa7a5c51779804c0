"""Losses and validation figures, recomputed with numpy from what the model was shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from ebert_core.config import EncoderConfig, FinetuneConfig, FusionConfig, MaskingConfig, PretrainConfig
from ebert_core.data.batches import IGNORED, MaskedBatch
from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import Batch
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region, overlap_bp, whole
from ebert_core.inference.calls import ThresholdTable
from ebert_core.inference.scan import model_score
from ebert_core.model.calibration import Calibration
from ebert_core.model.checkpoint import PretrainingModel
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.training import binding_validation
from ebert_core.training.binding_validation import BindingValidation, _thinned
from ebert_core.training.finetune import BindingObjective
from ebert_core.training.finetune_data import FinetuneChoice, choose_data
from ebert_core.training.pretrain import MaskedLanguageObjective, PretrainData
from ebert_core.training.schedule import build_optimizer
from ebert_core.vocabulary import reverse_complement

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
PRETRAIN = PretrainConfig(
    encoder=TINY,
    masking=MaskingConfig(dna_rate=0.3, state_rate=0.5, state_dropout=0.2, state_loss_weight=0.4),
    window_bp=1_000,
    global_batch=8,
    micro_batch=4,
    valid_windows=8,
    steps=30,
)
FUSION = FusionConfig(width=16, num_layers=1)
FINETUNE = FinetuneConfig(window_bp=1_000, context_bp=200, global_batch=4, micro_batch=4, fusion=FUSION)


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


def by_hand(module: PretrainingModel, batch: MaskedBatch) -> tuple[float, float, float]:
    """(nats per hidden base, nats per hidden state, accuracy), one token and one bin at a time."""
    tokens = module.encoder(batch.bases, batch.states)
    num_tokens, num_bins = batch.bases.shape[1] // 10, batch.states.shape[1]
    truths, guesses, state_truths, state_guesses = [], [], [], []
    for place, targets in zip(batch.base_index.tolist(), batch.base_targets.tolist(), strict=True):
        row, token = divmod(place, num_tokens)
        logits = module.head.bases(tokens[row, token]).view(10, 4).softmax(dim=-1)
        for base, probabilities in zip(targets, logits, strict=True):
            if base != IGNORED:
                truths.append(base)
                guesses.append(probabilities.tolist())
    for place, target in zip(batch.state_index.tolist(), batch.state_targets.tolist(), strict=True):
        row, state_bin = divmod(place, num_bins)
        if target != IGNORED:
            state_truths.append(target)
            own = tokens[row, state_bin * 20 : state_bin * 20 + 20].mean(dim=0)
            state_guesses.append(module.head.states(own).softmax(dim=-1).tolist())
    states = np.array(state_guesses)
    return (
        log_loss(truths, np.array(guesses, dtype=np.float64), labels=range(4)),
        log_loss(state_truths, states / states.sum(axis=1, keepdims=True), labels=range(18)),
        accuracy_score(state_truths, states.argmax(axis=1)),
    )


def with_n(batch: MaskedBatch) -> MaskedBatch:
    """Some of what is hidden is N or unknown: nobody can say it, so it must not count."""
    bases = torch.where(torch.arange(10) % 9 == 0, IGNORED, batch.base_targets)
    states = torch.where(torch.arange(len(batch.state_targets)) % 3 == 0, IGNORED, batch.state_targets)
    return replace(batch, base_targets=bases, state_targets=states)


@pytest.mark.parametrize("change", [lambda batch: batch, with_n])
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
def test_language_loss_by_hand(language: MaskedLanguageObjective, change: Callable[..., MaskedBatch]) -> None:
    batch = change(language.draw(3, 4, 4))
    base_loss, state_loss, accuracy = by_hand(language.module, batch)
    means = (language.losses(batch) / language.counts(batch)).tolist()
    assert means == pytest.approx([base_loss, state_loss, accuracy], rel=1e-4)
    assert language.weights == (1.0, 0.4, 0.0)
    assert language.figures(means)["bits_per_base"] == pytest.approx(base_loss / np.log(2), rel=1e-4)
    assert language.figures(means)["state_accuracy"] == pytest.approx(accuracy, rel=1e-4)


def test_a_batch_without_any_target_weighs_nothing(language: MaskedLanguageObjective) -> None:
    batch = language.draw(0, 0, 2)
    bases, states = torch.full_like(batch.base_targets, IGNORED), torch.full_like(batch.state_targets, IGNORED)
    batch = replace(batch, base_targets=bases, state_targets=states)
    assert language.counts(batch).tolist() == [0, 0, 0]
    sums = language.losses(batch)
    sums.sum().backward()
    assert sums.tolist() == [0, 0, 0]
    assert all((p.grad == 0).all() for p in language.module.parameters())


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_language_evaluation_by_hand(
    toy_dataset: Dataset, device: Device, language: MaskedLanguageObjective, micro_batch: int
) -> None:
    """Over all held-out windows together, however they are cut."""
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    config = PRETRAIN.model_copy(update={"micro_batch": micro_batch})
    objective = MaskedLanguageObjective(data, config, language.module, device)
    shown: list[MaskedBatch] = []
    objective.losses.register_forward_pre_hook(lambda module, batches: shown.append(batches[0]))
    with torch.inference_mode():  # as the loop does
        figures = objective.evaluate()
    assert [len(batch.bases) for batch in shown] == {1: [1] * 8, 3: [2, 3, 3], 8: [8]}[micro_batch]
    whole = objective._valid.draw(1, 0, 0, 8, 8)
    assert torch.equal(torch.cat([batch.bases for batch in shown]), whole.bases)
    base_loss, state_loss, accuracy = by_hand(objective.module, whole)
    assert figures["valid_bits_per_base"] == pytest.approx(base_loss / np.log(2), rel=1e-4)
    assert figures["valid_bits_per_state"] == pytest.approx(state_loss / np.log(2), rel=1e-4)
    assert figures["valid_state_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert figures["score"] == -figures["valid_bits_per_base"]
    with torch.inference_mode():
        assert objective.evaluate() == figures


def test_baselines_are_those_of_the_held_out_windows(language: MaskedLanguageObjective, toy_dataset: Dataset) -> None:
    """The chain and the neighbour score what the model is scored on; the neighbour one bin at a time."""
    with torch.inference_mode():
        found = language.evaluate()["baselines"]
    batch = language._valid.draw(1, 0, 0, 8, 8)
    right, many = 0, 0
    for place, target in zip(batch.state_index.tolist(), batch.state_targets.tolist(), strict=True):
        row, own = divmod(place, 5)
        shown = [at for at in range(5) if 0 < batch.states[row, at] <= 18]
        if target != IGNORED and shown:
            nearest = min(shown, key=lambda at: (abs(at - own), at))
            right, many = right + int(batch.states[row, nearest] == target + 1), many + 1
        elif target != IGNORED:
            many += 1
    # Windows without any shown state are guessed at once, so at most they may differ.
    blank = sum(5 for row in batch.states if not ((row > 0) & (row <= 18)).any())
    assert right / many <= found["neighbour_state_accuracy"] <= (right + blank) / many
    # The tables of a chain fitted on 240 kbp of random letters are flat.
    assert found["markov_bits_per_base"] == pytest.approx(2.0, abs=0.05)


def test_without_states_the_model_is_shown_none(toy_dataset: Dataset, device: Device) -> None:
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    blind = PRETRAIN.model_copy(update={"use_states": False})
    module = shaken(PretrainingModel(TINY, 18))
    with_states, without = (MaskedLanguageObjective(data, c, module, device) for c in (PRETRAIN, blind))
    batch = without.draw(0, 0, 8)
    assert (batch.states == 0).all()
    assert torch.equal(batch.bases, with_states.draw(0, 0, 8).bases), "the bases are the same"
    assert without.weights == (1.0, 0.0, 0.0)
    with torch.inference_mode():
        figures = without.evaluate()
    assert set(figures) == {"score", "valid_bits_per_base", "baselines"}
    assert set(without.figures([1.0, 1.0, 1.0])) == {"bits_per_base"}


@pytest.mark.parametrize("kind", ["language", "binding"])
def test_examples_are_a_function_of_seed_step_and_number(request: pytest.FixtureRequest, kind: str) -> None:
    objective = request.getfixturevalue(kind)
    size = (PRETRAIN if kind == "language" else FINETUNE).global_batch
    whole = objective.tensors(objective.draw(5, 0, size))
    objective.draw(6, 0, 1)
    again = [objective.tensors(objective.draw(5, first, 1)) for first in range(size)]
    for name in ("bases", "states"):
        assert torch.equal(torch.cat([piece[name] for piece in again]), whole[name])
        assert not torch.equal(objective.tensors(objective.draw(6, 0, size))[name], whole[name])


def test_windows_lie_in_their_own_part(toy_dataset: Dataset, device: Device) -> None:
    """Training windows never reach into the validation part, nor the other way."""
    valid = [Region("chr1", 10_100, 15_950)]
    data = PretrainData.choose(toy_dataset, ["GM12878"], ["chr1"], valid, [])
    objective = MaskedLanguageObjective(data, PRETRAIN, shaken(PretrainingModel(TINY, 18)), device)
    shown = [objective._valid.draw(1, 0, 0, 8, 8), *(objective.draw(step, 0, 4) for step in range(40))]
    forward = {toy_dataset.flat_sequence[at : at + 1_000].tobytes(): at for at in range(0, 100_000, 50)}
    backward = {
        reverse_complement(toy_dataset.flat_sequence[at : at + 1_000]).tobytes(): at for at in range(0, 100_000, 50)
    }
    windows = [[row.tobytes() for row in batch.true_bases().numpy()] for batch in shown]
    starts = [[(forward | backward)[row] for row in rows] for rows in windows]
    assert all(start >= 10_100 and start + 1_000 <= 15_950 for start in starts[0])
    trained = np.concatenate(starts[1:])
    assert ((trained + 1_000 <= 10_100) | (trained >= 15_950)).all()
    assert 0.3 < np.mean([row in forward for rows in windows for row in rows]) < 0.7
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
    return BindingObjective(data, FINETUNE, shaken(BindingModel(Encoder(TINY, 18), 2, BindingShape(FUSION))), device)


def test_binding_loss_by_hand(binding: BindingObjective) -> None:
    batch = binding.draw(2, 0, 4)
    probabilities = binding.module(batch.bases, batch.states).sigmoid().detach().double().numpy()
    weights = torch.where(torch.rand(batch.weights.shape) < 0.5, batch.weights, 0.3 * batch.weights)
    batch = replace(batch, weights=weights)
    terms = [
        -float(weights[place]) * np.log(probabilities[place] if batch.bound[place] else 1 - probabilities[place])
        for place in zip(*np.nonzero(weights.numpy()), strict=True)
    ]
    assert len(terms) > 20
    assert binding.counts(batch).tolist() == [pytest.approx(weights.sum().item())]
    assert binding.losses(batch).item() == pytest.approx(np.sum(terms), rel=1e-4)


def test_a_batch_without_any_labelled_bin_weighs_nothing(binding: BindingObjective) -> None:
    batch = binding.draw(0, 0, 4)
    batch = replace(batch, weights=torch.zeros_like(batch.weights))
    loss = binding.losses(batch)
    loss.sum().backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in binding.module.parameters())


def test_lower_layers_learn_more_slowly(toy_dataset: Dataset, device: Device) -> None:
    """Every parameter has one rate: the head's is 1, and each layer's a share of that above."""
    data = choose_data(toy_dataset, FinetuneChoice(("all",), held_out_cells=("HepG2",)))
    config = FINETUNE.model_copy(update={"encoder_rate": 0.5, "layer_decay": 0.1})
    shape = TINY.model_copy(update={"num_layers": 2})
    module = BindingModel(Encoder(shape, 18), 2, BindingShape(FUSION))
    groups = BindingObjective(data, config, module, device).groups()
    named = {id(parameter): name for name, parameter in module.named_parameters()}
    found = [(named.pop(id(parameter)), share) for part, share in groups for parameter in part.parameters()]
    assert not named, "each was there, and once"
    expected = {
        "head": 1.0, "encoder.norm": 0.5, "encoder.blocks.1": 0.5, "encoder.blocks.0": 0.05,
        "encoder.stem": 0.005, "encoder.state_embedding": 0.005,
    }  # fmt: skip
    for name, share in found:
        (start,) = [start for start in expected if name.startswith(f"{start}.")]
        assert share == pytest.approx(expected[start]), name
    optimizer = build_optimizer(groups, config.optimizer)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)


def fingerprint(codes: np.ndarray, states: np.ndarray | None = None) -> float:
    """A number that tells 200 bp from any others."""
    return float(np.sin(np.arange(200) * 0.37) @ codes)


def said_by_bases(batch: Batch) -> np.ndarray:
    """Logits that say what each bin's bases were; TF t adds 100 t, states add 1000 each."""
    rows = []
    for bases, states in zip(batch.bases, batch.states, strict=True):
        places = range(0, len(bases) - 199, 50)
        own = [fingerprint(bases[at : at + 200]) + 1000.0 * states[(at + 100) // 200] for at in places]
        rows.append([[value, value + 100] for value in own])
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize("regions", [[("chr1", 3_000, 9_050), ("chr2", 30_000, 41_337)], [("chr2", 5_125, 12_300)]])
@pytest.mark.parametrize("use_states", [True, False])
def test_validation_reads_every_labelled_bin_of_its_regions_once(
    toy_dataset: Dataset,
    regions: list[tuple[str, int, int]],
    use_states: bool,
) -> None:
    valid = tuple(Region(*region) for region in regions)
    data = choose_data(toy_dataset, FinetuneChoice(("MAX", "CTCF"), valid=valid, valid_cells=("HepG2",)))
    config = FINETUNE.model_copy(update={"use_states": use_states})
    found = BindingValidation(data, config).logits(said_by_bases, data.valid)
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


def test_evaluation_is_the_mean_auprc(binding: BindingObjective, device: Device) -> None:
    figures = binding.evaluate()
    score = model_score(binding.module, device, both_strands=False)
    found = binding.validation.logits(score, binding.validation._regions)
    expected = {f"{tf}/{cell}": measure(*values).auprc for (tf, cell), values in found.items()}
    assert set(expected) == {"CTCF/GM12878", "MAX/GM12878"}
    assert figures["by_pair"] == expected
    assert figures["score"] == figures["valid_auprc"] == pytest.approx(np.mean(list(expected.values())))


@pytest.mark.parametrize(("fewest", "counted"), [(1, {"CTCF", "MAX"}), (0, {"CTCF", "MAX"}), (None, {"MAX"})])
def test_a_pair_with_few_bound_bins_does_not_choose_the_weights(
    binding: BindingObjective, monkeypatch: pytest.MonkeyPatch, fewest: int | None, counted: set[str]
) -> None:
    """None: one more than the rarer of the two has. Where all are rare, all count."""
    score = model_score(binding.module, binding._device, both_strands=False)
    found = binding.validation.logits(score, binding.validation._regions)
    bound = {tf: int(labels.sum()) for (tf, _), (_, labels) in found.items()}
    if fewest is None:
        fewest, counted = min(bound.values()) + 1, {max(bound, key=bound.__getitem__)}
        assert min(bound.values()) < max(bound.values())
    monkeypatch.setattr(binding_validation, "FEWEST_BOUND", fewest or 10**6)
    figures = binding.evaluate()
    assert set(figures["by_pair"]) == {f"{tf}/{cell}" for tf, cell in found}
    expected = [measure(*values).auprc for (tf, _), values in found.items() if tf in counted]
    assert figures["score"] == pytest.approx(np.mean(expected))


def test_calibration_is_made_on_the_whole_validation_part(binding: BindingObjective, device: Device) -> None:
    """On both strands, as `ebert predict` reads."""
    calibrations, measures = binding.calibrate()
    score = model_score(binding.module, device, both_strands=True)
    found = binding.validation.logits(score, binding.validation._data.valid)
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


def test_nothing_hidden_has_no_baseline(toy_dataset: Dataset, device: Device) -> None:
    """A figure that does not exist is left out: NaN is no JSON."""
    data = PretrainData.choose(toy_dataset, [], [], [], [])
    config = PRETRAIN.model_copy(update={"masking": MaskingConfig(dna_rate=0, state_rate=0.5)})
    module = shaken(PretrainingModel(TINY, 18))
    with torch.no_grad():
        figures = MaskedLanguageObjective(data, config, module, device).evaluate()
    assert set(figures["baselines"]) == {"neighbour_state_accuracy"}
    assert figures["score"] == -figures["valid_bits_per_state"] < 0
    json.dumps(figures, allow_nan=False)


def test_a_cell_type_named_twice_is_one(toy_dataset: Dataset) -> None:
    assert PretrainData.choose(toy_dataset, ["HepG2", "E118", "hepg2"], [], [], []).cells == ("HepG2",)


def test_holding_back_everything_is_refused(toy_dataset: Dataset) -> None:
    chroms = list(toy_dataset.assembly.chroms)
    with pytest.raises(EbertError, match="no chromosome is left to train on"):
        PretrainData.choose(toy_dataset, [], chroms[:1], whole(toy_dataset.assembly, chroms), [])
