"""Features of 200-bp bins for the boosting rival, in the manner of Anchor: motifs, accessibility, states, sequence.

Each feature is one float32 per stride of a chromosome, for the bin that begins there. What is costly, the best motif
hits, is kept in WORK/features. S strides, M motifs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rivals_windows import (
    Track,
    bin_maxima,
    bin_means,
    distance_to_nearest,
    either_side,
    neighbour_maxima,
    reference_quantiles,
    runs_of,
    to_reference,
)

from ebert_core.data.dataset import Dataset
from ebert_core.evaluation.motif_hits import best_hits
from ebert_core.io.bed import read_rows
from ebert_core.io.motifs import Motif
from ebert_core.vocabulary import BASE_N, BIN_BP, STRIDE_BP, STRIDES_PER_BIN

# Factors with strong motifs in many cell types, one or more of each family that binds promoters or enhancers.
FAMILIES = (
    "CTCF", "ZNF143", "REST", "YY1", "NRF1", "SP1", "KLF5", "GABPA", "ETS1", "SPI1", "FOS::JUN", "JUND", "BACH1",
    "MAFK", "CREB1", "ATF4", "CEBPB", "USF1", "MAX", "NFYA", "RUNX1", "GATA1", "GATA1::TAL1", "TEAD4", "IRF1", "RELA",
    "E2F4", "POU2F2", "EBF1", "SRF", "RFX5", "EGR1", "TFAP2A", "STAT3", "FOXA1", "ZBTB33",
)  # fmt: skip
# TFs without a matrix are brought to DNA by others.
STAND_INS = {"RAD21": ("CTCF",), "TAF1": ("YY1", "NRF1", "GABPA")}


def own_motifs(motifs: list[Motif], tf: str) -> list[Motif]:
    """Every matrix of a TF, dimers too: of each its newest version and its widest, which may keep more flanks."""
    found = []
    for name in STAND_INS.get(tf, (tf,)):
        mine = [motif for motif in motifs if name.casefold() in motif.alt_name.casefold().split("::")]
        for matrix in dict.fromkeys(motif.name.partition(".")[0] for motif in mine):
            versions = [motif for motif in mine if motif.name.partition(".")[0] == matrix]
            newest = max(versions, key=lambda motif: int(re.sub(r"\D", "", motif.name.partition(".")[2]) or 0))
            found.append(newest)
            if "::" not in newest.alt_name and len(widest := max(versions, key=len)) > len(newest):
                found.append(widest)
    return found


def family_motifs(motifs: list[Motif]) -> list[Motif]:
    """The first matrix of each family's factor, in its widest version."""
    found = []
    for name in FAMILIES:
        mine = [motif for motif in motifs if motif.alt_name == name]
        first = min((motif.name.partition(".")[0] for motif in mine), default="")
        found += [max((motif for motif in mine if motif.name.startswith(f"{first}.")), key=len)] if mine else []
    return found


