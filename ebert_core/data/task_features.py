"""Task features that come from tracks: accessibility of the cell type beside other cell types', transcript starts, and
the chromatin states of other cell types.

A model remembers which of them it reads, to which distribution accessibility is normalised and which other cell types
it looks at, so that a prediction shows it the numbers that it was trained on. A cell type without accessibility is
shown as such by channels of its own: missing signal is not zero.

Legend: B windows, n strides of a window, F channels, K states of the alphabet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.config import FeatureConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.gene_levels import GeneLevel, expression_channels, gene_levels
from ebert_core.data.other_states import state_shares
from ebert_core.epigenome.normalisation import Normaliser, Quantiles, Track, reference_of
from ebert_core.errors import EbertError
from ebert_core.genome.intervals import Positions
from ebert_core.vocabulary import STRIDE_BP

ACCESSIBILITY_CHANNELS: Final = ("own", "others' mean", "own - mean", "own known", "mean known")
SHOWN, OWN_HIDDEN, ALL_HIDDEN = 0, 1, 2
"""What a window shows of accessibility: all, all but the cell type's own, nothing."""

_FAR: Final = 65_535  # what stands for this distance to a transcript start and for more


@dataclass(frozen=True)
class TrackSpec:
    """Which tracks a model reads, and how.

    Attributes:
        reference: the distribution of accessibility that it knows; None reads no accessibility.
        mean_cells: cell types of the mean; the one that is looked at does not count towards its own mean, so that a
            held-out cell type is shown as the others were.
        tss: whether it reads distances to transcript starts.
        own: whether it reads the cell type's own accessibility, or that of others alone.
        state_cells: cell types whose states are counted, where the one that is looked at does not count either.
        num_states: K; 0 where it reads no other cell types' states.
        genes: whose expression it reads.
    """

    reference: Quantiles | None = None
    mean_cells: tuple[str, ...] = ()
    tss: bool = False
    own: bool = True
    state_cells: tuple[str, ...] = ()
    num_states: int = 0
    genes: tuple[GeneLevel, ...] = ()

    @classmethod
    def choose(
        cls, dataset: Dataset, config: FeatureConfig, held_out: Collection[str] = (), *, states: bool = True
    ) -> TrackSpec:
        """All that the configuration asks for and the dataset holds, but nothing of held-out cell types.

        Args:
            states: whether the model reads states at all.

        Raises:
            EbertError: something is asked for by name that the dataset does not hold.
        """
        cells = [c for c in dataset.accessibility_cells if c not in held_out] if config.accessibility else []
        reference = reference_of([Quantiles.of(dataset.flat_accessibility(cell)) for cell in cells]) if cells else None
        asked = not cells if config.other_states is None else config.other_states
        with_states = [c for c in dataset.state_cells if c not in held_out] if asked and states else []
        # One alone has no others while training.
        if len(with_states) < 2:
            if config.other_states:
                lacking = "the model reads no states" if not states else f"{len(with_states)} cell type(s) have states"
                raise EbertError(
                    f"other_states asks for other cell types' states, and {lacking}", "leave it out, or add states"
                )
            with_states = []
        if cells and not config.own_accessibility and len(cells) < 2:
            raise EbertError(
                f"own_accessibility=false leaves other cell types', and {cells[0]} alone has any that is not held out",
                "add accessibility of further cell types, or pass --no-accessibility",
            )
        num_states = len(dataset.require_state_model().states) if with_states else 0
        tss = config.tss and dataset.has_tss
        genes = gene_levels(dataset, config.expression, held_out)
        return cls(reference, tuple(cells), tss, config.own_accessibility, tuple(with_states), num_states, genes)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the F channels."""
        found = (ACCESSIBILITY_CHANNELS if self.reference else ()) + (("tss",) if self.tss else ())
        if self.genes:
            found += (*(f"expression of {level.gene}" for level in self.genes), "expression known")
        return found + tuple(f"others in state {code}" for code in range(1, self.num_states + 1))

    @property
    def reads_own(self) -> bool:
        """Whether the model reads the cell type's own accessibility."""
        return self.reference is not None and self.own

    def to_json(self) -> dict[str, Any]:
        """For a model's manifest."""
        return {
            "accessibility_reference": self.reference.to_json() if self.reference else None,
            "mean_cells": list(self.mean_cells),
            "own_accessibility": self.own,
            "tss": self.tss,
            "state_cells": list(self.state_cells),
            "num_states": self.num_states,
            "genes": [level.to_json() for level in self.genes],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrackSpec:
        """The inverse of `to_json`; KeyError, TypeError or ValueError where the value is none of its."""
        reference = value["accessibility_reference"]
        for key, kind in (
            ("mean_cells", list), ("tss", bool), ("own_accessibility", bool), ("state_cells", list),
            ("num_states", int), ("genes", list),
        ):  # fmt: skip
            if type(value[key]) is not kind:
                raise TypeError(f"{key} is {value[key]!r}")
        if value["num_states"] < 0:
            raise ValueError(f"num_states is {value['num_states']}")
        return cls(
            None if reference is None else Quantiles.from_json(reference),
            tuple(map(str, value["mean_cells"])),
            value["tss"],
            value["own_accessibility"],
            tuple(map(str, value["state_cells"])),
            value["num_states"],
            tuple(map(GeneLevel.from_json, value["genes"])),
        )


class TrackReader:
    """Gathers the tracks of windows from a dataset's memory maps.

    Args:
        dataset: an open dataset.
        spec: what is read.

    Attributes:
        missing: what the dataset lacks of the spec, in words.

    Raises:
        EbertError: the spec reads transcript starts and the dataset holds none.
    """

    def __init__(self, dataset: Dataset, spec: TrackSpec) -> None:
        if spec.tss and not dataset.has_tss:
            raise EbertError(
                f"the model reads distances to transcript starts, dataset {dataset.path} holds none",
                "add them: `ebert prepare --tss FILE`",
            )
        self.dataset, self.spec = dataset, spec
        self.missing: list[str] = []
        self._given: dict[str, tuple[Track | None, str]] = {}
        self._normalisers: dict[str, Normaliser] = {}
        here = [cell for cell in self.spec.mean_cells if cell in self.dataset.accessibility_cells]
        self._mean_cells = here if self.spec.reference else []
        if lost := [cell for cell in self.spec.mean_cells if cell not in here]:
            self.missing.append(f"the mean accessibility is of {len(here)} cell types, without {', '.join(lost)}")
        self._state_cells = [cell for cell in self.spec.state_cells if cell in self.dataset.state_cells]
        if lost := [cell for cell in self.spec.state_cells if cell not in self._state_cells]:
            self.missing.append(f"other cell types' states are of {len(self._state_cells)}, without {', '.join(lost)}")
        # An open stride of middling strength is 3: what is open must stand out among all that a network reads.
        self._scale = 3 / self.spec.reference.median if self.spec.reference else 1.0

    def give(self, cell: str, track: Track | None, source: str) -> None:
        """Show this track as the cell type's accessibility, in place of the dataset's; None shows it as unknown.

        Args:
            cell: any name.
            track: ln(1 + signal) on the flat axis, of `epigenome.accessibility.read_accessibility`.
            source: where it is from, in words.
        """
        self._given[cell] = track, source
        self._normalisers.pop(cell, None)

    def has_accessibility(self, cell: str | None) -> bool:
        """Whether the cell type's own is known, and read."""
        if not self.spec.reads_own:
            return False
        return self._given[cell][0] is not None if cell in self._given else cell in self.dataset.accessibility_cells

    def lacks(self, cell: str) -> list[str]:
        """What the dataset lacks of this cell type, beside accessibility and states, in words."""
        if self.spec.genes and cell not in self.dataset.expression_cells:
            return [f"expression of {cell}: none in the dataset; it is shown as unknown"]
        return []

    def source(self, cell: str) -> str | None:
        """Where the cell type's accessibility is from, in words; None where the model reads none."""
        if self.spec.reference is None:
            return None
        if not self.spec.own:
            return "other cell types' alone"
        if cell in self._given:
            return self._given[cell][1]
        return f"dataset {self.dataset.path}" if self.has_accessibility(cell) else "none (the dataset has none)"

    def given_digest(self, cell: str) -> str | None:
        """SHA-256 of the track that was given; None where none was."""
        track = self._given[cell][0] if cell in self._given else None
        return None if track is None else hashlib.sha256(track.tobytes()).hexdigest()

    def read(
        self,
        cell: str | None,
        starts: Positions,
        window_bp: int,
        hidden: NDArray[np.uint8] | None = None,
        span: tuple[int, int] | None = None,
        *,
        hide_states: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """Tracks of windows.

        Args:
            cell: whose accessibility is shown; None or one without a track is shown as unknown.
            starts: flat positions (multiples of 50), shape (B,).
            window_bp: a multiple of 50.
            hidden: what each window does not show of accessibility, shape (B,): SHOWN, OWN_HIDDEN or ALL_HIDDEN; None
                shows all.
            span: flat positions outside which there is nothing, such as a chromosome's; None is the whole axis.
            hide_states: windows that do not show other cell types' states, shape (B,); None shows all.

        Returns:
            float32 (B, n, F), channels as `TrackSpec.channels`.
        """
        first, last = (each // STRIDE_BP for each in span or (0, self.dataset.assembly.flat_bp))
        strides = starts[:, None] // STRIDE_BP + np.arange(window_bp // STRIDE_BP)
        inside = (strides >= first) & (strides < last)
        strides = np.clip(strides, first, last - 1)
        out = np.zeros((*strides.shape, len(self.spec.channels)), dtype=np.float32)
        if self.spec.reference is not None:
            self._read_accessibility(cell, strides, hidden, out)
        accessible = len(ACCESSIBILITY_CHANNELS) if self.spec.reference else 0
        others = [other for other in self._state_cells if other != cell]
        if others:
            tracks = [self.dataset.flat_states(other) for other in others]
            shown = np.ones(len(strides), dtype=bool) if hide_states is None else ~hide_states
            shares = state_shares(tracks, strides, self.spec.num_states)
            out[..., -self.spec.num_states :] = shares * shown[:, None, None]
        if self.spec.genes:
            first_gene = accessible + self.spec.tss
            levels = expression_channels(self.dataset, self.spec.genes, cell)
            out[..., first_gene : first_gene + len(levels)] = levels
        out *= inside[..., None]
        if self.spec.tss:
            distance = np.where(inside, self.dataset.flat_tss_distance[strides], _FAR).astype(np.float32)
            out[..., accessible] = np.log1p(distance) / 2 - 4  # about -4 at a start, 1.5 far from any
        return out

    def _read_accessibility(
        self,
        cell: str | None,
        strides: NDArray[np.int64],
        hidden: NDArray[np.uint8] | None,
        out: NDArray[np.float32],
    ) -> None:
        hidden = np.zeros(len(strides), dtype=np.uint8) if hidden is None else hidden
        own_shown = (hidden == SHOWN) & self.has_accessibility(cell)
        others = [other for other in self._mean_cells if other != cell]
        mean_shown = (hidden != ALL_HIDDEN) & bool(others)
        if own_shown.any():
            assert cell is not None
            out[..., 0] = self._normalised(cell, strides) * own_shown[:, None]
        if mean_shown.any():
            total = np.zeros(strides.shape, dtype=np.float32)
            for other in others:
                total += self._normalised(other, strides)
            out[..., 1] = total / len(others) * mean_shown[:, None]
        both = (own_shown & mean_shown)[:, None]
        out[..., 2] = (out[..., 0] - out[..., 1]) * both
        out[..., 3] = own_shown[:, None]
        out[..., 4] = mean_shown[:, None]

    def _normalised(self, cell: str, strides: NDArray[np.int64]) -> NDArray[np.float32]:
        given = self._given[cell][0] if cell in self._given else None
        track = self.dataset.flat_accessibility(cell) if given is None else given
        if cell not in self._normalisers:
            assert self.spec.reference is not None
            self._normalisers[cell] = Normaliser(Quantiles.of(track), self.spec.reference)
        return self._normalisers[cell](np.asarray(track[strides])) * np.float32(self._scale)
