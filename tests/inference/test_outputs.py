"""Files of predictions, read back by two bigWig libraries and by our own reader."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybigtools
import pyBigWig
import pytest

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, OutputExistsError
from ebert_core.genome.regions import whole
from ebert_core.inference import outputs as outputs_module
from ebert_core.inference.calls import call_sites
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.outputs import Outputs, Written, write_predictions, write_rows
from ebert_core.inference.predictor import CellStates, Coverage, Prediction, Request
from ebert_core.io.predictions import Predictions, read_sidecar

THRESHOLDS = [0.7, 0.5]


def random_predictions(dataset: Dataset, seed: int = 0) -> list[Prediction]:
    """Two TFs on every chromosome; some bins, runs of bins and whole ends without a value."""
    rng = np.random.default_rng(seed)
    found = []
    for chrom, length in zip(dataset.assembly.chroms, dataset.assembly.lengths, strict=True):
        values = rng.random((max(0, (length - 200) // 50 + 1), 2)).astype(np.float32)
        values[rng.random(len(values)) < 0.1] = np.nan
        values[len(values) // 3 : len(values) // 2] = np.nan
        found.append(Prediction(chrom, values, Coverage(int((~np.isnan(values[:, 0])).sum()), 2, 1)))
    return found


@dataclass
class Writer:
    dataset: Dataset
    model: LoadedModel
    folder: Path

    @property
    def files(self) -> list[Outputs]:
        return [Outputs.named(self.folder, tf, "HepG2") for tf in ("CTCF", "MAX")]

    def __call__(self, predictions: Iterator[Prediction]) -> Written:
        cell = CellStates("HepG2", None, "none (asked for)")
        request = Request(("CTCF", "MAX"), cell, tuple(whole(self.dataset.assembly)))
        return write_predictions(predictions, self.dataset, self.model, request, self.files, THRESHOLDS)


@pytest.fixture
def write(toy_dataset: Dataset, model: LoadedModel, tmp_path: Path) -> Writer:
    return Writer(toy_dataset, model, tmp_path / "predictions")


def expected_entries(values: np.ndarray) -> list[tuple[int, int, float]]:
    """A scored bin's value stands on its central 50 bp."""
    return [
        (50 * number + 75, 50 * number + 125, float(value))
        for number, value in enumerate(values)
        if not np.isnan(value)
    ]


