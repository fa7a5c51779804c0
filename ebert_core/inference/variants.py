"""What a variant does to the score of the bins that hold it: reference and alternative allele, each in one window.

The score of an allele is the logit of the highest-scoring bin among those that hold a base of the reference allele; the
same bins are looked at for both alleles. States and tracks stay where they are. An insertion or deletion moves the
bases to its right; the window keeps its length and reads less or more of them.

The windows are such that the score of the reference allele is what `ebert predict` gives.

Legend: V variants, B windows, W window_bp, T TFs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.inference.alleles import Judge, Variant
from ebert_core.inference.rescore import Changes, Rescore, rescored
from ebert_core.inference.windows import ChromReader, Floats, Layout
from ebert_core.io.vcf import VcfFile, VcfRecord
from ebert_core.vocabulary import BASE_N, STRIDE_BP

# Alleles that are scored together: nearby ones share the window of the reference.
_ALLELES_AT_ONCE: Final = 1_024


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
        rescore: of the model.
        columns: outputs of the asked TFs, (T,).
        layout: of the model's windows.
    """

    def __init__(self, rescore: Rescore, columns: Sequence[int], layout: Layout) -> None:
        self._rescore, self._columns, self.layout = rescore, list(columns), layout

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
        parts = [(row, *part) for row, variant in enumerate(variants) for part in self.layout.windows(variant.bins)]
        starts = np.array([start for _, start, _ in parts])
        unique, place = np.unique(starts, return_inverse=True)
        windows = reader.windows(unique, self.layout.geometry.window_bp)
        changed = [
            _with_allele(windows.bases[at], start, variants[row])
            for at, (row, start, _) in zip(place.tolist(), parts, strict=True)
        ]
        # Where a part has fewer bins than another, its last stands for those that it lacks.
        most = max(len(bins) for _, _, bins in parts)
        bins = np.stack([np.pad(each, (0, most - len(each)), mode="edge") - at // STRIDE_BP for _, at, each in parts])
        changes = Changes(windows, unique, place, np.stack(changed), windows.states[place], bins)
        found = rescored(self._rescore, changes, reader.chrom)
        best = np.full((2, len(variants), len(self._columns)), -np.inf, dtype=np.float32)
        for allele, logits in enumerate(found):
            np.maximum.at(best[allele], [row for row, _, _ in parts], logits[..., self._columns].max(axis=1))
        return best[0], best[1]


def _with_allele(window: NDArray[np.uint8], start: int, variant: Variant) -> NDArray[np.uint8]:
    """The window (W,) that begins at `start`, with the alternative allele in it."""
    at = variant.start - start
    changed = window.copy()
    if len(variant.alt) == len(variant.ref):
        rest = changed[at + len(variant.alt) :]
    else:
        rest = _bases(variant.reader, variant.start + len(variant.ref), len(window))
    # A window may begin within the reference allele, or end within the alternative.
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
