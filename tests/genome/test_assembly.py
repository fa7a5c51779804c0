"""Chromosome names, and the flat axis that chromosomes are laid on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.assembly import Assembly, likely_assembly, synonyms

LENGTHS = st.lists(st.integers(1, 2_000), min_size=1, max_size=8)
HG19_TAIL = [("chr20", 63025520), ("chr21", 48129895), ("chr22", 51304566)]


def numbered(lengths):
    return Assembly.from_sizes((f"chr{i}", length) for i, length in enumerate(lengths, start=1))


@given(LENGTHS)
def test_chromosomes_follow_each_other_on_multiples_of_200(lengths):
    assembly = numbered(lengths)
    assert (assembly.offsets % 200 == 0).all()
    gaps = np.diff(assembly.offsets) - lengths
    assert ((gaps >= 0) & (gaps < 200)).all(), "a tail is padded to 200 bp, and by no more"
    assert assembly.flat_bp == assembly.offsets[-1]


@given(LENGTHS)
def test_every_base_has_one_flat_position_and_comes_back_from_it(lengths):
    assembly = numbered(lengths)
    seen = np.zeros(assembly.flat_bp, dtype=int)
    for index, (chrom, length) in enumerate(zip(assembly.chroms, lengths, strict=True)):
        positions = np.arange(length)
        flat = assembly.offset(chrom) + positions
        seen[flat] += 1
        chrom_index, position = assembly.locate(flat)
        assert (chrom_index == index).all()
        np.testing.assert_array_equal(position, positions)
    assert seen.max() == 1
    assert seen.sum() == sum(lengths)


@pytest.mark.parametrize(
    ("asked", "held", "meets"),
    [
        ("1", "chr1", True),
        ("chr1", "1", True),
        ("chr1", "chr1", True),
        ("MT", "chrM", True),
        ("chrM", "MT", True),
        ("M", "chrMT", True),
        ("chrMT", "M", True),
        ("X", "chrX", True),
        ("chrX", "Y", False),
        ("Chr1", "chr1", False),
        ("chr1_random", "chr1", False),
        ("chr", "chr1", False),
        ("", "chr1", False),
    ],
)
def test_spellings_that_meet(asked, held, meets):
    assembly = Assembly((held,), (1_000,))
    assert assembly.resolve(asked) == (held if meets else None)
    if meets:
        assert assembly.require([asked]) == [held]
    else:
        with pytest.raises(UnknownNameError, match="unknown chromosome"):
            assembly.require([asked])


def test_an_exact_name_goes_before_its_synonym():
    assembly = Assembly(("chr1", "1"), (10, 20))
    assert assembly.require(["1", "chr1"]) == ["1", "chr1"]


@given(st.text(alphabet="chrMTX12_", max_size=8))
def test_synonyms_are_mutual_and_never_the_name_itself(name):
    assert name not in synonyms(name)
    assert all(name in synonyms(other) for other in synonyms(name))


def test_an_unknown_chromosome_names_what_there_is():
    assembly = Assembly.from_sizes(HG19_TAIL)
    with pytest.raises(UnknownNameError) as caught:
        assembly.length("chr2O")
    assert "'chr2O'" in caught.value.message
    assert "chr20" in caught.value.hint


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [([("chr1", 5), ("chr2", 6), ("chr1", 5)], "chromosome chr1 is given twice"), ([("chr1", 0)], "at least 1 bp")],
)
def test_refused_sizes(sizes, problem):
    with pytest.raises(EbertError, match=problem) as caught:
        Assembly.from_sizes(sizes)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        (HG19_TAIL, "hg19"),
        ([*HG19_TAIL, ("chrUn", 17)], "hg19"),
        ([("chr21", 46709983)], "hg38"),
        ([("chr1", 195471971)], "mm10"),
        # Two assemblies mixed are neither.
        ([("chr20", 63025520), ("chr21", 46709983)], "custom"),
        ([("chr1", 1_000)], "custom"),
        ([("toy", 1_000)], "custom"),
    ],
)
def test_the_name_is_told_from_the_lengths(sizes, name):
    assert Assembly.from_sizes(sizes).name == name


def test_the_digest_depends_on_names_lengths_and_order():
    assemblies = [
        Assembly.from_sizes(sizes)
        for sizes in (HG19_TAIL, HG19_TAIL[:2], HG19_TAIL[::-1], [("chr20", 63025521), *HG19_TAIL[1:]])
    ]
    assert len({assembly.digest for assembly in assemblies}) == len(assemblies)
    assert Assembly.from_sizes(list(HG19_TAIL)).digest == assemblies[0].digest


def test_clash():
    hg19 = Assembly.from_sizes(HG19_TAIL)
    assert hg19.clash(Assembly.from_sizes(HG19_TAIL[1:])) == ""
    assert hg19.clash(Assembly.from_sizes([("chr1", 249250621)])) == "", "both are hg19"
    assert "chr21 has 48,129,895 bp in one" in hg19.clash(Assembly.from_sizes([("chr21", 46709983)]))
    assert "share no chromosome" in hg19.clash(Assembly.from_sizes([("toy", 5)]))
    assert "share no chromosome" in Assembly.from_sizes([("a", 5)]).clash(Assembly.from_sizes([("b", 5)]))


def test_likely_assembly_is_the_one_with_the_most_agreeing_lengths():
    assert likely_assembly({"chr20": 64444167, "chr21": 46709983, "chr1": 7}) == "hg38"
    assert likely_assembly({"chr20": 5}) == ""
    assert likely_assembly({}) == ""


def test_json_describes_the_whole_assembly():
    described = Assembly.from_sizes(HG19_TAIL).to_json()
    assert described["name"] == "hg19"
    assert described["chroms"] == [list(pair) for pair in HG19_TAIL]
    assert Assembly.from_sizes(described["chroms"]).digest == described["digest"]


def test_a_built_in_assembly_needs_no_file():
    hg19 = Assembly.built_in("hg19")
    assert hg19.name == "hg19"
    assert len(hg19.chroms) == 23
    assert [(chrom, hg19.length(chrom)) for chrom, _ in HG19_TAIL] == HG19_TAIL
    with pytest.raises(UnknownNameError, match="unknown built-in assembly 'hg18'") as caught:
        Assembly.built_in("hg18")
    assert "hg19" in caught.value.hint
