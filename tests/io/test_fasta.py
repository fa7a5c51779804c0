"""FASTA in every packing, against pyfaidx; indices that are missing, stale or damaged; reading after a fork."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import shutil
import textwrap

import numpy as np
import pyfaidx
import pysam
import pytest

from ebert_core.errors import EbertError, InputError
from ebert_core.io.fasta import Fasta, count_ambiguous
from ebert_core.vocabulary import decode_bases

RNG = np.random.default_rng(5)
LETTERS = {
    name: "".join(RNG.choice(list(alphabet), size=length))
    for name, alphabet, length in (
        ("chr1", "ACGT", 4_321),
        ("chr2", "ACGTNacgtn", 777),
        ("short", "ACGTRYKMSWBDHVN", 37),
    )
}


def write_plain(path, letters, width=60, end="\n"):
    lines = (f">{name} remark{end}{end.join(textwrap.wrap(text, width))}{end}" for name, text in letters.items())
    path.write_bytes("".join(lines).encode())
    return path


def write_bgzip(path, letters):
    plain = write_plain(path.with_suffix(".plain"), letters)
    pysam.tabix_compress(str(plain), str(path), force=True)
    plain.unlink()
    return path


def expected_codes(text):
    return ["ACGT".find(letter.upper()) if letter.upper() in "ACGT" else 4 for letter in text]


def read_all(path):
    with Fasta(path) as fasta:
        return {chrom: fasta.codes(chrom) for chrom in fasta.assembly.chroms}


def make_older(path, than):
    """Set a file's time to before that of another."""
    stat = than.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9))


@pytest.mark.parametrize("kind", ["plain", "one-line", "crlf", "bgzip", "no-last-newline"])
def test_every_packing_gives_the_same_codes(tmp_path, kind):
    path = tmp_path / "a.fa"
    if kind == "bgzip":
        path = write_bgzip(tmp_path / "a.fa.gz", LETTERS)
    else:
        write_plain(path, LETTERS, 10_000 if kind == "one-line" else 60, "\r\n" if kind == "crlf" else "\n")
        if kind == "no-last-newline":
            path.write_bytes(path.read_bytes()[:-1])
    codes = read_all(path)
    assert list(codes) == list(LETTERS)
    for chrom, text in LETTERS.items():
        assert codes[chrom].tolist() == expected_codes(text)
        assert codes[chrom].dtype == np.uint8
    assert count_ambiguous(codes["chr2"]) == sum(letter in "Nn" for letter in LETTERS["chr2"])


def test_equals_pyfaidx(tmp_path):
    path = write_plain(tmp_path / "a.fa", LETTERS)
    ours = read_all(path)
    copy = shutil.copy(path, tmp_path / "copy.fa")
    with pyfaidx.Fasta(str(copy), sequence_always_upper=True, strict_bounds=True) as other:
        assert list(ours) == list(other.keys())
        for chrom, codes in ours.items():
            theirs = "".join(letter if letter in "ACGT" else "N" for letter in other[chrom][:].seq)
            assert decode_bases(codes) == theirs


