"""Anybody's predictions on bins: against a reading of every base, in every format and placement."""

from __future__ import annotations

import gzip
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.artifacts import build_manifest, file_entry
from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import all_bin_starts
from ebert_core.io import portions, predictions
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.io.predictions import (
    PLACEMENTS,
    PREDICTIONS_FORMAT,
    Predictions,
    find_predictions,
    read_sidecar,
    sidecar_path,
)

LENGTH = 3070
ASSEMBLY = Assembly.from_sizes([("chr1", LENGTH), ("chr2", 1000), ("chrM", 600)])
BINS = all_bin_starts(LENGTH)


def save(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def scores(path, chrom="chr1", starts=BINS, placement="centre"):
    with Predictions.open(path, ASSEMBLY) as opened:
        return opened.scores(chrom, starts, placement)


def by_the_base(rows, placement):
    """Every bin's score, read off an array with one value per bp."""
    track = np.full(LENGTH, np.nan)
    for start, end, value in rows:
        track[start:end] = np.float32(value)
    out = []
    for start in BINS.tolist():
        window = {
            "centre": track[start + 75 : start + 125],
            "start": track[start : start + 50],
            "mean": track[start : start + 200],
            "max": track[start : start + 200],
        }[placement]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # windows without any value
            out.append(np.nanmax(window) if placement == "max" else np.nanmean(window))
    return np.array(out, np.float32)


@st.composite
def signals(draw):
    rows, at = [], 0
    grid = draw(st.sampled_from([1, 25, 50]))
    for _ in range(draw(st.integers(1, 25))):
        start = at + grid * draw(st.integers(0, 6))
        end = start + grid * draw(st.integers(1, 7))
        if end > LENGTH:
            break
        rows.append((start, end, draw(st.floats(-8, 8, width=32))))
        at = end
    return rows or [(0, 50, 0.5)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    signals(), st.sampled_from(sorted(PLACEMENTS)), st.sampled_from([700, 4_000_000]), st.sampled_from([40, 1 << 24])
)
def test_text_and_bigwig_agree_with_a_reading_of_every_base(tmp_path, rows, placement, read_bp, chunk_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "_READ_BP", read_bp)
        patch.setattr(portions, "_PORTION_BYTES", chunk_bytes)
        expected = by_the_base(rows, placement)
        text = save(tmp_path / "x.bedGraph", "".join(f"chr1\t{a}\t{b}\t{v!r}\n" for a, b, v in rows))
        found = scores(text, placement=placement)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        with BigWigWriter(tmp_path / "x.bw", ASSEMBLY) as writer:
            for start, end, value in rows:
                writer.write_fixed_step("chr1", start, np.array([value], np.float32), end - start, end - start)
        np.testing.assert_allclose(scores(tmp_path / "x.bw", placement=placement), found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
@pytest.mark.parametrize("name", ["x.tab.gz", "x.bed"])
def test_overlapping_bins_are_read_as_they_are(tmp_path, placement, name):
    values = np.random.default_rng(2).random(len(BINS)).astype(np.float32)
    order = np.random.default_rng(3).permutation(len(BINS) - 4)  # any order; the last four bins are not there
    path = save(tmp_path / name, "".join(f"1\t{BINS[i]}\t{BINS[i] + 200}\t{values[i]:.9g}\n" for i in order))
    found = scores(path, placement=placement)
    np.testing.assert_array_equal(found[:-4], values[:-4])
    assert np.isnan(found[-4:]).all()


def test_bins_and_signal_in_one_file(tmp_path):
    path = save(tmp_path / "x.bed", "chr1\t0\t200\t1\nchr1\t50\t250\t2\nchr1\t1000\t1500\t3\n")
    found = dict(zip(BINS.tolist(), scores(path).tolist(), strict=True))
    assert (found[0], found[50], found[1000], found[1400]) == (1, 2, 3, 3)
    assert np.isnan([found[100], found[1450]]).all()


def test_our_own_bigwig_comes_back_bin_by_bin(tmp_path):
    values = np.random.default_rng(4).random(len(BINS)).astype(np.float32)
    with BigWigWriter(tmp_path / "x.bw", ASSEMBLY) as writer:
        writer.write_fixed_step("chr1", 75, values, 50, 50)
    assert np.array_equal(scores(tmp_path / "x.bw"), values)
    assert np.array_equal(scores(tmp_path / "x.bw", starts=BINS[7:30:3]), values[7:30:3])
    assert np.isnan(scores(tmp_path / "x.bw", "chr2", np.array([0, 50]))).all()


NARROW = "chr1\t200\t600\tp1\t900\t{strand}\t7.5\t-1\t-1\t100\n"


@pytest.mark.parametrize(
    ("name", "line", "expected", "column"),
    [
        ("x.bedGraph", "chr1\t200\t600\t0.25\n", 0.25, "column 4"),
        ("x.txt", "track type=bedGraph\n# c\nchr1\t200\t600\t1e-3\r\n", 1e-3, "column 4"),
        ("x.tsv", "chr\tstart\tstop\tprob\nchr1\t200\t600\t0.5\n", 0.5, "column 4"),
        ("x.bed", "chr1\t200\t600\tpeak_1\t900\n", 900, "score (column 5)"),
        ("x.bed", "chr1\t200\t600\t17\t900\n", 17, "column 4"),
        ("x.bed", "chr1\t200\t600\t17\t900\t+\n", 900, "score (column 5)"),
        ("x.narrowPeak", NARROW.format(strand="."), 7.5, "signalValue (column 7)"),
        ("x.narrowPeak.gz", NARROW.format(strand="+"), 7.5, "signalValue (column 7)"),
        ("peaks.bed", NARROW.format(strand="-"), 7.5, "signalValue (column 7)"),
    ],
)
def test_formats(tmp_path, name, line, expected, column):
    with Predictions.open(save(tmp_path / name, line), ASSEMBLY) as opened:
        assert opened.format == f"text, {column}"
        assert opened.chroms == ("chr1",)
        found = opened.scores("chr1", np.array([0, 300, 700], np.int64))
    np.testing.assert_array_equal(found, np.array([np.nan, expected, np.nan], np.float32))


def test_chromosome_names_meet_and_strangers_are_counted(tmp_path):
    path = save(tmp_path / "x.bed", "MT\t0\t200\t1\n2\t0\t200\t2\nchrX\t0\t200\t3\nGL01\t5\t10\t4\nchrX\t400\t500\t3\n")
    with Predictions.open(path, ASSEMBLY) as opened:
        assert opened.chroms == ("chr2", "chrM")
        assert opened.scores("chrM", np.array([0])).tolist() == [1]
        renamed, dropped = opened.notes
    assert "(2 -> chr2)" in renamed
    assert "3 rows" in dropped
    assert "(GL01, chrX)" in dropped


def test_bigwig_of_another_spelling_and_of_another_assembly(tmp_path):
    def make(sizes, chrom):
        with BigWigWriter(tmp_path / "x.bw", Assembly.from_sizes(sizes)) as writer:
            writer.write_fixed_step(chrom, 0, np.full(20, 0.5), 50, 50)
        return tmp_path / "x.bw"

    with Predictions.open(make([("1", LENGTH), ("X", 5000)], "1"), ASSEMBLY) as opened:
        assert opened.chroms == ("chr1",)
        assert opened.scores("chr1", np.array([0])).tolist() == [0.5]
        assert "(1 -> chr1)" in opened.notes[0]
    with Predictions.open(make([("1", LENGTH), ("X", 5000)], "X"), ASSEMBLY) as opened:
        assert opened.chroms == ()
        assert "values on chromosomes that the genome lacks (X)" in opened.notes[0]
    with pytest.raises(InputError, match=r"chr1 has 3,071 bp, the genome's chr1 has 3,070"):
        Predictions.open(make([("chr1", LENGTH + 1)], "chr1"), ASSEMBLY)
    with pytest.raises(InputError, match="names chromosomes such as chrX"):
        Predictions.open(make([("chrX", 5000)], "chrX"), ASSEMBLY)


BAD = {
    "absent": (None, "is not there"),
    "empty": ("", "has no data lines"),
    "header only": ("track x\n\n", "has no data lines"),
    "three columns": ("chr1\t0\t50\n", r"line 1: has 3 column\(s\)"),
    "spaces": ("chr1 0 50 0.1\n", r"line 1: has 1 column\(s\)"),
    "missing field": ("chr1\t0\t50\t1\nchr1\t50\t100\n", r"line 2: has 3 column\(s\), the score is in column 4"),
    "word": ("chr1\t0\t50\t1\nchr1\t50\t100\thigh\n", "line 2: score is 'high', expected a number"),
    "nan": ("chr1\t0\t50\t1\n\nchr1\t50\t100\tNaN\n", "line 3: score is 'NaN', expected a finite number"),
    "inf": ("chr1\t0\t50\tinf\n", "line 1: score is 'inf'"),
    "no score": ("chr1\t0\t50\tname\n", "line 1: score is 'name'"),
    "start": ("chr1\t0\t50\t1\nchr1\tx\t50\t1\n", "line 2: start is 'x'"),
    "inverted": ("chr1\t60\t50\t1\n", "line 1: chr1:60-50 is no interval"),
    "negative": ("chr1\t-5\t50\t1\n", "line 1: chr1:-5-50 is no interval"),
    "beyond": ("#\nchr2\t900\t1001\t1\n", "line 2: chr2:900-1,001 is no interval on a chromosome of 1,000 bp"),
    "doubled": ("chr1\t0\t200\t1\nchr2\t0\t200\t1\nchr1\t0\t200\t1\n", "line 3: repeats the interval 0-200 of line 1"),
    "doubled, other spelling": ("chr1\t0\t200\t1\n1\t0\t200\t1\n", "calls chr1 by two names"),
    "overlap": ("chr1\t100\t200\t1\nchr1\t0\t150\t2\n", "line 1: 100-200 overlaps another row"),
    "overlap off the grid": ("chr1\t10\t210\t1\nchr1\t60\t260\t2\n", "line 2: 60-260 overlaps another row"),
    "strangers": ("chrQ\t0\t50\t1\n", "names chromosomes such as 'chrQ'"),
}


@pytest.mark.parametrize("kind", sorted(BAD))
@pytest.mark.parametrize("chunk_bytes", [8, 1 << 24])
def test_bad_files_are_one_clear_error(tmp_path, monkeypatch, kind, chunk_bytes):
    monkeypatch.setattr(portions, "_PORTION_BYTES", chunk_bytes)
    text, words = BAD[kind]
    path = tmp_path / "x.bed"
    if text is not None:
        save(path, text)
    with pytest.raises(InputError, match=words) as caught:
        Predictions.open(path, ASSEMBLY)
    assert "x.bed" in caught.value.message


def test_a_truncated_gzip_and_a_false_bigwig(tmp_path):
    (tmp_path / "x.bed.gz").write_bytes(gzip.compress(b"chr1\t0\t50\t1\n" * 99)[:-9])
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        Predictions.open(tmp_path / "x.bed.gz", ASSEMBLY)
    with pytest.raises(InputError, match="is not a bigWig"):
        Predictions.open(save(tmp_path / "x.bw", "chr1\t0\t50\t1\n"), ASSEMBLY)
    with pytest.raises(InputError, match="is a folder"):
        Predictions.open(tmp_path, ASSEMBLY)


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("CTCF.K562.bw", "CTCF.K562.ebert.json"),
        ("CTCF.K562.narrowPeak", "CTCF.K562.ebert.json"),
        ("CTCF.IMR-90.v2.bed.gz", "CTCF.IMR-90.v2.ebert.json"),
        ("F.CTCF.PC-3.tab.gz", "CTCF.PC-3.ebert.json"),
        ("odd", "odd.ebert.json"),
    ],
)
def test_sidecar_lies_beside(name, beside):
    assert sidecar_path(Path("p") / name) == Path("p") / beside


