"""What changed bases or states do to windows, without computing again what they leave as it was.

The encoder reads a window in blocks, each on its own, so a change gives new tokens to the blocks that hold it and to no
others; the layers at strides reach some way to either side, so the bins that are asked for need the strides within that
reach and no others. What the windows as they are need is computed once for all that is made of them. The logits are
those of the whole windows, to rounding.

Legend: U windows, K alternatives, J rows (windows as they are, cut around the asked bins, then alternatives), W
window_bp, n strides of a window, C strides of a crop, m bins asked of a window, N blocks, q strides of a block, D width
of a token, T TFs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ebert_core.data.windows import Batch
from ebert_core.errors import EbertError
from ebert_core.genome.intervals import Positions
from ebert_core.inference.packed import packed
from ebert_core.inference.windows import Floats
from ebert_core.model.device import Device
from ebert_core.model.fusion import BindingModel
from ebert_core.vocabulary import BASE_N, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN, reverse_complement

# Crops and blocks begin at whole state bins.
_GRID: Final = STATE_BIN_BP // STRIDE_BP
# Tokens held at once on a CPU; all else is small beside them.
_TOKEN_BYTES: Final = 64 << 20
# bp per call of the encoder, and of what else is computed: products large enough for the full rate, and activations of
# some MB.
_ENCODED_BP: Final = 25_600
_READ_BP: Final = 200_000
# Strides whose features a substitution may reach; an insertion reaches all that follow.
_LOCAL: Final = 8
# Beyond all positions of a chromosome.
_CHANGED: Final = 1 << 40
# A GPU takes more at once.
_ON_GPU: Final = 16


@dataclass(frozen=True)
class Changes:
    """Windows, and what is made of them.

    Attributes:
        windows: as they are.
        starts: of the windows on one chromosome, bp, (U,); what lies at one place of it is one.
        of: the window that each alternative is made of, (K,).
        bases: of the alternatives, uint8 (K, W).
        states: of the alternatives, uint8 (K, W / 200).
        bins: asked of each, by their first stride in the window, (K, m); the same one may be named several times.
    """

    windows: Batch
    starts: Positions
    of: Positions
    bases: NDArray[np.uint8]
    states: NDArray[np.uint8]
    bins: Positions


Rescore = Callable[[Changes], tuple[Floats, Floats]]
"""Logits of the asked bins: of the windows as they are, and of the alternatives, float32 (K, m, T) each."""


def model_rescore(members: Sequence[BindingModel], device: Device, *, both_strands: bool) -> Rescore:
    """The function of a model: logits of one strand, or their mean over both; the mean over its members."""
    rescorers = [_Rescorer(packed(member, device), device, both_strands=both_strands) for member in members]

    def rescore(changes: Changes) -> tuple[Floats, Floats]:
        found = [each(changes) for each in rescorers]
        own, other = (np.stack(logits).mean(axis=0, dtype=np.float32) for logits in zip(*found, strict=True))
        return own, other

    return rescore


def rescored(rescore: Rescore, changes: Changes, where: str) -> tuple[Floats, Floats]:
    """What `rescore` gives.

    Args:
        where: what the windows are of, for errors.

    Raises:
        EbertError: something of it is not a number.
    """
    found = rescore(changes)
    if not all(np.isfinite(each).all() for each in found):
        raise EbertError(
            f"the model gives no number for some bins of {where}",
            "try --precision fp32; if it stays, fine-tune again with a lower learning rate",
        )
    return found


def block_bp(window_bp: int, encoder_bp: int) -> int:
    """Of the blocks in which a model's encoder reads a window: as long as can be with equal multiples of 200."""
    if not encoder_bp or window_bp <= encoder_bp:
        return window_bp
    bins, most = window_bp // STATE_BIN_BP, max(1, encoder_bp // STATE_BIN_BP)
    return next(length for length in range(most, 0, -1) if bins % length == 0) * STATE_BIN_BP


