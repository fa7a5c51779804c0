"""What a model's score of a site owes to each base and to the chromatin state: every one is replaced in turn.

A site's bins are read in windows such that the score of the unchanged site is the one that `ebert predict` gives. The
score of a site of several bins is that of its highest-scoring bin, before and after the change.

In-silico mutagenesis: Alipanahi et al., Nature Biotechnology 2015; Zhou and Troyanskaya, Nature Methods 2015.

Legend: B windows, K alternatives, L bases of the stretch, N bins of the site, S states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.windows import Batch
from ebert_core.genome.intervals import Positions
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.rescore import Changes, Rescore, rescored
from ebert_core.inference.sites import Site
from ebert_core.inference.windows import ChromReader, Floats, Layout
from ebert_core.model.calibration import Calibration
from ebert_core.vocabulary import BASE_N, BIN_BP, NUM_BASES, STATE_BIN_BP, STRIDE_BP

NO_BIN: Final = "at the end of its chromosome, where no bin is centred"


@dataclass(frozen=True)
class Settings:
    """What is replaced.

    Attributes:
        width: bases of the stretch around a site's middle, bp.
        whole: the score is that of all bins centred in the site, not of its central bin.
        reach: 200-bp bins on either side of the site's own whose state is replaced with theirs.
    """

    width: int = 200
    whole: bool = False
    reach: int = 0


@dataclass(frozen=True)
class StateEffects:
    """What replacing the state does.

    Attributes:
        first, last: 200-bp bins of the chromosome whose states are replaced, half-open.
        shown: their states as they are, uint8 (last - first,); 0 is unknown.
        accessible: whether the cell type's own accessibility was shown in each row of `logits`.
        logits: float32 (rows, 1 + 1 + S): the site as it is, then with every one of the bins unknown, then in each
            state of the model in its order. Rows differ in what is shown of accessibility.
    """

    first: int
    last: int
    shown: NDArray[np.uint8]
    accessible: tuple[bool, ...]
    logits: Floats

    @property
    def deltas(self) -> Floats:
        """Difference to the site as it is, (rows, 1 + S)."""
        return self.logits[:, 1:] - self.logits[:, :1]


@dataclass(frozen=True)
class SiteEffects:
    """What a model's score of a site owes to what.

    Attributes:
        site: it.
        bins: whose score it is.
        logit: of the site as it is.
        first: position of the stretch's first base.
        bases: its base codes, uint8 (L,).
        deltas: change of the logit when the base is replaced by A, C, G, T, float32 (L, 4); 0 for the base itself, NaN
            where the genome's base is not known.
        states: None where the model reads no states.
    """

    site: Site
    bins: Positions
    logit: float
    first: int
    bases: NDArray[np.uint8]
    deltas: Floats
    states: StateEffects | None

    @property
    def importance(self) -> Floats:
        """Minus the mean change over the three substitutions, (L,): what the score loses without the base."""
        return -self.deltas.sum(axis=1) / (NUM_BASES - 1)

    def delta_probabilities(self, calibration: Calibration) -> Floats:
        """As `deltas`, of the probability."""
        before = calibration.probabilities(np.array([self.logit], dtype=np.float32))
        after = calibration.probabilities(np.float32(self.logit) + np.nan_to_num(self.deltas))
        return np.where(np.isnan(self.deltas), np.float32(np.nan), after - before)


class Mutagenesis:
    """Replaces bases and states of sites, and asks the model.

    Args:
        model: fine-tuned.
        rescore: of the model; both strands' mean or one strand.
        column: output of the TF.
        settings: what is replaced.
    """

    def __init__(self, model: LoadedModel, rescore: Rescore, column: int, settings: Settings) -> None:
        self._rescore, self._column, self._settings = rescore, column, settings
        self._layout = Layout.of(model)
        self._half = model.geometry().window_bp // 2
        self._num_states = len(model.state_model.states)
        self._reads_states = FinetuneConfig(**model.manifest["config"]).use_states

    def effects(self, reader: ChromReader, site: Site) -> SiteEffects | str:
        """All effects of a site, or why it has no score."""
        bins = site.bins(reader.num_bins, whole=self._settings.whole)
        if not len(bins):
            return NO_BIN
        scored = bins[reader.scorable(bins)]
        if not len(scored):
            return reader.why_unscored(bins)
        first, last = site.stretch(self._settings.width, reader.length)
        codes = np.asarray(reader.bases[first:last])
        logit, deltas = self._base_effects(reader, scored, first, codes)
        states = self._state_effects(reader, scored) if self._reads_states else None
        return SiteEffects(site, scored, logit, first, codes, deltas, states)

    def _base_effects(
        self, reader: ChromReader, bins: Positions, first: int, codes: NDArray[np.uint8]
    ) -> tuple[float, Floats]:
        places, bases = np.nonzero(np.arange(NUM_BASES) != codes[:, None])
        known = codes[places] < BASE_N
        places, bases = places[known], bases[known].astype(np.uint8)

        def change(window: Batch, start: int) -> tuple[Batch, NDArray[np.int64]]:
            at = first + places - start
            # What a window does not hold cannot change its score.
            read = np.flatnonzero((at >= 0) & (at < window.bases.shape[1]))
            changed = _repeated(window, 1 + len(read))
            changed.bases[1 + np.arange(len(read)), at[read]] = bases[read]
            return changed, read

        logits = self._ask(reader, bins, len(places), change)
        deltas = np.zeros((len(codes), NUM_BASES), dtype=np.float32)
        deltas[codes >= BASE_N] = np.nan
        deltas[places, bases] = logits[1:] - logits[0]
        return float(logits[0]), deltas

    def _state_effects(self, reader: ChromReader, bins: Positions) -> StateEffects:
        reach = self._settings.reach
        first = max(0, int(bins[0]) * STRIDE_BP // STATE_BIN_BP - reach)
        last = -(-(int(bins[-1]) * STRIDE_BP + BIN_BP) // STATE_BIN_BP) + reach
        last = min(last, -(-reader.length // STATE_BIN_BP))
        codes = np.arange(self._num_states + 1, dtype=np.uint8)

        def change(window: Batch, start: int) -> tuple[Batch, NDArray[np.int64]]:
            at = np.arange(first, last) - start // STATE_BIN_BP
            at = at[(at >= 0) & (at < window.states.shape[1])]
            changed = _repeated(window, 1 + len(codes))
            changed.states[1:, at] = codes[:, None]
            return changed, np.arange(len(codes))

        accessible = (True, False) if reader.shows_accessibility else (False,)
        rows = [self._ask(reader, bins, len(codes), change, hide_own=not shown) for shown in accessible]
        shown = reader.states_of(first, last)
        shown = np.zeros(last - first, dtype=np.uint8) if shown is None else shown
        return StateEffects(first, last, shown, accessible, np.stack(rows))

    def _ask(
        self,
        reader: ChromReader,
        bins: Positions,
        num: int,
        change: Callable[[Batch, int], tuple[Batch, NDArray[np.int64]]],
        *,
        hide_own: bool = False,
    ) -> Floats:
        """The score of the bins as they are, then of `num` alternatives, (1 + num,).

        Args:
            change: (a window, its start) -> that window as it is, then changed ones; and which alternatives those are.
                The others leave the window as it is.
        """
        logits = np.empty((1 + num, 0), dtype=np.float32)
        for start, here in self._layout.windows(bins):
            window = reader.windows(np.array([start]), self._layout.geometry.window_bp, hide_own=hide_own)
            changed, which = change(window, start)
            found = self._logits(reader, start, window, changed, here)
            own = np.repeat(found[:1], 1 + num, axis=0)
            own[1 + which] = found[1:]
            logits = np.concatenate([logits, own], axis=1)
        return logits.max(axis=1)

    def profile(self, reader: ChromReader, site: Site) -> tuple[Positions, Floats]:
        """The bins of a window's length around a site's middle that have a value, and their logits."""
        low = (site.middle - self._half) // STRIDE_BP
        high = (site.middle + self._half - BIN_BP) // STRIDE_BP
        bins = np.arange(max(low, 0), min(high, reader.num_bins - 1) + 1, dtype=np.int64)
        bins = bins[reader.scorable(bins)]
        found = []
        for start, here in self._layout.windows(bins):
            window = reader.windows(np.array([start]), self._layout.geometry.window_bp)
            found.append(self._logits(reader, start, window, window, here)[0])
        return bins, np.concatenate(found)

    def _logits(self, reader: ChromReader, start: int, window: Batch, changed: Batch, bins: Positions) -> Floats:
        """Of bins of the window at `start`, in all that is made of it, (1 + K, bins)."""
        num = len(changed.bases)
        asked = np.broadcast_to(bins - start // STRIDE_BP, (num, len(bins)))
        of = np.zeros(num, dtype=np.int64)
        changes = Changes(window, np.array([start]), of, changed.bases, changed.states, asked)
        return rescored(self._rescore, changes, reader.chrom)[1][:, :, self._column]


def _repeated(window: Batch, times: int) -> Batch:
    """Bases and states of one window, `times` over, free to be changed."""
    return Batch(np.repeat(window.bases, times, axis=0), np.repeat(window.states, times, axis=0))
