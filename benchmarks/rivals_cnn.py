"""The network rival: FactorNet-like, 1.2 kb of DNA with accessibility and states around a bin, all TFs at once.

Motif detectors over single bases, pooled to strides; there accessibility and states join; a second convolution, a
dense layer over 1 kb, one logit per TF. Each epoch holds every bin at which a TF is bound and twice as many fresh
unbound ones, half of them near open chromatin (without accessibility: near a promoter's or an enhancer's state).
Random strand in training, the mean of both in prediction. The averaged weights of the best validation auPRC are kept.
A convolution over strides shares its work between neighbouring bins, so a chromosome is scored in minutes.

Letters: B batch, W strides of a window, K tracks, T TFs, S strides of a chromosome.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rivals_features import normalised_accessibility
from rivals_setting import Scores, Task, bin_strides, labels_at
from rivals_windows import bin_maxima
from torch import Tensor, nn

from ebert_core.data.dataset import Dataset
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND, UNLABELLED
from ebert_core.model.device import choose_device
from ebert_core.vocabulary import BASE_N, NUM_BASES, STRIDE_BP, STRIDES_PER_BIN

MOTIF_BP = 27
DETECTORS = 64
WIDTH = 64
DENSE = 128
JOINED = 5
REACH = 8
WINDOW = 2 * REACH + STRIDES_PER_BIN + JOINED - 1
FLANK = (WINDOW - STRIDES_PER_BIN) // 2
BATCH = 64
LEARNING_RATE = 2e-3
# Unbound bins per bound one in an epoch.
UNBOUND_SHARE = 2.0
# Weight of an unbound bin: how many it stands for, to this power; 1 would leave probabilities calibrated.
WEIGHT_POWER = 0.5
DECAY = 0.999
# Of the time given.
EVALUATE_EVERY = 0.07
PIECE_STRIDES = 4_000


class FactorNet(nn.Module):
    """Bases (B, 50 W + 26) and tracks (B, K, W) -> logits (B, T, W - 23), of the bins that have their flanks."""

    def __init__(self, num_tfs: int, num_tracks: int) -> None:
        super().__init__()
        self.motifs = nn.Conv1d(NUM_BASES, DETECTORS, MOTIF_BP)
        self.after_motifs = nn.BatchNorm1d(DETECTORS)
        self.joined = nn.Conv1d(DETECTORS + num_tracks, WIDTH, JOINED)
        self.after_joined = nn.BatchNorm1d(WIDTH)
        self.dense = nn.Conv1d(WIDTH, DENSE, WINDOW - JOINED + 1)
        self.heads = nn.Conv1d(DENSE, num_tfs, 1)
        nn.init.constant_(self.heads.bias, -3.0)

    def forward(self, bases: Tensor, tracks: Tensor) -> Tensor:
        letters = F.one_hot(bases.long(), NUM_BASES + 1)[..., :NUM_BASES].transpose(1, 2).float()
        found = self.after_motifs(torch.relu(F.max_pool1d(self.motifs(letters), STRIDE_BP)))
        joined = torch.cat([F.dropout(found, 0.1, self.training), tracks], dim=1)
        joined = F.dropout(self.after_joined(torch.relu(self.joined(joined))), 0.1, self.training)
        return self.heads(F.dropout(torch.relu(self.dense(joined)), 0.4, self.training))


class Place:
    """What the network reads of one chromosome in one cell type."""

    def __init__(self, dataset: Dataset, cell: str, chrom: str, *, accessible: bool) -> None:
        codes = dataset.sequence(chrom)
        strides = -(-len(codes) // STRIDE_BP)
        margin = FLANK * STRIDE_BP + MOTIF_BP // 2
        self.bases = np.full((strides + 2 * FLANK) * STRIDE_BP + MOTIF_BP - 1, BASE_N, np.uint8)
        self.bases[margin : margin + len(codes)] = codes
        states = np.repeat(dataset.states(cell, chrom), STRIDES_PER_BIN)[:strides]
        num_states = len(dataset.require_state_model().states)
        rows = [states == code for code in range(1, num_states + 1)]
        promising = [s.name.startswith(("Tss", "Enh")) for s in dataset.require_state_model().states]
        near = np.isin(states, 1 + np.flatnonzero(promising))
        if accessible:
            tracks = normalised_accessibility(dataset, chrom)
            rows += [tracks[cell], np.mean(list(tracks.values()), axis=0)]
            near = tracks[cell] > 0
        self.tracks = np.zeros((len(rows), strides + 2 * FLANK), np.float16)
        self.tracks[:, FLANK : FLANK + strides] = rows
        self.near = bin_maxima(near.astype(np.float32), 10) > 0

    def read(self, first: int, strides: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
        """(bases, tracks) from which the bins that begin at `strides` strides from `first` on are scored."""
        width = strides + 2 * FLANK + STRIDES_PER_BIN - 1
        bases = self.bases[first * STRIDE_BP : (first + width) * STRIDE_BP + MOTIF_BP - 1]
        return bases, self.tracks[:, first : first + width]


class Example(NamedTuple):
    """Windows to learn from: where they lie, what is bound there, and how many bins each stands for."""

    place: NDArray[np.int64]
    stride: NDArray[np.int64]
    weight: NDArray[np.float32]


class Sampler:
    """Epochs of windows of the training part.

    Attributes:
        labels: for each place, codes uint8 (T, N); 0 where the TF has none.
    """

    def __init__(self, task: Task, places: list[Place], strides: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.places, self._strides, self._rng = places, strides, rng
        self.labels = [labels_of(task, cell, strides) for cell in task.turn.train_cells]

    def epoch(self) -> Example:
        """Every bound bin, and `UNBOUND_SHARE` times as many unbound ones, half of them promising, in random order."""
        place, row, weight = [], [], []
        for number, labels in enumerate(self.labels):
            near = self.places[number].near[self._strides]
            bound = (labels == BOUND).any(axis=0)
            unbound = ~bound & (labels == UNBOUND).any(axis=0)
            wanted = int(bound.sum() * UNBOUND_SHARE / 2)
            drawn = [np.flatnonzero(bound)]
            stands_for = [1.0]
            for kind in (unbound & near, unbound & ~near):
                among = np.flatnonzero(kind)
                drawn.append(self._rng.choice(among, min(wanted, len(among)), replace=False))
                stands_for.append(len(among) / max(len(drawn[-1]), 1))
            row += drawn
            weight += [np.full(len(d), s**WEIGHT_POWER) for d, s in zip(drawn, stands_for, strict=True)]
            place += [np.full(len(d), number) for d in drawn]
        order = self._rng.permutation(sum(map(len, row)))
        rows = np.concatenate(row)[order]
        return Example(np.concatenate(place)[order], rows, np.concatenate(weight)[order].astype(np.float32))

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Bases (B, 1226), tracks (B, K, 24), bound (B, T), weight (B, T; 0 where neither bound nor unbound)."""
        while True:
            epoch = self.epoch()
            for first in range(0, len(epoch.stride) - BATCH + 1, BATCH):
                yield self._batch(Example(*(values[first : first + BATCH] for values in epoch)))

    def _batch(self, examples: Example) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        windows = [
            self.places[p].read(int(self._strides[i]), 1) for p, i in zip(examples.place, examples.stride, strict=True)
        ]
        bases, tracks = (torch.from_numpy(np.stack(part)) for part in zip(*windows, strict=True))
        flip = torch.from_numpy(self._rng.random(BATCH) < 0.5)
        bases[flip], tracks[flip] = other_strand(bases[flip], tracks[flip])
        labels = np.stack([self.labels[p][:, i] for p, i in zip(examples.place, examples.stride, strict=True)])
        weight = np.where((labels == BOUND) | (labels == UNBOUND), examples.weight[:, None], 0)
        return bases, tracks.float(), torch.from_numpy(labels == BOUND).float(), torch.from_numpy(weight).float()


