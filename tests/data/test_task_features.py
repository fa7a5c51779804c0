"""Tracks of windows, against whole normalised tracks read stride by stride."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.config import FeatureConfig, PrepareConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.data.task_features import (
    ACCESSIBILITY_CHANNELS,
    ALL_HIDDEN,
    OWN_HIDDEN,
    SHOWN,
    TrackReader,
    TrackSpec,
)
from ebert_core.epigenome.normalisation import Normaliser as Map
from ebert_core.epigenome.normalisation import Quantiles, cross_cell_mean, reference_of, to_reference
from ebert_core.errors import EbertError

STRIDES = 120
FLAT_BP = 50 * STRIDES
FAR = np.log1p(65_535) / 2 - 4


@dataclass
class World:
    """Tracks of one chromosome that look like a dataset."""

    tracks: dict[str, np.ndarray]
    flat_tss_distance: np.ndarray | None = None
    states: dict[str, np.ndarray] = field(default_factory=dict)
    path: str = "world"
    assembly: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(flat_bp=FLAT_BP))

    @property
    def accessibility_cells(self) -> tuple[str, ...]:
        return tuple(sorted(self.tracks))

    @property
    def has_tss(self) -> bool:
        return self.flat_tss_distance is not None

    @property
    def state_cells(self) -> tuple[str, ...]:
        return tuple(sorted(self.states))

    def flat_accessibility(self, cell: str) -> np.ndarray:
        return self.tracks[cell]

    def flat_states(self, cell: str) -> np.ndarray:
        return self.states[cell]


def made(seed: int, cells: str = "ABC", tss: bool = True) -> World:
    """Peaks in A, a track above 0 everywhere in B, and so on by turns."""
    rng = np.random.default_rng(seed)
    tracks = {}
    for number, cell in enumerate(cells):
        signal = rng.gamma(1.0, 1 + number, STRIDES)
        tracks[cell] = np.where(rng.random(STRIDES) < (0.3, 1.0)[number % 2], signal, 0).astype(np.float16)
        tracks[cell][rng.integers(STRIDES)] = 3.0
    distance = rng.integers(0, 65_536, STRIDES).astype(np.uint16) if tss else None
    return World(tracks, distance)


def spec_of(world: World, cells: str, tss: bool = False) -> TrackSpec:
    return TrackSpec(reference_of([Quantiles.of(world.tracks[cell]) for cell in cells]), tuple(cells), tss)


def whole_track(world: World, spec: TrackSpec, cell: str | None, hidden: int = SHOWN) -> np.ndarray:
    """All channels of accessibility of the whole axis, (STRIDES, 5), from normalised tracks."""
    assert spec.reference is not None
    others = [other for other in spec.mean_cells if other != cell and other in world.tracks]
    own_known = cell in world.tracks and hidden == SHOWN
    mean_known = bool(others) and hidden != ALL_HIDDEN
    own = mean = np.zeros(STRIDES)
    if own_known:
        own = to_reference(world.tracks[cell], Quantiles.of(world.tracks[cell]), spec.reference)
    if mean_known:
        maps = [(world.tracks[c], Map(Quantiles.of(world.tracks[c]), spec.reference)) for c in others]
        mean = cross_cell_mean(maps)
    # The median stands where half of the strides above 0 are stronger: ln 2 / c, c = ln(1e6) / 255.
    scale = np.interp(np.log(2) / np.log(1e6) * 255, np.arange(256), spec.reference.values) / 3
    both = own_known and mean_known
    difference = (own - mean) / scale if both else np.zeros(STRIDES)
    known = [np.full(STRIDES, float(own_known)), np.full(STRIDES, float(mean_known))]
    return np.stack([own / scale, mean / scale, difference, *known], axis=1)


# --- reading


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    cells=st.sampled_from(["A", "AB", "ABC"]),
    cell=st.sampled_from(["A", "B", "C", "Z", None]),
    hidden=st.lists(st.sampled_from([SHOWN, OWN_HIDDEN, ALL_HIDDEN]), min_size=3, max_size=3),
    first=st.lists(st.integers(0, STRIDES - 8), min_size=3, max_size=3),
)
def test_windows_equal_slices_of_whole_tracks(
    seed: int, cells: str, cell: str | None, hidden: list[int], first: list[int]
) -> None:
    """Whatever cell type is asked for, also one that is not of the mean or that nobody assayed."""
    world = made(seed)
    spec = spec_of(world, cells)
    found = TrackReader(world, spec).read(cell, np.array(first) * 50, 400, np.array(hidden, dtype=np.uint8))
    assert (found.shape, found.dtype) == ((3, 8, 5), np.float32)
    for row in range(3):
        expected = whole_track(world, spec, cell, hidden[row])[first[row] : first[row] + 8]
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_a_cell_type_does_not_count_towards_its_own_mean() -> None:
    """So a held-out one looks like the others did while training."""
    world = made(3)
    spec = spec_of(world, "ABC")
    read = TrackReader(world, spec)
    before = read.read("A", np.array([0]), FLAT_BP)
    for other, changes in (("A", False), ("B", True)):
        louder = World({**world.tracks, other: (world.tracks[other][::-1]).copy()})
        mean = TrackReader(louder, spec).read("A", np.array([0]), FLAT_BP)[..., 1]
        assert np.allclose(mean, before[..., 1]) != changes
    alone = TrackReader(world, spec_of(world, "A")).read("A", np.array([0]), FLAT_BP)
    assert (alone[..., [1, 2, 4]] == 0).all()
    assert alone[..., 3].all()


def test_missing_signal_is_not_zero_signal() -> None:
    world = made(4)
    world.tracks["C"][:20] = 0
    reader = TrackReader(world, spec_of(world, "AB"))
    known, unknown = (reader.read(cell, np.array([0]), 1_000)[0] for cell in ("C", "Z"))
    assert (known[:, 0] == 0).all()
    assert (unknown[:, 0] == 0).all()
    assert (known[:, 3] == 1).all()
    assert (unknown[:, 3] == 0).all()
    assert np.array_equal(known[:, [1, 4]], unknown[:, [1, 4]]), "the others' mean is shown to both"
    assert reader.has_accessibility("C")
    assert not reader.has_accessibility("Z")
    assert not reader.has_accessibility(None)


def test_hidden_windows_do_not_touch_their_neighbours() -> None:
    world = made(5)
    reader = TrackReader(world, spec_of(world, "ABC", tss=True))
    starts = np.array([1_000, 1_000, 1_000])
    found = reader.read("A", starts, 600, np.array([SHOWN, OWN_HIDDEN, ALL_HIDDEN], dtype=np.uint8))
    plain = reader.read("A", starts[:1], 600)[0]
    assert np.array_equal(found[0], plain)
    assert np.array_equal(found[1, :, [1, 4]], plain[:, [1, 4]].T)
    assert (found[1][:, [0, 2, 3]] == 0).all()
    assert (found[2, :, :5] == 0).all()
    assert np.array_equal(found[2, :, 5], plain[:, 5]), "transcript starts are no accessibility"


@settings(max_examples=40, deadline=None)
@given(st.integers(-40, STRIDES + 10), st.integers(0, 30), st.integers(31, STRIDES))
def test_beyond_the_ends_of_a_chromosome_nothing_is_known(first: int, begin: int, end: int) -> None:
    """Neighbours on the flat axis are other chromosomes."""
    world = made(6)
    spec = spec_of(world, "ABC", tss=True)
    found = TrackReader(world, spec).read("A", np.array([first * 50]), 1_000, span=(begin * 50, end * 50))[0]
    everything = whole_track(world, spec, "A")
    for place, stride in enumerate(range(first, first + 20)):
        if begin <= stride < end:
            np.testing.assert_allclose(found[place, :5], everything[stride], atol=1e-4)
            distance = float(world.flat_tss_distance[stride])
            assert found[place, 5] == pytest.approx(np.log1p(distance) / 2 - 4, abs=1e-5)
        else:
            assert (found[place, :5] == 0).all()
            assert found[place, 5] == pytest.approx(FAR)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    cells=st.sampled_from(["AB", "ABC", "ABCD"]),
    cell=st.sampled_from(["A", "B", "Z", None]),
    hidden=st.lists(st.booleans(), min_size=3, max_size=3),
    first=st.lists(st.integers(-12, STRIDES + 4), min_size=3, max_size=3),
    strides=st.integers(1, 14),
    span=st.tuples(st.integers(0, 40), st.integers(60, STRIDES)),
)
def test_other_cell_types_states(
    seed: int, cells: str, cell: str | None, hidden: list[bool], first: list[int], strides: int, span: tuple[int, int]
) -> None:
    """Bin by bin and state by state, whatever the windows begin at, also over the ends of a chromosome."""
    rng = np.random.default_rng(seed)
    world = made(seed)
    world.states = {name: rng.integers(0, 4, STRIDES // 4).astype(np.uint8) for name in "ABCD"}
    spec = TrackSpec(tss=True, state_cells=tuple(cells), num_states=3)
    found = TrackReader(world, spec).read(
        cell, np.array(first) * 50, 50 * strides, span=(span[0] * 50, span[1] * 50), hide_states=np.array(hidden)
    )
    assert (found.shape, found.dtype) == ((3, strides, 4), np.float32)
    for row, place in np.ndindex(3, strides):
        stride = first[row] + place
        expected = np.zeros(3)
        if span[0] <= stride < span[1] and not hidden[row]:
            here = [int(world.states[name][stride // 4]) for name in cells if name != cell]
            known = [state for state in here if state]
            expected = np.array([2 * known.count(state) / max(len(known), 1) for state in (1, 2, 3)])
        np.testing.assert_allclose(found[row, place, 1:], expected, atol=1e-6)


def test_states_that_the_dataset_lacks_are_told_of() -> None:
    world = made(1)
    world.states = {"A": np.ones(STRIDES // 4, np.uint8)}
    reader = TrackReader(world, TrackSpec(state_cells=("A", "B"), num_states=2))
    assert reader.missing == ["other cell types' states are of 1, without B"]
    assert (reader.read("A", np.array([0]), 200) == 0).all(), "its own do not count"


def test_a_model_of_other_cell_types_accessibility_is_not_shown_its_own() -> None:
    world = made(2)
    spec = spec_of(world, "ABC")
    others = TrackReader(world, replace(spec, own=False))
    hidden = np.array([OWN_HIDDEN], dtype=np.uint8)
    expected = TrackReader(world, spec).read("A", np.array([0]), FLAT_BP, hidden)
    np.testing.assert_array_equal(others.read("A", np.array([0]), FLAT_BP), expected)
    assert not others.has_accessibility("A")
    assert others.source("A") == "other cell types' alone"


def test_distances_alone() -> None:
    world = made(7, cells="")
    world.flat_tss_distance[:3] = [0, 150, 65_535]
    found = TrackReader(world, TrackSpec(tss=True)).read("A", np.array([0]), 200)
    assert found.shape == (1, 4, 1)
    np.testing.assert_allclose(found[0, :3, 0], [-4, np.log(151) / 2 - 4, FAR], atol=1e-6)


def test_what_the_dataset_lacks_of_the_mean_is_said() -> None:
    world = made(8)
    spec = spec_of(world, "ABC")
    assert TrackReader(world, spec).missing == []
    del world.tracks["B"]
    reader = TrackReader(world, spec)
    assert reader.missing == ["the mean accessibility is of 2 cell types, without B"]
    np.testing.assert_allclose(reader.read("C", np.array([0]), FLAT_BP)[0], whole_track(world, spec, "C"), atol=1e-4)


def test_distances_that_the_dataset_lacks_are_an_error() -> None:
    with pytest.raises(EbertError, match="reads distances to transcript starts, dataset world holds none") as caught:
        TrackReader(made(0, tss=False), TrackSpec(tss=True))
    assert "ebert prepare --tss" in caught.value.hint


def test_the_channels_have_names() -> None:
    reference = spec_of(made(0), "A").reference
    assert TrackSpec().channels == ()
    assert TrackSpec(tss=True).channels == ("tss",)
    assert TrackSpec(reference).channels == ACCESSIBILITY_CHANNELS
    assert TrackSpec(reference, ("A",), tss=True).channels == (*ACCESSIBILITY_CHANNELS, "tss")


# --- what a model reads and remembers


@pytest.fixture(scope="module")
def with_starts(toy_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("starts")
    shutil.copytree(toy_dataset.path, folder / "dataset")
    (folder / "starts.bed").write_text("chr1\t1500\t1501\t.\t.\t+\nchr2\t30007\t30008\t.\t.\t-\n")
    return prepare(PrepareConfig(output=folder / "dataset", tss=folder / "starts.bed")).dataset


def test_all_that_the_dataset_holds_is_read(toy_dataset: Dataset, with_starts: Dataset) -> None:
    quantiles = {cell: Quantiles.of(toy_dataset.flat_accessibility(cell)) for cell in ("GM12878", "HepG2")}
    spec = TrackSpec.choose(with_starts, FeatureConfig(other_states=True))
    states, num = with_starts.state_cells, len(with_starts.require_state_model().states)
    reference = reference_of(list(quantiles.values()))
    assert spec == TrackSpec(reference, ("GM12878", "HepG2"), tss=True, state_cells=states, num_states=num)
    assert len(spec.channels) == 6 + num
    alone = FeatureConfig(other_states=False)
    no_states = TrackSpec.choose(with_starts, FeatureConfig(accessibility=False), states=False)
    assert no_states == TrackSpec(tss=True)
    assert TrackSpec.choose(with_starts, FeatureConfig()).num_states == 0
    for config, there in ((FeatureConfig(accessibility=False), num), (FeatureConfig(own_accessibility=False), 0)):
        assert TrackSpec.choose(with_starts, config).num_states == there, "where no accessibility is read"
    assert not TrackSpec.choose(toy_dataset, alone).tss
    no_tss = FeatureConfig(other_states=False, tss=False)
    assert TrackSpec.choose(with_starts, no_tss).channels == ACCESSIBILITY_CHANNELS
    no_accessibility = FeatureConfig(other_states=False, accessibility=False)
    assert TrackSpec.choose(with_starts, no_accessibility) == TrackSpec(tss=True)
    nothing = FeatureConfig(accessibility=False, tss=False, other_states=False)
    assert TrackSpec.choose(toy_dataset, nothing) == TrackSpec()


def test_nothing_of_a_held_out_cell_type_is_learned(toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, read = [], Dataset.flat_accessibility

    def spy(self: Dataset, cell: str) -> np.ndarray:
        opened.append(cell)
        return read(self, cell)

    monkeypatch.setattr(Dataset, "flat_accessibility", spy)
    config = FeatureConfig(other_states=False)
    spec = TrackSpec.choose(toy_dataset, config, ("HepG2",))
    assert opened == ["GM12878"]
    assert spec.mean_cells == ("GM12878",)
    assert spec.reference == Quantiles.of(toy_dataset.flat_accessibility("GM12878"))
    assert TrackSpec.choose(toy_dataset, config, ("HepG2", "GM12878")) == TrackSpec()
    held_out, *rest = toy_dataset.state_cells
    reading = FeatureConfig(accessibility=False)
    assert TrackSpec.choose(toy_dataset, reading, (held_out,)).state_cells == (tuple(rest) if rest[1:] else ())


def test_what_is_asked_for_and_cannot_be_read_is_an_error(toy_dataset: Dataset) -> None:
    wish = FeatureConfig(other_states=True)
    with pytest.raises(EbertError, match="the model reads no states"):
        TrackSpec.choose(toy_dataset, wish, states=False)
    with pytest.raises(EbertError, match=r"1 cell type\(s\) have states"):
        TrackSpec.choose(toy_dataset, wish, toy_dataset.state_cells[1:])
    with pytest.raises(EbertError, match="GM12878 alone has any that is not held out") as caught:
        TrackSpec.choose(toy_dataset, FeatureConfig(own_accessibility=False), ("HepG2",))
    assert "--no-accessibility" in caught.value.hint


@pytest.mark.parametrize("chrom", ["chr1", "chr2"])
def test_a_chromosome_of_a_real_dataset(with_starts: Dataset, chrom: str) -> None:
    """Flat positions, from the dataset's own accessors of one chromosome."""
    spec = TrackSpec.choose(with_starts, FeatureConfig(other_states=True), ("HepG2",))
    offset = with_starts.assembly.offset(chrom)
    span = (offset, offset + with_starts.assembly.length(chrom))
    found = TrackReader(with_starts, spec).read("HepG2", np.array([offset, offset + 5_000]), 5_000, span=span)
    own = with_starts.accessibility("HepG2", chrom)[:200]
    mean = with_starts.accessibility("GM12878", chrom)[:200].astype(np.float32)
    assert spec.reference is not None
    quantiles = Quantiles.of(with_starts.flat_accessibility("HepG2"))
    positive = with_starts.flat_accessibility("GM12878")
    scale = np.median(positive[positive > 0].astype(np.float64)) / 3
    flat = found.reshape(200, 6 + spec.num_states)
    for code in range(1, spec.num_states + 1):
        others = [with_starts.states(cell, chrom)[:50] for cell in with_starts.state_cells if cell != "HepG2"]
        known = np.sum([track > 0 for track in others], axis=0)
        share = np.sum([track == code for track in others], axis=0) / np.maximum(known, 1)
        np.testing.assert_allclose(flat[:, 5 + code], np.repeat(2 * share, 4), atol=1e-6)
    np.testing.assert_allclose(flat[:, 0], to_reference(own, quantiles, spec.reference) / scale, rtol=0.03)
    # The reference is the mean's only cell type: normalised, it is what it was.
    np.testing.assert_allclose(flat[:, 1], mean / scale, rtol=0.05, atol=0.01)
    np.testing.assert_allclose(flat[:, 5], np.log1p(with_starts.tss_distance(chrom)[:200]) / 2 - 4, atol=1e-5)


