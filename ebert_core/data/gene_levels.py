"""How much some genes are expressed in a cell type, beside all cell types: a task feature, the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError

_MOST: Final = 3.0
_LEAST_DEVIATION: Final = 0.1


@dataclass(frozen=True)
class GeneLevel:
    """A gene and the distribution of its expression, ln(1 + RPKM or TPM), over cell types.

    Attributes:
        gene: as it was asked for.
        mean, deviation: over the cell types.
    """

    gene: str
    mean: float
    deviation: float

    def to_json(self) -> dict[str, Any]:
        """For a model's manifest."""
        return {"gene": self.gene, "mean": self.mean, "deviation": self.deviation}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GeneLevel:
        """The inverse of `to_json`; KeyError, TypeError or ValueError where the value is none of its."""
        level = cls(str(value["gene"]), float(value["mean"]), float(value["deviation"]))
        if not (math.isfinite(level.mean) and math.isfinite(level.deviation) and level.deviation > 0):
            raise ValueError(f"expression of {level.gene}: mean {level.mean}, deviation {level.deviation}")
        return level


def gene_levels(dataset: Dataset, genes: Sequence[str], held_out: Collection[str]) -> tuple[GeneLevel, ...]:
    """Distributions over all cell types of the dataset with expression, but nothing of held-out ones.

    Raises:
        EbertError: the dataset holds no expression, or none of a gene.
    """
    cells = [cell for cell in dataset.expression_cells if cell not in held_out]
    beside = f" of other cell types ({', '.join(held_out)} held out)" if held_out else ""
    if genes and not cells:
        raise EbertError(
            f"dataset {dataset.path} holds no gene expression{beside}", "add some: `ebert prepare --expression`"
        )
    found = []
    for gene in dict.fromkeys(genes):
        values = [value for cell in cells if (value := dataset.expression(cell, gene)) is not None]
        if not values:
            raise EbertError(
                f"no table of expression{beside} names {gene}",
                "name genes as the tables do, or by symbol with `ebert prepare --gene-names`",
            )
        found.append(GeneLevel(gene, float(np.mean(values)), max(float(np.std(values)), _LEAST_DEVIATION)))
    return tuple(found)


def expression_channels(dataset: Dataset, levels: Sequence[GeneLevel], cell: str | None) -> NDArray[np.float32]:
    """Deviations from the mean, in standard deviations and within 3, then whether any gene is known; (G + 1,).

    An unknown gene is shown as the mean.
    """
    out = np.zeros(len(levels) + 1, dtype=np.float32)
    if cell not in dataset.expression_cells:
        return out
    for place, level in enumerate(levels):
        value = dataset.expression(cell, level.gene)
        if value is not None:
            out[place] = np.clip((value - level.mean) / level.deviation, -_MOST, _MOST)
            out[-1] = 1
    return out
