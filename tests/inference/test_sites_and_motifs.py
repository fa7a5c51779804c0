"""Which sites a file names, and how well effects follow a motif."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.regions import Region
from ebert_core.inference.motif_match import best_hit, match_motif, pearson, pooled_correlation
from ebert_core.inference.mutagenesis import SiteEffects
from ebert_core.inference.sites import Site, read_sites, sites_of

ASSEMBLY = Assembly.from_sizes([("chr1", 60_000), ("chr2", 41_337)])
PEAK = "\t.\t0\t.\t5\t-1\t-1\t"


def bed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sites.bed"
    path.write_text(text)
    return path


@given(st.integers(0, 5_000), st.integers(1, 1_000), st.booleans())
def test_bins_of_a_site(start: int, num: int, whole: bool) -> None:
    site, num_bins = Site.of(Region("chr1", start, start + num)), (4_000 - 200) // 50 + 1
    found = site.bins(num_bins, whole=whole).tolist()
    if whole and num >= 50:
        assert found == [b for b in range(num_bins) if start <= 50 * b + 100 < start + num]
    else:
        middle = (start + start + num - 1) // 2
        assert found == [b for b in range(num_bins) if 50 * b + 75 <= middle < 50 * b + 125]


@given(st.integers(0, 999), st.integers(1, 300))
def test_the_stretch_lies_around_the_middle(middle: int, width: int) -> None:
    first, last = Site("chr1", middle, middle + 1, middle).stretch(width, 1_000)
    places = [p for p in range(middle - width // 2, middle - width // 2 + width) if 0 <= p < 1_000]
    assert list(range(first, last)) == places
    assert middle in places


def test_sites_of_a_bed_file(tmp_path: Path) -> None:
    sites, notes = read_sites(bed(tmp_path, "1\t100\t301\nchr2\t5\t6\nchr1\t100\t301\nchrU\t1\t2\n"), ASSEMBLY)
    assert sites == [Site("chr1", 100, 301, 200), Site("chr2", 5, 6, 5)]
    assert [site.name for site in sites] == ["chr1:100-301", "chr2:5-6"]
    assert any("1 rows name a site again" in note for note in notes)
    assert any("chrU" in note for note in notes)


def test_the_summit_of_a_narrowpeak_row_is_its_middle(tmp_path: Path) -> None:
    sites, _ = read_sites(bed(tmp_path, f"chr1\t100\t9000{PEAK}4000\nchr1\t100\t300{PEAK}-1\n"), ASSEMBLY)
    assert [site.middle for site in sites] == [4_100, 199]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("chr1\t0\t100\nchr1\t0\t1001\n", 2, "chr1:0-1,001 has 1,001 bp, a site has 1,000 at most"),
        (f"chr1\t0\t1001{PEAK}-1\n", 1, "has 1,001 bp"),
        (f"chr1\t0\t100{PEAK}100\n", 1, "the summit lies 100 bp from the start of a row of 100 bp"),
        (f"chr1\t0\t100{PEAK}x\n", 1, "peak (column 10 of narrowPeak) is 'x'"),
        ("chr1\t0\t60001\n", 1, "is past the end of chr1"),
        ("chr1\t9\t9\n", 1, "is not beyond start 9"),
        ("", None, "has no data lines"),
        ("chr7\t1\t2\n", None, "has no row on the genome's chromosomes"),
    ],
)
def test_faulty_sites_name_the_line(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_sites(bed(tmp_path, text), ASSEMBLY)
    assert says in caught.value.message
    assert caught.value.line == line


def test_typed_sites() -> None:
    assert sites_of([Region("chr1", 5, 8), Region("chr1", 5, 8)]) == [Site("chr1", 5, 8, 6)]
    with pytest.raises(EbertError, match="chr1:0-60,000 has 60,000 bp"):
        sites_of([Region("chr1", 0, 60_000)])


def log_odds(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.normal(size=(width, 4)).astype(np.float32)


@given(st.integers(1, 7), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_best_hit_is_the_best_of_all(width: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, codes = log_odds(rng, width), rng.integers(0, 5, length).astype(np.uint8)
    every = {}
    for strand, place in ((s, p) for s in "+-" for p in range(length - width + 1)):
        word = codes[place : place + width].tolist()
        word = word if strand == "+" else [4 if base == 4 else 3 - base for base in word[::-1]]
        every[place, strand] = sum(float(matrix[i, base]) for i, base in enumerate(word) if base < 4)
    found = best_hit(codes, matrix)
    if not every:
        assert found is None
        return
    assert found is not None
    assert found[2] == pytest.approx(max(every.values()), abs=1e-4)
    assert every[found[0], found[1]] == pytest.approx(found[2], abs=1e-4)


def effects_like(matrix: np.ndarray, strand: str, rng: np.random.Generator) -> SiteEffects:
    """Effects that follow a motif, placed 11 bases into a stretch of 60 at 1,000."""
    width = len(matrix)
    bases, deltas = rng.integers(0, 4, 60).astype(np.uint8), rng.normal(size=(60, 4), scale=0.01).astype(np.float32)
    best = matrix.argmax(axis=1)
    bases[11 : 11 + width] = best if strand == "+" else 3 - best[::-1]
    turned = matrix if strand == "+" else matrix[::-1, ::-1]
    deltas[11 : 11 + width] = 0.3 * turned
    deltas -= deltas[np.arange(60), bases][:, None]
    site = Site("chr1", 1_000, 1_060, 1_030)
    return SiteEffects(site, np.array([18]), 0.0, 1_000, bases, deltas, None)


@pytest.mark.parametrize("strand", "+-")
def test_effects_that_follow_the_motif_correlate(strand: str) -> None:
    rng = np.random.default_rng(1)
    matrix = log_odds(rng, 12) * 3
    found = match_motif(effects_like(matrix, strand, rng), matrix)
    assert found is not None
    assert (found.start, found.end, found.strand) == (1_011, 1_023, strand)
    assert found.share == pytest.approx(1)
    assert found.bits == pytest.approx(matrix.max(axis=1).sum(), rel=1e-5)
    assert found.correlation == pytest.approx(1, abs=1e-6)
    other = match_motif(effects_like(-matrix, strand, rng), matrix)
    assert other is not None
    both = [np.concatenate([getattr(each, name) for each in (found, other)]) for name in ("effects", "log_odds")]
    for each in (found, other):
        assert each.correlation == pytest.approx(np.corrcoef(each.effects.ravel(), each.log_odds.ravel())[0, 1])
    assert pooled_correlation([found, other]) == pytest.approx(np.corrcoef(*(x.ravel() for x in both))[0, 1])


def test_bases_without_an_effect_do_not_count() -> None:
    rng = np.random.default_rng(2)
    matrix = log_odds(rng, 12) * 3
    effects = effects_like(matrix, "+", rng)
    effects.bases[14], effects.deltas[14] = 4, np.nan
    found = match_motif(effects, matrix)
    assert found is not None
    assert found.effects.shape == (11, 4)
    assert found.correlation == pytest.approx(1, abs=1e-6)
    effects.deltas[:] = np.nan
    assert match_motif(effects, matrix) is None


def test_without_variance_there_is_no_correlation() -> None:
    assert np.isnan(pearson(np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)))
    assert np.isnan(pooled_correlation([]))
