"""Which stretches of the genome are worth a look, and what lies in them: arithmetic for the report's browser view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP

LocusKind = Literal["best hit", "worst miss", "worst false alarm"]
Run = tuple[int, int, int]
# A bin is drawn on its central 50 bp, so that neighbouring bins do not hide each other.
CENTRE_BP: Final = (BIN_BP - STRIDE_BP) // 2

# Ambiguous bins lie beside a peak and between peaks that touch, a few hundred bp; an excluded region may be longer.
_NEAR_BP: Final = 1_000


@dataclass(frozen=True)
class Choice:
    """A stretch of the genome to look at.

    Attributes:
        kind: why it is shown.
        chrom, start, end: what is shown, bp.
        bin_start: the bin for which it was chosen.
        label: label code of that bin.
        score: of that bin, in the row that the loci were chosen by.
    """

    kind: LocusKind
    chrom: str
    start: int
    end: int
    bin_start: int
    label: int
    score: float


def choose_loci(
    starts: Mapping[str, Positions],
    bound: NDArray[np.bool_],
    scores: NDArray[np.float32],
    assembly: Assembly,
    *,
    each: int = 3,
    width_bp: int = 10_000,
) -> list[Choice]:
    """The best hits, worst misses and worst false alarms of one ranking, the most extreme of each kind first.

    A site is bound bins with no unbound one between them, each at most 1 kb after the last; it scores what its best bin
    scores. The best hits are the sites that score highest, the worst misses those that score lowest: the low flanks of
    a found site are no miss. The worst false alarms are the unbound bins that score highest, more than 1 kb from every
    bin that is bound or left out: the high flanks of a found site are no false alarm. Of equal scores the site with
    more bins comes first, then the order of the bins decides. Stretches of one kind do not overlap, so there may be
    fewer than `each`.

    Args:
        starts: chromosome -> starts of its bound and unbound bins, rising; at least one chromosome.
        bound: of all chromosomes end to end, shape (N,).
        scores: likewise, without NaN.
        assembly: the chromosomes' lengths.
        each: stretches of each kind.
        width_bp: their width. One around a bin near a chromosome's end is moved, so that it lies on the chromosome.
    """
    sites: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    alarms: list[NDArray[np.int64]] = []
    # Stretches less than a width apart overlap: each takes the bins of two widths from those that follow it.
    most = each * (2 * -(-width_bp // STRIDE_BP) + 1)
    at = 0
    for chrom_starts in starts.values():
        here = slice(at, at + len(chrom_starts))
        best, size = _sites(chrom_starts, bound[here], scores[here])
        sites.append((at + best, size))
        far = np.flatnonzero(_far_from_sites(chrom_starts, bound[here]))
        alarms.append(at + far[_highest(scores[here][far], most)])
        at = here.stop
    site, size = (np.concatenate(parts) for parts in zip(*sites, strict=True))
    alarm = np.concatenate(alarms)
    ranked: dict[LocusKind, NDArray[np.int64]] = {
        "best hit": site[np.lexsort((site, -size, -scores[site]))],
        "worst miss": site[np.lexsort((site, -size, scores[site]))],
        "worst false alarm": alarm[np.lexsort((alarm, -scores[alarm]))],
    }
    chosen: list[Choice] = []
    for kind, numbers in ranked.items():
        places = _places(starts, numbers)
        for number, chrom, bin_start in _apart(places, assembly, each, width_bp):
            label = UNBOUND if kind == "worst false alarm" else BOUND
            span = stretch_around(bin_start, assembly.length(chrom), width_bp)
            chosen.append(Choice(kind, chrom, *span, bin_start, label, float(scores[number])))
    return chosen


def stretch_around(bin_start: int, length: int, width_bp: int) -> tuple[int, int]:
    """(start, end) of the stretch with a bin in its middle, moved to lie on a chromosome of `length` bp."""
    start = max(0, min(bin_start + BIN_BP // 2 - width_bp // 2, length - width_bp))
    return start, min(start + width_bp, length)


def bins_within(starts: Positions, start: int, end: int) -> slice:
    """Which of the rising bin starts have their central 50 bp within [start, end)."""
    first, last = np.searchsorted(starts, [start - CENTRE_BP, end - CENTRE_BP - STRIDE_BP + 1])
    return slice(int(first), int(max(first, last)))


def cut_states(codes: NDArray[np.uint8], start: int, end: int) -> tuple[Run, ...]:
    """(start, end, state code) of the runs of equal states within [start, end), bp; together they cover it.

    Args:
        codes: states of the chromosome, one per 200 bp, as `Dataset.states` gives them; 0 is unknown.
    """
    first = start // STATE_BIN_BP
    here = codes[first : -(-end // STATE_BIN_BP)]
    edges = np.flatnonzero(np.diff(here)) + 1
    borders = [start, *((first + edges) * STATE_BIN_BP).tolist(), end]
    return tuple(zip(borders[:-1], borders[1:], here[np.concatenate([[0], edges])].tolist(), strict=True))


def cut_labels(starts: Positions, labels: NDArray[np.uint8], start: int, end: int) -> tuple[Run, ...]:
    """(start, end, label code) of the runs of equal labels within [start, end), bp; each bin is its central 50 bp.

    Args:
        starts, labels: of the chromosome's labelled bins, as `Truth.on` gives them; places without a bin are gaps.
    """
    here = bins_within(starts, start, end)
    at, label = starts[here] + CENTRE_BP, labels[here]
    if len(at) == 0:
        return ()
    first = np.concatenate([[True], (np.diff(at) != STRIDE_BP) | (np.diff(label) != 0)])
    last = np.concatenate([first[1:], [True]])
    return tuple(zip(at[first].tolist(), (at[last] + STRIDE_BP).tolist(), label[first].tolist(), strict=True))


def cut_track(
    starts: Positions, scores: NDArray[np.float32], start: int, end: int
) -> tuple[Positions, NDArray[np.float32]]:
    """Copies of the starts and scores of the bins whose central 50 bp lie within [start, end); both of shape (N,)."""
    here = bins_within(starts, start, end)
    return starts[here].astype(np.int64), scores[here].astype(np.float32)


def _sites(
    starts: Positions, bound: NDArray[np.bool_], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(number of the best bin, the first of equals; number of bins) of each site on one chromosome."""
    numbers = np.flatnonzero(bound)
    if len(numbers) == 0:
        return numbers, numbers
    first = np.concatenate([[True], (np.diff(numbers) > 1) | (np.diff(starts[numbers]) > _NEAR_BP)])
    of_bin, site = scores[numbers], np.cumsum(first) - 1
    is_best = np.flatnonzero(of_bin == np.maximum.reduceat(of_bin, np.flatnonzero(first))[site])
    _, firsts = np.unique(site[is_best], return_index=True)
    return numbers[is_best[firsts]], np.bincount(site)


