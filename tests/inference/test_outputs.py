"""Files of predictions, read back by two bigWig libraries, bedtools, tabix, gzip and by our own readers."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pybigtools
import pyBigWig
import pysam
import pytest

from ebert_core.artifacts import exclusive_lock
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, OutputExistsError, UnknownNameError
from ebert_core.genome.regions import Region
from ebert_core.inference import output_files, tracks
from ebert_core.inference.calls import Call, call_sites
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.output_files import FORMATS, Outputs, OutputSet, OutputSettings, parse_formats
from ebert_core.inference.outputs import Job, Written, submission_note, write_files
from ebert_core.inference.pieces import Scored
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.runs import describe
from ebert_core.io import submission_writer
from ebert_core.io.predictions import Predictions, find_predictions, read_sidecar
from ebert_core.io.submissions import read_submission

THRESHOLDS = [0.7, 0.5]
CALLS = [Call("precision=0.8", threshold, 0.8, 0.5, 0.62, 10, 90) for threshold in THRESHOLDS]
WITHOUT_PACKAGES = tuple(name for name in FORMATS if name != "parquet")


@dataclass
class Writer:
    """Writes what `MadeUp` makes up."""

    made: Any
    model: LoadedModel
    folder: Path
    settings: OutputSettings = OutputSettings()  # noqa: RUF009 - frozen

    @property
    def dataset(self) -> Dataset:
        return self.made.dataset

    @property
    def job(self) -> Job:
        cell = CellStates("HepG2", None, "none (asked for)")
        request = Request(("CTCF", "MAX"), cell, ())
        return describe(self.dataset, self.model, request, self.made.plan, self.settings, CALLS)

    @property
    def names(self) -> OutputSet:
        return OutputSet.named(self.folder, ("CTCF", "MAX"), "HepG2", self.settings.formats)

    def asking(self, *formats: str, **settings: Any) -> Writer:
        return replace(self, settings=OutputSettings(formats or self.settings.formats, **settings))

    def __call__(self, pieces: Iterator[Scored] | None = None, *, overwrite: bool = False) -> Written:
        pieces = self.made.pieces() if pieces is None else pieces
        bins = self.dataset.benchmark_bins()
        with self.names.locked():
            return write_files(pieces, self.job, self.names, bins, overwrite=overwrite)


@pytest.fixture
def write(made_up: Callable[..., Any], model: LoadedModel, tmp_path: Path) -> Writer:
    return Writer(made_up(), model, tmp_path / "predictions")


def expected_entries(values: np.ndarray) -> list[tuple[int, int, float]]:
    """A scored bin's value stands on its central 50 bp."""
    return [
        (50 * number + 75, 50 * number + 125, float(value))
        for number, value in enumerate(values)
        if not np.isnan(value)
    ]


def entries(path: Path) -> dict[str, list[tuple[int, int, float]]]:
    with pyBigWig.open(str(path)) as opened:
        return {chrom: list(opened.intervals(chrom) or ()) for chrom in opened.chroms()}


# --- bigWig


def test_big_wigs_hold_each_value_where_it_belongs(write: Writer) -> None:
    written = write()
    assert [files["bigwig"].name for files in written.files] == ["CTCF.HepG2.bw", "MAX.HepG2.bw"]
    sizes = dict(zip(write.dataset.assembly.chroms, write.dataset.assembly.lengths, strict=True))
    for place, files in enumerate(written.files):
        with pyBigWig.open(str(files["bigwig"])) as first, pybigtools.open(str(files["bigwig"])) as second:
            assert dict(first.chroms()) == dict(second.chroms()) == sizes
            for chrom, table in write.made.tables.items():
                rows = expected_entries(table[:, place])
                assert list(first.intervals(chrom) or ()) == rows
                if rows:  # pybigtools knows no records of a chromosome without any
                    assert list(second.records(chrom)) == rows
            assert first.header()["minVal"] >= 0
            assert first.header()["maxVal"] <= 1


