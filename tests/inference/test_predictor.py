"""Which bins are predicted, from which states, and that each gets its own value."""

from __future__ import annotations

import gzip
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import Batch
from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import merge
from ebert_core.genome.regions import Region, whole
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.pieces import Coverage, make_plan
from ebert_core.inference.predictor import CellStates, Request, cell_states
from ebert_core.inference.scan import model_score
from ebert_core.model.device import Device

Predicted = Callable[[Dataset, LoadedModel, Request], dict[str, np.ndarray]]

STATES_FILE = "HepG2_18_core_K27ac_mnemonics.bed.gz"


# --- which bins


class Chromosome(SimpleNamespace):
    """One chromosome that looks like a dataset."""

    def sequence(self, chrom: str) -> np.ndarray:
        return self.codes

    def excluded(self, chrom: str) -> tuple[np.ndarray, np.ndarray]:
        return self.gone


@st.composite
def chromosomes(draw: st.DrawFn) -> Chromosome:
    length = draw(st.integers(1, 4_000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, 4, length)
    for _ in range(draw(st.integers(0, 3))):  # N-runs, single bases of which may be known
        start = rng.integers(length)
        codes[start : start + rng.integers(1, 1_000)] = 4
        codes[rng.integers(length)] = 0
    ends = np.sort(rng.integers(1, length + 1, draw(st.integers(0, 4)))) if length > 1 else np.empty(0, int)
    gone = merge(np.maximum(ends - rng.integers(1, 200, len(ends)), 0), ends)
    assembly = Assembly.from_sizes([("chr1", length)])
    return Chromosome(assembly=assembly, codes=codes.astype(np.uint8), gone=gone)


def fit_bins(chromosome: Chromosome) -> list[int]:
    """Starts of bins that may have a value: within the chromosome, with a known base, clear of the exclusion list."""
    gone = np.zeros(len(chromosome.codes), dtype=bool)
    for start, end in zip(*chromosome.gone, strict=True):
        gone[start:end] = True
    return [
        start
        for start in range(0, len(chromosome.codes) - 199, 50)
        if (chromosome.codes[start : start + 200] != 4).any() and not gone[start : start + 200].any()
    ]


def wanted_bins(dataset: Any, chrom: str, regions: list[Region]) -> tuple[np.ndarray, Coverage]:
    """Mask of the bins of a chromosome that the pieces of a request want, shape (N,), and their coverage."""
    wanted = np.zeros(max(0, (dataset.assembly.length(chrom) - 200) // 50 + 1), dtype=bool)
    try:
        plan = make_plan(dataset, regions, 1, 10_000)
    except EbertError as error:
        all_n, excluded = (int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", error.message))
        return wanted, Coverage(0, all_n, excluded)
    for piece in plan.pieces:
        wanted[piece.bins] = True
    return wanted, plan.coverage


def starts_of(wanted: np.ndarray) -> list[int]:
    return (np.flatnonzero(wanted) * 50).tolist()


@settings(max_examples=150, deadline=None)
@given(chromosomes())
def test_a_whole_chromosome_wants_every_bin_that_may_have_a_value(chromosome: Chromosome) -> None:
    wanted, coverage = wanted_bins(chromosome, "chr1", whole(chromosome.assembly))
    assert starts_of(wanted) == fit_bins(chromosome)
    assert len(wanted) == max(0, (len(chromosome.codes) - 200) // 50 + 1)
    assert coverage.scored == wanted.sum()
    assert coverage.scored + coverage.all_n + coverage.excluded == len(wanted)


@settings(max_examples=150, deadline=None)
@given(chromosomes(), st.data())
def test_a_region_wants_the_bins_centred_in_it(chromosome: Chromosome, data: st.DataObject) -> None:
    length = len(chromosome.codes)
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, length))
    wanted, _ = wanted_bins(chromosome, "chr1", [Region("chr1", start, end)])
    if end - start >= 50:
        expected = [at for at in fit_bins(chromosome) if start <= at + 100 < end]
    else:  # too short to hold a centre for sure: the 50 bp around its middle count
        middle = (start + end - 1) // 2
        expected = [at for at in fit_bins(chromosome) if at + 75 <= middle < at + 125]
        assert len(expected) <= 1
    assert starts_of(wanted) == expected


@settings(max_examples=100, deadline=None)
@given(chromosomes(), st.data())
def test_cut_anywhere_the_pieces_share_out_the_bins(chromosome: Chromosome, data: st.DataObject) -> None:
    length = len(chromosome.codes)
    edges = [0]
    for cut in sorted(data.draw(st.sets(st.integers(1, max(1, length - 1)), max_size=6))):
        if cut - edges[-1] >= 50 and length - cut >= 50:
            edges.append(cut)
    pieces = [Region("chr1", a, b) for a, b in itertools.pairwise([*edges, length])]
    parts = [wanted_bins(chromosome, "chr1", [piece])[0] for piece in pieces]
    everything, _ = wanted_bins(chromosome, "chr1", whole(chromosome.assembly))
    assert (np.sum(parts, axis=0) == everything).all()
    together, _ = wanted_bins(chromosome, "chr1", pieces[::-1])
    assert (together == everything).all()


@given(st.integers(500, 3_000), st.data())
def test_a_single_base_gets_a_bin(length: int, data: st.DataObject) -> None:
    """The one whose central 50 bp hold it; the ends of a chromosome are nobody's centre."""
    empty = np.empty(0, dtype=np.int64)
    chromosome = Chromosome(
        assembly=Assembly.from_sizes([("chr1", length)]), codes=np.zeros(length, np.uint8), gone=(empty, empty)
    )
    base = data.draw(st.integers(75, length - 150))
    wanted, coverage = wanted_bins(chromosome, "chr1", [Region("chr1", base, base + 1)])
    (start,) = starts_of(wanted)
    assert start + 75 <= base < start + 125
    assert coverage.scored == 1


def test_overlapping_regions_want_a_bin_once(toy_dataset: Dataset) -> None:
    both = [Region("chr1", 1_000, 3_000), Region("chr1", 2_000, 4_000), Region("chr1", 1_000, 3_000)]
    wanted, coverage = wanted_bins(toy_dataset, "chr1", both)
    assert starts_of(wanted) == list(range(900, 3_900, 50))
    assert coverage.scored == 60


# --- which states


def test_states_from_the_dataset_by_any_name(toy_dataset: Dataset, model: LoadedModel) -> None:
    for name in ("GM12878", "gm12878", "E116", "GM-12878"):
        found = cell_states(toy_dataset, model, name, None, no_states=False)
        assert found.name == "GM12878"
        assert np.array_equal(found.flat, toy_dataset.flat_states("GM12878"))
        assert "dataset" in found.source


def test_states_from_a_file_equal_the_datasets_own(toy_dataset: Dataset, toy_files, model: LoadedModel) -> None:
    own = cell_states(toy_dataset, model, "HepG2", None, no_states=False)
    found = cell_states(toy_dataset, model, "hepg2", toy_files.states / STATES_FILE, no_states=False)
    assert np.array_equal(found.flat, own.flat)
    assert found.name == own.name == "HepG2"
    assert STATES_FILE in found.source


@pytest.mark.parametrize(("typed", "name"), [("E017", "IMR-90"), ("imr90", "IMR-90"), ("MyOwn", "MyOwn")])
def test_a_cell_that_the_dataset_lacks(
    toy_dataset: Dataset, toy_files, model: LoadedModel, typed: str, name: str
) -> None:
    """Its file is called by the name under which everybody looks for it."""
    found = cell_states(toy_dataset, model, typed, toy_files.states / STATES_FILE, no_states=False)
    assert found.name == name
    assert cell_states(toy_dataset, model, typed, None, no_states=True).name == name


def test_states_from_a_file_for_a_dataset_without_any(
    copied_dataset: Callable[[], Dataset], toy_files, model: LoadedModel, device: Device
) -> None:
    """The model knows the alphabet; a dataset that holds a genome only is enough."""
    dataset = copied_dataset()
    dataset.manifest["states"] = {}
    dataset.state_model = None
    loaded = load_model(model.path, dataset, device)
    found = cell_states(dataset, loaded, "HepG2", toy_files.states / STATES_FILE, no_states=False)
    assert np.array_equal(found.flat, copied_dataset().flat_states("HepG2"))


def test_what_a_file_leaves_out_is_told(toy_dataset: Dataset, model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.bed.gz"
    path.write_bytes(gzip.compress(b"1\t0\t20000\t1_TssA\nchrUn\t0\t200\t1_TssA\n"))
    found = cell_states(toy_dataset, model, "Mine", path, no_states=False)
    told = " ".join(found.notes)
    assert "chrUn" in told
    assert "1 -> chr1" in told
    assert f"{60_000 // 200 - 100 + 207 + 1:,} of {60_000 // 200 + 207 + 1:,} bins have no state" in told


def test_a_file_of_other_states_is_refused(toy_dataset: Dataset, model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.bed"
    path.write_text("chr1\t0\t200\t3_TxFlnk\n")
    with pytest.raises(InputError, match=r"TxFlnk.*18 states of roadmap18"):
        cell_states(toy_dataset, model, "Mine", path, no_states=False)
    with pytest.raises(InputError, match="is not there"):
        cell_states(toy_dataset, model, "Mine", tmp_path / "nothing.bed", no_states=False)


def test_no_states_when_asked_for_or_never_learned(
    toy_dataset: Dataset, model: LoadedModel, make_model: Callable[..., Path], device: Device, tmp_path: Path
) -> None:
    found = cell_states(toy_dataset, model, "e116", None, no_states=True)
    assert (found.name, found.flat) == ("GM12878", None)
    assert "asked for" in found.source
    stateless = load_model(make_model(tmp_path / "m", "CTCF", use_states=False), toy_dataset, device)
    found = cell_states(toy_dataset, stateless, "HepG2", None, no_states=False)
    assert found.flat is None
    assert "without states" in found.source


def test_a_cell_with_labels_only_is_told(copied_dataset: Callable[[], Dataset], model: LoadedModel) -> None:
    dataset = copied_dataset()
    del dataset.manifest["states"]["HepG2"]
    found = cell_states(dataset, model, "HepG2", None, no_states=False)
    assert found.flat is None
    assert "no states of this cell type" in found.source


def test_an_unknown_cell_suggests_and_names_the_ways_out(toy_dataset: Dataset, model: LoadedModel) -> None:
    with pytest.raises(EbertError, match="unknown cell type 'HepG3'") as caught:
        cell_states(toy_dataset, model, "HepG3", None, no_states=False)
    for word in ("HepG2", "--states FILE", "--no-states"):
        assert word in caught.value.hint


# --- values


def request_of(dataset: Dataset, *regions: Region, tfs: tuple[str, ...] = ("CTCF",), both: bool = True) -> Request:
    cell = CellStates("HepG2", dataset.flat_states("HepG2"), "dataset")
    return Request(tfs, cell, regions or tuple(whole(dataset.assembly)), both)


@pytest.fixture
def predicted(predict_whole: Callable[..., dict[str, np.ndarray]], device: Device) -> Predicted:
    def predict(dataset: Dataset, model: LoadedModel, request: Request) -> dict[str, np.ndarray]:
        return predict_whole(dataset, model, request, device)

    return predict


def test_every_bin_of_the_genome_by_single_windows(
    toy_dataset: Dataset, model: LoadedModel, predicted: Predicted, device: Device
) -> None:
    found = predicted(toy_dataset, model, request_of(toy_dataset, tfs=("MAX", "CTCF")))
    assert list(found) == ["chr1", "chr2", "chrShort"]
    assert found["chrShort"].shape == (0, 2)
    score = model_score(model.module, device, both_strands=True)
    for chrom in ("chr1", "chr2"):
        codes, states = toy_dataset.sequence(chrom), toy_dataset.states("HepG2", chrom)
        excluded = toy_dataset.excluded(chrom)
        fit = fit_bins(Chromosome(codes=codes, gone=excluded))
        probabilities = found[chrom]
        assert starts_of(~np.isnan(probabilities[:, 0])) == fit
        assert np.array_equal(np.isnan(probabilities[:, 0]), np.isnan(probabilities[:, 1]))
        padded = np.concatenate([np.full(400, 4, np.uint8), codes, np.full(4_000, 4, np.uint8)])
        shown = np.concatenate([np.zeros(2, np.uint8), states, np.zeros(20, np.uint8)])
        for start in (0, 7_350, fit[-1], fit[len(fit) // 2]):
            window = start // 1_000 * 1_000
            batch = Batch(padded[None, window : window + 2_000], shown[None, window // 200 : window // 200 + 10])
            logits = score(batch)[0, 8 + (start - window) // 50].astype(np.float64)
            # The model's TFs are CTCF, MAX; their calibrations are in the fixture.
            expected = [1 / (1 + np.exp(-(0.6 * logits[1] - 2))), 1 / (1 + np.exp(-(0.5 * logits[0] - 1)))]
            np.testing.assert_allclose(probabilities[start // 50], expected, rtol=1e-3)


def test_a_value_does_not_depend_on_the_region_asked(
    toy_dataset: Dataset, model: LoadedModel, predicted: Predicted
) -> None:
    everything = predicted(toy_dataset, model, request_of(toy_dataset))["chr2"]
    for start, end in ((0, 900), (13_000, 13_050), (5_125, 30_777), (41_000, 41_337)):
        request = request_of(toy_dataset, Region("chr2", start, end))
        (part,) = predicted(toy_dataset, model, request).values()
        here = ~np.isnan(part)
        assert here.sum() == wanted_bins(toy_dataset, "chr2", list(request.regions))[1].scored > 0
        # Another number of windows per product may change the last bit.
        np.testing.assert_allclose(part[here], everything[here], rtol=1e-4)


def test_one_strand_differs_from_both(toy_dataset: Dataset, model: LoadedModel, predicted: Predicted) -> None:
    region = Region("chr2", 0, 3_000)
    one, both = (
        predicted(toy_dataset, model, request_of(toy_dataset, region, both=both))["chr2"] for both in (False, True)
    )
    assert not np.allclose(one[:50], both[:50], atol=1e-3)


def test_states_matter_and_unknown_states_are_allowed(
    toy_dataset: Dataset, model: LoadedModel, predicted: Predicted
) -> None:
    region = (Region("chr2", 0, 3_000),)
    with_states = predicted(toy_dataset, model, request_of(toy_dataset, *region))["chr2"]
    without = Request(("CTCF",), CellStates("HepG2", None, "none"), region)
    assert not np.allclose(predicted(toy_dataset, model, without)["chr2"][:50], with_states[:50])


def test_a_model_that_answers_no_number_is_an_error(
    toy_dataset: Dataset, make_model: Callable[..., Path], predicted: Predicted, device: Device, tmp_path: Path
) -> None:
    """A bin without a value would look like one that was left out on purpose."""
    loaded = load_model(make_model(tmp_path / "m", "CTCF"), toy_dataset, device)
    with torch.no_grad():
        loaded.module.head.out.bias.fill_(float("nan"))
    with pytest.raises(EbertError, match="no number"):
        predicted(toy_dataset, loaded, request_of(toy_dataset, Region("chr1", 0, 3_000)))


def test_a_state_model_with_another_alphabet_is_refused(
    copied_dataset: Callable[[], Dataset], model: LoadedModel, device: Device
) -> None:
    dataset = copied_dataset()
    dataset.state_model = BUILT_IN["roadmap15"]
    with pytest.raises(EbertError, match=r"18 states of roadmap18.*15 states of roadmap15"):
        load_model(model.path, dataset, device)


@pytest.mark.parametrize(("chrom", "length"), [("chr1", 60_001), ("chrX", 60_000)])
def test_a_model_of_another_assembly_is_refused(
    copied_dataset: Callable[[], Dataset], model: LoadedModel, device: Device, chrom: str, length: int
) -> None:
    dataset = copied_dataset()
    dataset.assembly = Assembly.from_sizes([(chrom, length)])
    with pytest.raises(EbertError, match=r"trained on custom|share no chromosome") as caught:
        load_model(model.path, dataset, device)
    assert "one assembly" in caught.value.hint
