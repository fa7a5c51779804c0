"""Windows of fine-tuning: what they show and what counts, against arrays read bin by bin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import eligible_starts
from ebert_core.errors import EbertError
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.training.binding_windows import BindingWindows
from ebert_core.training.finetune_data import FinetuneChoice, FinetuneData, choose_data

CONFIG = FinetuneConfig(window_bp=1_000, context_bp=200, global_batch=4, micro_batch=4, state_dropout=0.0)
ALL_BOUND = CONFIG.model_copy(update={"bound_share": 1.0, "open_share": 0.0})
SMALL = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chosen(dataset: Dataset, *tfs: str, **choice: object) -> FinetuneData:
    return choose_data(dataset, FinetuneChoice(tuple(tfs) or ("CTCF",), **choice))


@SMALL
@given(st.integers(0, 10_000))
def test_a_batch_by_brute_force(toy_dataset: Dataset, located: Callable, seed: int) -> None:
    """Every bin of every window: its label where the window says it lies, on either strand."""
    data = chosen(toy_dataset, "MAX", "CTCF", held_out=(Region("chr2", 0, 12_345),))
    batch = BindingWindows(data, CONFIG).draw(np.random.default_rng(seed), 4)
    assert batch.bound.shape == batch.weights.shape == (4, 17, 2)
    for row, (flat, reverse) in enumerate(located(batch.windows.bases)):
        chrom = "chr1" if flat < 60_000 else "chr2"
        start = flat - toy_dataset.assembly.offset(chrom)
        assert any(r.chrom == chrom and r.start <= start and start + 1_000 <= r.end for r in data.train)
        states = {cell: toy_dataset.states(cell, chrom)[start // 200 : start // 200 + 5] for cell in data.cells}
        shown = batch.windows.states[row][::-1] if reverse else batch.windows.states[row]
        # A window of one long segment may look alike in two cell types; its labels are those of one of them.
        alike = [cell for cell, codes in states.items() if np.array_equal(codes, shown)]
        assert any(
            np.array_equal(batch.bound[row], bound) and np.array_equal(batch.weights[row], counts)
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


def test_labels_that_do_not_count_never_count(
    copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset]
) -> None:
    """Ambiguous or unlabelled everywhere but at the bound bins: nothing else may count."""
    rng = np.random.default_rng(0)

    def spoil(tf: str, cell: str, codes: np.ndarray) -> np.ndarray:
        kept = (codes == BOUND) | (np.arange(len(codes)) < 60)
        return np.where(kept, codes, rng.choice([0, 2], len(codes)))

    data = chosen(relabel(copied_dataset(), spoil), chroms=("chr1",), valid=(Region("chr1", 0, 4_000),))
    windows = BindingWindows(data, CONFIG)
    for seed in range(20):
        batch = windows.draw(np.random.default_rng(seed), 8)
        assert ((batch.weights > 0) <= batch.bound).all()


@pytest.mark.parametrize("chroms", [("chr1", "chr2"), ("chr2", "chr1")])
def test_the_asked_share_of_windows_holds_a_bound_bin(
    toy_dataset: Dataset, located: Callable, chroms: tuple[str, ...]
) -> None:
    """In whatever order the chromosomes were named."""
    data = chosen(toy_dataset, chroms=chroms)
    always = BindingWindows(data, ALL_BOUND)
    never = BindingWindows(data, CONFIG.model_copy(update={"bound_share": 0.0, "open_share": 0.0}))
    shares, places = [], set()
    for windows in (always, never):
        batches = [windows.draw(np.random.default_rng(seed), 8) for seed in range(40)]
        holds = np.concatenate([(batch.bound & (batch.weights > 0)).any(axis=(1, 2)) for batch in batches])
        shares.append(holds.mean())
        if windows is always:
            for batch in batches:
                places |= {flat < 60_000 for flat, _ in located(batch.windows.bases)}
    # Windows around a bound bin may be unreadable (N-runs, exclusion); then a window anywhere stands in.
    assert shares[0] > 0.8
    assert shares[1] < 0.75
    assert places == {True, False}


def test_the_bound_bin_lies_anywhere_in_the_scored_part(toy_dataset: Dataset) -> None:
    windows = BindingWindows(chosen(toy_dataset), ALL_BOUND)
    places: set[int] = set()
    for seed in range(40):
        batch = windows.draw(np.random.default_rng(seed), 8)
        places |= set(np.flatnonzero((batch.bound & (batch.weights > 0)).any(axis=(0, 2))).tolist())
    assert places == set(range(4, 13))


def test_a_single_bound_bin_comes_at_every_place_that_its_windows_allow(
    copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset]
) -> None:
    """Windows begin at multiples of 200 bp; those that hold the bin with its context are all drawn."""
    stride = 12_350 // 50

    def single(tf: str, cell: str, codes: np.ndarray) -> np.ndarray:
        codes = np.where(codes == BOUND, UNBOUND, codes)
        codes[[stride, 30_000 // 50]] = BOUND
        return codes

    data = chosen(relabel(copied_dataset(), single), cells=("HepG2",), valid=(Region("chr1", 29_000, 32_000),))
    windows = BindingWindows(data, ALL_BOUND)
    places: set[int] = set()
    for seed in range(20):
        batch = windows.draw(np.random.default_rng(seed), 8)
        assert (batch.bound & (batch.weights > 0)).sum() == 8
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
    assert np.array_equal(first.weights, second.weights)


def test_windows_that_fit_nowhere_are_an_error(toy_dataset: Dataset) -> None:
    data = chosen(toy_dataset)
    config = FinetuneConfig(window_bp=60_000)
    assert len(eligible_starts(toy_dataset, data.train, 60_000)) == 0
    with pytest.raises(EbertError, match="no window of 60,000 bp") as caught:
        BindingWindows(data, config)
    assert "window_bp" in caught.value.hint


def test_a_tf_that_one_cell_lacks_never_counts_there(
    copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset]
) -> None:
    dataset = relabel(copied_dataset(), lambda tf, cell, codes: None if (tf, cell) == ("MAX", "HepG2") else codes)
    data = chosen(dataset, "CTCF", "MAX")
    windows = BindingWindows(data, CONFIG)
    batches = [windows.draw(np.random.default_rng(seed), 8) for seed in range(30)]
    counts = np.concatenate([batch.weights > 0 for batch in batches])
    # Some windows are of HepG2: there CTCF counts, and MAX never.
    assert (counts[..., 0].any(axis=1) & ~counts[..., 1].any(axis=1)).any()
    assert (counts[..., 0].any(axis=1) & counts[..., 1].any(axis=1)).any()