def test_chromosomes_stand_in_lexicographic_order(
    made_up: Callable[..., Any], model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As UCSC's programs write them, whatever the order of the FASTA."""
    write = Writer(made_up(), model, tmp_path / "predictions")
    job = write.job
    names = ("chr2", "chrShort", "chr1")
    shuffled = type(job.assembly).from_sizes((name, job.assembly.length(name)) for name in names)
    with write.names.locked():
        written = write_files(write.made.pieces(), replace(job, assembly=shuffled), write.names, None)
    with (
        pyBigWig.open(str(written.files[0]["bigwig"])) as first,
        pybigtools.open(str(written.files[0]["bigwig"])) as other,
    ):
        assert list(first.chroms()) == list(other.chroms()) == ["chr1", "chr2", "chrShort"]
    assert (
        written.files[0]["bigwig"].read_bytes()
        == replace(write, folder=tmp_path / "other")().files[0]["bigwig"].read_bytes()
    )


def test_zoom_levels_say_what_the_values_say(write: Writer) -> None:
    """Of the whole chromosome at the widths a browser draws: means of the values there, to the precision of a sum."""
    path = write().files[0]["bigwig"]
    with pyBigWig.open(str(path)) as opened:
        assert opened.header()["nLevels"] >= 1
        values = np.array(opened.values("chr1", 0, 60_000))
        for bins in (3, 10):
            edges = np.linspace(0, 60_000, bins + 1).astype(int)
            found = opened.stats("chr1", nBins=bins, exact=True)
            shown = opened.stats("chr1", nBins=bins)
            expected = [np.nanmean(values[a:b]) for a, b in itertools.pairwise(edges)]
            np.testing.assert_allclose(np.array(found, float), expected, rtol=1e-4)
            np.testing.assert_allclose(np.array(shown, float), expected, rtol=0.1)


def test_our_own_reader_gives_the_bins_back(write: Writer) -> None:
    written = write.asking("bigwig", "bedgraph")()
    for name, tolerance in (("bigwig", 0), ("bedgraph", 1e-5)):
        with Predictions.open(written.files[1][name], write.dataset.assembly) as opened:
            for chrom in ("chr1", "chr2"):
                table = write.made.tables[chrom][:, 1]
                starts = np.arange(len(table), dtype=np.int64) * 50
                np.testing.assert_allclose(opened.scores(chrom, starts), table, rtol=tolerance)


@pytest.mark.parametrize("name", ["bigwig", "bedgraph"])
def test_a_least_score_leaves_bins_out_and_is_told(write: Writer, name: str) -> None:
    written = write.asking(name, min_score=0.25)()
    for place, files in enumerate(written.files):
        assert json.loads(write.names.of_tf[place].sidecar.read_text())["min_score"] == 0.25
        with Predictions.open(files[name], write.dataset.assembly) as opened:
            for chrom in ("chr1", "chr2"):
                table = write.made.tables[chrom][:, place]
                starts = np.arange(len(table), dtype=np.int64) * 50
                expected = np.where(table >= 0.25, table, np.nan)
                np.testing.assert_allclose(opened.scores(chrom, starts), expected, rtol=1e-5)
            assert any("bins under 0.25 were left out" in note for note in opened.notes)
            assert opened.min_score == 0.25


def test_rounded_values_are_the_nearest_decimals_and_smaller(write: Writer) -> None:
    plain = write.asking("bigwig")().files[0]["bigwig"]
    files = replace(write, folder=write.folder / "rounded").asking("bigwig", "narrowpeak", "bedgraph", round_digits=2)()
    rounded = files.files[0]["bigwig"]
    assert rounded.stat().st_size < 0.7 * plain.stat().st_size
    for chrom, rows in entries(plain).items():
        expected = [(start, end, float(np.float32(f"{value:.2f}"))) for start, end, value in rows]
        assert entries(rounded)[chrom] == expected
    lines = gzip.decompress(files.files[0]["bedgraph"].read_bytes()).decode().splitlines()
    assert {len(line.split("\t")[3].partition(".")[2]) for line in lines} <= {0, 1, 2}
    unrounded = replace(write, folder=write.folder / "sites").asking("narrowpeak")().files[0]["narrowpeak"]
    assert files.files[0]["narrowpeak"].read_text() == unrounded.read_text()


def test_nothing_over_the_least_score_is_an_error_that_says_so(write: Writer) -> None:
    for table in write.made.tables.values():
        table[:, 1] *= 0.5
    with pytest.raises(EbertError, match=r"MAX in HepG2: no bin reaches --min-score 0.9, the best has 0.5"):
        write.asking("bigwig", min_score=0.9)()
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


# --- the spread of an ensemble


def test_a_spread_is_a_second_big_wig(write: Writer) -> None:
    write.made.with_spread = True
    written = write()
    for place, files in enumerate(written.files):
        assert files["spread"].name == ("CTCF", "MAX")[place] + ".HepG2.spread.bw"
        for chrom in ("chr1", "chr2"):
            assert entries(files["spread"])[chrom] == expected_entries(write.made.spreads[chrom][:, place])
            assert entries(files["bigwig"])[chrom] == expected_entries(write.made.tables[chrom][:, place])
        sidecar = json.loads(write.names.of_tf[place].sidecar.read_text())
        assert files["spread"].name in sidecar["files"]
    assert [path.name for path in find_predictions(write.folder)] == ["CTCF.HepG2.bw", "MAX.HepG2.bw"]
    write.made.with_spread = False
    assert "spread" not in write(overwrite=True).files[0]
    assert not list(write.folder.glob("*.spread.bw"))


def test_no_spread_without_a_big_wig(write: Writer) -> None:
    write.made.with_spread = True
    assert set(write.asking("narrowpeak")().files[0]) == {"narrowpeak", "unscored"}


# --- text


def test_sites_are_those_of_each_tfs_own_threshold(write: Writer) -> None:
    written = write()
    for place, (files, threshold) in enumerate(zip(written.files, THRESHOLDS, strict=True)):
        rows = [line.split("\t") for line in files["narrowpeak"].read_text().splitlines()]
        sites = [
            site for chrom, table in write.made.tables.items() for site in call_sites(chrom, table[:, place], threshold)
        ]
        assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [(s.chrom, s.start, s.end) for s in sites]
        assert [float(row[6]) for row in rows] == pytest.approx([s.probability for s in sites], rel=1e-5)
        assert [int(row[9]) for row in rows] == [s.summit for s in sites]
        assert written.num_sites[place] == len(sites) > 10


def test_a_bedgraph_holds_what_the_big_wig_holds_and_tabix_reads_it(write: Writer, tmp_path: Path) -> None:
    written = write.asking("bigwig", "bedgraph")()
    path = written.files[1]["bedgraph"]
    rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    expected = [(chrom, *row) for chrom, some in entries(written.files[1]["bigwig"]).items() for row in some]
    assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [row[:3] for row in expected]
    assert [float(row[3]) for row in rows] == pytest.approx([row[3] for row in expected], rel=1e-5)
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    pysam.tabix_index(str(copy), preset="bed")
    with pysam.TabixFile(str(copy)) as indexed:
        assert [int(row.split("\t")[1]) for row in indexed.fetch("chr2", 10_000, 10_100)] == [9_975, 10_025, 10_075]


def test_scored_and_unscored_bins_share_out_what_was_asked_for(
    made_up: Callable[..., Any], model: LoadedModel, tmp_path: Path
) -> None:
    regions = [Region("chr1", 0, 50_000), Region("chr2", 7_000, 12_345)]
    write = Writer(made_up(regions=regions), model, tmp_path / "predictions")
    written = write()
    text = written.files[0]["unscored"].read_text()
    assert text == written.files[1]["unscored"].read_text()
    # The toy world: N from 20,000 to 23,010; excluded 40,010 to 41,000 and chr2:9,000 to 9,200. A bin begins 75 bp
    # before its central 50 bp and ends 75 bp after; one with a single known base has a value.
    assert text.splitlines() == [
        "chr1\t20075\t22925\tN",
        "chr1\t39925\t41075\texcluded",
        "chr2\t8925\t9275\texcluded",
    ]
    covered = {chrom: np.zeros(write.dataset.assembly.length(chrom), int) for chrom in write.dataset.assembly.chroms}
    for chrom, rows in entries(written.files[0]["bigwig"]).items():
        for start, end, _ in rows:
            covered[chrom][start:end] += 1
    for line in text.splitlines():
        chrom, start, end, _ = line.split("\t")
        covered[chrom][int(start) : int(end)] += 1
    for region in regions:
        expected = np.zeros(write.dataset.assembly.length(region.chrom), int)
        for start in range(0, len(expected) - 199, 50):
            if region.start <= start + 100 < region.end:
                expected[start + 75 : start + 125] += 1
        np.testing.assert_array_equal(covered[region.chrom], expected)
    sizes = {key: int(value) for key, value in vars(written.coverage).items()}
    assert sizes["all_n"] == (22_925 - 20_075) // 50
    assert sizes["excluded"] == (41_075 - 39_925 + 9_275 - 8_925) // 50


@pytest.mark.skipif(shutil.which("bedtools") is None, reason="bedtools is not installed")
def test_bedtools_takes_every_bed_as_sorted(write: Writer, tmp_path: Path) -> None:
    """`-sorted` refuses rows out of order; no site overlaps another; unscored bins hold no value."""
    written = write.asking("bedgraph", "narrowpeak")()
    for files in written.files:
        for name in ("bedgraph", "narrowpeak", "unscored"):
            done = subprocess.run(
                ["bedtools", "merge", "-i", files[name], "-d", "-1"], capture_output=True, text=True, check=True
            )
            data = files[name].read_bytes()
            lines = (gzip.decompress(data) if name == "bedgraph" else data).decode().splitlines()
            assert done.stdout.splitlines() == ["\t".join(line.split("\t")[:3]) for line in lines]
        beds = ["-a", files["bedgraph"], "-b", files["unscored"]]
        done = subprocess.run(["bedtools", "intersect", "-sorted", *beds], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", "")


# --- sidecars and their files


@pytest.mark.parametrize("formats", [("bigwig", "narrowpeak"), WITHOUT_PACKAGES])
def test_sidecars_vouch_for_their_files(write: Writer, formats: tuple[str, ...]) -> None:
    write = write.asking(*formats)
    written = write()
    assert written.coverage == write.made.plan.coverage
    for place, files in enumerate(written.files):
        output = write.names.of_tf[place]
        sidecar = json.loads(output.sidecar.read_text())
        own = {*files.values(), *written.shared.values()}
        assert set(sidecar["files"]) == {path.name for path in own}
        for path in own:
            data = path.read_bytes()
            assert sidecar["files"][path.name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert read_sidecar(files["bigwig"]) == sidecar
        assert (sidecar["tf"], sidecar["cell"]) == (("CTCF", "MAX")[place], "HepG2")
        assert sidecar["call"] == asdict(CALLS[place])
        assert (sidecar["submission"] is None) == ("dream" not in formats)
        assert sidecar["chroms"] == ["chr1", "chr2", "chrShort"]
        assert sidecar["coverage"] == vars(written.coverage)
        assert (sidecar["min_score"], sidecar["round_digits"]) == (None, None)
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


def test_a_job_survives_its_json(write: Writer) -> None:
    job = write.asking(*WITHOUT_PACKAGES, min_score=0.1, round_digits=3, half=True).job
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == replace(
        job, about=tuple(json.loads(json.dumps(job.about)))
    )


def test_equal_predictions_give_equal_bytes(write: Writer, tmp_path: Path) -> None:
    write = write.asking(*WITHOUT_PACKAGES)
    ours, theirs = write(), replace(write, folder=tmp_path / "other")()
    for files, again in zip([*ours.files, ours.shared], [*theirs.files, theirs.shared], strict=True):
        for name, path in files.items():
            assert path.read_bytes() == again[name].read_bytes(), name


@pytest.mark.parametrize("error", [EbertError("no"), KeyboardInterrupt(), ZeroDivisionError()])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_nothing_is_left_of_predictions_that_broke_off(write: Writer, error: BaseException, after: int) -> None:
    def broken() -> Iterator[Scored]:
        yield from list(write.made.pieces())[:after]
        raise error

    with pytest.raises(type(error)):
        write.asking(*WITHOUT_PACKAGES)(broken())
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("formats", [("bigwig", "narrowpeak"), WITHOUT_PACKAGES])
def test_old_files_stay_when_new_ones_break_off(
    write: Writer, made_up: Callable[..., Any], formats: tuple[str, ...]
) -> None:
    write = write.asking(*formats)
    write()
    before = {path: path.read_bytes() for path in write.folder.iterdir()}
    other = replace(write, made=made_up(seed=1))

    def broken() -> Iterator[Scored]:
        yield from list(other.made.pieces())[:2]
        raise EbertError("no")

    with pytest.raises(EbertError, match="no"):
        other(broken(), overwrite=True)
    assert {path: path.read_bytes() for path in write.folder.iterdir()} == before
    other(overwrite=True)
    changed = {path for path in write.folder.iterdir() if path.read_bytes() != before[path]}
    assert changed == {path for path in before if not path.name.endswith("unscored.bed")}


def test_a_disk_that_fills_while_sites_are_written(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracks, "write_narrow_peak", full)
    with pytest.raises(EbertError, match="no space left"):
        write()
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_while_a_submission_is_written(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        submission_writer.tempfile, "TemporaryFile", lambda dir: os.fdopen(os.open("/dev/full", os.O_RDWR), "w+b")
    )
    with pytest.raises(EbertError, match="no space left"):
        write.asking("dream")()
    assert [path for path in write.folder.rglob("*") if path.is_file()] == []


def test_existing_files_are_refused_one_by_one(write: Writer) -> None:
    write = write.asking("bigwig", "narrowpeak", "npz")
    written = write()
    everything = [*written.files[0].values(), write.names.of_tf[0].sidecar, *written.shared.values()]
    assert len(everything) == 5
    for item in everything:
        for path in write.folder.iterdir():
            if path != item:
                path.rename(f"{path}.away")
        with pytest.raises(OutputExistsError):
            write.names.refuse_existing(overwrite=False)
        with pytest.raises(OutputExistsError):  # one that appeared after the command had looked
            write()
        write.names.refuse_existing(overwrite=True)
        for path in write.folder.glob("*.away"):
            path.rename(str(path).removesuffix(".away"))


@pytest.mark.parametrize(
    "name", ["CTCF.HepG2.ebert.json", "MAX.HepG2.bw", "F.MAX.HepG2.tab.gz", "CTCF+MAX.HepG2.npz", "MAX.HepG2.spread.bw"]
)
def test_two_runs_do_not_write_the_same_files(write: Writer, name: str) -> None:
    write = write.asking(*WITHOUT_PACKAGES)
    with exclusive_lock(write.folder / name), pytest.raises(EbertError, match="another run is writing") as caught:
        write()
    assert name in caught.value.message
    write.folder.mkdir()
    (write.folder / f".{name}.partial-4711").write_text("left by a killed run")
    write()
    assert len(list(write.folder.iterdir())) == 2 * 6 + 1


def test_overwriting_with_other_formats_leaves_no_file_that_nothing_vouches_for(write: Writer) -> None:
    write()
    stranger = write.folder / "F.CTCF.HepG2.tab.gz.mine"
    stranger.write_text("x")
    dream = write.asking("dream")
    dream(overwrite=True)
    assert {path.name for path in write.folder.iterdir()} == {
        *(f"F.{tf}.HepG2.tab.gz" for tf in ("CTCF", "MAX")),
        *(f"{tf}.HepG2.ebert.json" for tf in ("CTCF", "MAX")),
        *(f"{tf}.HepG2.unscored.bed" for tf in ("CTCF", "MAX")),
        stranger.name,
    }
    sidecar = json.loads((write.folder / "CTCF.HepG2.ebert.json").read_text())
    assert list(sidecar["files"]) == ["F.CTCF.HepG2.tab.gz", "CTCF.HepG2.unscored.bed"]
    assert sidecar["call"] is None
    own = write.folder / "CTCF.HepG2.narrowPeak"
    own.write_text("of another tool: the old sidecar does not know it")
    write.asking("bigwig")(overwrite=True)
    assert own.exists()
    assert not (write.folder / "F.CTCF.HepG2.tab.gz").exists()


# --- submissions


def test_a_submission_holds_what_the_big_wig_holds(write: Writer) -> None:
    write = write.asking(*WITHOUT_PACKAGES)
    written = write()
    bins = write.dataset.benchmark_bins()
    unscored = 0
    for place, files in enumerate(written.files):
        found = read_submission(files["dream"], bins, bins.chroms)
        with Predictions.open(files["bigwig"], write.dataset.assembly) as opened:
            for chrom in ("chr1", "chr2"):
                starts = bins.starts(chrom)
                expected = opened.scores(chrom, starts)
                np.testing.assert_array_equal(expected, write.made.tables[chrom][starts // 50, place])
                np.testing.assert_array_equal(found[chrom], np.nan_to_num(expected, nan=0.0))
                unscored += int(np.isnan(expected).sum())
    entry = {"rows": bins.num_rows(), "unscored": unscored // 2}
    assert written.submission == entry
    for place, files in enumerate(written.files):
        sidecar = json.loads(write.names.of_tf[place].sidecar.read_text())
        assert sidecar["submission"] == entry
        assert gzip.decompress(files["dream"].read_bytes()).count(b"\n") == bins.num_rows()
    assert unscored > 100


def test_a_small_dataset_gives_no_whole_submission(toy_dataset: Dataset) -> None:
    bins = toy_dataset.benchmark_bins()
    note = submission_note(bins)
    assert note is not None
    assert f"{bins.num_rows():,} bins of the benchmark, a whole submission has 60,519,747 rows" in note


# --- names and settings


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ("bigwig", "narrowpeak")),
        (["dream"], ("dream",)),
        (["Dream", "bigWig", "dream"], ("bigwig", "dream")),
        (["narrowPeak"], ("narrowpeak",)),
        (["NPZ", "bedGraph"], ("bedgraph", "npz")),
    ],
)
def test_formats(names: list[str], expected: tuple[str, ...]) -> None:
    assert parse_formats(names) == expected


def test_an_unknown_format_suggests() -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'narowpeak'") as caught:
        parse_formats(["bigwig", "narowpeak"])
    assert "did you mean narrowpeak?" in caught.value.hint


def test_parquet_asks_for_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EbertError, match="needs the package pyarrow") as caught:
        parse_formats(["parquet"])
    assert "pip install 'ebert[parquet]'" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_score": 0.0}, "--min-score 0 is no probability"),
        ({"min_score": 1.5}, "--min-score 1.5 is no probability"),
        ({"min_score": float("nan")}, "--min-score nan is no probability"),
        ({"round_digits": 0}, "--round 0 decimals"),
        ({"round_digits": 12}, "--round 12 decimals"),
        ({"min_score": 0.5, "formats": ("dream",)}, "--min-score is for bigwig and bedgraph"),
        ({"round_digits": 2, "formats": ("npz",)}, "--round is for bigwig and bedgraph"),
        ({"half": True}, "--half is for npz and parquet, --format asks for bigwig, narrowpeak"),
    ],
)
def test_settings_that_nothing_heeds(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(EbertError, match=message) as caught:
        OutputSettings(**settings)
    assert caught.value.hint


def test_a_submission_cannot_be_called_after_a_name_with_a_dot(tmp_path: Path) -> None:
    assert Outputs.named(tmp_path, "CTCF", "v1.2").files
    with pytest.raises(EbertError, match=r"F\.TF\.CELL\.tab\.gz cannot be called after CTCF and v1\.2"):
        Outputs.named(tmp_path, "CTCF", "v1.2", ("dream",))


def test_names_with_a_slash_stay_in_the_folder(tmp_path: Path) -> None:
    names = OutputSet.named(tmp_path, ("NKX2/1", "../B"), "a/../../b", ("bigwig", "npz"))
    for path in (names.working, names.shard(1, 2), *names.shared.values(), *names.of_tf[0].files.values()):
        assert path.parent == tmp_path


def test_many_tfs_make_no_name_too_long(tmp_path: Path) -> None:
    tfs = [f"ZNF{number}" for number in range(700)]
    names = OutputSet.named(tmp_path, tfs, "HepG2", ("npz",))
    assert names.shared["npz"].name.startswith("ZNF0+699.")
    assert len(names.working.name) < 60
    other = OutputSet.named(tmp_path, [*tfs[:-1], "CTCF"], "HepG2", ("npz",))
    assert other.shared["npz"] != names.shared["npz"]
