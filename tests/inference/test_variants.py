"""Variants: judged one by one, and scored as a model scores a genome that was rewritten as text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ebert_core.artifacts import sha256_of
from ebert_core.config import FusionConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import Batch
from ebert_core.errors import EbertError, InputError, OutputExistsError
from ebert_core.genome.regions import Region
from ebert_core.inference import alleles, variants
from ebert_core.inference.alleles import Judge, Variant, survey
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.rescore import Changes, model_rescore
from ebert_core.inference.scan import ScanGeometry
from ebert_core.inference.variant_files import VariantOutputs, VariantRequest, score_variants
from ebert_core.inference.variants import VariantScorer
from ebert_core.inference.windows import ChromReader, Layout, bins_over
from ebert_core.io.vcf import VcfFile, VcfRecord
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.vocabulary import encode_bases, reverse_complement
from tests.inference.plain import plain_rescore

HEAD = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}


@pytest.fixture(scope="module")
def cell(toy_dataset: Dataset) -> CellStates:
    return CellStates("HepG2", toy_dataset.flat_states("HepG2"), "dataset")


@pytest.fixture(scope="module")
def blocky(model: LoadedModel) -> LoadedModel:
    """A model whose encoder reads blocks, so that its windows may begin at any of them."""
    torch.manual_seed(11)
    shape = BindingShape(FusionConfig(width=16, num_layers=3, encoder_bp=400))
    module = BindingModel(Encoder(model.module.encoder.config, 18), 2, shape)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return replace(model, members=(module.eval(),))


@pytest.fixture(params=["model", "blocky"])
def any_model(request: pytest.FixtureRequest) -> LoadedModel:
    return request.getfixturevalue(request.param)


def scorer_of(model: LoadedModel, device: Device, columns: list[int]) -> VariantScorer:
    """Of both strands."""
    return VariantScorer(model_rescore(model.members, device, both_strands=True), columns, Layout.of(model))


@pytest.fixture
def judge(toy_dataset: Dataset, model: LoadedModel, cell: CellStates) -> Judge:
    return Judge(toy_dataset, model, cell)


def record(chrom: str, position: int, ref: str, *alts: str) -> VcfRecord:
    return VcfRecord(
        3, chrom, position, ".", ref, alts, f"{chrom}\t{position + 1}\t.\t{ref}\t{','.join(alts)}\t.\t.\t."
    )


# --- which alleles can be scored


def test_an_allele_is_trimmed_and_laid_on_its_bins(judge: Judge, toy_files) -> None:
    letters = toy_files.sequences["chr1"].upper()
    at = 5_010
    ref = letters[at : at + 6]
    (found,) = judge.alleles(record("1", at, ref, ref[:3] + OTHER[ref[3]] + ref[4:]))
    assert isinstance(found, Variant)
    assert (found.start, len(found.ref), len(found.alt)) == (at + 3, 1, 1)
    assert found.reader.chrom == "chr1"
    # 4,800 ends where 5,000 begins, before the variant; 5,000 is the last that begins before its end.
    assert found.bins.tolist() == [4_850 // 50, 4_900 // 50, 4_950 // 50, 5_000 // 50]


REASONS = {
    "no alternative": ("chr1", 5_000, None, (), []),
    "symbolic": ("chr1", 5_000, None, ("<DEL>", "<*>"), [alleles.SYMBOLIC] * 2),
    "breakend": ("chr1", 5_000, None, ("A[chr2:7[", "]chr2:7]A", ".A", "A."), [alleles.BREAKEND] * 4),
    "star": ("chr1", 5_000, None, ("*",), [alleles.STAR]),
    "ambiguous alternative": ("chr1", 5_000, None, ("R", "N"), [alleles.AMBIGUOUS] * 2),
    "ambiguous reference": ("chr1", 5_000, "N", ("A", "C"), [alleles.AMBIGUOUS] * 2),
    "unknown chromosome": ("chr9", 5_000, "A", ("C", "<DEL>"), [alleles.UNKNOWN_CHROM] * 2),
    "telomere": ("chr1", -1, "A", ("C",), [alleles.BEYOND]),
    "beyond": ("chr1", 60_000, "A", ("C",), [alleles.BEYOND]),
    "over the end": ("chr1", 59_999, "AA", ("C",), [alleles.BEYOND]),
    "n": ("chr1", 20_500, "A", ("C",), [alleles.GENOME_N]),
    "excluded": ("chr1", 40_500, None, ("?",), [alleles.NO_BIN]),
    "behind the last bin": ("chr2", 41_300, None, ("?",), [alleles.NO_BIN]),
    "short contig": ("chrShort", 70, None, ("?",), [alleles.NO_BIN]),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_scored_is_told(judge: Judge, toy_files, name: str) -> None:
    chrom, at, ref, alts, expected = REASONS[name]
    ref = ref or toy_files.sequences[chrom][at].upper()
    found = list(judge.alleles(record(chrom, at, ref, *(OTHER[ref] if alt == "?" else alt for alt in alts))))
    assert found == expected


def test_the_reference_is_held_against_the_genome(judge: Judge, toy_files) -> None:
    base = toy_files.sequences["chr2"][500].upper()
    wrong, third = OTHER[base], OTHER[OTHER[base]]
    assert list(judge.alleles(record("chr2", 500, wrong, third, base))) == [alleles.MISMATCH, alleles.SWAPPED]
    (good,) = judge.alleles(record("2", 500, base.lower(), wrong.lower()))
    assert isinstance(good, Variant)


@pytest.mark.parametrize(("num", "fits"), [(50, True), (51, False)])
@pytest.mark.parametrize("kind", ["insertion", "deletion", "replacement"])
def test_the_longest_indel(judge: Judge, toy_files, kind: str, num: int, fits: bool) -> None:
    letters = toy_files.sequences["chr1"].upper()
    ref = letters[7_000 : 7_001 if kind == "insertion" else 7_001 + num]
    # Differs from its neighbours, so that nothing but the anchor is shared.
    long = "".join(OTHER[each] for each in letters[7_001 : 7_001 + num])
    alt = {"insertion": ref + long, "deletion": ref[0], "replacement": OTHER[ref[0]] + long}[kind]
    (found,) = judge.alleles(record("chr1", 7_000, ref, alt))
    assert isinstance(found, Variant) if fits else found == alleles.LONG


@given(st.text("ACGT", min_size=1, max_size=9), st.text("ACGT", min_size=1, max_size=9))
def test_trimming_changes_nothing_but_the_spelling(ref: str, alt: str) -> None:
    left, right = alleles._shared_ends(encode_bases(ref.encode()), encode_bases(alt.encode()))
    own, other = ref[left : len(ref) - right], alt[left : len(alt) - right]
    assert ref[:left] + own + ref[len(ref) - right :] == ref
    assert ref[:left] + other + ref[len(ref) - right :] == alt
    assert own
    assert other
    if len(own) > 1 and len(other) > 1:
        assert own[0] != other[0]
        assert own[-1] != other[-1]


@given(st.integers(0, 999), st.integers(1, 60), st.integers(200, 1_400))
def test_bins_over_an_allele(start: int, num: int, length: int) -> None:
    num_bins = (length - 200) // 50 + 1
    expected = [b for b in range(num_bins) if 50 * b < start + num and 50 * b + 200 > start]
    assert bins_over(start, start + num, num_bins).tolist() == expected


# --- what a whole file holds


def vcf_of(folder: Path, *rows: tuple) -> VcfFile:
    path = folder / "x.vcf"
    lines = [f"{chrom}\t{at + 1}\tid{n}\t{ref}\t{alt}\t.\tPASS\tAF=1\n" for n, (chrom, at, ref, alt) in enumerate(rows)]
    path.write_text(HEAD + "".join(lines))
    return VcfFile(path)


def snvs(toy_files, places: list[int], chrom: str = "chr1") -> list[tuple]:
    bases = [toy_files.sequences[chrom][at].upper() for at in places]
    return [(chrom, at, base, OTHER[base]) for at, base in zip(places, bases, strict=True)]


def test_the_survey_counts(judge: Judge, toy_files, tmp_path: Path) -> None:
    rows = [
        *snvs(toy_files, [300, 5_000, 5_001]),
        ("chr1", 300, "A", "."),
        ("chr1", 300, "A", "<DEL>,*"),
        ("GL000", 1, "A", "C"),
    ]
    wrong = [(chrom, at, OTHER[OTHER[ref]], OTHER[OTHER[OTHER[ref]]]) for chrom, at, ref, _ in rows[:1]]
    found = survey(vcf_of(tmp_path, *rows, *wrong), judge, "custom")
    assert (found.num_records, found.num_alleles, found.num_variants) == (7, 7, 3)
    fault = alleles.UNKNOWN_CHROM
    expected = {alleles.NO_ALT: 1, fault: 1, alleles.MISMATCH: 1}
    reasons = dict(found.skipped)
    # Whether REF is right matters before ALT is looked at only where the whole record cannot be read.
    assert {reason: reasons[reason] for reason in expected} == expected
    assert reasons[alleles.SYMBOLIC] == reasons[alleles.STAR] == 1
    assert (found.checked, found.mismatching) == (4, 1)
    assert found.examples[fault] == 8


def turned(rows: list[tuple]) -> list[tuple]:
    return [(chrom, at, alt, ref) for chrom, at, ref, alt in rows]


def test_another_assembly_is_one_error(judge: Judge, toy_files, tmp_path: Path) -> None:
    good = snvs(toy_files, [300, 400, 500])
    wrong = [(chrom, at, OTHER[ref], OTHER[OTHER[ref]]) for chrom, at, ref, _ in snvs(toy_files, [600, 700, 800])]
    assert survey(vcf_of(tmp_path, *good, *wrong), judge, "hg19").mismatching == 3
    with pytest.raises(
        InputError, match="3 of 5 reference alleles are not the genome's \\(hg19\\), the first in line 5"
    ):
        survey(vcf_of(tmp_path, *good[:2], *wrong), judge, "hg19")
    with pytest.raises(InputError) as caught:
        survey(vcf_of(tmp_path, *good[:2], *turned(snvs(toy_files, [600, 700, 800]))), judge, "hg19")
    assert "REF and ALT are swapped" in caught.value.hint


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no variant"),
        ([("chr1", 3, "A", "<DEL>"), ("chrZ", 3, "A", "C")], "has no allele that can be scored: 1 "),
    ],
)
def test_nothing_to_score(judge: Judge, tmp_path: Path, rows: list[tuple], says: str) -> None:
    with pytest.raises(InputError, match=says):
        survey(vcf_of(tmp_path, *rows), judge, "hg19")


# --- scores


def with_text(toy_files, dataset: Dataset, model: LoadedModel, allele: tuple, start: int, window_bp: int) -> np.ndarray:
    """Logits of the window at `start` of a chromosome that is rewritten as text, both strands, (bins, T)."""
    chrom, at, ref, alt = allele
    letters = toy_files.sequences[chrom]
    assert letters[at : at + len(ref)].upper() == ref
    text = "N" * 4_000 + letters[:at] + alt + letters[at + len(ref) :] + "N" * 4_000
    bases = encode_bases(text[4_000 + start : 4_000 + start + window_bp].encode())
    states = np.concatenate([np.zeros(20), dataset.states("HepG2", chrom), np.zeros(20)]).astype(np.uint8)
    shown = states[20 + start // 200 : 20 + (start + window_bp) // 200]
    with torch.inference_mode():
        one = model.module(torch.from_numpy(bases)[None], torch.from_numpy(shown)[None])[0]
        back = torch.from_numpy(reverse_complement(bases).copy())[None]
        other = model.module(back, torch.from_numpy(shown[::-1].copy())[None])[0]
    return ((one + other.flip(0)) / 2).numpy()


CASES = ["snv", "insertion", "deletion", "long deletion", "replacement", "first bases", "last bases", "beside N"]


def case(toy_files, name: str) -> tuple:
    chrom, at, old, new = {
        "snv": ("chr1", 5_013, 1, 1),
        "insertion": ("chr2", 7_149, 1, 21),
        "deletion": ("chr1", 31_001, 8, 1),
        "long deletion": ("chr1", 12_349, 51, 1),
        "replacement": ("chr2", 30_000, 3, 5),
        "first bases": ("chr1", 0, 1, 30),
        "last bases": ("chr2", 41_298, 30, 1),
        "beside N": ("chr1", 19_990, 4, 1),
    }[name]
    ref = toy_files.sequences[chrom][at : at + old].upper()
    alt = (OTHER[ref[0]] if old == new or name == "replacement" else ref[0]) + "ACGTTGCATA" * 5
    return chrom, at, ref, alt[:new]


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_a_rewritten_genome(
    toy_files, toy_dataset: Dataset, any_model: LoadedModel, device: Device, judge: Judge, name: str
) -> None:
    allele = case(toy_files, name)
    (variant,) = judge.alleles(record(*allele[:3], allele[3]))
    assert isinstance(variant, Variant)
    scorer = scorer_of(any_model, device, [1, 0])
    own, other = scorer.logits([variant])
    for found, alt in ((own, allele[2]), (other, allele[3])):
        best = np.full(2, -np.inf)
        for start, bins in scorer.layout.windows(variant.bins):
            logits = with_text(
                toy_files, toy_dataset, any_model, (*allele[:3], alt), start, scorer.layout.geometry.window_bp
            )
            best = np.maximum(best, logits[bins - start // 50].max(axis=0)[[1, 0]])
        np.testing.assert_allclose(found[0], best, atol=1e-4)
    assert np.abs(own - other).max() > 1e-3


def test_variants_together_are_variants_alone(any_model: LoadedModel, device: Device, judge: Judge, toy_files) -> None:
    rows = [
        *snvs(toy_files, [5_000, 5_007, 33_333]),
        *snvs(toy_files, [777, 41_299], "chr2"),
        *snvs(toy_files, [5_001]),
    ]
    found = [allele for row in rows for allele in judge.alleles(record(*row))]
    scorer = scorer_of(any_model, device, [0, 1])
    together = np.stack(scorer.logits(found), axis=1)
    alone = [np.stack(scorer.logits([each]), axis=1)[0] for each in found]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_same_allele_changes_nothing(any_model: LoadedModel, device: Device, judge: Judge, toy_files) -> None:
    base = toy_files.sequences["chr1"][5_000].upper()
    found = list(judge.alleles(record("chr1", 5_000, base, base)))
    scorer = scorer_of(any_model, device, [0])
    own, other = scorer.logits(found)
    np.testing.assert_allclose(own, other, atol=1e-5)


def test_the_reference_has_the_score_of_predict(
    toy_files,
    toy_dataset: Dataset,
    any_model: LoadedModel,
    device: Device,
    judge: Judge,
    cell: CellStates,
    predict_whole: Callable[..., dict[str, np.ndarray]],
) -> None:
    request = Request(("CTCF",), cell, (Region("chr1", 0, 60_000),))
    whole = predict_whole(toy_dataset, any_model, request, device)["chr1"]
    rows = snvs(toy_files, [0, 1_000, 1_002, 5_013, 23_100, 39_995, 41_160, 59_999])
    found = [allele for row in rows for allele in judge.alleles(record(*row))]
    assert any(len(each.bins) < 4 for each in found)
    own, _ = scorer_of(any_model, device, [0]).logits(found)
    expected = [whole[each.bins, 0].max() for each in found]
    np.testing.assert_allclose(any_model.calibration("CTCF").probabilities(own[:, 0]), expected, rtol=1e-4)


@given(st.integers(0, 12), st.integers(1, 8), st.integers(0, 12), st.integers(1, 40), st.booleans())
def test_the_windows_hold_the_bins_and_their_context(
    context: int, bins_of_grid: int, phase: int, num: int, free: bool
) -> None:
    grid = 200 * bins_of_grid
    layout = Layout(ScanGeometry(2 * context * grid + 2 * grid, context * grid, grid), free)
    bins = 800 + phase + np.arange(num)
    parts = list(layout.windows(bins))
    assert np.concatenate([own for _, own in parts]).tolist() == bins.tolist()
    for start, own in parts:
        assert (start + layout.geometry.context_bp) % grid == 0
        assert start + layout.geometry.context_bp <= own[0] * 50
        assert own[-1] * 50 + 200 + layout.geometry.context_bp <= start + layout.geometry.window_bp
    if free and num * 50 + 150 <= grid:
        assert len(parts) == 1


class Local(torch.nn.Module):
    """A stand-in for a model: a bin's logits depend on its own bases and state only, unlike on either strand."""

    def forward(self, bases: Tensor, states: Tensor, tracks: Tensor | None = None) -> Tensor:
        weights = torch.linspace(-1, 2, 200)
        kinds = torch.tensor([0.1, 0.7, -0.4, 1.3, 0.0, 0.0])
        values = (kinds[bases.long()].unfold(1, 200, 50) * weights).sum(dim=-1)
        strides = states.repeat_interleave(4, dim=1).float().unfold(1, 4, 1).sum(dim=-1)
        return torch.stack([values, values.square() + strides], dim=-1)


