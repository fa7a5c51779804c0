"""What fine-tuning reads: choices, windows and labels, against arrays read bin by bin."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.artifacts import file_entry
from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import eligible_starts
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.labels import BOUND, UNBOUND, pack_labels
from ebert_core.genome.regions import Region
from ebert_core.training.finetune_data import BindingWindows, FinetuneChoice, FinetuneData, choose_data
from ebert_core.vocabulary import reverse_complement

CONFIG = FinetuneConfig(window_bp=1_000, context_bp=200, global_batch=4, micro_batch=4, state_dropout=0.0)
SMALL = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chosen(dataset: Dataset, *tfs: str, **choice: object) -> FinetuneData:
    return choose_data(dataset, FinetuneChoice(tuple(tfs) or ("CTCF",), **choice))


def relabel(dataset: Dataset, change: Callable[[str, str, np.ndarray], np.ndarray | None]) -> Dataset:
    """Rewrite label tracks of a copied dataset: change(tf, cell, codes) gives new codes, or None to drop the pair."""
    manifest = dataset.manifest
    for tf, cell in dataset.label_pairs:
        entry = manifest["labels"][tf][cell]
        codes = change(tf, cell, np.concatenate([dataset.labels(tf, cell, chrom) for chrom in dataset.assembly.chroms]))
        if codes is None:
            del manifest["labels"][tf][cell]
            continue
        path = dataset.path / entry["file"]
        path.unlink()
        np.save(path, pack_labels(codes.astype(np.uint8)))
        entry.update(file_entry(path))
    (dataset.path / "ebert.json").write_text(json.dumps(manifest))
    return Dataset.open(dataset.path)


# --- choices


def test_everything_by_default(toy_dataset: Dataset) -> None:
    data = chosen(toy_dataset)
    assert (data.tfs, data.cells, data.valid_cells) == (("CTCF",), ("GM12878", "HepG2"), ("GM12878", "HepG2"))
    assert {region.chrom for region in data.train} == {region.chrom for region in data.valid} == {"chr1", "chr2"}
    covered = sorted((*data.train, *data.valid), key=lambda region: (region.chrom, region.start))
    # Together they cover the assayed chromosomes once.
    for chrom, length in (("chr1", 60_000), ("chr2", 41_337)):
        edges = [(region.start, region.end) for region in covered if region.chrom == chrom]
        assert (edges[0][0], edges[-1][1]) == (0, length)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))


@pytest.mark.parametrize(
    ("tfs", "expected"),
    [(("all",), ("CTCF", "MAX")), (("ALL",), ("CTCF", "MAX")), (("max", "ctcf", "MAX"), ("MAX", "CTCF"))],
)
def test_tfs_by_any_spelling_once_in_the_order_asked(
    toy_dataset: Dataset, tfs: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert chosen(toy_dataset, *tfs).tfs == expected


def test_cells_by_any_spelling(toy_dataset: Dataset) -> None:
    assert chosen(toy_dataset, cells=("E116", "gm-12878")).cells == ("GM12878",)
    data = chosen(toy_dataset, valid_cells=("hepg2",))
    assert (data.cells, data.valid_cells) == (("GM12878",), ("HepG2",))
    data = chosen(toy_dataset, held_out_cells=("HEPG2", "MyCell"))
    assert (data.cells, data.valid_cells, data.held_out_cells) == (("GM12878",), ("GM12878",), ("HepG2", "MyCell"))


def test_one_chromosome_trains_another_validates(toy_dataset: Dataset) -> None:
    data = chosen(toy_dataset, chroms=("1",), valid=(Region("chr2", 0, 41_337),))
    assert data.train == (Region("chr1", 0, 60_000),)
    assert data.valid == (Region("chr2", 0, 41_337),)


def test_valid_and_held_out_regions_leave_the_training_part(toy_dataset: Dataset) -> None:
    data = chosen(
        toy_dataset, valid=(Region("chr1", 5_050, 15_010),), held_out=(Region("chr2", 0, 20_000),), chroms=("chr1", "2")
    )
    assert data.train == (Region("chr1", 0, 5_050), Region("chr1", 15_010, 60_000), Region("chr2", 20_000, 41_337))


FAULTS = {
    "unknown TF": ({"tfs": ("CTFC",)}, "unknown TF 'CTFC'", "did you mean CTCF"),
    "no TF": ({"tfs": ()}, "no TF", "CTCF, MAX"),
    "unknown cell": ({"cells": ("HepG3",)}, "unknown cell type", "HepG2"),
    "unknown validation cell": ({"valid_cells": ("GM12877",)}, "unknown cell type", "GM12878"),
    "unknown held-out cell": ({"held_out_cells": ("Hep2",)}, "unknown cell type", "HepG2"),
    "cell without labels": ({"cells": ("MyCell",)}, "CTCF labels", "GM12878"),
    "validation cell without labels": ({"valid_cells": ("MyCell",)}, "CTCF labels", "HepG2"),
    "no cell left": ({"held_out_cells": ("HepG2", "GM12878")}, "no cell type is left", "GM12878, HepG2"),
    "held out and valid": ({"held_out_cells": ("HepG2",), "valid_cells": ("hepg2",)}, "HepG2", "--valid-cell"),
    "held out and trained": ({"held_out_cells": ("HepG2",), "cells": ("hepg2", "E116")}, "HepG2", "--hold-out-cell"),
    "unknown chromosome": ({"chroms": ("chr3",)}, "unknown chromosome 'chr3'", "chr1"),
    "nothing left": (
        {"held_out": (Region("chr1", 0, 60_000), Region("chr2", 0, 41_337))}, "left to train", "--chrom",
    ),
    "validation held out": (
        {"valid": (Region("chr1", 0, 5_000),), "held_out": (Region("chr1", 4_999, 9_000),)}, "also held out", "",
    ),
    "no bound bin to train on": ({"chroms": ("chr1",), "valid": (Region("chr1", 600, 60_000),)}, "bound", "--chrom"),
    "no bound bin to validate on": ({"valid": (Region("chr1", 0, 600),)}, "no bound bin", "--valid-chrom"),
    "chromosome that nobody assayed": ({"chroms": ("chrShort",)}, "no bound bin in the train", "--chrom"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_impossible_choices_are_refused(toy_dataset: Dataset, fault: str) -> None:
    choice, message, hint = FAULTS[fault]
    with pytest.raises(EbertError) as caught:
        choose_data(toy_dataset, FinetuneChoice(**{"tfs": ("CTCF",), **choice}))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_unknown_names_are_of_their_own_kind(toy_dataset: Dataset) -> None:
    with pytest.raises(UnknownNameError):
        chosen(toy_dataset, "CTFC")


def test_a_validation_part_without_unbound_bins_is_refused(toy_dataset: Dataset) -> None:
    """It would be found out only when training is over: there is nothing to calibrate on."""
    labels = toy_dataset.labels("CTCF", "HepG2", "chr1")
    start = int(np.flatnonzero(labels == BOUND)[0]) * 50
    with pytest.raises(EbertError, match="no unbound bin in the validation part"):
        chosen(toy_dataset, cells=("HepG2",), valid=(Region("chr1", start, start + 200),))


def test_a_dataset_without_labels_is_refused(copied_dataset: Callable[[], Dataset]) -> None:
    dataset = copied_dataset()
    dataset.manifest["labels"] = {}
    with pytest.raises(EbertError, match="holds no labels") as caught:
        chosen(dataset)
    assert "ebert prepare --chip" in caught.value.hint


def test_a_tf_that_one_cell_lacks(copied_dataset: Callable[[], Dataset]) -> None:
    dataset = relabel(copied_dataset(), lambda tf, cell, codes: None if (tf, cell) == ("MAX", "HepG2") else codes)
    data = chosen(dataset, "CTCF", "MAX")
    assert data.cells == ("GM12878", "HepG2")
    with pytest.raises(EbertError, match="MAX has no bound bin in the train"):
        chosen(dataset, "CTCF", "MAX", cells=("HepG2",))
    windows = BindingWindows(data, CONFIG)
    batches = [windows.draw(np.random.default_rng(seed), 8) for seed in range(30)]
    counts = np.concatenate([batch.counts for batch in batches])
    # Some windows are of HepG2: there CTCF counts, and MAX never.
    assert (counts[..., 0].any(axis=1) & ~counts[..., 1].any(axis=1)).any()
    assert (counts[..., 0].any(axis=1) & counts[..., 1].any(axis=1)).any()


# --- windows


@pytest.fixture
def located(toy_dataset: Dataset) -> Callable[[np.ndarray], list[tuple[int, bool]]]:
    """A function: base codes of windows -> (flat start, whether read on the other strand) of each."""
    forward = {toy_dataset.flat_sequence[at : at + 1_000].tobytes(): at for at in range(0, 101_000, 200)}
    backward = {
        reverse_complement(toy_dataset.flat_sequence[at : at + 1_000]).tobytes(): at for at in range(0, 101_000, 200)
    }

    def find(bases: np.ndarray) -> list[tuple[int, bool]]:
        return [
            (forward[row.tobytes()], False) if row.tobytes() in forward else (backward[row.tobytes()], True)
            for row in bases
        ]

    return find


@SMALL
@given(st.integers(0, 10_000))
def test_a_batch_by_brute_force(toy_dataset: Dataset, located: Callable, seed: int) -> None:
    """Every bin of every window: its label where the window says it lies, on either strand."""
    data = chosen(toy_dataset, "MAX", "CTCF", held_out=(Region("chr2", 0, 12_345),))
    batch = BindingWindows(data, CONFIG).draw(np.random.default_rng(seed), 4)
    assert batch.bound.shape == batch.counts.shape == (4, 17, 2)
    for row, (flat, reverse) in enumerate(located(batch.windows.bases)):
        chrom = "chr1" if flat < 60_000 else "chr2"
        start = flat - toy_dataset.assembly.offset(chrom)
        assert any(r.chrom == chrom and r.start <= start and start + 1_000 <= r.end for r in data.train)
        states = {cell: toy_dataset.states(cell, chrom)[start // 200 : start // 200 + 5] for cell in data.cells}
        shown = batch.windows.states[row][::-1] if reverse else batch.windows.states[row]
        # A window of one long segment may look alike in two cell types; its labels are those of one of them.
        alike = [cell for cell, codes in states.items() if np.array_equal(codes, shown)]
        assert any(
            np.array_equal(batch.bound[row], bound) and np.array_equal(batch.counts[row], counts)
            for bound, counts in (expected_bins(toy_dataset, data.tfs, cell, chrom, start, reverse) for cell in alike)
        )


def expected_bins(
    dataset: Dataset, tfs: tuple[str, ...], cell: str, chrom: str, start: int, reverse: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(bound, counts) of a window at `start`, one bin after the other in the direction of reading."""
    bound, counts = np.zeros((17, len(tfs)), dtype=bool), np.zeros((17, len(tfs)), dtype=bool)
    for place in range(17):
        # On the other strand the window is read from its end.
        bin_start = start + 1_000 - 200 - 50 * place if reverse else start + 50 * place
        has_context = 50 * place >= 200 and 50 * place + 200 <= 800
        for t, tf in enumerate(tfs):
            label = dataset.labels(tf, cell, chrom)[bin_start // 50]
            bound[place, t] = label == BOUND
            counts[place, t] = has_context and label in (BOUND, UNBOUND)
    return bound, counts


def test_labels_that_do_not_count_never_count(copied_dataset: Callable[[], Dataset]) -> None:
    """Ambiguous or unlabelled everywhere but at the bound bins: nothing else may count."""
    rng = np.random.default_rng(0)

    def spoil(tf: str, cell: str, codes: np.ndarray) -> np.ndarray:
        kept = (codes == BOUND) | (np.arange(len(codes)) < 60)
        return np.where(kept, codes, rng.choice([0, 2], len(codes)))

    data = chosen(relabel(copied_dataset(), spoil), chroms=("chr1",), valid=(Region("chr1", 0, 4_000),))
    windows = BindingWindows(data, CONFIG)
    for seed in range(20):
        batch = windows.draw(np.random.default_rng(seed), 8)
        assert (batch.counts <= batch.bound).all()


@pytest.mark.parametrize("chroms", [("chr1", "chr2"), ("chr2", "chr1")])
def test_the_asked_share_of_windows_holds_a_bound_bin(
    toy_dataset: Dataset, located: Callable, chroms: tuple[str, ...]
) -> None:
    """In whatever order the chromosomes were named."""
    data = chosen(toy_dataset, chroms=chroms)
    always = BindingWindows(data, CONFIG.model_copy(update={"bound_share": 1.0}))
    never = BindingWindows(data, CONFIG.model_copy(update={"bound_share": 0.0}))
    shares, places = [], set()
    for windows in (always, never):
        batches = [windows.draw(np.random.default_rng(seed), 8) for seed in range(40)]
        holds = np.concatenate([(batch.bound & batch.counts).any(axis=(1, 2)) for batch in batches])
        shares.append(holds.mean())
        if windows is always:
            for batch in batches:
                places |= {flat < 60_000 for flat, _ in located(batch.windows.bases)}
    # Windows around a bound bin may be unreadable (N-runs, exclusion); then a window anywhere stands in.
    assert shares[0] > 0.8
    assert shares[1] < 0.75
    assert places == {True, False}


def test_the_bound_bin_lies_anywhere_in_the_scored_part(toy_dataset: Dataset) -> None:
    windows = BindingWindows(chosen(toy_dataset), CONFIG.model_copy(update={"bound_share": 1.0}))
    places: set[int] = set()
    for seed in range(40):
        batch = windows.draw(np.random.default_rng(seed), 8)
        places |= set(np.flatnonzero((batch.bound & batch.counts).any(axis=(0, 2))).tolist())
    assert places == set(range(4, 13))


def test_a_single_bound_bin_comes_at_every_place_that_its_windows_allow(
    copied_dataset: Callable[[], Dataset],
) -> None:
    """Windows begin at multiples of 200 bp; those that hold the bin with its context are all drawn."""
    stride = 12_350 // 50

    def single(tf: str, cell: str, codes: np.ndarray) -> np.ndarray:
        codes = np.where(codes == BOUND, UNBOUND, codes)
        codes[[stride, 30_000 // 50]] = BOUND
        return codes

    data = chosen(relabel(copied_dataset(), single), cells=("HepG2",), valid=(Region("chr1", 29_000, 32_000),))
    windows = BindingWindows(data, CONFIG.model_copy(update={"bound_share": 1.0}))
    places: set[int] = set()
    for seed in range(20):
        batch = windows.draw(np.random.default_rng(seed), 8)
        assert (batch.bound & batch.counts).sum() == 8
        places |= set(np.nonzero(batch.bound)[1].tolist())
    forward = {place for place in range(4, 13) if (stride - place) % 4 == 0}
    assert places == forward | {16 - place for place in forward}


def test_both_strands_and_cells_are_drawn_alike(toy_dataset: Dataset, located: Callable) -> None:
    windows = BindingWindows(chosen(toy_dataset), CONFIG)
    strands = [
        reverse
        for seed in range(40)
        for _, reverse in located(windows.draw(np.random.default_rng(seed), 8).windows.bases)
    ]
    assert 0.4 < np.mean(strands) < 0.6


def test_states_may_be_dropped_or_never_shown(toy_dataset: Dataset) -> None:
    data = chosen(toy_dataset)
    for update, low, high in (({"state_dropout": 0.5}, 0.35, 0.65), ({"use_states": False}, 1, 1), ({}, 0, 0)):
        windows = BindingWindows(data, CONFIG.model_copy(update=update))
        blank = [
            (windows.draw(np.random.default_rng(seed), 8).windows.states == 0).all(axis=1).mean() for seed in range(20)
        ]
        assert low <= np.mean(blank) <= high


def test_equal_generators_draw_equal_batches(toy_dataset: Dataset) -> None:
    windows = BindingWindows(chosen(toy_dataset, "all"), CONFIG)
    first, second = (windows.draw(np.random.default_rng(5), 8) for _ in range(2))
    assert np.array_equal(first.windows.bases, second.windows.bases)
    assert np.array_equal(first.windows.states, second.windows.states)
    assert np.array_equal(first.bound, second.bound)
    assert np.array_equal(first.counts, second.counts)


def test_windows_that_fit_nowhere_are_an_error(toy_dataset: Dataset) -> None:
    data = chosen(toy_dataset)
    config = FinetuneConfig(window_bp=60_000)
    assert len(eligible_starts(toy_dataset, data.train, 60_000)) == 0
    with pytest.raises(EbertError, match="no window of 60,000 bp") as caught:
        BindingWindows(data, config)
    assert "window_bp" in caught.value.hint


def test_the_description_names_what_was_read(toy_dataset: Dataset, copied_dataset: Callable[[], Dataset]) -> None:
    """A resumed run compares it, so it must change with each array that training reads."""
    plain = chosen(toy_dataset).describe()
    assert json.loads(json.dumps(plain)) == plain
    assert chosen(copied_dataset()).describe() == plain
    for file in ("sequence.npy", "excluded.npy", "states/HepG2.npy", "labels/CTCF/HepG2.npy"):
        dataset = copied_dataset()
        for entry in _entries(dataset, file):
            entry["sha256"] = "0" * 64
        assert chosen(dataset).describe() != plain, file


def _entries(dataset: Dataset, file: str) -> list[dict]:
    manifest, folder = dataset.manifest, Path(file).parts[0]
    if folder == "states":
        return [manifest["states"]["HepG2"]]
    if folder == "labels":
        return [manifest["labels"]["CTCF"]["HepG2"]]
    return [manifest["sequence" if folder.startswith("sequence") else "excluded"]]
