"""Accessibility tracks: the mean of every stride base by base, and peaks against the same values in a bigWig."""

from __future__ import annotations

import numpy as np
import pyBigWig
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.epigenome.accessibility import cut_track, mean_per_stride, read_accessibility
from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly

ASSEMBLY = Assembly(("chr1", "chr2", "tiny"), (1_000, 777, 30))
PEAKS = st.lists(st.tuples(st.integers(0, 700), st.integers(1, 77), st.floats(0.01, 500)), min_size=1, max_size=6)

# Chromosome, place on a grid of 45 bp, width, value: no two overlap.
SEPARATE_PEAK = st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 15), st.integers(1, 40), st.floats(0.5, 99))


def base_by_base(peaks, length):
    signal = np.zeros(length)
    for start, end, value in peaks:
        signal[start:end] += value
    return signal


def per_stride(signal):
    return np.pad(signal, (0, -len(signal) % 50)).reshape(-1, 50).mean(axis=1)


def write_peaks(path, rows):
    path.write_text("".join(f"{c}\t{s}\t{e}\t.\t0\t.\t{v!r}\t-1\t-1\t0\n" for c, s, e, v in rows))
    return path


def write_bigwig(path, rows, sizes=ASSEMBLY):
    with pyBigWig.open(str(path), "w") as handle:
        handle.addHeader(list(zip(sizes.chroms, sizes.lengths, strict=True)))
        for chrom, start, end, value in rows:
            handle.addEntries([chrom], [start], ends=[end], values=[value])
    return path


@given(PEAKS, st.integers(16, 20))
def test_mean_per_stride_equals_brute_force(triples, strides):
    peaks = [(start, start + width, value) for start, width, value in triples]
    arrays = [np.array(column) for column in zip(*peaks, strict=True)]
    means = mean_per_stride(*arrays, strides)
    expected = per_stride(base_by_base(peaks, 1_000))[:strides]
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-6)
    assert (means[expected == 0] == 0).all(), "exactly nothing outside peaks"
    assert (means >= 0).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(SEPARATE_PEAK, min_size=1, max_size=8, unique_by=lambda peak: peak[:2]))
def test_peaks_and_a_bigwig_of_the_same_values_give_the_same_track(tmp_path, drawn):
    rows = sorted(
        (chrom, 45 * place, 45 * place + width, float(np.float32(value))) for chrom, place, width, value in drawn
    )
    from_peaks, notes = read_accessibility(write_peaks(tmp_path / "a.narrowPeak", rows), ASSEMBLY)
    from_bigwig, _ = read_accessibility(write_bigwig(tmp_path / "a.bw", rows), ASSEMBLY)
    np.testing.assert_allclose(from_peaks, from_bigwig, rtol=2e-3)  # float16 keeps 11 bits
    assert notes == []

    expected = []
    for chrom, length in zip(ASSEMBLY.chroms, ASSEMBLY.lengths, strict=True):
        means = per_stride(base_by_base([row[1:] for row in rows if row[0] == chrom], length))
        expected += [*np.log1p(means), *[0.0] * (-len(means) % 4)]
    np.testing.assert_allclose(from_bigwig, expected, rtol=2e-3)
    assert from_peaks.dtype == np.float16
    assert from_peaks.shape == (ASSEMBLY.flat_bp // 50,)


def test_peaks_without_a_signal_are_one_inside(tmp_path):
    path = tmp_path / "a.bed"
    path.write_text("chr1\t100\t125\nchr1\t150\t200\n")
    track, _ = read_accessibility(path, ASSEMBLY)
    np.testing.assert_allclose(track[:6], np.log1p([0, 0, 0.5, 1, 0, 0]), rtol=1e-3)


def test_a_short_last_stride_counts_as_whole(tmp_path):
    # The tiny sequence has 30 of its stride's 50 bp; what is beyond its end has no signal.
    path = write_peaks(tmp_path / "a.narrowPeak", [("tiny", 0, 30, 10.0)])
    track, _ = read_accessibility(path, ASSEMBLY)
    assert track[ASSEMBLY.offset("tiny") // 50] == pytest.approx(np.log1p(6.0), rel=1e-3)
    assert np.count_nonzero(track) == 1


def test_a_bigwig_longer_than_one_window_is_read_whole(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [("chr1", start, start + 17, float(rng.integers(1, 9))) for start in range(0, 980, 20)]
    path = write_bigwig(tmp_path / "a.bigWig", rows)
    whole, _ = read_accessibility(path, ASSEMBLY)
    monkeypatch.setattr("ebert_core.epigenome.accessibility._WINDOW_BP", 150)
    pieces, _ = read_accessibility(path, ASSEMBLY)
    np.testing.assert_array_equal(whole, pieces)
    assert np.count_nonzero(whole) == 20


def test_a_large_signal_far_along_leaves_no_dust(tmp_path):
    rows = [("chr1", start, start + 10, 1e5 / 3) for start in range(0, 900, 30)]
    track, _ = read_accessibility(write_peaks(tmp_path / "a.narrowPeak", rows), ASSEMBLY)
    assert (track[18:20] == 0).all()


def test_names_without_chr_are_reconciled(tmp_path):
    other = Assembly(("1", "2"), (1_000, 777))
    track, notes = read_accessibility(write_bigwig(tmp_path / "a.bw", [("2", 0, 50, 3.0)], other), ASSEMBLY)
    assert track[ASSEMBLY.offset("chr2") // 50] == pytest.approx(np.log1p(3), rel=1e-3)
    assert "no values on tiny" in notes[0]


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "-0.5"])
def test_a_signal_that_cannot_be_is_refused(tmp_path, value):
    path = tmp_path / "a.narrowPeak"
    path.write_text(f"chr1\t5\t10\t.\t0\t.\t2\t-1\t-1\t0\nchr1\t50\t90\t.\t0\t.\t{value}\t-1\t-1\t0\n")
    with pytest.raises(InputError, match=f"signalValue of {float(value):g} on chr1") as caught:
        read_accessibility(path, ASSEMBLY)
    assert caught.value.hint


@pytest.mark.parametrize("value", [-2.0, float("inf")])
def test_a_bigwig_value_that_cannot_be_is_refused(tmp_path, value):
    with pytest.raises(InputError, match=f"has a value of {value:g} on chr1"):
        read_accessibility(write_bigwig(tmp_path / "a.bw", [("chr1", 5, 10, value)]), ASSEMBLY)


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        (Assembly(("chr1",), (1_001,)), "says chr1 has 1,001 bp, the genome has 1,000"),
        (Assembly(("chrX",), (1_000,)), "shares no chromosome with the genome"),
    ],
)
def test_a_bigwig_of_another_assembly_is_refused(tmp_path, sizes, problem):
    path = write_bigwig(tmp_path / "a.bw", [(sizes.chroms[0], 5, 10, 1.0)], sizes)
    with pytest.raises(InputError, match=problem):
        read_accessibility(path, ASSEMBLY)


