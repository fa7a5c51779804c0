"""Segmentations laid on the flat axis: bin by bin against brute force, and every fault a file may have."""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.epigenome.state_tracks import detect_shared_model, read_segmentation, read_state_track
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly

MODEL = BUILT_IN["roadmap18"]
# A chromosome of whole bins, one that ends within a bin, one shorter than a bin.
ASSEMBLY = Assembly(("chr1", "chr2", "chr3"), (2_000, 1_350, 150))


@pytest.fixture
def bed(tmp_path):
    def write(content, name="a.bed"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
        return path

    return write


@st.composite
def segmentations(draw):
    """Disjoint segments on 200-bp bins, some places left out, in any order."""
    segments = []
    for chrom, length in zip(ASSEMBLY.chroms, ASSEMBLY.lengths, strict=True):
        cuts = draw(st.lists(st.integers(0, -(-length // 200)), unique=True).map(sorted))
        for first, last in itertools.pairwise(cuts):
            if draw(st.booleans()):
                segments.append((chrom, 200 * first, min(200 * last, length), draw(st.integers(1, 18))))
    return draw(st.permutations(segments))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(segmentations().filter(len), st.sampled_from(["{0.label}", "{0.name}", "E{0.number}", "{0.number}"]))
def test_every_bin_has_the_state_of_its_segment(bed, segments, spelling):
    rows = [f"{c}\t{s}\t{e}\t{spelling.format(MODEL.states[number - 1])}\n" for c, s, e, number in segments]
    track = read_state_track(bed("".join(rows)), ASSEMBLY, MODEL)

    expected = []
    for chrom, length in zip(ASSEMBLY.chroms, ASSEMBLY.lengths, strict=True):
        for start in range(0, length, 200):
            expected.append(next((n for c, s, e, n in segments if c == chrom and s <= start < e), 0))
    assert track.codes.tolist() == expected
    assert track.codes.dtype == np.uint8
    assert track.uncovered_bins == expected.count(0)
    assert track.notes == []


@pytest.mark.parametrize(
    "content",
    [
        "chr1\t0\t400\t1_TssA\nchr2\t1200\t1350\t18_Quies\n",
        "track name=x\n#c\nchr1\t0\t400\t1_TssA\t0\t.\t0\t400\t255,0,0\n"
        "chr2\t1200\t1350\t18_Quies\t0\t.\t1200\t1350\t1,1,1\n",
        "chr1\t0\t400\tE1\r\nchr2\t1200\t1350\tE18\r\n",
        "2\t1200\t1350\tU18\n1\t0\t400\tU1\n",
        "chr1\t0\t400\t1_TssA\nchr2\t1200\t1350\t18_Quies\nchr9\t0\t100\tOther\n",
    ],
    ids=["mnemonics", "dense", "segments", "no-chr", "whole-genome"],
)
@pytest.mark.parametrize("name", ["a.bed", "a.bed.gz"])
def test_every_kind_of_file_gives_the_same_track(bed, content, name):
    codes = read_state_track(bed(content, name), ASSEMBLY, MODEL).codes
    assert np.flatnonzero(codes).tolist() == [0, 1, 16]
    assert codes[[0, 1, 16]].tolist() == [1, 1, 18]


def test_the_last_segment_may_end_with_the_chromosome(bed):
    codes = read_state_track(bed("chr3\t0\t150\t2_TssFlnk\nchr2\t1000\t1350\t5_Tx\n"), ASSEMBLY, MODEL).codes
    assert codes[10:].tolist() == [0] * 5 + [5, 5] + [2]


@pytest.mark.parametrize(
    ("rows", "line", "problem"),
    [
        ("chr1\t0\t400\t1_TssA\nchr1\t200\t600\t5_Tx\n", 2, "segment 200-600 overlaps an earlier one"),
        ("chr1\t200\t600\t1_TssA\nchr1\t0\t400\t5_Tx\n", 1, "segment 200-600 overlaps an earlier one"),
        ("chr1\t0\t400\t1_TssA\nchr1\t0\t400\t1_TssA\n", 2, "segment 0-400 overlaps an earlier one"),
        ("chr1\t0\t2000\t1_TssA\nchr1\t200\t400\t5_Tx\nchr1\t600\t800\t5_Tx\n", 2, "overlaps"),
        ("chr1\t0\t350\t1_TssA\n", 1, "segment 0-350 does not lie on 200-bp bins"),
        ("chr1\t100\t400\t1_TssA\n", 1, "segment 100-400 does not lie on 200-bp bins"),
        ("chr1\t0\t200\t1_TssA\nchr2\t1250\t1350\t1_TssA\n", 2, "segment 1,250-1,350 does not lie on 200-bp bins"),
        # ChromHMM may run a last bin past the end; the field's files do not, and nothing may lie beyond the end.
        ("chr2\t1200\t1400\t1_TssA\n", 1, "end 1,400 is past the end of chr2 (1,350 bp)"),
        (
            "chr1\t0\t200\t1_TssA\nchr1\t200\t400\tActive\n",
            2,
            "state 'Active' is not one of the 18 states of roadmap18",
        ),
        ("chr1\t0\t200\t15_Quies\n", 1, "state '15_Quies' is not one of the 18 states"),
        ("chr1\t0\t200\t1_TssA\nchr1\t200\t400\n", 2, "has 3 columns, expected a state name in column 4"),
        ("chr1\t0\t200\t\n", 1, "state '' is not one"),
        ("chr1\t-200\t0\t1_TssA\n", 1, "start is -200"),
        ("chr1\t200\t200\t1_TssA\n", 1, "end 200 is not beyond start 200"),
        ("", None, "has no data lines"),
        ("chr9\t0\t200\t1_TssA\n", None, "has no row on the genome's chromosomes"),
    ],
)
def test_a_broken_segmentation_is_named_by_line(bed, rows, line, problem):
    with pytest.raises(InputError) as caught:
        read_state_track(bed(rows), ASSEMBLY, MODEL)
    assert caught.value.line == line
    assert problem in caught.value.message
    assert caught.value.hint


def test_segments_that_touch_do_not_overlap(bed):
    codes = read_state_track(bed("chr1\t200\t400\tE2\nchr1\t0\t200\tE1\nchr1\t400\t600\tE2\n"), ASSEMBLY, MODEL).codes
    assert codes[:4].tolist() == [1, 2, 2, 0]


def test_equal_places_on_two_chromosomes_do_not_overlap(bed):
    codes = read_state_track(bed("chr1\t0\t200\tE1\nchr2\t0\t200\tE2\n"), ASSEMBLY, MODEL).codes
    assert codes[[0, 10]].tolist() == [1, 2]


def test_dropped_and_renamed_chromosomes_are_told(bed):
    track = read_state_track(bed("1\t0\t200\tE1\nchrUn\t0\t200\tE1\n"), ASSEMBLY, MODEL)
    assert len(track.notes) == 2
    assert track.uncovered_bins == len(track.codes) - 1


def test_the_model_that_all_files_share(bed):
    one = read_segmentation(bed("chr1\t0\t200\t1_TssA\n", "one.bed"), ASSEMBLY)
    two = read_segmentation(bed("chr1\t0\t200\t18_Quies\n", "two.bed"), ASSEMBLY)
    assert detect_shared_model([one, two], []) == MODEL


@pytest.mark.parametrize("order", [1, -1])
def test_mixed_models_name_both_files(bed, order):
    files = [
        read_segmentation(bed("chr1\t0\t200\t15_Quies\n", "fifteen.bed"), ASSEMBLY),
        read_segmentation(bed("chr1\t0\t200\t18_Quies\n", "eighteen.bed"), ASSEMBLY),
    ][::order]
    with pytest.raises(InputError) as caught:
        detect_shared_model(files, [])
    assert "fifteen.bed" in caught.value.message
    assert "eighteen.bed" in caught.value.message
    assert "roadmap15" in caught.value.message
    assert "roadmap18" in caught.value.message
    assert "one state model" in caught.value.hint


def test_a_name_of_no_model_is_named_by_file_and_line(bed):
    good = read_segmentation(bed("chr1\t0\t200\t18_Quies\n", "good.bed"), ASSEMBLY)
    odd = read_segmentation(bed("chr1\t0\t200\t18_Quies\nchr1\t200\t400\t1_TsA\n", "odd.bed"), ASSEMBLY)
    with pytest.raises(InputError) as caught:
        detect_shared_model([good, odd], [])
    assert caught.value.line == 2
    assert "odd.bed" in caught.value.message
    assert "'1_TsA' is not one of the 18 states of roadmap18" in caught.value.message


def test_three_files_that_fit_pairwise_only_are_refused(bed):
    texts = {
        "a.bed": "chr1\t0\t200\t1_TssA\n",
        "b.bed": "chr1\t0\t200\t15_Quies\n",
        "c.bed": "chr1\t0\t200\t18_Quies\n",
    }
    files = [read_segmentation(bed(text, name), ASSEMBLY) for name, text in texts.items()]
    with pytest.raises(EbertError):
        detect_shared_model(files, [])
