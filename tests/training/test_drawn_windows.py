"""Which windows are drawn, how often, and what their weights make of that; and which tracks they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from ebert_core.config import FeatureConfig, FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackReader, TrackSpec
from ebert_core.data.windows import WindowReader, eligible_starts
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.training import binding_windows
from ebert_core.training.binding_windows import BindingWindows, LabelledBatch
from ebert_core.training.finetune_data import FinetuneChoice, FinetuneData, choose_data

CONFIG = FinetuneConfig(window_bp=1_000, context_bp=200, state_dropout=0.0, bound_share=0.5, open_share=0.1)
SHOW_ALL = FeatureConfig(accessibility_dropout=0.0, other_states=True)


def configured(**changes: object) -> FinetuneConfig:
    return FinetuneConfig(**{**CONFIG.model_dump(), **changes})


def chosen(dataset: Dataset, *tfs: str, **choice: object) -> FinetuneData:
    return choose_data(dataset, FinetuneChoice(tuple(tfs) or ("CTCF",), **choice))


@dataclass
class Drawn:
    """Many windows, one row each."""

    starts: np.ndarray
    cells: np.ndarray
    bound: np.ndarray
    weights: np.ndarray


def many(data: FinetuneData, config: FinetuneConfig, count: int, spec: TrackSpec | None = None) -> Drawn:
    """`count` windows and where they lie, as the reader of the windows was asked for them."""
    asked: list[tuple[np.ndarray, np.ndarray]] = []
    read = WindowReader.read

    def spy(self: WindowReader, starts: np.ndarray, cells: np.ndarray) -> object:
        asked.append((starts.copy(), cells.copy()))
        return read(self, starts, cells)

    windows, rng = BindingWindows(data, config, spec), np.random.default_rng(8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WindowReader, "read", spy)
        batches: list[LabelledBatch] = [windows.draw(rng, 1_000) for _ in range(count // 1_000)]
    return Drawn(
        np.concatenate([starts for starts, _ in asked]),
        np.array(data.cells)[np.concatenate([cells for _, cells in asked])],
        np.concatenate([batch.bound for batch in batches]),
        np.concatenate([batch.weights for batch in batches]),
    )


def inner_labels(dataset: Dataset, tf: str, cell: str, start: int) -> np.ndarray:
    """Labels of the bins that have their context in the window of 1,000 bp at a flat start."""
    chrom = "chr1" if start < 60_000 else "chr2"
    first = (start - dataset.assembly.offset(chrom)) // 50
    return dataset.labels(tf, cell, chrom)[first + 4 : first + 13]


# --- shares


def test_windows_around_open_chromatin(toy_dataset: Dataset) -> None:
    """Peaks are open as a whole; of a track that is above 0 nearly everywhere, the strongest fiftieth is."""
    data, spec = chosen(toy_dataset), TrackSpec.choose(toy_dataset, FeatureConfig())
    drawn = many(data, configured(bound_share=0.0, open_share=1.0), 2_000, spec)
    blind = many(data, configured(bound_share=0.0, open_share=0.0), 2_000, spec)
    for cell in data.cells:
        track = toy_dataset.flat_accessibility(cell)
        lowest = 0.0 if cell == "GM12878" else float(np.quantile(track, 0.97))
        shares = []
        for windows in (drawn, blind):
            starts = windows.starts[windows.cells == cell]
            # The stride is the first of a bin that has its context.
            shares.append(np.mean([(track[at // 50 + 4 : at // 50 + 13] > lowest).any() for at in starts]))
        # Where no readable window holds the bin (N-runs, exclusion) a window anywhere stands in.
        assert shares[0] > 0.95 > shares[1] + 0.2


def test_without_accessibility_no_window_is_near_a_miss(toy_dataset: Dataset) -> None:
    """Nothing says what is open, so those windows are drawn blindly."""
    data = chosen(toy_dataset, cells=("HepG2",))
    without_hepg2 = TrackSpec.choose(toy_dataset, FeatureConfig(accessibility=False, tss=False))
    starts = eligible_starts(toy_dataset, data.train, 1_000)
    for spec in (None, without_hepg2):
        drawn = many(data, configured(bound_share=0.0, open_share=1.0), 5_000, spec)
        times = np.array([(drawn.starts == start).sum() for start in starts])
        assert times.sum() == 5_000
        # Chi-square of a uniform draw: its mean is the number of windows less one, its variance twice that.
        chi_square = ((times - 5_000 / len(starts)) ** 2 / (5_000 / len(starts))).sum()
        assert abs(chi_square - len(starts)) < 5 * np.sqrt(2 * len(starts))


def two_sites(relabel: Callable[..., Dataset], dataset: Dataset) -> Dataset:
    """CTCF is bound at 8,400 bp of chr1 in HepG2 only, MAX at 33,300 bp of chr1 in GM12878 only; also at 5,000 of chr2
    for the validation."""

    def change(tf: str, cell: str, codes: np.ndarray) -> np.ndarray:
        codes = np.where(codes == BOUND, UNBOUND, codes)
        if (tf, cell) in (("CTCF", "HepG2"), ("MAX", "GM12878")):
            codes[[(8_400 if tf == "CTCF" else 33_300) // 50, 65_000 // 50]] = BOUND
        return codes

    return relabel(dataset, change)


@pytest.mark.parametrize("also", [(), ("MAX",)])
def test_some_of_the_bound_windows_are_of_what_is_learned_beside(
    copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset], also: tuple[str, ...]
) -> None:
    """Also in a cell type in which nothing of the main TF is bound, and only around its sites there."""
    dataset = two_sites(relabel, copied_dataset())
    data = chosen(dataset, also=also, chroms=("chr1", "chr2"), valid=(Region("chr2", 4_000, 6_000),))
    drawn = many(data, configured(bound_share=0.8, open_share=0.0), 5_000)
    main, beside = (
        (drawn.cells == cell) & (drawn.starts + 200 <= site) & (site + 200 <= drawn.starts + 800)
        for cell, site in (("HepG2", 8_400), ("GM12878", 33_300))
    )
    share = binding_windows._ALSO_SHARE if also else 0.0
    assert main.mean() == pytest.approx(0.8 * (1 - share), abs=0.03)
    assert beside.mean() == pytest.approx(0.8 * share, abs=0.03)
    assert beside.sum() == (drawn.cells == "GM12878").sum()
    assert (drawn.bound[beside, :, 0] == 0).all()
    if also:
        assert drawn.bound[beside, :, 1].any(axis=1).all()


def test_what_is_learned_beside_weighs_less(toy_dataset: Dataset) -> None:
    config = configured(auxiliary_weight=0.25)
    alone = many(chosen(toy_dataset, "MAX", "CTCF"), config, 1_000)
    beside = many(chosen(toy_dataset, "MAX", also=("CTCF",)), config, 1_000)
    assert set(np.unique(alone.weights)) == {0.0, 1.0}
    assert set(np.unique(beside.weights[..., 0])) == {0.0, 1.0}
    assert set(np.unique(beside.weights[..., 1])) == {0.0, 0.25}
    assert (
        not many(chosen(toy_dataset, "MAX", also=("CTCF",)), configured(auxiliary_weight=0.0), 1_000)
        .weights[..., 1]
        .any()
    )


def test_a_cell_that_was_not_assayed_has_no_weights(
    copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset]
) -> None:
    dataset = relabel(copied_dataset(), lambda tf, cell, codes: None if (tf, cell) == ("MAX", "HepG2") else codes)
    drawn = many(chosen(dataset, "CTCF", also=("MAX",)), CONFIG, 2_000)
    here = drawn.cells == "HepG2"
    assert 0.2 < here.mean() < 0.8
    assert not drawn.weights[here, :, 1].any()
    assert not drawn.bound[here, :, 1].any()
    assert drawn.weights[~here, :, 1].any()
    assert drawn.weights[here, :, 0].any()


# --- importance


IMPORTANCE = {
    "bound": {"bound_share": 0.6, "open_share": 0.0},
    "open": {"bound_share": 0.0, "open_share": 0.6},
    "both": {"bound_share": 0.4, "open_share": 0.3},
}


@pytest.mark.parametrize("also", [(), ("CTCF",)])
@pytest.mark.parametrize("shares", IMPORTANCE)
def test_weighted_windows_come_as_often_as_blind_ones(toy_dataset: Dataset, shares: str, also: tuple[str, ...]) -> None:
    """By Monte Carlo: the sum of the weights of the windows of each 4 kb of each cell type, over the number drawn."""
    data = chosen(toy_dataset, "MAX", also=also)
    spec = TrackSpec.choose(toy_dataset, FeatureConfig())
    drawn = many(data, configured(importance=1.0, **IMPORTANCE[shares]), 12_000, spec)
    weights = drawn.weights[..., 0].max(axis=1).astype(float)
    starts = eligible_starts(toy_dataset, data.train, 1_000)
    deviations, unweighted = [], []
    for cell in data.cells:
        # Windows without any labelled bin have no weight to be seen.
        labelled = [np.isin(inner_labels(toy_dataset, "MAX", cell, at), (BOUND, UNBOUND)).any() for at in starts]
        countable = starts[np.array(labelled)]
        for group in np.unique(countable // 4_000):
            expected = (countable // 4_000 == group).sum() / len(starts) / len(data.cells)
            here = (drawn.cells == cell) & (drawn.starts // 4_000 == group)
            for values, found in ((weights, deviations), ((weights > 0).astype(float), unweighted)):
                ours = np.where(here, values, 0.0)
                found.append((ours.mean() - expected) / (ours.std() / np.sqrt(len(ours))))
    assert len(deviations) > 35
    # Means of so many draws are nearly normal: of these groups none leaves 4.5, and together they are no wider.
    assert np.abs(deviations).max() < 4.5
    assert np.mean(np.square(deviations)) < 1.8
    assert np.mean(np.square(unweighted)) > 5, "unweighted, they do not"


def test_weighted_bound_bins_are_as_rare_as_they_are(toy_dataset: Dataset) -> None:
    """What calibration needs: the weighted share of bound bins is the training part's."""
    data = chosen(toy_dataset, "MAX", also=("CTCF",))
    spec = TrackSpec.choose(toy_dataset, FeatureConfig())
    drawn = many(data, configured(importance=1.0, bound_share=0.5, open_share=0.2), 12_000, spec)
    every = [
        inner_labels(toy_dataset, "MAX", cell, start)
        for cell in data.cells
        for start in eligible_starts(toy_dataset, data.train, 1_000)
    ]
    labels = np.concatenate(every)
    expected = (labels == BOUND).sum() / np.isin(labels, (BOUND, UNBOUND)).sum()
    weights, bound = drawn.weights[..., 0], drawn.bound[..., 0]
    assert (weights * bound).sum() / weights.sum() == pytest.approx(expected, rel=0.05)
    assert bound[weights > 0].mean() > 1.5 * expected


