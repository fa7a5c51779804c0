"""Cuts of a BAM file: read by read against the obvious count, and against bedtools."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.io.alignments import read_cuts

ASSEMBLY = Assembly(("chr1", "chr2", "tiny"), (1_000, 777, 30))
SIZES = {"chr1": 1_000, "chr2": 777, "chrUn": 500}
PAIRED, REVERSE, SECONDARY, FAILED, DUPLICATE, SUPPLEMENTARY = 0x1, 0x10, 0x100, 0x200, 0x400, 0x800

# CIGAR -> bases of the reference that it covers.
CIGARS = {"36M": 36, "5S20M11S": 20, "10M3D26M": 39, "10M3I23M": 33, "12M40N24M": 76}


def write_bam(path: Path, reads, sizes=SIZES) -> Path:
    """Write (chromosome, start, CIGAR, flag, mapping quality) rows, sorted; without a chromosome it is unmapped."""
    header = pysam.AlignmentHeader.from_dict(
        {"HD": {"VN": "1.6"}, "SQ": [{"SN": name, "LN": length} for name, length in sizes.items()]}
    )
    order = list(sizes)
    mapped = sorted((row for row in reads if row[0]), key=lambda row: (order.index(row[0]), row[1]))
    with pysam.AlignmentFile(str(path), "wb", header=header) as handle:
        for number, (chrom, start, cigar, flag, quality) in enumerate([*mapped, *(r for r in reads if not r[0])]):
            read = pysam.AlignedSegment(header)
            read.query_name, read.query_sequence = f"read{number}", "A" * 36
            read.flag = flag if chrom else flag | 0x4
            if chrom:
                read.reference_id, read.reference_start = order.index(chrom), start
                read.cigarstring, read.mapping_quality = cigar, quality
            handle.write(read)
    return path


def counted_one_by_one(reads) -> dict[str, np.ndarray]:
    cuts = {chrom: np.zeros(length, dtype=int) for chrom, length in SIZES.items()}
    for chrom, start, cigar, flag, quality in reads:
        if chrom and quality >= 10 and not flag & (SECONDARY | FAILED | DUPLICATE | SUPPLEMENTARY):
            cuts[chrom][start + CIGARS[cigar] - 1 if flag & REVERSE else start] += 1
    return cuts


FLAGS = st.sampled_from([0, 0, REVERSE, PAIRED | 0x40, PAIRED | 0x80 | REVERSE, SECONDARY, FAILED, DUPLICATE, 0x800])
READS = st.lists(
    st.tuples(
        st.sampled_from(["chr1", "chr2", "chrUn", None]), st.integers(0, 400), st.sampled_from(list(CIGARS)),
        FLAGS, st.sampled_from([0, 9, 10, 37, 255]),
    ),
    max_size=25,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(READS)
def test_cuts_are_the_first_bases_of_good_reads(tmp_path, drawn):
    reads = [*drawn, ("chr1", 3, "36M", 0, 30)]
    cuts = read_cuts(write_bam(tmp_path / "a.bam", reads), ASSEMBLY)
    expected = counted_one_by_one(reads)
    for chrom, length in (("chr1", 1_000), ("chr2", 777)):
        first = ASSEMBLY.offset(chrom) // 50
        per_stride = np.pad(expected[chrom], (0, -length % 50)).reshape(-1, 50).sum(axis=1)
        np.testing.assert_array_equal(cuts.per_stride[first : first + len(per_stride)], per_stride)
    kept = int(expected["chr1"].sum() + expected["chr2"].sum())
    assert cuts.per_stride.sum() == kept
    assert cuts.elsewhere == expected["chrUn"].sum()
    assert kept + cuts.elsewhere + cuts.flagged + cuts.uncertain == len(reads)


@pytest.mark.skipif(shutil.which("bedtools") is None, reason="bedtools is not on this machine")
def test_cuts_equal_those_of_bedtools(tmp_path):
    rng = np.random.default_rng(4)
    cigars = list(CIGARS)
    reads = [
        (["chr1", "chr2"][rng.integers(2)], int(rng.integers(0, 690)), cigars[rng.integers(5)],
         int(rng.choice([0, 16])), 30) for _ in range(400)
    ]  # fmt: skip
    path = write_bam(tmp_path / "a.bam", reads)
    command = ["bedtools", "genomecov", "-5", "-dz", "-ibam", str(path)]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = np.zeros(ASSEMBLY.flat_bp // 50, dtype=int)
    for row in rows:
        chrom, place, count = row.split("\t")
        expected[(ASSEMBLY.offset(chrom) + int(place)) // 50] += int(count)
    assert expected.sum() == len(reads)
    np.testing.assert_array_equal(read_cuts(path, ASSEMBLY).per_stride, expected)


def test_both_mates_of_a_pair_count(tmp_path):
    pair = [("chr1", 120, "36M", 0x1 | 0x2 | 0x20 | 0x40, 30), ("chr1", 260, "36M", 0x1 | 0x2 | 0x10 | 0x80, 30)]
    cuts = read_cuts(write_bam(tmp_path / "a.bam", pair), ASSEMBLY)
    assert np.flatnonzero(cuts.per_stride).tolist() == [120 // 50, 295 // 50]


def test_an_index_is_not_needed_and_a_wrong_one_does_no_harm(tmp_path):
    path = write_bam(tmp_path / "a.bam", [("chr1", 10, "36M", 0, 30), ("chr2", 400, "36M", 16, 30)])
    plain = read_cuts(path, ASSEMBLY).per_stride
    pysam.index(str(path))
    indexed = read_cuts(path, ASSEMBLY).per_stride
    other = write_bam(tmp_path / "b.bam", [("chr2", 1, "36M", 0, 30)] * 9)
    pysam.index(str(other))
    shutil.copy(tmp_path / "b.bam.bai", tmp_path / "a.bam.bai")
    np.testing.assert_array_equal(plain, indexed)
    np.testing.assert_array_equal(plain, read_cuts(path, ASSEMBLY).per_stride)


def test_more_reads_than_are_held_at_once(tmp_path, monkeypatch):
    reads = [("chr1", 7 * place, "36M", 16 * (place % 2), 30) for place in range(100)]
    path = write_bam(tmp_path / "a.bam", reads)
    whole = read_cuts(path, ASSEMBLY).per_stride
    monkeypatch.setattr("ebert_core.io.alignments._READS_AT_ONCE", 7)
    np.testing.assert_array_equal(read_cuts(path, ASSEMBLY).per_stride, whole)
    assert whole.sum() == 100


def test_names_without_chr_are_reconciled(tmp_path):
    path = write_bam(tmp_path / "a.bam", [("2", 60, "36M", 0, 30)], {"1": 1_000, "2": 777})
    assert np.flatnonzero(read_cuts(path, ASSEMBLY).per_stride).tolist() == [ASSEMBLY.offset("chr2") // 50 + 1]


GOOD = [("chr1", 10, "36M", 0, 30)]
HG38 = {"chr20": 64_444_167, "chr21": 46_709_983}


@pytest.mark.parametrize(
    ("reads", "sizes", "problem"),
    [
        (GOOD, {"chr1": 1_001}, "says chr1 has 1,001 bp, the genome has 1,000"),
        (GOOD, {"chr1": 1_000, "1": 1_000}, "names chr1 twice"),
        ([("chrX", 10, "36M", 0, 30)], {"chrX": 1_000}, "shares no chromosome with the genome; it names chrX"),
        ([], SIZES, "has no read to count on the genome's chromosomes"),
        ([("chr1", 10, "36M", 0, 9), ("chrUn", 10, "36M", 0, 30), (None, 0, "", 0, 0)], SIZES,
         r"left out: 1 flagged, 1 of low mapping quality, 1 elsewhere"),
        ([("chr1", 990, "36M", 16, 30)], SIZES, r"a read ends at 1,025, beyond the end of chr1"),
    ],
)  # fmt: skip
def test_a_bam_that_cannot_be_counted(tmp_path, reads, sizes, problem):
    with pytest.raises(InputError, match=problem) as caught:
        read_cuts(write_bam(tmp_path / "a.bam", reads, sizes), ASSEMBLY)
    assert caught.value.hint
    assert str(tmp_path / "a.bam") in caught.value.message


def test_another_assembly_is_named(tmp_path):
    hg19 = Assembly.from_sizes([("chr20", 63_025_520)])
    with pytest.raises(InputError, match="the genome has 63,025,520; its lengths look like hg38"):
        read_cuts(write_bam(tmp_path / "a.bam", [("chr20", 10, "36M", 0, 30)], HG38), hg19)


def many_reads(path):
    """A BAM of several compressed blocks."""
    rng = np.random.default_rng(0)
    return write_bam(path, [("chr1", int(start), "36M", 0, 30) for start in rng.integers(0, 900, size=3_000)])


@pytest.mark.parametrize("damage", ["no end", "half", "byte", "header only"])
def test_a_damaged_bam(tmp_path, damage, capfd):
    path = many_reads(tmp_path / "a.bam")
    content = bytearray(path.read_bytes())
    if damage == "no end":
        content = content[:-28]
    elif damage == "half":
        content = content[: len(content) // 2] + content[-28:]
    elif damage == "byte":
        content[len(content) // 2] ^= 0xFF
    else:
        content = content[:40] + content[-28:]
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"truncated|damaged") as caught:
        read_cuts(path, ASSEMBLY)
    assert "again" in caught.value.hint
    assert capfd.readouterr() == ("", ""), "htslib keeps silent"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"@HD\tVN:1.6\n", "is no BAM file but something else"),
        (gzip.compress(b"chr1\t1\t2\n"), "is no BAM file but gzip"),
        (b"CRAM\x03\x00" + b"\0" * 40, "is no BAM file but CRAM"),
    ],
)
def test_what_is_no_bam(tmp_path, content, problem):
    path = tmp_path / "a.bam"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        read_cuts(path, ASSEMBLY)


def test_a_bgzip_file_that_is_no_bam(tmp_path):
    (tmp_path / "a.txt").write_text("chr1\t1\t2\n")
    pysam.tabix_compress(str(tmp_path / "a.txt"), str(tmp_path / "a.bam"))
    with pytest.raises(InputError, match="is no BAM file but other bgzip"):
        read_cuts(tmp_path / "a.bam", ASSEMBLY)


def test_a_header_of_several_blocks(tmp_path):
    names = np.random.default_rng(1).permutation(100_000)
    path = write_bam(tmp_path / "a.bam", GOOD, {"chr1": 1_000, **{f"scaffold_{name}": 500 for name in names[:9_000]}})
    assert read_cuts(path, ASSEMBLY).per_stride.sum() == 1
    content = path.read_bytes()
    path.write_bytes(content[:30_000] + content[-28:])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_cuts(path, ASSEMBLY)