def test_big_wigs_hold_each_value_where_it_belongs(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    assert [item.bigwig.name for item in written.outputs] == ["CTCF.HepG2.bw", "MAX.HepG2.bw"]
    sizes = dict(zip(write.dataset.assembly.chroms, write.dataset.assembly.lengths, strict=True))
    for place, item in enumerate(written.outputs):
        with pyBigWig.open(str(item.bigwig)) as first, pybigtools.open(str(item.bigwig)) as second:
            assert dict(first.chroms()) == dict(second.chroms()) == sizes
            for prediction in predictions:
                entries = expected_entries(prediction.probabilities[:, place])
                assert list(first.intervals(prediction.chrom) or ()) == entries
                if entries:  # pybigtools knows no records of a chromosome without any
                    assert list(second.records(prediction.chrom)) == entries
            assert first.header()["minVal"] >= 0
            assert first.header()["maxVal"] <= 1


def test_our_own_reader_gives_the_bins_back(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    with Predictions.open(written.outputs[1].bigwig, write.dataset.assembly) as opened:
        for prediction in predictions[:2]:
            starts = np.arange(len(prediction.probabilities), dtype=np.int64) * 50
            np.testing.assert_array_equal(opened.scores(prediction.chrom, starts), prediction.probabilities[:, 1])


def test_sites_are_those_of_each_tfs_own_threshold(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    for place, (item, threshold) in enumerate(zip(written.outputs, THRESHOLDS, strict=True)):
        rows = [line.split("\t") for line in item.sites.read_text().splitlines()]
        sites = [site for p in predictions for site in call_sites(p.chrom, p.probabilities[:, place], threshold)]
        assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [(s.chrom, s.start, s.end) for s in sites]
        assert written.num_sites[place] == len(sites) > 10


def test_sidecars_vouch_for_their_files(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    assert written.coverage == Coverage(sum(p.coverage.scored for p in predictions), 6, 3)
    for place, item in enumerate(written.outputs):
        sidecar = json.loads(item.sidecar.read_text())
        assert set(sidecar["files"]) == {item.bigwig.name, item.sites.name}
        for path in (item.bigwig, item.sites):
            data = path.read_bytes()
            assert sidecar["files"][path.name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            assert read_sidecar(path) == sidecar
        assert (sidecar["tf"], sidecar["cell"]) == (("CTCF", "MAX")[place], "HepG2")
        assert sidecar["threshold"] == THRESHOLDS[place]
        assert sidecar["chroms"] == ["chr1", "chr2", "chrShort"]
        assert sidecar["coverage"] == vars(written.coverage)
        assert sidecar["assembly"]["digest"] == write.dataset.assembly.digest
        assert sidecar["model"]["files"] == write.model.manifest["files"]
        assert sidecar["trained_on"]["cells"] == ["GM12878"]
        assert sidecar["calibration"] == write.model.manifest["calibration"][sidecar["tf"]]


def test_equal_predictions_give_equal_bytes(write: Writer, tmp_path: Path) -> None:
    other = Writer(write.dataset, write.model, tmp_path / "other")
    for item, again in zip(
        write(iter(random_predictions(write.dataset))).outputs,
        other(iter(random_predictions(write.dataset))).outputs,
        strict=True,
    ):
        assert item.bigwig.read_bytes() == again.bigwig.read_bytes()
        assert item.sites.read_bytes() == again.sites.read_bytes()


@pytest.mark.parametrize("error", [EbertError("no"), KeyboardInterrupt(), ZeroDivisionError()])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_nothing_is_left_of_predictions_that_broke_off(write: Writer, error: BaseException, after: int) -> None:
    def broken() -> Iterator[Prediction]:
        yield from random_predictions(write.dataset)[:after]
        raise error

    with pytest.raises(type(error)):
        write(broken())
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


def test_old_files_stay_when_new_ones_break_off(write: Writer) -> None:
    write(iter(random_predictions(write.dataset)))
    before = {path: path.read_bytes() for path in write.folder.iterdir()}
    assert len(before) == 6

    def broken() -> Iterator[Prediction]:
        yield from random_predictions(write.dataset, seed=1)[:1]
        raise EbertError("no")

    with pytest.raises(EbertError):
        write(broken())
    assert {path: path.read_bytes() for path in write.folder.iterdir()} == before


def test_a_disk_that_fills_while_sites_are_written(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs_module, "write_narrow_peak", full)
    with pytest.raises(EbertError, match="no space left"):
        write(iter(random_predictions(write.dataset)))
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


def test_no_scored_bin_is_an_error_and_no_file(write: Writer) -> None:
    empty = [Prediction("chr1", np.full((9, 2), np.nan, dtype=np.float32), Coverage())]
    with pytest.raises(EbertError, match="no value") as caught:
        write(iter(empty))
    assert "regions" in caught.value.hint
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


def test_existing_files_are_refused_one_by_one(write: Writer) -> None:
    written = write(iter(random_predictions(write.dataset))).outputs
    for item in (written[0].bigwig, written[0].sites, written[0].sidecar):
        for other in (written[0].bigwig, written[0].sites, written[0].sidecar):
            if other != item:
                other.rename(f"{other}.away")
        with pytest.raises(OutputExistsError):
            written[0].refuse_existing(overwrite=False)
        written[0].refuse_existing(overwrite=True)
        for path in write.folder.glob("*.away"):
            path.rename(str(path).removesuffix(".away"))


def test_names_with_a_slash_stay_in_the_folder(tmp_path: Path) -> None:
    named = Outputs.named(tmp_path, "NKX2/1", "a/../../b")
    assert {path.parent for path in (named.bigwig, named.sites, named.sidecar)} == {tmp_path}


def test_rows_equal_the_big_wig(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    handle = io.StringIO()
    coverage = write_rows(iter(predictions), handle)
    assert coverage == written.coverage
    rows = [line.split("\t") for line in handle.getvalue().splitlines()]
    with pyBigWig.open(str(written.outputs[0].bigwig)) as opened:
        entries = [(chrom, *entry) for chrom in ("chr1", "chr2") for entry in opened.intervals(chrom)]
    assert len(rows) == len(entries) == coverage.scored
    for (chrom, start, end, text), (other, first, last, value) in zip(rows, entries, strict=True):
        assert (chrom, int(start) + 75, int(end) - 75) == (other, first, last)
        assert float(text) == pytest.approx(value, rel=1e-5)
        assert int(end) - int(start) == 200


def test_rows_of_a_long_chromosome_come_in_pieces() -> None:
    values = np.linspace(0, 1, 250_001, dtype=np.float32)[:, None]
    handle = io.StringIO()
    write_rows(iter([Prediction("chr1", values, Coverage(250_001, 0, 0))]), handle)
    starts = [int(line.split("\t")[1]) for line in handle.getvalue().splitlines()]
    assert starts == list(range(0, 250_001 * 50, 50))