def make_predictions(folder, stem="CTCF.K562", **changes):
    path = save(folder / f"{stem}.bed.gz", "chr1\t0\t200\t1\n")
    body = {"tf": "CTCF", "cell": "K562", "files": {path.name: file_entry(path)}, **changes}
    manifest = build_manifest("predictions", PREDICTIONS_FORMAT, body) | changes
    sidecar_path(path).write_text(json.dumps(manifest))
    return path


def test_sidecar_is_read_and_checked(tmp_path):
    path = make_predictions(tmp_path)
    assert read_sidecar(path)["tf"] == "CTCF"
    assert read_sidecar(save(tmp_path / "CTCF.K562.bedGraph", "")) is None  # not one of its files
    assert read_sidecar(save(tmp_path / "other.bw", "")) is None
    assert read_sidecar(Path("-")) is None
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="does not match the digest"):
        read_sidecar(path)
    os.truncate(path, size - 1)
    with pytest.raises(InputError, match="the manifest says"):
        read_sidecar(path)


@pytest.mark.parametrize(
    ("changes", "words"), [({"format_version": 99}, "format version 99"), ({"kind": "model"}, "holds a model")]
)
def test_sidecar_of_another_version_or_kind(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        read_sidecar(make_predictions(tmp_path, **changes))


TRAINED = {"tfs": ["CTCF"], "cells": ["K562"], "regions": [["chr1", 0, 9]], "window_bp": 9}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tf": 5}, "5 is no text"),
        ({"cell": None}, "None is no text"),
        ({"assembly": "hg19"}, "'str' object"),
        ({"files": None}, "'NoneType' object"),
        ({"files": {"CTCF.K562.bed.gz": {}}}, "no 'bytes'"),
        ({"files": {"CTCF.K562.bed.gz": {"bytes": "9", "sha256": ""}}}, "'9' is no whole number"),
        ({"trained_on": 5}, "'int' object"),
        ({"trained_on": {"tfs": ["CTCF"]}}, "no 'cells'"),
        ({"trained_on": TRAINED | {"cells": [None]}}, "None is no text"),
        ({"trained_on": TRAINED | {"regions": [["chr1", 0]]}}, "not enough values"),
        ({"trained_on": TRAINED | {"regions": [["chr1", 0, "9"]]}}, "'9' is no whole number"),
        ({"trained_on": TRAINED | {"window_bp": None}}, "None is no whole number"),
        ({"pretrained_on": {"cells": [], "regions": [5]}}, "int object"),
    ],
)
def test_a_damaged_sidecar_is_explained(tmp_path, changes, words):
    path = make_predictions(tmp_path, **changes)
    for read in (lambda: read_sidecar(path), lambda: find_predictions(tmp_path)):
        with pytest.raises(InputError, match=words) as caught:
            read()
        assert caught.value.message.startswith(f"{sidecar_path(path)}: is damaged (")
        assert "`ebert predict`" in caught.value.hint


