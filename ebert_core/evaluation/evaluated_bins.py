"""The bins that count: bound and unbound ones of the chosen chromosomes, end to end, and what lies where among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.evaluation.results import StateBins
from ebert_core.evaluation.truth import Truth
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.vocabulary import BASE_N, BIN_BP, STRIDE_BP, STRIDES_PER_BIN

_SEQUENCE_AT_ONCE: int = (1 << 24) // BIN_BP * BIN_BP
_UNKNOWN_STATE = ("unknown", "#b0b0b0")


@dataclass(frozen=True)
class EvaluatedBins:
    """The bound and unbound bins of an evaluation; N of them over all chromosomes.

    Attributes:
        starts: chromosome -> starts of its bins, rising; the chromosomes' order is that of every array over all bins.
        bound: bool of shape (N,).
        counts: chromosome -> number of 'bound', 'unbound' and 'ambiguous' bins.
    """

    starts: dict[str, Positions]
    bound: NDArray[np.bool_]
    counts: dict[str, dict[str, int]]

    def __len__(self) -> int:
        return len(self.bound)

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Where each chromosome's bins lie in an array over all of them."""
        at = 0
        for chrom, starts in self.starts.items():
            yield chrom, slice(at, at + len(starts))
            at += len(starts)

    def scores(self, of: Callable[[str, Positions], NDArray[np.float32]]) -> NDArray[np.float32]:
        """The scores of all bins, float32 of shape (N,), from a function of (chromosome, starts)."""
        scores = np.empty(len(self), np.float32)
        for chrom, here in self.slices():
            scores[here] = of(chrom, self.starts[chrom])
        return scores

    def place(self, number: int) -> tuple[str, int]:
        """(chromosome, start) of a bin by its number."""
        chrom, here = next((chrom, here) for chrom, here in self.slices() if here.start <= number < here.stop)
        return chrom, int(self.starts[chrom][number - here.start])

    def states(self, dataset: Dataset, cell: str) -> NDArray[np.uint8]:
        """State code at each bin's centre, uint8 of shape (N,)."""
        codes = np.empty(len(self), np.uint8)
        for chrom, here in self.slices():
            codes[here] = dataset.states(cell, chrom)[(self.starts[chrom] + BIN_BP // 2) // BIN_BP]
        return codes


def load_bins(truth: Truth, chroms: Sequence[str]) -> EvaluatedBins:
    """The bound and unbound bins of some chromosomes, in the order given.

    Raises:
        EbertError: there is no bound or no unbound bin among them.
    """
    starts, bound, counts = {}, [], {}
    for chrom in chroms:
        all_starts, labels = truth.on(chrom)
        numbers = np.bincount(labels, minlength=BOUND + 1)
        counts[chrom] = {
            "bound": int(numbers[BOUND]),
            "unbound": int(numbers[UNBOUND]),
            "ambiguous": int(numbers[AMBIGUOUS]),
        }
        clear = labels != AMBIGUOUS
        starts[chrom] = all_starts[clear]
        bound.append(labels[clear] == BOUND)
    joined = np.concatenate(bound)
    if joined.all() or not joined.any():
        raise EbertError(
            f"{', '.join(chroms)} has no {'unbound' if joined.any() else 'bound'} bin of {truth.tf} in {truth.cell}",
            f"choose other chromosomes ({truth.source})",
        )
    return EvaluatedBins(starts, joined, counts)


def count_by_state(dataset: Dataset, cell: str, codes: NDArray[np.uint8], bins: EvaluatedBins) -> tuple[StateBins, ...]:
    """How many bound and unbound bins each state of the evaluated chromosomes holds, be it none.

    Args:
        codes: state of each bin, shape (N,).
    """
    names = [_UNKNOWN_STATE, *((state.label, state.color) for state in dataset.require_state_model().states)]
    total = np.bincount(codes, minlength=len(names))
    of_bound = np.bincount(codes[bins.bound], minlength=len(names))
    occurring = sum(np.bincount(dataset.states(cell, chrom), minlength=len(names)) for chrom in bins.starts)
    return tuple(
        StateBins(code, name, color, int(of_bound[code]), int(total[code] - of_bound[code]))
        for code, (name, color) in enumerate(names)
        if total[code] or (code and np.asarray(occurring)[code])
    )


def without_bases(bins: EvaluatedBins, asked: NDArray[np.bool_], dataset: Dataset | None) -> NDArray[np.bool_]:
    """Which bins hold nothing but N, bool of shape (N,); looked up on chromosomes where `asked` has a bin.

    False everywhere without a dataset, or where it holds no sequence.
    """
    out = np.zeros(len(asked), bool)
    if dataset and dataset.has_sequence:
        for chrom, here in bins.slices():
            if asked[here].any():
                stride = bins.starts[chrom] // STRIDE_BP
                known = _strides_with_bases(dataset.sequence(chrom))
                out[here] = ~np.any([known[stride + step] for step in range(STRIDES_PER_BIN)], axis=0)
    return out


def _strides_with_bases(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each 50-bp stride has a known base, bool of shape (ceil(length / 50),)."""
    pieces = []
    for start in range(0, len(codes), _SEQUENCE_AT_ONCE):
        known = codes[start : start + _SEQUENCE_AT_ONCE] < BASE_N
        padded = np.pad(known, (0, -len(known) % STRIDE_BP))
        pieces.append(padded.reshape(-1, STRIDE_BP).any(axis=1))
    return np.concatenate(pieces)