@pytest.mark.parametrize("write", [write_plain, write_bgzip])
def test_an_index_is_never_written_beside_the_genome(tmp_path, write):
    path = write(tmp_path / "a.fa.gz", LETTERS)
    read_all(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_temporary_index_is_removed(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path = write_plain(tmp_path / "a.fa", LETTERS)
    with Fasta(path):
        assert list(temporary.iterdir()), "the index is built in the temporary folder"
    assert not list(temporary.iterdir())
    path.write_bytes(b">\nACGT\n")
    with pytest.raises(InputError):
        Fasta(path)
    assert not list(temporary.iterdir())


def test_a_current_index_is_used(tmp_path, monkeypatch):
    path = write_bgzip(tmp_path / "a.fa.gz", LETTERS)
    pysam.faidx(str(path))
    monkeypatch.setattr("ebert_core.io.fasta._build_index", lambda *_: pytest.fail("there is an index"))
    assert read_all(path)["chr1"].tolist() == expected_codes(LETTERS["chr1"])


@pytest.mark.parametrize("change", ["wrapped anew", "longer", "shorter", "records swapped"])
def test_an_index_older_than_its_genome_is_not_believed(tmp_path, change):
    path = write_plain(tmp_path / "a.fa", LETTERS)
    pysam.faidx(str(path))
    letters = dict(LETTERS)
    if change == "longer":
        letters["chr1"] += "ACGT" * 20
    elif change == "shorter":
        letters["chr1"] = letters["chr1"][:-77]
    elif change == "records swapped":
        letters = dict(reversed(LETTERS.items()))
    write_plain(path, letters, width=50 if change == "wrapped anew" else 60)
    make_older(tmp_path / "a.fa.fai", path)
    assert {chrom: codes.tolist() for chrom, codes in read_all(path).items()} == {
        chrom: expected_codes(text) for chrom, text in letters.items()
    }


def test_a_foreign_index_that_looks_current_is_refused(tmp_path):
    path = write_plain(tmp_path / "a.fa", LETTERS)
    pysam.faidx(str(path))
    write_plain(path, LETTERS, width=50)
    make_older(path, tmp_path / "a.fa.fai")
    with pytest.raises(InputError, match="no nucleotide letter") as caught:
        read_all(path)
    assert ".fai" in caught.value.hint


def test_an_index_of_a_longer_file_is_refused(tmp_path, capfd):
    path = write_plain(tmp_path / "a.fa", LETTERS)
    pysam.faidx(str(path))
    path.write_bytes(path.read_bytes()[:-500])
    make_older(path, tmp_path / "a.fa.fai")
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert caught.value.hint
    assert capfd.readouterr().err == "", "htslib's own words stay away"


@pytest.mark.parametrize("content", [b"garbage\n", b"chr1\tx\n"])
def test_a_damaged_index_is_named(tmp_path, content, capfd):
    path = write_plain(tmp_path / "a.fa", LETTERS)
    (tmp_path / "a.fa.fai").write_bytes(content)
    with pytest.raises(InputError, match="or its index") as caught:
        Fasta(path)
    assert "delete the index" in caught.value.hint
    assert capfd.readouterr().err == ""


def test_an_empty_index_counts_as_none(tmp_path):
    path = write_plain(tmp_path / "a.fa", LETTERS)
    (tmp_path / "a.fa.fai").touch()
    assert list(read_all(path)) == list(LETTERS)


def test_plain_gzip_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(write_plain(tmp_path / "a.fa", LETTERS).read_bytes()))
    with pytest.raises(InputError, match="is gzip, which cannot be read at random places") as caught:
        Fasta(path)
    assert f"gunzip -c {path} | bgzip" in caught.value.hint


@pytest.mark.parametrize("kept", [0.3, 0.9, -28])
def test_truncated_bgzip_is_refused(tmp_path, kept, capfd):
    whole = write_bgzip(tmp_path / "a.fa.gz", {"chr1": "".join(RNG.choice(list("ACGT"), size=200_000))})
    content = whole.read_bytes()
    whole.write_bytes(content[: kept if kept < 0 else int(kept * len(content))])
    with pytest.raises(InputError) as caught:
        read_all(whole)
    assert str(whole) in caught.value.message
    assert caught.value.hint
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"", None, "is empty"),
        (b"chr1\t0\t5\n", 1, "does not look like FASTA"),
        (b"\n>chr1\nACGT\n", 1, "does not look like FASTA"),
        (b"@SRR1\nACGT\n+\nIIII\n", 1, "does not look like FASTA"),
        (b">chr1\nACGT\n>chr1\nGG\n", None, "has two sequences named 'chr1'"),
        (b">\nACGT\n", None, "a sequence without a name"),
        (b">chr1\n", 2, "cannot be indexed (File truncated)"),
        (b">chr1\nACGTA\nACG\nACGTA\n", 4, "cannot be indexed"),
        (b">chr1\nACGTA\n\nACGTA\n", 4, "cannot be indexed"),
        (b">chr1\nAC1T\n", None, "has '1' at chr1:2, which is no nucleotide letter"),
        (b">sp\nMKTLLILAVE\n", None, "has 'L' at sp:3"),
        (b">chr1\nAC\xffT\n", None, "cannot be read at chr1"),
    ],
)
def test_what_is_no_fasta(tmp_path, capfd, content, line, problem):
    path = tmp_path / "a.fa"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert problem in caught.value.message
    assert caught.value.line == line
    assert caught.value.hint
    assert capfd.readouterr().err == ""


def test_a_missing_file_and_an_unknown_chromosome(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        Fasta(tmp_path / "a.fa")
    with Fasta(write_plain(tmp_path / "a.fa", LETTERS)) as fasta, pytest.raises(EbertError, match="unknown chromosome"):
        fasta.codes("chr3")


def _digest_in_child(arguments):
    path, chrom = arguments
    with Fasta(path) as fasta:
        return hashlib.sha256(fasta.codes(chrom).tobytes()).hexdigest()


@pytest.mark.parametrize("write", [write_plain, write_bgzip])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_processes_that_open_their_own_handle_read_the_same(tmp_path, write):
    path = write(tmp_path / "a.fa.gz", LETTERS)
    with Fasta(path) as fasta:
        expected = {chrom: hashlib.sha256(fasta.codes(chrom).tobytes()).hexdigest() for chrom in LETTERS}
        asked = [(path, chrom) for _ in range(20) for chrom in LETTERS]
        with multiprocessing.get_context("fork").Pool(4) as pool:
            found = pool.map(_digest_in_child, asked, chunksize=1)
        assert found == [expected[chrom] for _, chrom in asked]
        assert hashlib.sha256(fasta.codes("chr1").tobytes()).hexdigest() == expected["chr1"], "the parent's goes on"


@pytest.mark.real
def test_real_chromosomes_equal_pysam_pieces(real_data):
    path = real_data / "genome" / "hg19.chr20_21_22.fa.gz"
    with Fasta(path) as fasta, pysam.FastaFile(str(path)) as other:
        codes = fasta.codes("chr21")
        assert fasta.assembly.name == "hg19"
        for start in (0, 9_411_100, 14_000_000, 48_129_800):
            piece = other.fetch("chr21", start, start + 300)
            assert codes[start : start + 300].tolist() == expected_codes(piece)
