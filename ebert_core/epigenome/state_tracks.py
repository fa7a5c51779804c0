"""Segmentation files -> state tracks: one byte per 200-bp bin of the flat axis."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ebert_core.epigenome.state_models import StateModel
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import first_overlap_with_previous
from ebert_core.io.bed import Rows, read_rows, reading_notes
from ebert_core.vocabulary import STATE_BIN_BP, STATE_UNKNOWN


@dataclass(frozen=True)
class StateTrack:
    """The chromatin states of one cell type.

    Attributes:
        codes: uint8 of shape (flat_bp / 200,); 0 unknown, i + 1 for state i of the model.
        uncovered_bins: bins of the assembly's chromosomes that the file says nothing about.
        notes: renamed or dropped chromosomes.
    """

    codes: NDArray[np.uint8]
    uncovered_bins: int
    notes: list[str]


@dataclass(frozen=True)
class Segmentation:
    """A parsed segmentation file: its rows and the distinct names in column 4."""

    path: Path
    rows: Rows
    names: list[str]
    name_codes: NDArray[np.int64]


def read_segmentation(path: Path, assembly: Assembly) -> Segmentation:
    """Parse BED4 or BED9 (`mnemonics`, `segments`, `stateno`, `dense`) without yet knowing the state model."""
    rows = read_rows(path, assembly, num_columns=4)
    short = rows.table.widths < 4
    if short.any():
        row = int(np.argmax(short))
        raise rows.table.error(row, f"has {rows.table.widths[row]} columns, expected a state name in column 4")
    names, codes = rows.table.categories(3)
    return Segmentation(path, rows, names, codes[rows.row])


def build_state_track(segmentation: Segmentation, assembly: Assembly, model: StateModel) -> StateTrack:
    """Lay the segments on the flat axis.

    Raises:
        InputError: a name outside the model; a segment that does not begin and end on multiples of 200 bp (the
            chromosome's end excepted); segments that overlap.
    """
    rows, path = segmentation.rows, segmentation.path
    codes = np.array([model.code_of(name) or STATE_UNKNOWN for name in segmentation.names], dtype=np.uint8)
    states = codes[segmentation.name_codes]
    if (strange := states == STATE_UNKNOWN).any():
        at = int(np.argmax(strange))
        name = segmentation.names[segmentation.name_codes[at]]
        raise rows.table.error(
            int(rows.row[at]),
            f"state {name!r} is not one of the {len(model.states)} states of {model.name}",
            "all files of a dataset share one state model; say which with --state-model, or make another dataset",
        )
    lengths = np.array(assembly.lengths)[rows.chrom]
    odd = (rows.starts % STATE_BIN_BP != 0) | ((rows.ends % STATE_BIN_BP != 0) & (rows.ends != lengths))
    if odd.any():
        at = int(np.argmax(odd))
        raise rows.table.error(
            int(rows.row[at]),
            f"segment {rows.starts[at]:,}-{rows.ends[at]:,} does not lie on 200-bp bins",
            "expected a segmentation at 200-bp resolution (ChromHMM's and IDEAS' default)",
        )
    _refuse_overlaps(rows, assembly)

    track = np.full(assembly.flat_bp // STATE_BIN_BP, STATE_UNKNOWN, dtype=np.uint8)
    first = (assembly.offsets[rows.chrom] + rows.starts) // STATE_BIN_BP
    counts = -(-(rows.ends - rows.starts) // STATE_BIN_BP)
    order = np.argsort(first, kind="stable")
    positions = np.repeat(first[order] - np.concatenate([[0], np.cumsum(counts[order])[:-1]]), counts[order])
    track[positions + np.arange(len(positions))] = np.repeat(states[order], counts[order])
    uncovered = len(track) - len(positions)
    if uncovered == len(track):
        raise InputError(path, "covers no bin of the genome")
    return StateTrack(track, uncovered, reading_notes(rows))


def _refuse_overlaps(rows: Rows, assembly: Assembly) -> None:
    flat_starts = assembly.offsets[rows.chrom] + rows.starts
    order = np.argsort(flat_starts, kind="stable")
    clash = first_overlap_with_previous(flat_starts[order], (assembly.offsets[rows.chrom] + rows.ends)[order])
    if clash is not None:
        row = int(rows.row[order[clash]])
        raise rows.table.error(
            row,
            f"segment {rows.starts[order[clash]]:,}-{rows.ends[order[clash]]:,} overlaps an earlier one",
            "a segmentation gives every place one state; remove one of the two rows",
        )


def read_state_track(path: Path, assembly: Assembly, model: StateModel) -> StateTrack:
    """One segmentation file whose state model is known."""
    return build_state_track(read_segmentation(path, assembly), assembly, model)


def model_mismatch(segmentation: Segmentation, model: StateModel, first: Path) -> EbertError | None:
    """The error for a file whose names do not fit the model that `first` settled, or None."""
    strange = [name for name in segmentation.names if model.code_of(name) is None]
    if not strange:
        return None
    return InputError(
        segmentation.path,
        f"has state {strange[0]!r}, which {model.name} (the state model of {first.name}) does not know",
        "one dataset holds one state model: keep one model per folder, or name the model with --state-model",
    )
