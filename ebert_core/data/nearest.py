"""Which of a dataset's epigenomes is nearest to a cell type: whose states may stand in for those that it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ebert_core.data.dataset import Dataset
from ebert_core.epigenome.cell_types import epigenome_id
from ebert_core.epigenome.similarity import open_bins, openness_explained, states_explained
from ebert_core.errors import EbertError
from ebert_core.reporting import SILENT, Reporter

Evidence = Literal["states", "accessibility"]


@dataclass(frozen=True)
class Neighbour:
    """An epigenome of the dataset.

    Attributes:
        cell: its name in the dataset.
        epigenome: its Roadmap id, or ''.
        score: share of the entropy of the asked cell type's states, or of which of its bins are open, that this
            epigenome's states explain; 0 to 1.
    """

    cell: str
    epigenome: str
    score: float


def evidence_of(dataset: Dataset, cell: str) -> Evidence:
    """By what a cell type is compared: by its states where the dataset has them, else by its accessibility."""
    if cell in dataset.state_cells:
        return "states"
    if cell in dataset.accessibility_cells:
        return "accessibility"
    raise EbertError(
        f"the dataset holds neither states nor accessibility of {cell}",
        "add its accessibility first: `ebert prepare --accessibility FILE`",
    )


def nearest_epigenomes(
    dataset: Dataset, name: str, evidence: Evidence | None = None, reporter: Reporter = SILENT
) -> list[Neighbour]:
    """The dataset's epigenomes, the likeliest stand-in first.

    Compared by states, the cell type itself is left out; compared by accessibility it is in the list where it has
    states, and should come first.

    Args:
        dataset: with the states of at least one cell type.
        name: a cell type, in any spelling.
        evidence: what to compare by; None lets `evidence_of` choose.

    Raises:
        UnknownNameError: the dataset knows no such cell type.
        EbertError: it holds no states, or nothing to compare by.
    """
    dataset.require_state_model()
    cell = dataset.resolve_cell(name)
    evidence = evidence or evidence_of(dataset, cell)
    others = [other for other in dataset.state_cells if evidence == "accessibility" or other != cell]
    if not others:
        raise EbertError(f"{cell} is the only cell type with states in {dataset.path}", "add others with --states")
    is_open = open_bins(dataset.flat_accessibility(cell)) if evidence == "accessibility" else None
    neighbours = []
    with reporter.task("comparing epigenomes", len(others), "epigenomes") as advance:
        for other in others:
            states = dataset.flat_states(other)
            if is_open is None:
                score = states_explained(dataset.flat_states(cell), states)
            else:
                score = openness_explained(is_open, states)
            neighbours.append(Neighbour(other, epigenome_id(other), score))
            advance(1, other)
    return sorted(neighbours, key=lambda neighbour: (-neighbour.score, neighbour.cell))