def test_importance_is_a_power(toy_dataset: Dataset) -> None:
    data, spec = chosen(toy_dataset, "MAX", also=("CTCF",)), TrackSpec.choose(toy_dataset, FeatureConfig())
    none, half, full = (many(data, configured(importance=power), 1_000, spec) for power in (0.0, 0.5, 1.0))
    assert np.array_equal(none.starts, full.starts), "the weights do not change what is drawn"
    assert set(np.unique(none.weights[..., 0])) == {0.0, 1.0}
    np.testing.assert_allclose(half.weights[..., 0] ** 2, full.weights[..., 0], rtol=1e-5)
    assert full.weights[..., 0].max() > 1.5
    assert 0 < full.weights[..., 0][full.weights[..., 0] > 0].min() < 0.7


# --- tracks


def test_tracks_are_those_of_the_window_on_its_strand(
    toy_with_starts: Dataset, located: Callable[..., list[tuple[int, bool]]]
) -> None:
    data = chosen(toy_with_starts)
    spec = TrackSpec.choose(toy_with_starts, SHOW_ALL)
    batch = BindingWindows(data, configured(features=SHOW_ALL), spec).draw(np.random.default_rng(2), 60)
    assert batch.windows.tracks is not None
    assert batch.windows.tracks.shape == (60, 20, 24)
    reader, strands = TrackReader(toy_with_starts, spec), set()
    for row, (start, reverse) in enumerate(located(batch.windows.bases)):
        shown = batch.windows.tracks[row, ::-1] if reverse else batch.windows.tracks[row]
        alike = [np.array_equal(reader.read(cell, np.array([start]), 1_000)[0], shown) for cell in data.cells]
        assert any(alike)
        strands.add(reverse)
    assert strands == {True, False}


