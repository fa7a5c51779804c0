"""What a variant does to the score of the bins that hold it: reference and alternative allele, each in one window.

The score of an allele is the logit of the highest-scoring bin among those that hold a base of the reference allele; the
same bins are looked at for both alleles. States and tracks stay where they are. An insertion or deletion moves the
bases to its right; the window keeps its length and reads less or more of them.

The windows are those of the scan, so the score of the reference allele is what `ebert predict` gives, and neighbouring
variants share its window. Or they are the shortest that show a variant's bins with the model's context on either side:
less work, and scores that differ, since a bin is then shown less beyond that context than the scan shows most bins.

Legend: V variants, B windows, W window_bp, T TFs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.intervals import Positions
from ebert_core.inference.alleles import MAX_CHANGE_BP, Judge, Variant
from ebert_core.inference.scan import ScanGeometry, Score
from ebert_core.inference.windows import ChromReader, Floats, scan_windows, score_batches
from ebert_core.io.vcf import VcfFile, VcfRecord
from ebert_core.vocabulary import BASE_N, BIN_BP, STATE_BIN_BP, STRIDE_BP

# Alleles that are scored together: nearby ones share the window of the reference.
_ALLELES_AT_ONCE: Final = 1_024
# Bases of a reference allele, and so the bins that hold one of them.
_MOST_BINS: Final = (BIN_BP + MAX_CHANGE_BP - 1) // STRIDE_BP + 1


def variant_window_bp(geometry: ScanGeometry) -> int:
    """The shortest window, a multiple of 200, that shows a variant's bins with their context wherever they begin."""
    bins_bp = (_MOST_BINS - 1) * STRIDE_BP + BIN_BP
    needed = bins_bp + 2 * geometry.context_bp + STATE_BIN_BP - STRIDE_BP
    return -(-needed // STATE_BIN_BP) * STATE_BIN_BP


@dataclass(frozen=True)
class ScoredRecord:
    """A record with what was found of each of its alternative alleles, in order.

    Attributes:
        record: it.
        found: (logits with the reference, logits with the alternative), float32 (T,) each; or why it was skipped.
    """

    record: VcfRecord
    found: tuple[tuple[Floats, Floats] | str, ...]


class VariantScorer:
    """Scores variants.

    Args:
        score: of the model.
        columns: outputs of the asked TFs, (T,).
        geometry: of the model.
        short: read windows of `variant_window_bp` around the variants, not the scan's.

    Attributes:
        window_bp: of the windows.
    """

    def __init__(self, score: Score, columns: Sequence[int], geometry: ScanGeometry, *, short: bool = False) -> None:
        self._score, self._columns = score, list(columns)
        self._geometry, self._short = geometry, short
        self.window_bp = variant_window_bp(geometry) if short else geometry.window_bp

    def logits(self, variants: Sequence[Variant]) -> tuple[Floats, Floats]:
        """Logits of the reference and of the alternative alleles, float32 (V, T) each."""
        reference = np.empty((len(variants), len(self._columns)), dtype=np.float32)
        alternative = np.empty_like(reference)
        readers = {variant.reader.chrom: variant.reader for variant in variants}
        for chrom, reader in readers.items():
            rows = [row for row, variant in enumerate(variants) if variant.reader.chrom == chrom]
            own, other = self._logits_on(reader, [variants[row] for row in rows])
            reference[rows], alternative[rows] = own, other
        return reference, alternative

    def _logits_on(self, reader: ChromReader, variants: Sequence[Variant]) -> tuple[Floats, Floats]:
        parts = [(row, *part) for row, variant in enumerate(variants) for part in self._parts(variant)]
        starts = np.array([start for _, start, _ in parts])
        unique, place = np.unique(starts, return_inverse=True)
        windows = reader.windows(unique, self.window_bp)
        changed = [
            _with_allele(windows.bases[at], start, variants[row])
            for at, (row, start, _) in zip(place.tolist(), parts, strict=True)
        ]
        rows = np.concatenate([np.arange(len(unique)), place])
        batch = replace(
            windows,
            bases=np.concatenate([windows.bases, np.stack(changed)]),
            states=windows.states[rows],
            tracks=None if windows.tracks is None else windows.tracks[rows],
        )
        found = score_batches(self._score, batch, reader.chrom)[..., self._columns]
        best = np.full((2, len(variants), len(self._columns)), -np.inf, dtype=np.float32)
        for number, (row, start, bins) in enumerate(parts):
            columns = bins - start // STRIDE_BP
            for allele, window in enumerate((place[number], len(unique) + number)):
                best[allele, row] = np.maximum(best[allele, row], found[window, columns].max(axis=0))
        return best[0], best[1]

    def _parts(self, variant: Variant) -> Iterator[tuple[int, Positions]]:
        """Starts of the windows that answer a variant's bins, multiples of 200, and the bins that each answers."""
        if not self._short:
            yield from scan_windows(self._geometry, variant.bins)
            return
        first, last = int(variant.bins[0]) * STRIDE_BP, int(variant.bins[-1]) * STRIDE_BP + BIN_BP
        beside = (self.window_bp - (last - first)) // 2
        # The bins lie in the middle.
        yield (first - beside + STATE_BIN_BP // 2) // STATE_BIN_BP * STATE_BIN_BP, variant.bins


def _with_allele(window: NDArray[np.uint8], start: int, variant: Variant) -> NDArray[np.uint8]:
    """The window (W,) that begins at `start`, with the alternative allele in it."""
    at = variant.start - start
    changed = window.copy()
    if len(variant.alt) == len(variant.ref):
        rest = changed[at + len(variant.alt) :]
    else:
        rest = _bases(variant.reader, variant.start + len(variant.ref), len(window))
    # A window of the scan may begin within the reference allele, or end within the alternative.
    told = np.concatenate([variant.alt, rest])[max(0, -at) :]
    first = max(0, at)
    changed[first:] = told[: len(window) - first]
    return changed


def _bases(reader: ChromReader, start: int, num: int) -> NDArray[np.uint8]:
    """So many bases from `start` on; N beyond the end."""
    found = np.full(num, BASE_N, dtype=np.uint8)
    there = reader.bases[start : start + num]
    found[: len(there)] = there
    return found


def score_vcf(vcf: VcfFile, judge: Judge, scorer: VariantScorer) -> Iterator[list[ScoredRecord]]:
    """Every record in file order with the logits of its alleles, some records at a time."""
    waiting: list[tuple[VcfRecord, list[Variant | str]]] = []
    num = 0
    for record in vcf.records():
        alleles = list(judge.alleles(record))
        waiting.append((record, alleles))
        num += max(1, len(alleles))
        if num >= _ALLELES_AT_ONCE:
            yield _scored(waiting, scorer)
            waiting, num = [], 0
    if waiting:
        yield _scored(waiting, scorer)


def _scored(records: Sequence[tuple[VcfRecord, Sequence[Variant | str]]], scorer: VariantScorer) -> list[ScoredRecord]:
    variants = [allele for _, alleles in records for allele in alleles if isinstance(allele, Variant)]
    pairs = iter(zip(*scorer.logits(variants), strict=True))
    return [
        ScoredRecord(record, tuple(allele if isinstance(allele, str) else next(pairs) for allele in alleles))
        for record, alleles in records
    ]
