"""What fine-tuning reads: TFs, cell types, regions, and windows drawn by what they hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import Batch, WindowReader, eligible_starts
from ebert_core.errors import EbertError, UnknownNameError, listing
from ebert_core.genome.labels import BOUND, UNBOUND, unpack_labels
from ebert_core.genome.regions import Region, hold_back, overlap_bp, subtract, whole
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STATE_UNKNOWN, STRIDE_BP, STRIDES_PER_BIN

# Without --valid-chrom, this share of every training chromosome is held back for validation.
VALID_FRACTION: Final = 0.15


@dataclass(frozen=True)
class FinetuneChoice:
    """What the user asked for, as typed; empty means everything that has labels.

    Attributes:
        tfs: names, or `all`.
        cells, valid_cells, held_out_cells: cell types to train on, to validate on, never to read labels of.
        chroms, valid, held_out: the same for chromosomes or regions.
    """

    tfs: tuple[str, ...]
    cells: tuple[str, ...] = ()
    valid_cells: tuple[str, ...] = ()
    held_out_cells: tuple[str, ...] = ()
    chroms: tuple[str, ...] = ()
    valid: tuple[Region, ...] = ()
    held_out: tuple[Region, ...] = ()


@dataclass(frozen=True)
class FinetuneData:
    """A resolved choice.

    Attributes:
        tfs: the order of the model's outputs.
        cells, valid_cells: cell types whose labels train and validate.
        train, valid: disjoint regions.
        held_out_cells: recorded with the model.
    """

    dataset: Dataset
    tfs: tuple[str, ...]
    cells: tuple[str, ...]
    valid_cells: tuple[str, ...]
    train: tuple[Region, ...]
    valid: tuple[Region, ...]
    held_out_cells: tuple[str, ...] = field(default=())

    def describe(self) -> dict[str, Any]:
        """For manifests."""

        def listed(regions: Sequence[Region]) -> list[list[Any]]:
            return [[region.chrom, region.start, region.end] for region in regions]

        return {
            "tfs": list(self.tfs),
            "cells": list(self.cells),
            "valid_cells": list(self.valid_cells),
            "held_out_cells": list(self.held_out_cells),
            "train": listed(self.train),
            "valid": listed(self.valid),
            "assembly": self.dataset.assembly.to_json(),
            "dataset": self.dataset.digests([*self.cells, *self.valid_cells]),
            "dataset_labels": {
                tf: {cell: entry["sha256"] for cell, entry in self.dataset.manifest["labels"][tf].items()}
                for tf in self.tfs
            },
        }


def choose_data(dataset: Dataset, choice: FinetuneChoice) -> FinetuneData:
    """Resolve names and regions.

    Raises:
        UnknownNameError: a TF, cell type or chromosome that the dataset lacks.
        EbertError: nothing is left to train or to validate on, no bin is bound there, or something that is held out is
            also asked for.
    """
    if not dataset.tfs:
        raise EbertError(f"dataset {dataset.path} holds no labels", "add some: `ebert prepare --chip DIR`")
    if not choice.tfs:
        raise EbertError("no TF was named", f"name some with --tf, or --tf all; {listing(dataset.tfs)}")
    everything = [name.casefold() for name in choice.tfs] == ["all"]
    tfs = dataset.tfs if everything else tuple(dict.fromkeys(dataset.resolve_tf(name) for name in choice.tfs))
    labelled = {cell for tf in tfs for cell in dataset.cells_of(tf)}

    def resolved(names: Sequence[str]) -> list[str]:
        cells = [dataset.resolve_cell(name) for name in names]
        for name, cell in zip(names, cells, strict=True):
            if cell not in labelled:
                raise UnknownNameError(f"cell type with {'/'.join(tfs[:3])} labels", name, labelled)
        return cells

    held_out_cells = [dataset.resolve_cell(name) for name in choice.held_out_cells]
    valid_cells = list(dict.fromkeys(resolved(choice.valid_cells)))
    asked = list(dict.fromkeys(resolved(choice.cells)))
    for cell in held_out_cells:
        if cell in asked or cell in valid_cells:
            way = "--valid-cell" if cell in valid_cells else "--cell"
            raise EbertError(f"{cell} is held out and asked for at once", f"name it in {way} or in --hold-out-cell")
    not_trained = {*held_out_cells, *valid_cells}
    cells = [cell for cell in asked or sorted(labelled) if cell not in not_trained]
    if not cells:
        raise EbertError("no cell type is left to train on", f"labels exist in: {listing(sorted(labelled))[7:]}")
    chroms = dataset.assembly.require(choice.chroms) if choice.chroms else _assayed(dataset, tfs, cells)
    regions = subtract(whole(dataset.assembly, chroms), choice.held_out)
    if choice.valid:
        train, valid = subtract(regions, choice.valid), list(choice.valid)
        if overlap_bp(valid, choice.held_out):
            raise EbertError("a validation region is also held out", "choose another --valid-chrom or --hold-out-chrom")
    else:
        train, valid = hold_back(regions, VALID_FRACTION)
    if not train:
        raise EbertError("no chromosome is left to train on", "name other chromosomes with --chrom, or hold out fewer")
    data = FinetuneData(
        dataset, tfs, tuple(cells), tuple(valid_cells or cells), tuple(train), tuple(valid), tuple(held_out_cells)
    )
    for what, part, members in (("training", data.train, data.cells), ("validation", data.valid, data.valid_cells)):
        _require_bound(data, what, part, members)
    return data


def _assayed(dataset: Dataset, tfs: Sequence[str], cells: Sequence[str]) -> list[str]:
    seen = {
        chrom
        for tf in tfs
        for cell in dataset.cells_of(tf)
        if cell in cells
        for chrom in dataset.assayed_chroms(tf, cell)
    }
    return [chrom for chrom in dataset.assembly.chroms if chrom in seen]


def _require_bound(data: FinetuneData, what: str, regions: Sequence[Region], cells: Sequence[str]) -> None:
    # A validation part without unbound bins has no ranking to measure and nothing to calibrate on.
    needed = ((BOUND, "bound"), (UNBOUND, "unbound")) if what == "validation" else ((BOUND, "bound"),)
    for tf, (label, name) in itertools.product(data.tfs, needed):
        pairs = [cell for cell in cells if cell in data.dataset.cells_of(tf)]
        if not any(_strides_of(label, data.dataset, tf, cell, regions).size for cell in pairs):
            raise EbertError(
                f"{tf} has no {name} bin in the {what} part ({', '.join(map(str, regions)) or 'empty'}) of "
                f"{', '.join(pairs) or 'any chosen cell type'}",
                "choose other chromosomes (--chrom, --valid-chrom) or cell types (--cell), or leave this TF out",
            )


def _strides_of(label: int, dataset: Dataset, tf: str, cell: str, regions: Sequence[Region]) -> NDArray[np.int64]:
    """Flat strides at which bins of the regions with this label begin."""
    packed = dataset.flat_packed_labels(tf, cell)
    found = []
    for region in regions:
        offset = dataset.assembly.offset(region.chrom)
        first, last = (offset + region.start) // STATE_BIN_BP, -(-(offset + region.end) // STATE_BIN_BP)
        strides = first * STRIDES_PER_BIN + np.flatnonzero(unpack_labels(packed[first:last]) == label)
        inside = (strides * STRIDE_BP >= offset + region.start) & (strides * STRIDE_BP + BIN_BP <= offset + region.end)
        found.append(strides[inside])
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class LabelledBatch:
    """Windows with what is known of their bins.

    Attributes:
        windows: bases and states.
        bound: bool (B, bins of a window, T).
        counts: bool, same shape: bins that are labelled bound or unbound and have their context.
    """

    windows: Batch
    bound: NDArray[np.bool_]
    counts: NDArray[np.bool_]


class BindingWindows:
    """Draws training windows: some around a bound bin of a random (TF, cell type), the rest anywhere."""

    def __init__(self, data: FinetuneData, config: FinetuneConfig) -> None:
        self._config = config
        self._num_tfs = len(data.tfs)
        with_states = data.dataset.state_cells if config.use_states else ()
        self._reader = WindowReader(
            data.dataset, [cell if cell in with_states else None for cell in data.cells], config.window_bp
        )
        # Sorted, because windows around a bin are looked up; regions may come in any order of chromosomes.
        self._starts = np.sort(eligible_starts(data.dataset, data.train, config.window_bp))
        if len(self._starts) == 0:
            raise EbertError(
                f"no window of {config.window_bp:,} bp without N-runs or excluded regions is in the training part",
                "choose other chromosomes, or shorter windows with --set window_bp=1000",
            )
        window_bins = config.window_bp // STATE_BIN_BP
        self._labels = {
            (t, c): sliding_window_view(data.dataset.flat_packed_labels(tf, cell), window_bins)
            for t, tf in enumerate(data.tfs)
            for c, cell in enumerate(data.cells)
            if cell in data.dataset.cells_of(tf)
        }
        bound = {
            pair: _strides_of(BOUND, data.dataset, data.tfs[pair[0]], data.cells[pair[1]], data.train)
            for pair in self._labels
        }
        self._bound = [(cell, strides) for (_, cell), strides in bound.items() if len(strides)]

    @property
    def num_starts(self) -> int:
        """Distinct windows per cell type."""
        return len(self._starts)

    def draw(self, rng: np.random.Generator, count: int) -> LabelledBatch:
        """`count` windows on random strands, some of them with their states dropped."""
        starts = rng.choice(self._starts, count)
        cells = rng.choice(np.array([cell for cell, _ in self._bound]), count)
        for row in np.flatnonzero(rng.random(count) < self._config.bound_share):
            cell, strides = self._bound[rng.integers(len(self._bound))]
            start = self._around(rng, int(rng.choice(strides)) * STRIDE_BP)
            if start is not None:
                starts[row], cells[row] = start, cell
        batch = self._reader.read(starts, cells)
        dropped = rng.random(count) < self._config.state_dropout
        batch = Batch(batch.bases, np.where(dropped[:, None], np.uint8(STATE_UNKNOWN), batch.states))
        reverse = rng.random(count) < 0.5
        labels = self._read_labels(starts, cells)
        labels[reverse] = labels[reverse, ::-1]
        bins = np.arange(labels.shape[1]) * STRIDE_BP
        inner = (bins >= self._config.context_bp) & (bins + BIN_BP <= self._config.window_bp - self._config.context_bp)
        counts = ((labels == BOUND) | (labels == UNBOUND)) & inner[:, None]
        return LabelledBatch(batch.flipped(reverse), labels == BOUND, counts)

    def _around(self, rng: np.random.Generator, bin_start: int) -> int | None:
        """Flat start of an eligible window whose scored part holds the bin, or None."""
        low = bin_start + BIN_BP - self._config.window_bp + self._config.context_bp
        high = bin_start - self._config.context_bp
        first, last = np.searchsorted(self._starts, [low, high + 1])
        return int(self._starts[rng.integers(first, last)]) if last > first else None

    def _read_labels(self, starts: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Label codes (B, bins of a window, T); 0 where a TF was not assayed in a window's cell type."""
        num_bins = (self._config.window_bp - BIN_BP) // STRIDE_BP + 1
        labels = np.zeros((len(starts), num_bins, self._num_tfs), dtype=np.uint8)
        for (tf, cell), packed in self._labels.items():
            here = np.flatnonzero(cells == cell)
            if len(here):
                labels[here, :, tf] = unpack_labels(packed[starts[here] // STATE_BIN_BP])[:, :num_bins]
        return labels