@pytest.mark.parametrize("tss", [False, True])
@pytest.mark.parametrize("cells", ["", "A", "AB"])
def test_a_spec_survives_its_manifest_to_the_last_bit(cells: str, tss: bool) -> None:
    spec = (
        spec_of(made(9), cells, tss) if cells else TrackSpec(tss=tss, own=False, state_cells=("A", "B"), num_states=3)
    )
    assert TrackSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


WHOLE = spec_of(made(9), "A").to_json()
BROKEN = {
    "nothing": {},
    "no list": None,
    **{f"no {key}": {name: value for name, value in WHOLE.items() if name != key} for key in WHOLE},
    "reference of another kind": WHOLE | {"accessibility_reference": 3},
    "reference without values": WHOLE | {"accessibility_reference": {"share_positive": 0.1}},
    "too few quantiles": WHOLE | {"accessibility_reference": {"share_positive": 0.1, "values": [1.0]}},
    "cells of another kind": WHOLE | {"mean_cells": 3},
    "states of another kind": WHOLE | {"num_states": "many"},
    "fewer states than none": WHOLE | {"num_states": -3},
    "a text for a truth": WHOLE | {"own_accessibility": "false"},
    "a text for cells": WHOLE | {"state_cells": "GM"},
    "a gene of another kind": WHOLE | {"genes": [3]},
    "a gene that never varies": WHOLE | {"genes": [{"gene": "TBP", "mean": 1.0, "deviation": 0.0}]},
    "a gene of no number": WHOLE | {"genes": [{"gene": "TBP", "mean": float("nan"), "deviation": 1.0}]},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_spec_is_refused(broken: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        TrackSpec.from_json(BROKEN[broken])
