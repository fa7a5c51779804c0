"""Files of predictions, read back by two bigWig libraries, by gzip and by our own readers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pybigtools
import pyBigWig
import pytest

from ebert_core.artifacts import exclusive_lock
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, OutputExistsError, UnknownNameError
from ebert_core.genome.regions import whole
from ebert_core.inference import outputs as outputs_module
from ebert_core.inference.calls import Call, call_sites
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.output_files import DEFAULT_FORMATS, FORMATS, Outputs, parse_formats
from ebert_core.inference.outputs import Written, submission_note, write_predictions, write_rows
from ebert_core.inference.predictor import CellStates, Coverage, Prediction, Request
from ebert_core.io import submission_writer
from ebert_core.io.predictions import Predictions, read_sidecar
from ebert_core.io.submissions import read_submission

THRESHOLDS = [0.7, 0.5]
CALLS = [Call("precision=0.8", threshold, 0.8, 0.5, 0.62, 10, 90) for threshold in THRESHOLDS]


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
    formats: tuple[str, ...] = DEFAULT_FORMATS

    @property
    def files(self) -> list[Outputs]:
        return [Outputs.named(self.folder, tf, "HepG2", self.formats) for tf in ("CTCF", "MAX")]

    def __call__(self, predictions: Iterator[Prediction], *, overwrite: bool = False) -> Written:
        cell = CellStates("HepG2", None, "none (asked for)")
        request = Request(("CTCF", "MAX"), cell, tuple(whole(self.dataset.assembly)))
        return write_predictions(predictions, self.dataset, self.model, request, self.files, CALLS, overwrite=overwrite)


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
    assert [item.files["bigwig"].name for item in written.outputs] == ["CTCF.HepG2.bw", "MAX.HepG2.bw"]
    sizes = dict(zip(write.dataset.assembly.chroms, write.dataset.assembly.lengths, strict=True))
    for place, item in enumerate(written.outputs):
        with pyBigWig.open(str(item.files["bigwig"])) as first, pybigtools.open(str(item.files["bigwig"])) as second:
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
    with Predictions.open(written.outputs[1].files["bigwig"], write.dataset.assembly) as opened:
        for prediction in predictions[:2]:
            starts = np.arange(len(prediction.probabilities), dtype=np.int64) * 50
            np.testing.assert_array_equal(opened.scores(prediction.chrom, starts), prediction.probabilities[:, 1])


def test_sites_are_those_of_each_tfs_own_threshold(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    for place, (item, threshold) in enumerate(zip(written.outputs, THRESHOLDS, strict=True)):
        rows = [line.split("\t") for line in item.files["narrowpeak"].read_text().splitlines()]
        sites = [site for p in predictions for site in call_sites(p.chrom, p.probabilities[:, place], threshold)]
        assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [(s.chrom, s.start, s.end) for s in sites]
        assert written.num_sites[place] == len(sites) > 10


def test_sidecars_vouch_for_their_files(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    assert written.coverage == Coverage(sum(p.coverage.scored for p in predictions), 6, 3)
    for place, item in enumerate(written.outputs):
        sidecar = json.loads(item.sidecar.read_text())
        assert set(sidecar["files"]) == {item.files["bigwig"].name, item.files["narrowpeak"].name}
        for path in (item.files["bigwig"], item.files["narrowpeak"]):
            data = path.read_bytes()
            assert sidecar["files"][path.name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            assert read_sidecar(path) == sidecar
        assert (sidecar["tf"], sidecar["cell"]) == (("CTCF", "MAX")[place], "HepG2")
        assert sidecar["call"] == asdict(CALLS[place])
        assert sidecar["submission"] is None
        assert sidecar["chroms"] == ["chr1", "chr2", "chrShort"]
        assert sidecar["coverage"] == vars(written.coverage)
        assert sidecar["assembly"]["digest"] == write.dataset.assembly.digest
        assert sidecar["model"]["files"] == write.model.manifest["files"]
        assert sidecar["trained_on"] == {
            "tfs": ["CTCF", "MAX"],
            "cells": ["GM12878"],
            "regions": [["chr1", 0, 60_000], ["chr2", 0, 41_337]],
            "window_bp": 2_000,
        }
        assert sidecar["pretrained_on"] is None
        assert sidecar["both_strands"] is True
        known = write.model.manifest["calibration"][sidecar["tf"]]
        assert sidecar["calibration"] == {name: known[name] for name in ("slope", "intercept")}


def test_equal_predictions_give_equal_bytes(write: Writer, tmp_path: Path) -> None:
    other = Writer(write.dataset, write.model, tmp_path / "other")
    for item, again in zip(
        write(iter(random_predictions(write.dataset))).outputs,
        other(iter(random_predictions(write.dataset))).outputs,
        strict=True,
    ):
        assert item.files["bigwig"].read_bytes() == again.files["bigwig"].read_bytes()
        assert item.files["narrowpeak"].read_bytes() == again.files["narrowpeak"].read_bytes()


@pytest.mark.parametrize("error", [EbertError("no"), KeyboardInterrupt(), ZeroDivisionError()])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_nothing_is_left_of_predictions_that_broke_off(write: Writer, error: BaseException, after: int) -> None:
    def broken() -> Iterator[Prediction]:
        yield from random_predictions(write.dataset)[:after]
        raise error

    with pytest.raises(type(error)):
        write(broken())
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("formats", [DEFAULT_FORMATS, tuple(FORMATS)])
def test_old_files_stay_when_new_ones_break_off(write: Writer, formats: tuple[str, ...]) -> None:
    write.formats = formats
    write(iter(random_predictions(write.dataset)))
    before = {path: path.read_bytes() for path in write.folder.iterdir()}
    assert len(before) == 2 * (len(formats) + 1)

    def broken() -> Iterator[Prediction]:
        yield from random_predictions(write.dataset, seed=1)[:1]
        raise EbertError("no")

    with pytest.raises(EbertError, match="no"):
        write(broken(), overwrite=True)
    assert {path: path.read_bytes() for path in write.folder.iterdir()} == before
    write(iter(random_predictions(write.dataset, seed=1)), overwrite=True)
    assert {path for path in write.folder.iterdir() if path.read_bytes() != before[path]} == set(before)


def test_a_disk_that_fills_while_sites_are_written(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs_module, "write_narrow_peak", full)
    with pytest.raises(EbertError, match="no space left"):
        write(iter(random_predictions(write.dataset)))
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_while_a_submission_is_written(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        submission_writer.tempfile, "TemporaryFile", lambda dir: os.fdopen(os.open("/dev/full", os.O_RDWR), "w+b")
    )
    write.formats = ("dream",)
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
    everything = [*written[0].files.values(), written[0].sidecar]
    for item in everything:
        for other in everything:
            if other != item:
                other.rename(f"{other}.away")
        with pytest.raises(OutputExistsError):
            written[0].refuse_existing(overwrite=False)
        with pytest.raises(OutputExistsError):  # one that appeared after the command had looked
            write(iter(random_predictions(write.dataset)))
        written[0].refuse_existing(overwrite=True)
        for path in write.folder.glob("*.away"):
            path.rename(str(path).removesuffix(".away"))


@pytest.mark.parametrize("name", ["CTCF.HepG2.ebert.json", "MAX.HepG2.bw", "F.MAX.HepG2.tab.gz"])
def test_two_runs_do_not_write_the_same_files(write: Writer, name: str) -> None:
    write.formats = tuple(FORMATS)
    with exclusive_lock(write.folder / name), pytest.raises(EbertError, match=f"another run is writing .*{name}"):
        write(iter(random_predictions(write.dataset)))
    write.folder.mkdir()
    (write.folder / f".{name}.partial-4711").write_text("left by a killed run")
    write(iter(random_predictions(write.dataset)))
    assert len(list(write.folder.iterdir())) == 8


def test_overwriting_with_other_formats_leaves_no_file_that_nothing_vouches_for(write: Writer) -> None:
    write(iter(random_predictions(write.dataset)))
    stranger = write.folder / "F.CTCF.HepG2.tab.gz.mine"
    stranger.write_text("x")
    write.formats = ("dream",)
    write(iter(random_predictions(write.dataset)), overwrite=True)
    assert {path.name for path in write.folder.iterdir()} == {
        *(f"F.{tf}.HepG2.tab.gz" for tf in ("CTCF", "MAX")),
        *(f"{tf}.HepG2.ebert.json" for tf in ("CTCF", "MAX")),
        stranger.name,
    }
    sidecar = json.loads((write.folder / "CTCF.HepG2.ebert.json").read_text())
    assert list(sidecar["files"]) == ["F.CTCF.HepG2.tab.gz"]
    assert sidecar["call"] is None
    write.formats = ("bigwig",)
    own = write.folder / "CTCF.HepG2.narrowPeak"
    own.write_text("of another tool: the old sidecar does not know it")
    write(iter(random_predictions(write.dataset)), overwrite=True)
    assert own.exists()
    assert not (write.folder / "F.CTCF.HepG2.tab.gz").exists()


# --- submissions


def test_a_submission_holds_what_the_big_wig_holds(write: Writer) -> None:
    write.formats = tuple(FORMATS)
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    bins = write.dataset.benchmark_bins()
    unscored = 0
    for place, item in enumerate(written.outputs):
        found = read_submission(item.files["dream"], bins, bins.chroms)
        with Predictions.open(item.files["bigwig"], write.dataset.assembly) as opened:
            for prediction in predictions[:2]:
                starts = bins.starts(prediction.chrom)
                expected = opened.scores(prediction.chrom, starts)
                np.testing.assert_array_equal(expected, prediction.probabilities[starts // 50, place])
                np.testing.assert_array_equal(found[prediction.chrom], np.nan_to_num(expected, nan=0.0))
                unscored += int(np.isnan(expected).sum())
    entry = {"rows": bins.num_rows(), "unscored": unscored // 2}
    assert written.submission == entry
    for item in written.outputs:
        sidecar = json.loads(item.sidecar.read_text())
        assert sidecar["submission"] == entry
        assert set(sidecar["files"]) == {path.name for path in item.files.values()}
        data = item.files["dream"].read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        assert sidecar["files"][item.files["dream"].name] == {"bytes": len(data), "sha256": digest}
        assert gzip.decompress(data).count(b"\n") == bins.num_rows()
    assert unscored > 100


def test_a_small_dataset_gives_no_whole_submission(write: Writer) -> None:
    rows = write.dataset.benchmark_bins().num_rows()
    note = submission_note(write.dataset)
    assert note is not None
    assert f"{rows:,} bins of the benchmark, a whole submission has 60,519,747 rows" in note


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ("bigwig", "narrowpeak")),
        (["dream"], ("dream",)),
        (["Dream", "bigWig", "dream"], ("bigwig", "dream")),
        (["narrowPeak"], ("narrowpeak",)),
    ],
)
def test_formats(names: list[str], expected: tuple[str, ...]) -> None:
    assert parse_formats(names) == expected


def test_an_unknown_format_suggests() -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'narowpeak'") as caught:
        parse_formats(["bigwig", "narowpeak"])
    assert "did you mean narrowpeak?" in caught.value.hint


def test_a_submission_cannot_be_called_after_a_name_with_a_dot(tmp_path: Path) -> None:
    assert Outputs.named(tmp_path, "CTCF", "v1.2").files
    with pytest.raises(EbertError, match=r"F\.TF\.CELL\.tab\.gz cannot be called after CTCF and v1\.2"):
        Outputs.named(tmp_path, "CTCF", "v1.2", ("dream",))


def test_names_with_a_slash_stay_in_the_folder(tmp_path: Path) -> None:
    named = Outputs.named(tmp_path, "NKX2/1", "a/../../b")
    assert {path.parent for path in (*named.files.values(), named.sidecar)} == {tmp_path}


def test_rows_equal_the_big_wig(write: Writer) -> None:
    predictions = random_predictions(write.dataset)
    written = write(iter(predictions))
    handle = io.StringIO()
    coverage = write_rows(iter(predictions), handle)
    assert coverage == written.coverage
    rows = [line.split("\t") for line in handle.getvalue().splitlines()]
    with pyBigWig.open(str(written.outputs[0].files["bigwig"])) as opened:
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
