"""The development benchmark's rivals on tiny arrays, against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ebert_core.data.dataset import Dataset
from ebert_core.evaluation.motif_hits import best_hits
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.io.motifs import Motif

# The benchmarks are scripts, no package.
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import rivals_boosting
    import rivals_cnn
    import rivals_features
    import rivals_setting
    import rivals_table
    import rivals_windows

pytestmark = pytest.mark.slow

BIN = 4  # strides of a bin
VALUES = arrays(np.float32, st.integers(1, 40), elements=st.integers(-8, 8).map(float))
REACH = st.integers(0, 12)


@given(values=VALUES, reach=REACH)
def test_windows_match_loops(values: np.ndarray, reach: int) -> None:
    size = len(values)
    means, maxima, neighbours = [], [], []
    for i in range(size):
        inside = [values[p] if p < size else None for p in range(max(i - reach, 0), i + BIN + reach)]
        known = [v for v in inside if v is not None]
        means.append(sum(known) / (BIN + 2 * reach))
        maxima.append(max(known))
        neighbours.append(max(values[max(i - reach, 0) : i + reach + 1]))
    np.testing.assert_allclose(rivals_windows.bin_means(values, reach), means, atol=1e-5)
    np.testing.assert_array_equal(rivals_windows.bin_maxima(values, reach), maxima)
    np.testing.assert_array_equal(rivals_windows.neighbour_maxima(values, reach), neighbours)


@given(values=VALUES, reach=st.integers(0, 4), data=st.data())
def test_neighbours_are_averaged_as_far_as_there_are_some(values: np.ndarray, reach: int, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(1, 3), min_size=len(values), max_size=len(values)))
    strides = np.cumsum(steps)
    found = rivals_setting.neighbours_averaged(values, strides, reach)
    for place, stride in enumerate(strides):
        weights = np.maximum(1 + reach - np.abs(strides - stride), 0)
        assert found[place] == pytest.approx(np.average(values, weights=weights), abs=1e-4)


@given(values=VALUES, distance=st.integers(1, 6))
def test_either_side_is_blind_to_the_strand(values: np.ndarray, distance: int) -> None:
    higher, lower = rivals_windows.either_side(values, distance)
    mirrored = rivals_windows.either_side(values[::-1], distance)
    np.testing.assert_array_equal(mirrored[0][::-1], higher)
    np.testing.assert_array_equal(mirrored[1][::-1], lower)
    for i in range(distance, len(values) - distance):
        pair = values[i - distance], values[i + distance]
        assert (higher[i], lower[i]) == (max(pair), min(pair))


@given(
    places=arrays(np.float64, st.integers(1, 20), elements=st.integers(-50, 50).map(float)),
    points=arrays(np.float64, st.integers(0, 20), elements=st.integers(-50, 50).map(float)),
)
def test_distance_to_nearest(places: np.ndarray, points: np.ndarray) -> None:
    expected = [min((abs(place - point) for point in points), default=np.inf) for place in places]
    np.testing.assert_array_equal(rivals_windows.distance_to_nearest(places, points), expected)


@given(arrays(np.bool_, st.integers(0, 30)))
def test_runs_rebuild_what_they_came_from(inside: np.ndarray) -> None:
    first, end = rivals_windows.runs_of(inside)
    rebuilt = np.zeros(len(inside), bool)
    for a, b in zip(first, end, strict=True):
        rebuilt[a:b] = True
    np.testing.assert_array_equal(rebuilt, inside)
    assert (end > first).all()
    assert (first[1:] > end[:-1]).all()


def test_normalised_tracks_share_their_quantiles() -> None:
    rng = np.random.default_rng(0)
    tracks = [np.where(rng.random(20_000) < 0.3, rng.gamma(shape, 2, 20_000), 0) for shape in (1.0, 4.0)]
    reference = rivals_windows.reference_quantiles(tracks)
    reached = [
        rivals_windows.to_reference(track, rivals_windows.reference_quantiles([track]), reference) for track in tracks
    ]
    for before, after in zip(tracks, reached, strict=True):
        assert ((before > 0) == (after > 0)).all()
        order = np.argsort(before)
        assert (np.diff(after[order]) >= 0).all()
    levels = np.linspace(0.05, 0.95, 19)
    a, b = (np.quantile(after[after > 0], levels) for after in reached)
    np.testing.assert_allclose(a, b, rtol=0.02)


def test_equal_values_stay_equal_when_normalised() -> None:
    track = np.array([0.0, 1, 1, 1, 3], np.float32)
    own = rivals_windows.reference_quantiles([track])
    found = rivals_windows.to_reference(track, own, np.linspace(1, 2, len(own)))
    assert len(set(found[1:4].tolist())) == 1
    assert found[0] == 0
    assert found[4] > found[1]


def _runs() -> list[rivals_table.Run]:
    rng = np.random.default_rng(1)
    runs = []
    for design, gain in (("ebert", 0.1), ("boosting", 0.0)):
        for turn, tfs in (("a", ("CTCF", "MAX")), ("b", ("CTCF",))):
            noise = np.random.default_rng(7).normal(0, 0.3, 1_000)
            for seed in (0, 1):
                auprc = {tf: 0.2 + gain + 0.1 * seed + 0.05 * (tf == "MAX") for tf in tfs}
                resampled = {tf: value + noise + rng.normal(0, 0.001, 1_000) for tf, value in auprc.items()}
                runs.append(rivals_table.Run(design, turn, seed, auprc, resampled))
    return runs


def test_differences_are_paired() -> None:
    found = rivals_table.compare(_runs(), "ebert", "boosting")
    assert found is not None
    # The blocks' common noise of 0.3 cancels; what is left is the designs' own.
    assert found["difference"] == pytest.approx(0.1)
    assert 0.098 < found["lower"] < 0.1 < found["upper"] < 0.102
    assert found["relative"] == pytest.approx(0.1 / 0.275, abs=1e-3)
    assert (found["wins"], found["tfs"]) == (2, 2)
    assert rivals_table.compare(_runs(), "ebert", "cnn") is None


def test_means_weigh_tfs_alike_whatever_their_turns() -> None:
    means = rivals_table.design_means(_runs())
    assert means["boosting"] == {"mean": pytest.approx(0.275), "spread": pytest.approx(0.1)}
    assert "CTCF" in rivals_table.as_text(_runs(), ("CTCF", "MAX", "YY1"))
    assert "YY1" not in rivals_table.as_text(_runs(), ("CTCF", "MAX", "YY1"))


def test_resamples_without_a_bound_bin_are_left_out() -> None:
    runs = _runs()
    for run in runs:
        run.resampled["CTCF"][:10] = np.nan
    found = rivals_table.compare(runs, "ebert", "boosting")
    assert found is not None
    assert np.isfinite([found["lower"], found["upper"]]).all()


def test_drawn_rows_stand_for_all_unbound_bins() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice([0, UNBOUND, 2, BOUND], 5_000, p=[0.05, 0.85, 0.05, 0.05]).astype(np.uint8)
    interesting = rng.random(5_000) < 0.1
    chosen, weights = rivals_boosting.draw_rows(labels, interesting, 300, rng)
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(labels[chosen]) == {UNBOUND, BOUND}
    assert (labels[chosen] == BOUND).sum() == (labels == BOUND).sum()
    for kind in (interesting, ~interesting):
        here = (labels[chosen] == UNBOUND) & kind[chosen]
        assert weights[here].sum() == pytest.approx(((labels == UNBOUND) & kind).sum())


def test_classes_of_features_have_equal_numbers_and_keep_the_order() -> None:
    rng = np.random.default_rng(5)
    features = np.stack([np.exp(4 * rng.normal(size=5_000)), rng.integers(0, 2, 5_000)], axis=1).astype(np.float32)
    edges = rivals_boosting.class_edges(features, 100)
    classes = rivals_boosting.classes_of(features, edges)
    assert np.ptp(np.bincount(classes[:, 0], minlength=100)) <= 2
    assert (np.diff(classes[np.argsort(features[:, 0]), 0].astype(int)) >= 0).all()
    assert len(np.unique(classes[:, 1])) == 2
    assert ((classes[:, 1] == classes[:, 1].max()) == (features[:, 1] == 1)).all()


def test_motifs_of_a_tf() -> None:
    def motif(name: str, alt_name: str, width: int) -> Motif:
        return Motif(name, alt_name, np.full((width, 4), 0.25, np.float32))

    motifs = [
        motif("MA1.1", "MAX", 10), motif("MA1.2", "MAX", 6), motif("MA2.1", "MAX::MYC", 11),
        motif("MA2.2", "MAX::MYC", 10), motif("MA3.1", "MAXIMA", 8), motif("MA4.1", "CTCF", 19),
    ]  # fmt: skip
    assert [m.name for m in rivals_features.own_motifs(motifs, "MAX")] == ["MA1.2", "MA1.1", "MA2.2"]
    assert [m.name for m in rivals_features.own_motifs(motifs, "RAD21")] == ["MA4.1"]
    assert [m.name for m in rivals_features.family_motifs(motifs)] == ["MA4.1", "MA1.1"]


def test_motif_hits_are_kept(toy_dataset: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    motif = Motif("M1", "CTCF", rng.dirichlet(np.ones(4), 9).astype(np.float32))
    for _ in range(2):
        found = rivals_features.MotifHits(toy_dataset, [motif], tmp_path).best(motif, "chr2")
        codes = toy_dataset.sequence("chr2")
        starts = np.arange(0, len(codes) - 199, 50)
        expected = best_hits(codes, starts, motif.log_odds())
        np.testing.assert_allclose(found[: len(starts)], expected, rtol=1e-3)
        assert len(found) == -(-len(codes) // 50)


@pytest.mark.parametrize("stride", [0, 37, 822])
def test_network_reads_the_bin_in_the_middle(toy_dataset: Dataset, stride: int) -> None:
    cell = toy_dataset.accessibility_cells[0]
    place = rivals_cnn.Place(toy_dataset, cell, "chr2", accessible=True)
    bases, tracks = place.read(stride, 1)
    edge = rivals_cnn.FLANK * 50 + rivals_cnn.MOTIF_BP // 2
    assert len(bases) == 2 * edge + 200
    codes = toy_dataset.sequence("chr2")[stride * 50 : stride * 50 + 200]
    np.testing.assert_array_equal(bases[edge : edge + len(codes)], codes)
    states = np.repeat(toy_dataset.states(cell, "chr2"), 4)[stride : stride + 4]
    middle = tracks[:-2, rivals_cnn.FLANK : rivals_cnn.FLANK + 4]
    np.testing.assert_array_equal(np.where(middle.any(axis=0), middle.argmax(axis=0) + 1, 0)[: len(states)], states)


def test_network_scores_windows_and_chromosomes_alike(toy_dataset: Dataset) -> None:
    torch.manual_seed(0)
    place = rivals_cnn.Place(toy_dataset, toy_dataset.accessibility_cells[0], "chr2", accessible=True)
    model = rivals_cnn.FactorNet(2, place.tracks.shape[0]).eval()
    whole = rivals_cnn.score(model, place, 0, 600, both=False)
    assert whole.shape == (2, 600)
    for stride in (0, 11, 599):
        alone = rivals_cnn.score(model, place, stride, stride + 1, both=False)
        np.testing.assert_allclose(alone[:, 0], whole[:, stride], atol=0.02)  # bf16
    # The strand does not matter where both are read.
    bases, tracks = place.read(100, 1)
    forward = torch.from_numpy(bases.copy())[None], torch.from_numpy(tracks.astype(np.float32))[None]
    with torch.inference_mode():
        both = [model(*pair)[0, :, 0] for pair in (forward, rivals_cnn.other_strand(*forward))]
    found = rivals_cnn.score(model, place, 100, 101)[:, 0]
    np.testing.assert_allclose(found, (both[0] + both[1]) / 2, atol=0.02)