def labels_of(task: Task, cell: str, strides: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Label codes (T, N) of bins of the training chromosome."""
    chrom, dataset = task.turn.train_chrom, task.dataset
    return np.stack(
        [
            labels_at(dataset, tf, cell, chrom, strides)
            if cell in dataset.cells_of(tf)
            else np.full(len(strides), UNLABELLED, np.uint8)
            for tf in task.tfs
        ]
    )


def other_strand(bases: Tensor, tracks: Tensor) -> tuple[Tensor, Tensor]:
    """Bases (..., L) complemented and read backwards, tracks (..., K, W) read backwards."""
    complement = torch.tensor([3, 2, 1, 0, BASE_N], dtype=bases.dtype)
    return complement[bases.flip(-1).long()], tracks.flip(-1)


@torch.inference_mode()
def score(model: FactorNet, place: Place, first: int, end: int, *, both: bool = True) -> NDArray[np.float32]:
    """Logits (T, end - first) of the bins that begin at strides from `first` to `end`; mean of both strands."""
    model.eval()
    device, found = choose_device("cpu"), []
    for start in range(first, end, PIECE_STRIDES):
        bases, tracks = place.read(start, min(PIECE_STRIDES, end - start))
        ahead = torch.from_numpy(np.array(bases))[None], torch.from_numpy(tracks.astype(np.float32))[None]
        with device.autocast():
            logits = model(*ahead)[0].float()
            if both:
                logits = (logits + model(*other_strand(*ahead))[0].float().flip(-1)) / 2
        found.append(logits.numpy())
    return np.concatenate(found, axis=1)


def mean_auprc(
    model: FactorNet, places: list[Place], labels: list[NDArray[np.uint8]], strides: NDArray[np.int64]
) -> float:
    """Mean over TFs and cell types of the auPRC on bins of one run of strides; labels as of `labels_of`."""
    found = []
    for place, codes in zip(places, labels, strict=True):
        logits = score(model, place, int(strides[0]), int(strides[-1]) + 1, both=False)[:, strides - strides[0]]
        for values, label in zip(logits, codes, strict=True):
            kept = (label == BOUND) | (label == UNBOUND)
            if (label == BOUND).any():
                found.append(measure(values[kept], label[kept] == BOUND).auprc)
    return float(np.mean(found))


class Training:
    """A network that learns, and the running average of its weights."""

    def __init__(self, num_tfs: int, num_tracks: int) -> None:
        self.model = FactorNet(num_tfs, num_tracks)
        self.average = copy.deepcopy(self.model)
        self.steps = 0
        self._device = choose_device("cpu")
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)

    def step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], spent: float) -> None:
        """One optimiser step; the learning rate falls along a cosine over the time given."""
        for group in self._optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (0.02 + 0.98 * (1 + math.cos(math.pi * min(spent, 1))) / 2)
        bases, tracks, bound, weight = batch
        self.model.train()
        with self._device.autocast():
            logits = self.model(bases, tracks)[:, :, 0]
        loss = F.binary_cross_entropy_with_logits(logits.float(), bound, weight, reduction="sum") / weight.sum()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.steps += 1
        self._follow(min(DECAY, self.steps / (self.steps + 10)))

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for kept, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
            kept.lerp_(now, 1 - decay)
        for kept, now in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(now)


def train(task: Task, places: list[Place], seed: int, seconds: float) -> FactorNet:
    """Train for so many CPU seconds, evaluations not counted; gives the weights of the best average."""
    torch.manual_seed(seed)
    fit, valid = task.parts()
    batches = Sampler(task, places, fit, np.random.default_rng(seed)).batches()
    valid_labels = [labels_of(task, cell, valid) for cell in task.turn.train_cells]
    training = Training(len(task.tfs), places[0].tracks.shape[0])
    best, best_auprc, evaluated, spent = training.average, -1.0, 0.0, 0.0
    started = time.process_time()
    while spent < 1:
        training.step(next(batches), spent)
        spent = (time.process_time() - started) / seconds
        if spent - evaluated > EVALUATE_EVERY or spent >= 1:
            evaluated, paused = spent, time.process_time()
            auprc = mean_auprc(training.average, places, valid_labels, valid)
            print(f"cnn: step {training.steps}, {spent:.0%}, validation auPRC {auprc:.3f}", file=sys.stderr, flush=True)
            if auprc > best_auprc:
                best, best_auprc = copy.deepcopy(training.average), auprc
            started += time.process_time() - paused
    return best


def cnn(task: Task, seed: int, seconds: float, *, accessible: bool = True) -> dict[str, Scores]:
    """Logits of every TF for the benchmark bins of the turn's cell type and chromosome, shape (N,) each."""
    places = [Place(task.dataset, cell, task.turn.train_chrom, accessible=accessible) for cell in task.turn.train_cells]
    model = train(task, places, seed, seconds)
    strides = bin_strides(task.dataset, task.turn.chrom)
    tested = Place(task.dataset, task.turn.cell, task.turn.chrom, accessible=accessible)
    logits = score(model, tested, 0, int(strides[-1]) + 1)[:, strides]
    return dict(zip(task.tfs, logits, strict=True))
