"""What is asked of a model: TFs, a cell type with its states and accessibility, regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackReader
from ebert_core.epigenome.accessibility import read_accessibility
from ebert_core.epigenome.cell_types import canonical_cell, resolve_cell
from ebert_core.epigenome.state_tracks import read_state_track
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.scan import Tracks

_BATCH_WINDOWS: Final = 8


@dataclass(frozen=True)
class CellStates:
    """Where the states of the asked cell type come from.

    Attributes:
        name: of the cell type, for file names and manifests.
        flat: state codes on the flat axis, or None: predicted with unknown states.
        source: in words.
        notes: what a user should know about the reading of a segmentation, a sentence each.
    """

    name: str
    flat: NDArray[np.uint8] | None
    source: str
    notes: tuple[str, ...] = ()


def cell_states(dataset: Dataset, model: LoadedModel, cell: str, states: Path | None, *, no_states: bool) -> CellStates:
    """The states of a cell type: from the dataset, from a segmentation file, or none at all.

    Raises:
        UnknownNameError: the dataset does not know the cell type and no other source was named.
    """
    reads_states = FinetuneConfig(**model.manifest["config"]).use_states
    if no_states or not reads_states:
        why = "asked for" if no_states else "the model was trained without states"
        return CellStates(_spelled(dataset, cell), None, f"none ({why})")
    if states is not None:
        track = read_state_track(states, dataset.assembly, model.state_model)
        uncovered = f"{states.name}: {track.uncovered_bins:,} of {len(track.codes):,} bins have no state"
        notes = (*track.notes, *([uncovered] if track.uncovered_bins > len(dataset.assembly.chroms) else []))
        return CellStates(_spelled(dataset, cell), track.codes, str(states), notes)
    try:
        name = resolve_cell(cell, dataset.cells, dataset.aliases)
    except UnknownNameError as error:
        more = "or pass its segmentation with --states FILE, or --no-states to predict without"
        raise EbertError(error.message, f"{error.hint}; {more}".replace("?;", "?")) from None
    if name not in dataset.state_cells:
        return CellStates(name, None, "none (the dataset has no states of this cell type)")
    return CellStates(name, dataset.flat_states(name), f"dataset {dataset.path}")


def _spelled(dataset: Dataset, cell: str) -> str:
    """The dataset's spelling of a cell type, or the common name of one that it lacks."""
    try:
        return resolve_cell(cell, dataset.cells, dataset.aliases)
    except UnknownNameError:
        return canonical_cell(cell, dataset.aliases)


def give_accessibility(
    dataset: Dataset, model: LoadedModel, cell: str, path: Path | None, *, hide: bool = False
) -> list[str]:
    """Let a model see a file as the cell type's accessibility, or see none; what a user should know of it.

    Raises:
        EbertError: a file is given and the model reads no accessibility.
        InputError: a fault in the file.
    """
    reader = model.tracks
    if reader is None or not reader.spec.reads_own:
        if path is not None:
            raise EbertError(
                f"model {model.path} does not read a cell type's own accessibility", "leave --accessibility out"
            )
        return [] if reader is None else [*reader.missing, *reader.lacks(cell)]
    if path is not None:
        track, notes = read_accessibility(path, dataset.assembly)
        reader.give(cell, track, str(path))
        return [*reader.missing, *reader.lacks(cell), *notes]
    if hide:
        reader.give(cell, None, "none (asked for)")
    elif not reader.has_accessibility(cell):
        return [
            *reader.missing,
            *reader.lacks(cell),
            f"accessibility of {cell}: none in the dataset; name its file with --accessibility if there is one",
        ]
    return [*reader.missing, *reader.lacks(cell)]


def tracks_of(dataset: Dataset, model: LoadedModel, cell: str | None, chrom: str) -> Tracks | None:
    """The model's task features of windows of a chromosome in a cell type; None where it reads none."""
    reader, offset = model.tracks, dataset.assembly.offset(chrom)
    if reader is None:
        return None
    return chrom_tracks(reader, cell, (offset, offset + dataset.assembly.length(chrom)), model.geometry().window_bp)


def chrom_tracks(reader: TrackReader, cell: str | None, span: tuple[int, int], window_bp: int) -> Tracks:
    """Task features of windows whose starts count from the beginning of `span`, flat positions of a chromosome."""

    def tracks(starts: NDArray[np.int64]) -> NDArray[np.float32]:
        return reader.read(cell, starts + span[0], window_bp, span=span)

    return tracks


@dataclass(frozen=True)
class Request:
    """What to predict.

    Attributes:
        tfs: in the order of the outputs' columns.
        cell: cell type and its states.
        regions: bins centred in them are scored.
        both_strands: average the logits of the two strands.
    """

    tfs: tuple[str, ...]
    cell: CellStates
    regions: tuple[Region, ...]
    both_strands: bool = True


def provenance(dataset: Dataset, model: LoadedModel, cell: CellStates, *, both_strands: bool) -> dict[str, Any]:
    """For sidecars: what a model was shown of a cell type, and what the model is."""
    return {
        "cell": cell.name,
        "states": cell.source,
        "accessibility": None if model.tracks is None else model.tracks.source(cell.name),
        "assembly": {"name": dataset.assembly.name, "digest": dataset.assembly.digest},
        "model": {"path": str(model.path), "files": model.manifest["files"]},
        "trained_on": model.trained_on,
        "both_strands": both_strands,
    }