class MotifHits:
    """Best hits of motifs in every bin of a chromosome, float16 of shape (M, S), made once per work folder."""

    def __init__(self, dataset: Dataset, motifs: list[Motif], folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        self._motifs = {motif.name: motif for motif in motifs}

    def best(self, motif: Motif, chrom: str) -> Track:
        """log2 odds of the best hit within each bin, either strand, shape (S,)."""
        path = self._folder / chrom / f"{motif.name}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            codes = self._dataset.sequence(chrom)
            starts = np.arange(0, len(codes) - BIN_BP + 1, STRIDE_BP)
            log_odds = motif.log_odds()
            hits = np.full(-(-len(codes) // STRIDE_BP), log_odds.min(axis=1).sum(), np.float16)
            hits[: len(starts)] = best_hits(codes, starts, log_odds)
            partial = path.with_name(f"{path.stem}.partial.npy")
            np.save(partial, hits)
            partial.replace(path)
        return np.load(path).astype(np.float32)


Named = Iterator[tuple[str, Track]]


def own_motif_features(hits: MotifHits, motifs: list[Motif], chrom: str) -> Named:
    """Of every motif of the TF: its best hit here, beside, near by and how many bins around have a good one."""
    for motif in motifs:
        best = hits.best(motif, chrom)
        yield f"{motif.name}", best
        yield f"{motif.name} 200", neighbour_maxima(best, 4)
        if "::" in motif.alt_name:
            continue
        for distance in (2, 4):
            higher, lower = either_side(best, distance)
            yield f"{motif.name} side {distance} high", higher
            yield f"{motif.name} side {distance} low", lower
        yield f"{motif.name} 500", neighbour_maxima(best, 10)
        good = best > np.quantile(best[::7], 0.99)
        yield f"{motif.name} good ones", bin_means(good.astype(np.float32), 20)


def family_features(hits: MotifHits, motifs: list[Motif], chrom: str) -> Named:
    """Of each family: the best hit here and within 200 bp."""
    for motif in motifs:
        best = hits.best(motif, chrom)
        yield f"{motif.alt_name}", best
        yield f"{motif.alt_name} 200", neighbour_maxima(best, 4)


def sequence_features(dataset: Dataset, chrom: str, tss_path: Path) -> Named:
    """GC, CpG, unknown bases, and how far the nearest transcript start is (log2 bp)."""
    codes = dataset.sequence(chrom)
    strides = -(-len(codes) // STRIDE_BP)
    padded = np.full(strides * STRIDE_BP + 1, BASE_N, np.uint8)
    padded[: len(codes)] = codes
    first, second = padded[:-1], padded[1:]
    kinds = {
        "GC": (first == 1) | (first == 2),
        "CpG": (first == 1) & (second == 2),
        "N": first == BASE_N,
    }
    for name, kind in kinds.items():
        share = kind.reshape(strides, STRIDE_BP).mean(axis=1)
        yield name, bin_means(share)
        yield f"{name} 500", bin_means(share, 10)
        if name == "CpG":
            yield "CpG 2000", bin_means(share, 40)
    rows = read_rows(tss_path, dataset.assembly)
    here = rows.starts[rows.chrom == dataset.assembly.index(chrom)]
    centres = np.arange(strides) * STRIDE_BP + BIN_BP / 2
    distance = distance_to_nearest(centres, here.astype(np.float64))
    yield "transcript start", np.log2(1 + distance).astype(np.float32)
    counts = np.bincount(here // STRIDE_BP, minlength=strides)[:strides]
    yield "transcript starts 1000", bin_means(counts, 20)


def state_features(dataset: Dataset, cell: str, chrom: str) -> Named:
    """Share of each state in the bin, and within 1 and 5 kb; and in how many other cell types the bin has it."""
    strides = -(-dataset.assembly.length(chrom) // STRIDE_BP)
    tracks = {name: _by_stride(dataset.states(name, chrom), strides) for name in dataset.state_cells}
    others = [track for name, track in tracks.items() if name != cell]
    for code, state in enumerate(dataset.require_state_model().states, start=1):
        here = (tracks[cell] == code).astype(np.float32)
        for bp in (0, 1_000, 5_000):
            yield f"{state.name} {bp}", bin_means(here, bp // STRIDE_BP)
        elsewhere = np.mean([track == code for track in others], axis=0, dtype=np.float32)
        yield f"{state.name} elsewhere", bin_means(elsewhere)


def _by_stride(states: NDArray[np.uint8], strides: int) -> NDArray[np.uint8]:
    return np.repeat(states, STRIDES_PER_BIN)[:strides]


def normalised_accessibility(dataset: Dataset, chrom: str) -> dict[str, Track]:
    """Accessibility of every cell type that has it, brought to common quantiles; shape (S,) each.

    Quantiles are those of the strides with a signal, over all chromosomes.
    """
    flat = {cell: np.asarray(dataset.flat_accessibility(cell), np.float32) for cell in dataset.accessibility_cells}
    reference = reference_quantiles(list(flat.values()))
    return {
        cell: to_reference(np.asarray(dataset.accessibility(cell, chrom)), reference_quantiles([track]), reference)
        for cell, track in flat.items()
    }


def accessibility_features(tracks: dict[str, Track], cell: str, *, others: bool = False) -> Named:
    """Signal here, beside and around, the nearest peak, and how the cell type differs from the mean of all.

    Args:
        others: as if the cell type had none: the mean of the others stands for it.
    """
    tracks = {name: track for name, track in tracks.items() if name != cell} if others else tracks
    mean = np.mean(list(tracks.values()), axis=0, dtype=np.float32)
    own = mean if others else tracks[cell]
    here = bin_means(own)
    yield "open", here
    for distance in (2, 4, 8):
        higher, lower = either_side(here, distance)
        yield f"open side {distance} high", higher
        yield f"open side {distance} low", lower
    for bp in (0, 100, 200, 500, 1_000, 2_000):
        yield f"open max {bp}", bin_maxima(own, bp // STRIDE_BP)
    for bp in (500, 1_000, 2_000, 10_000):
        yield f"open mean {bp}", bin_means(own, bp // STRIDE_BP)
    first, end = runs_of(own > 0)
    centres = np.arange(len(own)) + STRIDES_PER_BIN / 2
    middles = (first + end) / 2
    yield "peak", np.log2(1 + distance_to_nearest(centres, middles)).astype(np.float32)
    if not others:
        yield "mean open", bin_means(mean)
        yield "mean open max 200", bin_maxima(mean, 4)
        yield "mean open 1000", bin_means(mean, 20)
        yield "more open", bin_means(own - mean)
        yield "more open 500", bin_means(own - mean, 10)
    yield "cells open", np.sum([bin_maxima(track) > 0 for track in tracks.values()], axis=0).astype(np.float32)