def test_a_sidecar_without_a_name(tmp_path):
    path = make_predictions(tmp_path)
    manifest = json.loads(sidecar_path(path).read_text())
    del manifest["tf"]
    sidecar_path(path).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"is damaged \(no 'tf'\)"):
        read_sidecar(path)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_of_a_bigwig_are_refused(tmp_path, value):
    with pyBigWig.open(str(tmp_path / "x.bw"), "w") as handle:
        handle.addHeader([("chr1", LENGTH)])
        handle.addEntries("chr1", 0, values=np.float32([0.5] * 20 + [value] + [0.5] * 20), span=50, step=50)
    with pytest.raises(InputError, match="has an infinite value near chr1:") as caught:
        scores(tmp_path / "x.bw", placement="mean")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["chr1,0,200,1\n", "chr1\t0\t200\n", "chr1 0 200 1\n"])
def test_a_file_without_a_score_column_says_what_to_do(tmp_path, text):
    with pytest.raises(InputError, match="expected chrom, start, end and a score") as caught:
        scores(save(tmp_path / "x.tab", text))
    assert caught.value.hint.startswith("separate the columns with tabs")


def test_find_predictions(tmp_path):
    second = make_predictions(tmp_path, "MAX.K562")
    entry = {"bytes": 1, "sha256": ""}
    first = make_predictions(tmp_path, "CTCF.K562", files={"CTCF.K562.narrowPeak": entry, "CTCF.K562.bw": entry})
    save(tmp_path / "stray.bed", "")
    (tmp_path / "x.ebert.json").write_text('{"kind": "model"}')
    assert find_predictions(tmp_path) == [first.with_name("CTCF.K562.bw"), second]
    assert find_predictions(tmp_path / "nowhere") == []