def test_what_is_called_bigwig_and_is_none(tmp_path):
    path = tmp_path / "a.bw"
    path.write_text("chr1\t5\t10\n")
    with pytest.raises(InputError, match="is not a bigWig"):
        read_accessibility(path, ASSEMBLY)


def write_bam(path, starts, sizes=ASSEMBLY):
    """Reads of 20 bp on the forward strand: chromosome -> their starts."""
    header = pysam.AlignmentHeader.from_references(list(sizes.chroms), list(sizes.lengths))
    with pysam.AlignmentFile(str(path), "wb", header=header) as handle:
        for index, chrom in enumerate(sizes.chroms):
            for start in sorted(starts.get(chrom, [])):
                read = pysam.AlignedSegment(header)
                read.query_name, read.query_sequence, read.cigarstring = "read", "A" * 20, "20M"
                read.reference_id, read.reference_start, read.mapping_quality = index, start, 30
                handle.write(read)
    return path


def test_cuts_are_scaled_to_one_per_stride(tmp_path):
    starts = {"chr1": [0, 10, 49, 50, 900], "chr2": [776 - 20, 100, 101]}
    track, notes = read_accessibility(write_bam(tmp_path / "a.bam", starts), ASSEMBLY)
    counts = np.zeros(ASSEMBLY.flat_bp // 50)
    for chrom, places in starts.items():
        for place in places:
            counts[(ASSEMBLY.offset(chrom) + place) // 50] += 1
    strides = 20 + 16  # of chr1 and chr2; tiny holds no cut
    assert (track.dtype, track.shape) == (np.float16, counts.shape)
    np.testing.assert_allclose(track, np.log1p(counts * strides / 8), rtol=1e-3)
    assert "a.bam: 8 cuts" in notes[0]
    assert "no cut on tiny" in notes[1]


def test_depth_cancels_and_replicates_add_up(tmp_path):
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, 980, size=60).tolist()
    once = write_bam(tmp_path / "once.bam", {"chr1": drawn, "chr2": [5]})
    thrice = write_bam(tmp_path / "thrice.bam", {"chr1": drawn * 3, "chr2": [5] * 3})
    first = write_bam(tmp_path / "first.bam", {"chr1": drawn[:23], "tiny": []})
    second = write_bam(tmp_path / "second.bam", {"chr1": drawn[23:], "chr2": [5]})
    track, _ = read_accessibility(once, ASSEMBLY)
    np.testing.assert_array_equal(track, read_accessibility(thrice, ASSEMBLY)[0])
    np.testing.assert_array_equal(track, cut_track([first, second], ASSEMBLY)[0])
    np.testing.assert_array_equal(track, cut_track([once, thrice], ASSEMBLY)[0])


def test_mitochondrial_reads_do_not_count_towards_the_depth(tmp_path):
    assembly = Assembly(("chr1", "chrM"), (1_000, 500))
    few = write_bam(tmp_path / "few.bam", {"chr1": [10, 20, 700], "chrM": [5]}, assembly)
    many = write_bam(tmp_path / "many.bam", {"chr1": [10, 20, 700], "chrM": [5] * 90}, assembly)
    tracks = [read_accessibility(path, assembly)[0] for path in (few, many)]
    np.testing.assert_array_equal(tracks[0][:20], tracks[1][:20])
    assert tracks[1][20] > tracks[0][20] > 0
    with pytest.raises(InputError, match="mitochondrial chromosome only"):
        read_accessibility(write_bam(tmp_path / "m.bam", {"chrM": [5]}, assembly), assembly)