def _far_from_sites(starts: Positions, bound: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which bins are more than 1 kb from every bound one and every gap between bins; shape of `starts`."""
    if len(starts) == 0:
        return np.empty(0, bool)
    gap = np.flatnonzero(np.diff(starts) > STRIDE_BP)
    near = np.sort(np.concatenate([starts[bound], starts[gap] + STRIDE_BP, starts[gap + 1] - STRIDE_BP]))
    first = np.searchsorted(starts, near - _NEAR_BP, side="left")
    after = np.searchsorted(starts, near + _NEAR_BP, side="right")
    size = len(starts) + 1
    covering = np.bincount(first, minlength=size) - np.bincount(after, minlength=size)
    return np.asarray(np.cumsum(covering[:-1]) == 0)


def _highest(values: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Numbers of the `most` highest values, the first of equals, in no order; no full sort."""
    if len(values) <= most:
        return np.arange(len(values))
    last = np.partition(values, len(values) - most)[len(values) - most]
    above = np.flatnonzero(values > last)
    return np.concatenate([above, np.flatnonzero(values == last)[: most - len(above)]])


def _places(starts: Mapping[str, Positions], numbers: NDArray[np.int64]) -> Iterable[tuple[int, str, int]]:
    """(number, chromosome, start) of bins given by their number over all chromosomes."""
    chroms = list(starts)
    ends = np.cumsum([len(starts[chrom]) for chrom in chroms])
    for number in numbers.tolist():
        index = int(np.searchsorted(ends, number, side="right"))
        chrom = chroms[index]
        yield number, chrom, int(starts[chrom][number - int(ends[index])])


def _apart(
    places: Iterable[tuple[int, str, int]], assembly: Assembly, each: int, width_bp: int
) -> list[tuple[int, str, int]]:
    """The first `each` of the places whose stretches do not overlap."""
    kept: list[tuple[int, str, int]] = []
    spans: list[tuple[str, int, int]] = []
    for number, chrom, bin_start in places:
        if len(kept) == each:
            break
        start, end = stretch_around(bin_start, assembly.length(chrom), width_bp)
        if not any(chrom == other and start < until and since < end for other, since, until in spans):
            kept.append((number, chrom, bin_start))
            spans.append((chrom, start, end))
    return kept
