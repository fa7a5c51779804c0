"""Training batches made where the data lie: on the GPU's own memory, or from memory maps on the CPU.

The sequence and the state tracks are two arrays. A batch is two gathers of whole rows, the other strand for half of the
rows, and two sets of hidden places, by some forty operations on whole batches; nothing runs per example and nothing is
copied between devices.

Legend: B windows, W window_bp, L tokens and M state bins of a window, K hidden tokens, J hidden bins, S states,
C cell types.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ebert_core.config import PretrainConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.examples import Examples, RareStates, odds_of
from ebert_core.data.masking import IGNORED
from ebert_core.data.randomness import step_key
from ebert_core.data.windows import require_window_fits
from ebert_core.errors import EbertError
from ebert_core.genome.intervals import Positions
from ebert_core.vocabulary import BASE_MASKED, BASE_N, STATE_BIN_BP, STATE_UNKNOWN

Placement = Literal["auto", "device", "host"]

# With "auto", the arrays may take this share of the GPU's free memory; the rest is the model's.
_AUTO_SHARE: Final = 1 / 3
# Pairs looked at to learn how common each state is.
_SURVEYED: Final = 1 << 17
_SURVEY_STREAM: Final = (1 << 64) - 1


class GenomeStore:
    """The sequence and the chosen cell types' states, where batches are made.

    Args:
        dataset: an open dataset with a sequence and states.
        cells: cell types by the dataset's names; an example names one by its index here.
        device: where batches are wanted.
        placement: `device` copies the arrays there; `host` leaves them on the CPU and each batch is copied; `auto`
            takes the device where a third of its free memory holds them.

    Attributes:
        device: where the arrays lie.
        batch_device: where batches are wanted.
        states: uint8 (C, flat_bp / 200), on `device`.
        num_states: S.
        num_cells: C.
        flat_bp: length of the flat axis.

    On the CPU the sequence stays a memory map. The state tracks are files of their own, so they are copied into one
    block: one byte per 200 bp and cell type, and one gather for all cell types.

    Raises:
        EbertError: the dataset holds no sequence or no states, or there is no memory for what was asked.
    """

    def __init__(
        self, dataset: Dataset, cells: Sequence[str], device: torch.device, placement: Placement = "auto"
    ) -> None:
        self.num_states = len(dataset.require_state_model().states)
        self.num_cells = len(cells)
        self.flat_bp = dataset.assembly.flat_bp
        self.batch_device = device
        self.num_bytes = self.flat_bp + self.num_cells * (self.flat_bp // STATE_BIN_BP)
        self.device = _chosen_place(self.num_bytes, device, placement)
        sequence = _mapped(dataset.flat_sequence)
        bins = self.flat_bp // STATE_BIN_BP
        try:
            self._sequence = sequence.to(self.device)
            self.states = torch.empty((self.num_cells, bins), dtype=torch.uint8, device=self.device)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if "memory" not in str(error):
                raise
            raise EbertError(
                f"no memory on {self.device} for the sequence and {self.num_cells} state tracks "
                f"({_size(self.num_bytes)})",
                "leave them on the CPU (--set data_placement=host), or read fewer cell types (--cell)",
            ) from None
        for row, cell in zip(self.states, cells, strict=True):
            row.copy_(_mapped(dataset.flat_states(cell)))

    def describe(self) -> str:
        """For a run's first lines: `0.15 GB of sequence mapped on the CPU, 8 state tracks (6.1 MB) in its memory`."""
        sequence = f"{_size(self.flat_bp)} of sequence"
        tracks = f"{self.num_cells} state tracks ({_size(self.states.numel())})"
        if self.device.type != "cpu":
            return f"{sequence} and {tracks} on {self.device}"
        way = "" if self.batch_device == self.device else f", batches copied to {self.batch_device}"
        return f"{sequence} mapped on the CPU, {tracks} in its memory{way}"

    def windows(self, window_bp: int) -> tuple[Tensor, Tensor]:
        """Every window that begins at a multiple of 200 bp, as overlapping views; to be read, never written.

        Returns:
            uint8 bases (flat_bp / 200 - M + 1, W), row r from flat position 200 r; and uint8 states
            (C * flat_bp / 200 - M + 1, M), row c * flat_bp / 200 + r for cell type c.

        Raises:
            EbertError: the window is longer than the flat axis.
        """
        require_window_fits(self.flat_bp, window_bp)
        bins, total = window_bp // STATE_BIN_BP, self.states.numel()
        sequence = self._sequence.as_strided((self.flat_bp // STATE_BIN_BP - bins + 1, window_bp), (STATE_BIN_BP, 1))
        return sequence, self.states.as_strided((total - bins + 1, bins), (1, 1))


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def _chosen_place(num_bytes: int, device: torch.device, placement: Placement) -> torch.device:
    if device.type == "cpu" or placement == "host":
        return torch.device("cpu")
    if placement == "auto" and num_bytes > _AUTO_SHARE * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


def _mapped(array: NDArray[np.uint8]) -> Tensor:
    """A memory map as a tensor that shares it. Nothing here writes to it."""
    with warnings.catch_warnings():
        # PyTorch knows no read-only tensors and warns of what a write would do.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


@dataclass(frozen=True)
class MaskedBatch:
    """What the model sees, and what it must say. All shapes are static; everything lies on one device.

    Attributes:
        bases: uint8 (B, W), hidden bases replaced by the mask code.
        states: uint8 (B, M), hidden states replaced by the mask code S + 1; all unknown in windows whose states were
            dropped. A hidden bin whose true state is unknown is shown as unknown.
        base_index: int64 (B * K,), rows of `tokens.flatten(0, 1)` (B * L, D) that are hidden, K per window.
        base_targets: int64 (B * K, token_bp), 0 to 3, or IGNORED where the base is N.
        state_index: int64 (B * J,), rows of `bins.flatten(0, 1)` (B * M, D) whose state is asked for, J per window. In
            windows whose states were dropped too: they teach what DNA alone says of the state.
        state_targets: int64 (B * J,), state code - 1 (0 to S - 1), or IGNORED where it is unknown.
        starts: int64 (B,), flat position of the window.
        cells: int64 (B,), index of the cell type.
    """

    bases: Tensor
    states: Tensor
    base_index: Tensor
    base_targets: Tensor
    state_index: Tensor
    state_targets: Tensor
    starts: Tensor
    cells: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        """The same batch on another device."""
        return MaskedBatch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})

    def true_bases(self) -> Tensor:
        """uint8 (B, W): the bases as they were before masking, 4 for N."""
        bases = self.bases.clone()
        rows = torch.where(self.base_targets == IGNORED, BASE_N, self.base_targets)
        bases.view(-1, self.base_targets.shape[1]).index_copy_(0, self.base_index, rows.to(torch.uint8))
        return bases