@dataclass(frozen=True)
class _Rows:
    """Windows as they are, one row per window and crop, then the alternatives; all crops have one length.

    Attributes:
        windows, starts: of `Changes`.
        of: window of each row, (J,).
        source: for each alternative, the row of its window as it is, (K,). So J - K rows come first.
        bases, states: of whole windows, (J, W) and (J, W / 200).
        strides: of each row's crop, neighbours, (J, C); the first is a multiple of 4.
        differing: the strides whose bases are not the window's, bool (J, n).
    """

    windows: Batch
    starts: Positions
    of: Positions
    source: Positions
    bases: NDArray[np.uint8]
    states: NDArray[np.uint8]
    strides: Positions
    differing: NDArray[np.bool_]

    @classmethod
    def cut(cls, changes: Changes, rows: Positions, reach: int) -> _Rows:
        """Some alternatives, with what their bins' logits depend on: `reach` strides to either side of the bins."""
        of, bins, strides = changes.of[rows], changes.bins[rows], changes.bases.shape[1] // STRIDE_BP
        first = np.maximum((bins.min(axis=1) - reach) // _GRID * _GRID, 0)
        longest = int((bins.max(axis=1) + STRIDES_PER_BIN + reach - first).max())
        length = min(-(-longest // _GRID) * _GRID, strides)
        # A crop that is moved off a window's end reaches that end, and further than it must at its other side.
        first = np.minimum(first, strides - length)
        keys, source = np.unique(np.stack([of, first], axis=1), axis=0, return_inverse=True)
        every, firsts = np.concatenate([keys[:, 0], of]), np.concatenate([keys[:, 1], first])
        bases = np.concatenate([changes.windows.bases[keys[:, 0]], changes.bases[rows]])
        states = np.concatenate([changes.windows.states[keys[:, 0]], changes.states[rows]])
        other = (bases != changes.windows.bases[every]).reshape(len(bases), strides, STRIDE_BP).any(axis=2)
        crops = firsts[:, None] + np.arange(length)
        return cls(changes.windows, changes.starts, every, source.reshape(-1), bases, states, crops, other)

    @property
    def num_own(self) -> int:
        """J - K."""
        return len(self.of) - len(self.source)

    @property
    def crop_states(self) -> NDArray[np.uint8]:
        """States of the crops, (J, C / 4)."""
        return np.take_along_axis(self.states, self.strides[:, ::_GRID] // _GRID, axis=1)


@dataclass(frozen=True)
class _Blocks:
    """The blocks that the encoder reads for some rows, each once.

    Attributes:
        strides: of a block, q.
        rows, numbers: a row that holds each block, and which of its blocks that is.
        places: of the strides of the crops among those of all these blocks, (J, C).
    """

    strides: int
    rows: Positions
    numbers: Positions
    places: Positions

    @classmethod
    def of(cls, rows: _Rows, strides: int, margin: int) -> _Blocks:
        """What the crops touch: blocks of the windows, and those of alternatives that differ from them.

        Args:
            strides: of a block.
            margin: strides on either side of a block whose bases it is shown something of.
        """
        num_rows, number = len(rows.of), rows.differing.shape[1] // strides
        touched = np.zeros((num_rows, number), dtype=bool)
        np.put_along_axis(touched, rows.strides // strides, values=True, axis=1)
        differs = _near(rows.differing, margin).reshape(num_rows, number, -1).any(axis=2)
        differs |= (rows.states != rows.windows.states[rows.of]).reshape(num_rows, number, -1).any(axis=2)
        here, block = np.nonzero(touched)
        own = rows.starts[rows.of[here]] + block * strides * STRIDE_BP
        key = np.where(differs[here, block], _CHANGED + here * number + block, own)
        _, first, place = np.unique(key, return_index=True, return_inverse=True)
        where = np.zeros((num_rows, number), dtype=np.int64)
        where[here, block] = place
        at, within = np.divmod(rows.strides, strides)
        return cls(strides, here[first], block[first], np.take_along_axis(where, at, axis=1) * strides + within)


class _Rescorer:
    def __init__(self, module: BindingModel, device: Device, *, both_strands: bool) -> None:
        self._module, self._device = module, device
        self._strands = (False, True) if both_strands else (False,)
        self._reach = module.head.reach
        # Bases so many strides away have a say in a stride's motif hits.
        self._margin = -(-(module.shape.motifs[1] // 2) // STRIDE_BP)
        self._listens = module.listens
        self._more = _ON_GPU if device.device.type == "cuda" else 1

    def __call__(self, changes: Changes) -> tuple[Floats, Floats]:
        shape = (*changes.bins.shape, self._module.head.out.out_features)
        own, other = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        # Neighbours share the blocks of their window.
        order = np.lexsort((changes.bins[:, 0], changes.starts[changes.of]))
        with torch.inference_mode(), self._device.autocast():
            at_once = self._alternatives_at_once(changes)
            for first in range(0, len(order), at_once):
                some = order[first : first + at_once]
                own[some], other[some] = self._logits(_Rows.cut(changes, some, self._reach), changes.bins[some])
        return own, other

    def _alternatives_at_once(self, changes: Changes) -> int:
        config, window_bp = self._module.encoder.config, changes.bases.shape[1]
        block = block_bp(window_bp, self._module.shape.fusion.encoder_bp)
        crop = (2 * self._reach + changes.bins.shape[1] + 2 * _GRID) * STRIDE_BP
        # A block of its own, and, where it shares none, those of its window.
        each = block + min(crop + block, window_bp)
        return max(8, self._more * _TOKEN_BYTES // (4 * config.width * each // config.token_bp))

    def _logits(self, rows: _Rows, bins: Positions) -> tuple[Floats, Floats]:
        """Of the bins (K, m): in the windows as they are, and in the alternatives."""
        features, blocks = self._features(rows), None
        if self._listens:
            strides = block_bp(rows.bases.shape[1], self._module.shape.fusion.encoder_bp) // STRIDE_BP
            blocks = _Blocks.of(rows, strides, self._margin if self._module.head.early else 0)
        parts = [self._strand(rows, features, blocks, back=back) for back in self._strands]
        logits = torch.stack(parts).mean(dim=0).cpu().numpy()
        asked = bins - rows.strides[rows.num_own :, :1]
        source, own = rows.source, rows.num_own + np.arange(len(bins))
        return (
            self._with_trees(logits[source[:, None], asked], rows, features, source, asked),
            self._with_trees(logits[own[:, None], asked], rows, features, own, asked),
        )

    def _with_trees(self, logits: Floats, rows: _Rows, features: Tensor, row: Positions, asked: Positions) -> Floats:
        """Logits (K, m, T) of the bins `asked` (K, m) of crops `row` (K,), with the trees' share."""
        head = self._module.head
        if head.trees is None:
            return logits
        found = []
        at_once = max(1, self._more * _READ_BP // (rows.strides.shape[1] * STRIDE_BP))
        for first in range(0, len(row), at_once):
            some = slice(first, first + at_once)
            shown = features[self._tensor(row[some])], self._tensor(rows.crop_states[row[some]])
            given = head.with_trees(self._tensor(logits[some]), *shown, bins=self._tensor(asked[some]))
            found.append(given.cpu().numpy())
        return np.concatenate(found)

    def _features(self, rows: _Rows) -> Tensor:
        """Task features of the crops, (J, C, features); of alternatives only what a change reaches is computed."""
        own, crops = rows.num_own, rows.strides
        found = self._sequence_features(rows.bases[:own], crops[:own, 0], crops.shape[1])
        found = torch.cat([found, found[self._tensor(rows.source)]])
        if found.shape[2]:
            reached = np.take_along_axis(_near(rows.differing, self._margin), crops, axis=1)
            first, last = reached.argmax(axis=1), crops.shape[1] - reached[:, ::-1].argmax(axis=1)
            span = np.where(reached.any(axis=1), last - first, 0)
            # A substitution reaches a few strides; an insertion or a deletion all that follow.
            for low, high in ((0, _LOCAL), (_LOCAL, crops.shape[1])):
                if len(which := np.flatnonzero((span > low) & (span <= high))):
                    length = int(span[which].max())
                    at = np.minimum(first[which], crops.shape[1] - length)
                    new = self._sequence_features(rows.bases[which], crops[which, 0] + at, length)
                    found[which[:, None], at[:, None] + np.arange(length)] = new
        return self._with_tracks(rows, np.arange(len(rows.of)), crops, found)

    def _sequence_features(self, bases: NDArray[np.uint8], first: Positions, num: int) -> Tensor:
        """What the bases of windows (B, W) say of `num` strides from `first` (B,) on, (B, num, features)."""
        at = (first - self._margin)[:, None] * STRIDE_BP + np.arange((num + 2 * self._margin) * STRIDE_BP)
        shown = np.take_along_axis(bases, np.clip(at, 0, bases.shape[1] - 1), axis=1)
        shown[(at < 0) | (at >= bases.shape[1])] = BASE_N
        at_once = max(1, self._more * _READ_BP // shown.shape[1])
        parts = [
            self._module.features(self._tensor(shown[row : row + at_once]), None)
            for row in range(0, len(shown), at_once)
        ]
        return torch.cat(parts)[:, self._margin : self._margin + num]

    def _strand(self, rows: _Rows, features: Tensor, blocks: _Blocks | None, *, back: bool) -> Tensor:
        """Logits of the crops read on one strand, in the order of the forward strand, float32 (J, C - 3, T)."""
        table = None if blocks is None else self._tokens(rows, blocks, back=back)
        at_once = max(1, self._more * _READ_BP // (rows.strides.shape[1] * STRIDE_BP))
        states, found = self._tensor(rows.crop_states), []
        for row in range(0, len(rows.of), at_once):
            some, tokens = slice(row, row + at_once), None
            shown, by_bin = _turned(features[some], back), _turned(states[some], back)
            if table is not None and blocks is not None:
                places = _turned(self._tensor(blocks.places[some]), back)
                # Strides' tokens, side by side -> tokens.
                tokens = table[places].reshape(len(places), -1, self._module.encoder.config.width)
            found.append(_turned(self._module.head.network(tokens, shown, by_bin).float(), back))
        return torch.cat(found)

    def _tokens(self, rows: _Rows, blocks: _Blocks, *, back: bool) -> Tensor:
        """The encoder's tokens of the blocks, in the order of the forward strand, (N q, tokens of a stride x D)."""
        found, early, num = [], self._module.head.early, blocks.strides
        at_once = max(1, self._more * _ENCODED_BP // (num * STRIDE_BP))
        for place in range(0, len(blocks.rows), at_once):
            row, number = blocks.rows[place : place + at_once], blocks.numbers[place : place + at_once]
            bases = rows.bases.reshape(len(rows.bases), -1, num * STRIDE_BP)[row, number]
            states = rows.states.reshape(len(rows.states), -1, num // _GRID)[row, number]
            beside = None
            if early is not None:
                first = number * num
                shown = self._sequence_features(rows.bases[row], first, num)
                beside = early(_turned(self._with_tracks(rows, row, first[:, None] + np.arange(num), shown), back))
            shown_bases = self._tensor(reverse_complement(bases) if back else bases)
            tokens = self._module.encoder(shown_bases, _turned(self._tensor(states), back), beside=beside)
            found.append(_turned(tokens.reshape(len(row), num, -1), back))
        return torch.cat(found).flatten(0, 1)

    def _with_tracks(self, rows: _Rows, row: Positions, strides: Positions, found: Tensor) -> Tensor:
        """Features (B, C, features) with the tracks of the rows (B,) at the strides (B, C) before them."""
        if rows.windows.tracks is None:
            return found
        tracks = rows.windows.tracks[rows.of[row][:, None], strides]
        return torch.cat([self._tensor(tracks).float(), found], dim=-1)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device.device)


def _near(flags: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Flags (J, n) that are also set up to `margin` strides beside those that are."""
    found = flags.copy()
    for step in range(1, margin + 1):
        found[:, step:] |= flags[:, :-step]
        found[:, :-step] |= flags[:, step:]
    return found


def _turned(values: Tensor, back: bool) -> Tensor:
    """(B, C, ...) with the second axis turned round for the other strand."""
    return values.flip(1) if back else values
