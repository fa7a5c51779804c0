"""What fine-tuning reads: TFs, cell types and regions, as the user chose them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, UnknownNameError, listing
from ebert_core.genome.labels import BOUND, UNBOUND, unpack_labels
from ebert_core.genome.regions import Region, hold_back, overlap_bp, subtract, whole
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN

# Without --valid-chrom, this share of every training chromosome is held back for validation.
VALID_FRACTION: Final = 0.15


@dataclass(frozen=True)
class FinetuneChoice:
    """What the user asked for, as typed; empty means everything that has labels.

    Attributes:
        tfs: names, or `all`.
        also: TFs that are learned beside them, to help the encoder, and not kept: names, or `all`.
        cells, valid_cells, held_out_cells: cell types to train on, to validate on, never to read labels of.
        chroms, valid, held_out: the same for chromosomes or regions.
    """

    tfs: tuple[str, ...]
    also: tuple[str, ...] = ()
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
        also: TFs that are learned beside those, each with a bound bin to train on.
    """

    dataset: Dataset
    tfs: tuple[str, ...]
    cells: tuple[str, ...]
    valid_cells: tuple[str, ...]
    train: tuple[Region, ...]
    valid: tuple[Region, ...]
    held_out_cells: tuple[str, ...] = field(default=())
    also: tuple[str, ...] = field(default=())

    @property
    def outputs(self) -> tuple[str, ...]:
        """TFs in the order of the outputs while training."""
        return (*self.tfs, *self.also)

    def describe(self, beside: Sequence[str] = ()) -> dict[str, Any]:
        """For manifests; `beside` are further cell types whose states are read."""

        def listed(regions: Sequence[Region]) -> list[list[Any]]:
            return [[region.chrom, region.start, region.end] for region in regions]

        return {
            "tfs": list(self.tfs),
            "also": list(self.also),
            "cells": list(self.cells),
            "valid_cells": list(self.valid_cells),
            "held_out_cells": list(self.held_out_cells),
            "train": listed(self.train),
            "valid": listed(self.valid),
            "assembly": self.dataset.assembly.to_json(),
            "dataset": self.dataset.digests([*self.cells, *self.valid_cells, *beside]),
            "dataset_features": self.dataset.feature_digests(
                {*self.dataset.accessibility_cells, *self.dataset.expression_cells}
            ),
            "dataset_labels": {
                tf: {cell: entry["sha256"] for cell, entry in self.dataset.manifest["labels"][tf].items()}
                for tf in self.outputs
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
    data = replace(data, also=_also(data, choice.also))
    for what, part, members in (("training", data.train, data.cells), ("validation", data.valid, data.valid_cells)):
        _require_bound(data, what, part, members)
    return data


def _also(data: FinetuneData, names: Sequence[str]) -> tuple[str, ...]:
    """TFs to learn beside; of `all` those that the training part shows anything of."""
    everything = [name.casefold() for name in names] == ["all"]
    dataset = data.dataset
    asked = dataset.tfs if everything else dict.fromkeys(dataset.resolve_tf(name) for name in names)
    also = [tf for tf in asked if tf not in data.tfs]
    if everything:
        also = [
            tf
            for tf in also
            if any(
                strides_of(BOUND, dataset, tf, cell, data.train).size
                for cell in data.cells
                if cell in dataset.cells_of(tf)
            )
        ]
    for tf in also:
        _require_bound(replace(data, tfs=(tf,)), "training", data.train, data.cells)
    return tuple(also)


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
        if not any(strides_of(label, data.dataset, tf, cell, regions).size for cell in pairs):
            raise EbertError(
                f"{tf} has no {name} bin in the {what} part ({', '.join(map(str, regions)) or 'empty'}) of "
                f"{', '.join(pairs) or 'any chosen cell type'}",
                "choose other chromosomes (--chrom, --valid-chrom) or cell types (--cell), or leave this TF out",
            )


def strides_of(label: int, dataset: Dataset, tf: str, cell: str, regions: Sequence[Region]) -> NDArray[np.int64]:
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
