"""BED and narrowPeak read against an assembly: names reconciled, rows dropped and told, faults named by line."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.regions import Region
from ebert_core.io.bed import merged_regions, read_bin_regions, read_peaks, read_regions, read_rows, reading_notes

ASSEMBLY = Assembly(("chr1", "chr2", "chrM"), (1_000, 730, 50))
HG19 = Assembly(("chr20", "chr21"), (63025520, 48129895))


@pytest.fixture
def bed(tmp_path):
    def write(content, name="a.bed"):
        path = tmp_path / name
        path.write_text(content)
        return path

    return write


def test_rows_stay_in_file_order(bed):
    rows = read_rows(bed("chr2\t5\t10\tx\nchr1\t700\t701\ty\nchr2\t0\t730\tz\n"), ASSEMBLY, num_columns=4)
    assert rows.chrom.tolist() == [1, 0, 1]
    assert rows.starts.tolist() == [5, 700, 0]
    assert rows.ends.tolist() == [10, 701, 730]
    assert [rows.table.text(row, 3) for row in rows.row] == ["x", "y", "z"]
    assert reading_notes(rows) == []


def test_names_are_reconciled_and_the_user_is_told(bed):
    rows = read_rows(bed("1\t5\t10\nMT\t0\t50\n2\t1\t2\n"), ASSEMBLY)
    assert rows.chrom.tolist() == [0, 2, 1]
    assert any("1 -> chr1" in note and "reconciled" in note for note in reading_notes(rows))


def test_rows_elsewhere_are_dropped_counted_and_told(bed):
    names = ["chr9"] * 3 + ["chrUn"] + [f"chr1{i}" for i in range(5)]
    rows = read_rows(bed("chr1\t5\t10\n" + "".join(f"{name}\t1\t2\n" for name in names) + "chr2\t3\t4\n"), ASSEMBLY)
    assert rows.starts.tolist() == [5, 3]
    assert rows.dropped == {"chr9": 3, "chrUn": 1, **{f"chr1{i}": 1 for i in range(5)}}
    (note,) = reading_notes(rows)
    assert note.startswith("a.bed: 9 rows lie on chromosomes that the genome lacks (chr10, chr11, chr12, chr13 and 3 ")


@pytest.mark.parametrize(
    ("rows", "line", "problem"),
    [
        ("chr1\t5\t5\n", 1, "end 5 is not beyond start 5"),
        ("chr1\t1\t2\nchr1\t10\t5\n", 2, "end 5 is not beyond start 10"),
        ("#x\nchr1\t-5\t10\n", 2, "start is -5, expected 0 or more"),
        ("chr1\t5\t1001\n", 1, "end 1,001 is past the end of chr1 (1,000 bp)"),
        ("2\t0\t731\n", 1, "end 731 is past the end of chr2 (730 bp)"),
        ("chr1\t0\t99999999999999999\n", 1, "is past the end of chr1"),
        # Faults on chromosomes that are left out count too: the file is broken.
        ("chr1\t1\t2\nchr9\t5\t5\n", 2, "end 5 is not beyond start 5"),
        ("chr1\tx\t10\n", 1, "start is 'x', expected a whole number"),
        ("chr1\t1\t\n", 1, "end is '', expected a whole number"),
        ("chr1\t1\n", 1, "has 2 column(s), expected at least 3"),
    ],
)
def test_a_broken_row_is_named(bed, rows, line, problem):
    path = bed(rows)
    with pytest.raises(InputError) as caught:
        read_rows(path, ASSEMBLY)
    assert caught.value.line == line
    assert problem in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_the_chromosomes_end_is_the_last_accepted(bed):
    assert read_rows(bed("chr2\t729\t730\nchrM\t0\t50\n"), ASSEMBLY).ends.tolist() == [730, 50]


def test_another_assembly_is_guessed_from_the_ends(bed):
    path = bed("chr20\t100\t64444167\nchr21\t5\t46709983\n")
    with pytest.raises(InputError, match="its lengths look like hg38") as caught:
        read_rows(path, HG19)
    assert caught.value.line == 1
    assert "hg19" in caught.value.hint


@pytest.mark.parametrize("content", ["", "\n", "#chrom\tstart\tend\n", "track name=x\n"])
def test_a_file_of_no_rows(bed, content):
    with pytest.raises(InputError, match="has no data lines"):
        read_rows(bed(content), ASSEMBLY)


def test_no_shared_chromosome_shows_both_sides(bed):
    with pytest.raises(InputError) as caught:
        read_rows(bed("chrX\t1\t2\nchrY\t1\t2\n"), ASSEMBLY)
    assert "(chr1, chr2, chrM)" in caught.value.message
    assert "chrX, chrY" in caught.value.message
    assert caught.value.hint


NARROW_PEAK = (
    "chr2\t50\t90\tp\t0\t.\t7.5\t-1\t-1\t20\n"
    "chr1\t300\t500\tq\t0\t.\t2.5\t-1\t-1\t7\n"
    "chr2\t10\t70\tr\t0\t.\t1\t-1\t-1\t3\n"
)


def test_narrow_peaks_are_sorted_within_their_chromosome(bed):
    peaks = read_peaks(bed(NARROW_PEAK, "a.narrowPeak"), ASSEMBLY)
    assert peaks.on("chr2")[0].tolist() == [10, 50]
    assert peaks.on("chr2")[1].tolist() == [70, 90]
    assert peaks.signal["chr2"].tolist() == [1.0, 7.5]
    assert peaks.signal["chr1"].tolist() == [2.5]
    assert [array.tolist() for array in peaks.on("chrM")] == [[], []]
    assert peaks.chroms == {"chr1", "chr2"}
    assert len(peaks) == 3


@pytest.mark.parametrize(
    ("name", "columns", "signal"),
    [
        ("a.narrowPeak.gz", ["x", "0", ".", "8.5", "-1", "-1", "2"], 8.5),
        ("a.bed", ["x", "0", ".", "8.5", "-1", "-1", "2"], 8.5),  # narrowPeak by its ten columns
        ("a.broadPeak", ["x", "0", ".", "8.5", "-1", "-1"], 8.5),
        ("a.bed", ["x", "0", ".", "8.5", "-1", "-1", "2", *["0"] * 10], 8.5),  # the IDR program's 20 columns
        # Columns 7 and 8 of BED8 to BED12 are thickStart and thickEnd.
        ("a.bed", ["x", "0", ".", "500", "600", "255,0,0"], 1.0),
        ("a.bed", ["x", "0", ".", "500", "600", "0", "1", "100", "0"], 1.0),
        ("a.bed", [], 1.0),
        ("a.bed", ["x", "900"], 1.0),
    ],
    ids=["narrowPeak", "bed-of-10", "broadPeak", "idr", "bed9", "bed12", "bed3", "bed5"],
)
def test_where_the_signal_stands(tmp_path, name, columns, signal):
    path = tmp_path / name
    content = "\t".join(["chr1", "500", "600", *columns]).encode() + b"\n"
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read_peaks(path, ASSEMBLY).signal["chr1"].tolist() == [signal]


def test_a_signal_that_is_no_number(bed):
    with pytest.raises(InputError, match="line 2: signalValue is 'high', expected a number"):
        read_peaks(bed(NARROW_PEAK.replace("2.5", "high"), "a.narrowPeak"), ASSEMBLY)


def test_regions_in_file_order(bed):
    regions, notes = read_regions(bed("2\t5\t10\nchr1\t0\t1000\nchrX\t1\t2\n"), ASSEMBLY)
    assert regions == [Region("chr2", 5, 10), Region("chr1", 0, 1_000)]
    assert len(notes) == 2


INTERVALS = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 99)), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(INTERVALS, min_size=1, max_size=3))
def test_merged_regions_cover_what_the_files_cover(tmp_path, files):
    paths = []
    for number, pairs in enumerate(files):
        paths.append(tmp_path / f"{number}.bed")
        paths[-1].write_text("".join(f"chr1\t{start}\t{start + width}\n" for start, width in pairs))
    union, notes = merged_regions(paths, ASSEMBLY)
    covered = np.zeros(1_000, dtype=bool)
    for pairs in files:
        for start, width in pairs:
            covered[start : start + width] = True
    found = np.zeros(1_000, dtype=int)
    for start, end in zip(*union["chr1"], strict=True):
        found[start:end] += 1
    np.testing.assert_array_equal(found, covered.astype(int))
    assert notes == []
    assert set(union) == {"chr1"}


def test_no_file_is_no_region():
    assert merged_regions([], ASSEMBLY) == ({}, [])


def test_regions_of_bins(bed):
    regions, notes = read_bin_regions(bed("2\t500\t700\nchr1\t600\t1000\nchr1\t0\t250\nchrQ\t7\t9\n"), ASSEMBLY)
    assert {chrom: [edge.tolist() for edge in edges] for chrom, edges in regions.items()} == {
        "chr1": [[0, 600], [250, 1000]],
        "chr2": [[500], [700]],
    }
    assert "2 -> chr2" in notes[0]
    assert "1 rows lie on chromosomes that the genome lacks (chrQ)" in notes[1]


@pytest.mark.parametrize(
    ("rows", "line", "problem"),
    [
        ("", None, "has no data lines"),
        ("chrQ\t0\t200\n", None, "has no row on the genome's chromosomes"),
        ("#\nchr1\t0\t200\nchr1\t300\t450\n", 3, "region 300-450 is shorter than a bin (200 bp)"),
        ("chr1\t0\t200\nchr1\t310\t610\n", 2, "region 310-610 begins at no multiple of 50"),
        ("chr1\t0\t210\n", 1, "region 0-210 is no multiple of 50 bp long"),
        ("chr2\t0\t250\nchr1\t500\t900\nchr1\t0\t550\n", 3, "region 0-550 overlaps 500-900 of line 2"),
        ("chr1\t0\t200\nchr1\t0\t200\n", 2, "region 0-200 overlaps 0-200 of line 1"),
        ("chr1\t500\t1050\n", 1, "end 1,050 is past the end of chr1 (1,000 bp)"),
    ],
)
def test_regions_that_bins_cannot_tile(bed, rows, line, problem):
    with pytest.raises(InputError) as caught:
        read_bin_regions(bed(rows), ASSEMBLY)
    assert caught.value.line == line
    assert problem in caught.value.message
    assert caught.value.hint