class MaskedBatches:
    """The stream of training examples: (window, cell type, strand) triples, masked.

    Args:
        store: the arrays.
        starts: flat starts of the windows that may be read (`windows.eligible_starts`), multiples of 200.
        config: `window_bp`, `encoder.token_bp`, `masking` and `seed` are read.
        cell_weights: how often each cell type is drawn, relative to the others; None draws all alike.
        rare_states: 0 draws every window alike; above, windows with rare states are favoured: among 8 random (window,
            cell type) pairs one is chosen with odds frequency^-rare_states of the state of one random bin of it. So a
            bin's state is drawn up to 8 times as often; 0.5 is mild, 1 makes the states as even as 8 choices can.

    Raises:
        EbertError: no starts, or windows longer than the flat axis.
    """

    def __init__(
        self,
        store: GenomeStore,
        starts: Positions,
        config: PretrainConfig,
        *,
        cell_weights: Sequence[float] | None = None,
        rare_states: float = 0.0,
    ) -> None:
        if len(starts) == 0:
            raise EbertError("there is no window to draw", "choose other chromosomes, or shorter windows")
        self._store, self._config = store, config
        self._bins, self._tokens = config.window_bp // STATE_BIN_BP, config.window_bp // config.encoder.token_bp
        self._bases, self._states = store.windows(config.window_bp)
        self._flat_bins = store.flat_bp // STATE_BIN_BP
        weights = [1.0] * store.num_cells if cell_weights is None else cell_weights
        if len(weights) != store.num_cells:
            raise EbertError(f"{len(weights)} weights for {store.num_cells} cell types", "give one for each")
        self._examples = Examples(
            starts // STATE_BIN_BP, self._flat_bins, (self._tokens, self._bins), config.masking, weights, self._put
        )
        self._num_pairs = len(starts) * store.num_cells
        codes = np.arange(store.num_states + 1)
        self._targets_of = torch.from_numpy(np.where(codes == STATE_UNKNOWN, IGNORED, codes - 1)).to(store.device)
        mask_codes = np.where(codes == STATE_UNKNOWN, STATE_UNKNOWN, store.num_states + 1).astype(np.uint8)
        self._mask_codes = torch.from_numpy(mask_codes).to(store.device)
        if rare_states > 0:
            tracks = store.states.view(-1)
            flat = tracks.numpy() if self._on_cpu else tracks
            seen = self._examples.survey(step_key(config.seed, _SURVEY_STREAM, 0), self._numbers(0, _SURVEYED), flat)
            counts = np.bincount(np.asarray(seen if self._on_cpu else seen.cpu()), minlength=store.num_states + 1)
            self._examples.rare = RareStates(flat, self._put(odds_of(counts, rare_states)))

    @property
    def num_pairs(self) -> int:
        """Distinct (window, cell type) pairs."""
        return self._num_pairs

    def draw(self, stream: int, step: int, first: int, count: int, of: int) -> MaskedBatch:
        """Examples first .. first + count - 1 of the `of` examples of a step's global batch.

        A pure function of (seed, stream, step, example number), bit for bit, on any device: however the global batch
        is cut into micro-batches and ranks, example i is the same. A larger global batch begins with the examples of
        a smaller one. Strands alternate from example to example and from step to step.

        Returns:
            A batch of `count` windows on `store.batch_device`.

        Raises:
            ValueError: examples outside the global batch.
        """
        if not 0 <= first <= first + count <= of:
            raise ValueError(f"examples {first} to {first + count} of a global batch of {of}")
        key = step_key(self._config.seed, stream, step)
        drawn = self._examples.draw(key, self._numbers(first, first + count))
        rows, cells, hidden_tokens, hidden_bins, kept = map(torch.as_tensor, drawn)
        bases = self._bases.index_select(0, rows)
        states = self._states.index_select(0, rows + cells * self._flat_bins)
        # Every other example is read on the other strand, beginning with the second of even steps.
        other = (first + step + 1) % 2
        # The paired bases: codes 0 to 3 are paired with 3 to 0; N, 4 ^ 3 = 7, is brought back to 4.
        torch.clamp(bases[other::2].flip(1).bitwise_xor_(3), max=BASE_N, out=bases[other::2])
        states[other::2] = states[other::2].flip(1)

        windows = torch.arange(count, device=self._store.device)[:, None]
        base_index = (hidden_tokens + windows * self._tokens).view(-1)
        tokens = bases.view(count * self._tokens, -1)
        base_targets = _base_targets(tokens.index_select(0, base_index))
        # Two bases at a time where tokens are of even length: the fill is slow by element.
        pairs = tokens.view(torch.int16) if tokens.shape[1] % 2 == 0 else tokens
        pairs.index_fill_(0, base_index, BASE_MASKED * (0x0101 if pairs is not tokens else 1))
        state_index = (hidden_bins + windows * self._bins).view(-1)
        true_states = states.view(-1).index_select(0, state_index).long()
        states.view(-1).index_copy_(0, state_index, self._mask_codes.take(true_states))
        batch = MaskedBatch(
            bases=bases,
            states=states.mul_(kept),
            base_index=base_index,
            base_targets=base_targets,
            state_index=state_index,
            state_targets=self._targets_of.take(true_states),
            starts=rows * STATE_BIN_BP,
            cells=cells,
        )
        return batch if self._store.device == self._store.batch_device else batch.to(self._store.batch_device)

    @property
    def _on_cpu(self) -> bool:
        return self._store.device.type == "cpu"

    def _put(self, array: NDArray[Any]) -> Any:
        """An array of the kind that examples are drawn with: NumPy's own on the CPU, a tensor on a GPU."""
        return array if self._on_cpu else torch.from_numpy(array).to(self._store.device)

    def _numbers(self, first: int, last: int) -> Any:
        return np.arange(first, last) if self._on_cpu else torch.arange(first, last, device=self._store.device)


def _base_targets(bases: Tensor) -> Tensor:
    """True base codes 0 to 4 as targets: int64, IGNORED for N. The codes are overwritten."""
    codes = bases.view(torch.int8)
    # 4 >> 2 is 1, and 0 for the bases: passes over bytes, where a comparison and a choice would be over int64.
    return codes.sub_(codes >> 2, alpha=BASE_N - IGNORED).long()