@pytest.mark.parametrize("dropout", [0.0, 0.4, 1.0])
def test_accessibility_is_hidden_from_some_windows(toy_with_starts: Dataset, dropout: float) -> None:
    """Half of those do not show other cell types' either; transcript starts stay."""
    features = FeatureConfig(accessibility_dropout=dropout)
    data, spec = chosen(toy_with_starts), TrackSpec.choose(toy_with_starts, features)
    batch = BindingWindows(data, configured(features=features), spec).draw(np.random.default_rng(4), 2_000)
    tracks = batch.windows.tracks
    assert tracks is not None
    own, mean = (tracks[..., channel].all(axis=1) for channel in (3, 4))
    assert (~own).mean() == pytest.approx(dropout, abs=0.04)
    assert (~mean).mean() == pytest.approx(dropout / 2, abs=0.04)
    assert (tracks[~own][..., [0, 2, 3]] == 0).all()
    assert (tracks[~mean][..., :5] == 0).all()
    assert not (own & ~mean).any()
    assert tracks[..., 5].any(axis=1).all()


def test_nothing_to_read_is_no_tracks(toy_dataset: Dataset) -> None:
    for spec in (None, TrackSpec()):
        assert (
            BindingWindows(chosen(toy_dataset), CONFIG, spec).draw(np.random.default_rng(0), 4).windows.tracks is None
        )


def test_equal_generators_draw_equal_tracks(toy_with_starts: Dataset) -> None:
    spec = TrackSpec.choose(toy_with_starts, FeatureConfig())
    windows = BindingWindows(chosen(toy_with_starts, also=("MAX",)), configured(importance=0.5), spec)
    first, second = (windows.draw(np.random.default_rng(5), 40) for _ in range(2))
    assert np.array_equal(first.windows.tracks, second.windows.tracks)
    assert np.array_equal(first.weights, second.weights)