def local_score(batch: Batch) -> np.ndarray:
    """Of both strands."""
    back = batch.flipped(np.ones(len(batch.bases), dtype=bool))
    one, other = (Local()(*(torch.from_numpy(x.copy()) for x in (b.bases, b.states))) for b in (batch, back))
    return ((one + other.flip(1)) / 2).numpy()


class Strip(ChromReader):
    """A reader of a chromosome made of arrays."""

    def __init__(self, bases: np.ndarray, states: np.ndarray) -> None:
        self.chrom, self.bases, self.length = "strip", bases, len(bases)
        self.num_bins = (len(bases) - 200) // 50 + 1
        self._states, self._offset, self._tracks, self._cell = states, 0, None, "X"
        self._excluded = (np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.fixture
def strip() -> Strip:
    rng = np.random.default_rng(2)
    return Strip(rng.integers(0, 4, 6_000).astype(np.uint8), rng.integers(0, 19, 30).astype(np.uint8))


def variant_on(strip: Strip, start: int, alt: np.ndarray) -> Variant:
    ref = strip.bases[start : start + len(alt)].copy()
    return Variant(strip, start, ref, alt, bins_over(start, start + len(alt), strip.num_bins))


PLACES = [0, 149, 1_000, 2_549, 3_333, 5_850, 5_998]


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("num", [1, 2])
def test_the_other_strand_gives_the_same(strip: Strip, num: int, free: bool) -> None:
    other = Strip(reverse_complement(strip.bases), strip._states[::-1].copy())
    scorer = VariantScorer(plain_rescore(local_score), [0, 1], Layout(ScanGeometry(2_000, 400), free))
    rng = np.random.default_rng(3)
    new = [rng.integers(0, 4, num).astype(np.uint8) for _ in PLACES]
    here = [variant_on(strip, at, alt) for at, alt in zip(PLACES, new, strict=True)]
    there = [variant_on(other, 6_000 - at - num, reverse_complement(alt)) for at, alt in zip(PLACES, new, strict=True)]
    for own, back in zip(scorer.logits(here), scorer.logits(there), strict=True):
        np.testing.assert_allclose(own, back, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("free", [False, True])
def test_swapped_alleles_negate_the_difference(strip: Strip, free: bool) -> None:
    scorer = VariantScorer(plain_rescore(local_score), [0, 1], Layout(ScanGeometry(2_000, 400), free))
    for at in PLACES:
        there = variant_on(strip, at, (strip.bases[at : at + 2] + 1) % 4)
        changed = strip.bases.copy()
        changed[at : at + 2] = there.alt
        back = variant_on(Strip(changed, strip._states), at, there.ref)
        (a, b), (c, d) = scorer.logits([there]), scorer.logits([back])
        np.testing.assert_array_equal(b - a, -(d - c))
        assert np.abs(b - a).max() > 0


# --- files


@pytest.fixture
def some(toy_files, tmp_path: Path) -> VcfFile:
    places = list(range(300, 39_000, 1_703))
    good = snvs(toy_files, [at for at in places if not 19_900 < at < 23_100])
    mixed = [(chrom, at, ref, f"{alt},<DEL>,{ref}TT") for chrom, at, ref, alt in snvs(toy_files, [900, 1_900], "chr2")]
    return vcf_of(tmp_path, *good, ("chrU", 5, "A", "C"), *mixed, ("chr1", 10, "A", "."))


def score_to(folder: Path, dataset: Dataset, model: LoadedModel, device: Device, vcf: VcfFile, **more: object):
    cell = CellStates("HepG2", dataset.flat_states("HepG2"), "dataset")
    outputs = VariantOutputs(folder / "v.tsv", folder / "v.vcf.gz", None, **more)
    request = VariantRequest(("MAX", "CTCF"), cell)
    return score_variants(dataset, model, request, device, vcf, outputs)


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_the_files_agree(
    some: VcfFile, toy_dataset: Dataset, model: LoadedModel, device: Device, judge: Judge, tmp_path: Path
) -> None:
    found = score_to(tmp_path / "out", toy_dataset, model, device, some)
    head, *rows = rows_of(tmp_path / "out" / "v.tsv")
    assert head[:6] == ["chrom", "pos", "id", "ref", "alt", "tf"]
    assert len(rows) == 2 * found.num_variants
    scorer = scorer_of(model, device, [1, 0])
    expected = {}
    for each in some.records():
        for alt, allele in zip(each.alts, judge.alleles(each), strict=False):
            if isinstance(allele, Variant):
                own, other = scorer.logits([allele])
                for t, tf in enumerate(("MAX", "CTCF")):
                    expected[each.chrom, str(each.position + 1), each.ref, alt, tf] = own[0, t], other[0, t]
    assert [(row[0], row[1], row[3], row[4], row[5]) for row in rows] == list(expected)
    for row, (own, other) in zip(rows, expected.values(), strict=True):
        calibration = model.calibration(row[5])
        before, after = (1 / (1 + np.exp(-calibration.slope * x - calibration.intercept)) for x in (own, other))
        numbers = [float(each) for each in row[6:]]
        np.testing.assert_allclose(numbers, [own, other, other - own, before, after, after - before], atol=2e-4)
    with pysam.VariantFile(str(tmp_path / "out" / "v.vcf.gz")) as handle:
        written = list(handle)
    assert len(written) == found.num_records
    table = {(row[1], row[4], row[5]): row for row in rows}
    for each, tf in itertools.product(written, ("CTCF", "MAX")):
        for suffix, column in (("REF", 9), ("ALT", 10), ("DELTA", 11), ("DELTA_LOGIT", 8)):
            values = each.info.get(f"EBERT_{tf}_{suffix}", [None] * len(each.alts or ()))
            for alt, value in zip(each.alts or (), values, strict=True):
                row = table.get((str(each.pos), alt, tf))
                assert (value is None) == (row is None)
                assert row is None or value == pytest.approx(float(row[column]), rel=1e-5)
    assert [row[6] for row in rows_of(tmp_path / "out" / "v.skipped.tsv")[1:]] == [
        alleles.UNKNOWN_CHROM, alleles.SYMBOLIC, alleles.SYMBOLIC, alleles.NO_ALT,
    ]  # fmt: skip
    told = json.loads((tmp_path / "out" / "v.ebert.json").read_text())
    assert (told["kind"], told["tfs"], told["scored"]) == ("variant scores", ["MAX", "CTCF"], found.num_variants)
    for name, entry in told["files"].items():
        assert sha256_of(tmp_path / "out" / name) == entry["sha256"]
    assert set(told["files"]) == {"v.tsv", "v.vcf.gz", "v.skipped.tsv"}


def test_portions_change_nothing(
    some: VcfFile,
    toy_dataset: Dataset,
    model: LoadedModel,
    device: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score_to(tmp_path / "one", toy_dataset, model, device, some)
    monkeypatch.setattr(variants, "_ALLELES_AT_ONCE", 3)
    score_to(tmp_path / "two", toy_dataset, model, device, some)
    one, two = (rows_of(tmp_path / name / "v.tsv") for name in ("one", "two"))
    assert [row[:6] for row in one] == [row[:6] for row in two]
    numbers = [np.array([row[6:] for row in rows[1:]], float) for rows in (one, two)]
    np.testing.assert_allclose(*numbers, atol=1e-4)


def test_nothing_is_replaced_unasked_and_nothing_half_written(
    some: VcfFile,
    toy_dataset: Dataset,
    model: LoadedModel,
    device: Device,
    tmp_path: Path,
    digest_tree: Callable[[Path], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "out"
    score_to(folder, toy_dataset, model, device, some)
    before = digest_tree(folder)
    with pytest.raises(OutputExistsError):
        score_to(folder, toy_dataset, model, device, some)

    def broken(changes: Changes) -> tuple[np.ndarray, np.ndarray]:
        found = np.full((*changes.bins.shape, 2), np.nan, np.float32)
        return found, found

    monkeypatch.setattr("ebert_core.inference.variant_files.model_rescore", lambda *_, **__: broken)
    with pytest.raises(EbertError, match="the model gives no number for some bins of chr1"):
        score_to(folder, toy_dataset, model, device, some, overwrite=True)
    assert digest_tree(folder) == before


@pytest.mark.parametrize(
    ("table", "annotated", "skipped"),
    [
        ("a/x.tsv", None, "a/x.skipped.tsv"),
        ("x.tsv.gz", "y.vcf", "x.skipped.tsv"),
        (None, "y.b.vcf.bgz", "y.b.skipped.tsv"),
        ("scores", None, "scores.skipped.tsv"),
        (None, None, None),
    ],
)
def test_names_of_the_files(table: str | None, annotated: str | None, skipped: str | None) -> None:
    outputs = VariantOutputs(table and Path(table), annotated and Path(annotated))
    assert outputs.skipped == (skipped and Path(skipped))
    assert str(outputs.sidecar) == str(outputs.skipped).replace("skipped.tsv", "ebert.json")
