"""Segmentation files -> state tracks: one byte per 200-bp bin of the flat axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ebert_core.epigenome.state_models import BUILT_IN, StateModel, detect_state_model
from ebert_core.errors import InputError
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
    """A parsed segmentation file: its rows on the assembly, their distinct names (column 4), each row's among them."""

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
        raise rows.table.error(
            row,
            f"has {rows.table.widths[row]} columns, expected a state name in column 4",
            "a segmentation is BED4 or BED9: chrom, start, end, state",
        )
    names, codes = rows.table.categories(3)
    present, codes = np.unique(codes[rows.row], return_inverse=True)
    return Segmentation(path, rows, [names[code] for code in present], codes)


def build_state_track(segmentation: Segmentation, assembly: Assembly, model: StateModel) -> StateTrack:
    """Lay the segments on the flat axis.

    Raises:
        InputError: a name outside the model; a segment that does not begin and end on multiples of 200 bp (the
            chromosome's end excepted); segments that overlap.
    """
    rows, path = segmentation.rows, segmentation.path
    codes = np.array([model.code_of(name) or STATE_UNKNOWN for name in segmentation.names], dtype=np.uint8)
    states = codes[segmentation.name_codes]
    if (states == STATE_UNKNOWN).any():
        raise _not_in_model(segmentation, model)
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
        raise InputError(path, "covers no bin of the genome", "is it of the same assembly?")
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


def detect_shared_model(segmentations: list[Segmentation], file_names: Iterable[str]) -> StateModel:
    """The built-in model that all files share.

    Raises:
        InputError: a file's names fit no model, or two files fit different ones.
        EbertError: several models fit (see `detect_state_model`).
    """
    fitting = [[model for model in BUILT_IN.values() if not _strange(seg, model)] for seg in segmentations]
    for segmentation, models in zip(segmentations, fitting, strict=True):
        if not models:
            nearest = min(BUILT_IN.values(), key=lambda model: len(_strange(segmentation, model)))
            raise _not_in_model(segmentation, nearest, "nearest of the known state models")
        if not any(model in fitting[0] for model in models):
            raise InputError(
                segmentation.path,
                f"holds states of {models[0].name}, {segmentations[0].path.name} those of {fitting[0][0].name}",
                "one dataset holds one state model: keep one per folder, or list one's files in a sheet (cell, path)",
            )
    return detect_state_model({name for seg in segmentations for name in seg.names}, file_names)


def _strange(segmentation: Segmentation, model: StateModel) -> list[str]:
    return [name for name in segmentation.names if model.code_of(name) is None]


def _not_in_model(segmentation: Segmentation, model: StateModel, what: str = "the dataset's state model") -> InputError:
    """The error about the first row whose state the model lacks."""
    strange = np.isin(segmentation.name_codes, [segmentation.names.index(n) for n in _strange(segmentation, model)])
    at = int(np.argmax(strange))
    return segmentation.rows.table.error(
        int(segmentation.rows.row[at]),
        f"state {segmentation.names[segmentation.name_codes[at]]!r} is not one of the {len(model.states)} states of "
        f"{model.name}, {what}",
        "one dataset holds one state model: name it with --state-model, or make another dataset",
    )
