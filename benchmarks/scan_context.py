"""benchmarks/scan.py --context: what a bin's context costs, as auPRC on a demo's held-out cell type and chromosome.

DEMO is a folder of `ebert demo`; a second model, with the layers at strides of `--motifs`, is looked at where it is:

    ebert demo --output DEMO && cd DEMO
    ebert finetune --tf SIMCTCF,SIMETS,SIMMAX --motifs world/motifs.meme --hold-out-cell SimBrain --hold-out-chrom chr4
        --valid-chrom chr3 --scratch tiny --steps 240 --set evaluate_every=120 --set head_share=0.3
        --set global_batch=4 --set valid_bp=300000 --seed 1 --output models-motifs/all

Of each TF, some bound and some unbound bins; the same ones are scored by the scan, and each in a window of its own as
long as those of the training, with the bin at its centre; and in one of 1 kb.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.packed import packed
from ebert_core.inference.pieces import make_plan, score_pieces
from ebert_core.inference.predictor import CellStates, Request, chrom_tracks
from ebert_core.inference.scan import gather, model_score
from ebert_core.inference.scorer import piece_values
from ebert_core.model.device import Device, choose_device
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP

BOUND_BINS: Final = 200
UNBOUND_BINS: Final = 800
SHORT_BP: Final = 1_000
_AT_ONCE_BP: Final = 51_200


def context(demo: Path) -> dict[str, Any]:
    """auPRC of each model of the demo, by how its bins were shown to it."""
    world = json.loads((demo / "world" / "world.json").read_text(encoding="utf-8"))["config"]
    cell, chrom = world["test_cell"], world["test_chrom"]
    dataset, device = Dataset.open(demo / "dataset"), choose_device("cpu", "auto")
    found = {}
    for path in sorted([*demo.glob("models/*"), *demo.glob("models-motifs/*")]):
        if (path / "ebert.json").is_file():
            model = load_model(path, dataset, device)
            found[path.relative_to(demo).as_posix()] = compared(dataset, model, device, cell, chrom)
    if not found:
        sys.exit(f"no model in {demo}/models")
    return found


def compared(dataset: Dataset, model: LoadedModel, device: Device, cell: str, chrom: str) -> dict[str, Any]:
    """auPRC of one model, mean over TFs, and how far its probabilities differ."""
    cell_states = CellStates(cell, dataset.flat_states(cell), "dataset")
    request = Request(tuple(model.tfs), cell_states, (Region(chrom, 0, dataset.assembly.length(chrom)),))
    bins, bound = sampled(dataset, model, cell, chrom)
    found = scanned(dataset, model, request, device, bins)
    # Bins of N only and excluded ones have no value.
    valued = np.isfinite(found).all(axis=1)
    bins, by_way = bins[valued], {"scan": found[valued]}
    bound = [(keep[valued], positive[valued[keep]]) for keep, positive in bound]
    window_bp = model.geometry().window_bp
    for name, width in ((f"centred, {window_bp} bp", window_bp), (f"centred, {SHORT_BP} bp", SHORT_BP)):
        by_way[name] = centred(dataset, model, request, device, (bins, width))
    fp32 = replace(device, bf16=False)
    by_way["scan in fp32"] = scanned(dataset, model, request, fp32, bins)
    auprc = {
        name: round(float(np.mean([measure(values[k, t], b).auprc for t, (k, b) in enumerate(bound)])), 4)
        for name, values in by_way.items()
    }
    differ = {
        name: round(float(np.abs(values - by_way["scan"]).max()), 4)
        for name, values in by_way.items()
        if name != "scan"
    }
    geometry = model.scan_geometries()[0]
    return {"window_bp": geometry.window_bp, "bins": len(bins), "auprc": auprc, "largest_difference": differ}


def sampled(
    dataset: Dataset, model: LoadedModel, cell: str, chrom: str
) -> tuple[NDArray[np.int64], list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]]:
    """Numbers of some bins, and for each TF which of them count and whether those are bound."""
    rng, labels = np.random.default_rng(0), [dataset.labels(tf, cell, chrom) for tf in model.tfs]
    parts = []
    for codes in labels:
        for label, most in ((BOUND, BOUND_BINS), (UNBOUND, UNBOUND_BINS // len(labels))):
            there = np.flatnonzero(codes == label)
            parts.append(rng.choice(there, min(most, len(there)), replace=False))
    bins = np.unique(np.concatenate(parts))
    known = [(codes[bins] == BOUND) | (codes[bins] == UNBOUND) for codes in labels]
    return bins, [(keep, codes[bins][keep] == BOUND) for keep, codes in zip(known, labels, strict=True)]


def scanned(
    dataset: Dataset, model: LoadedModel, request: Request, device: Device, bins: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Probabilities of the bins (bins, T) by the scan of the whole chromosome."""
    plan = make_plan(dataset, request.regions, model.geometry().core_bins, 100_000)
    table = np.full((int(bins.max()) + 1, len(request.tfs)), np.nan, dtype=np.float32)
    for scored in score_pieces(
        plan.pieces, piece_values(dataset, model, request, device), lambda amount, note="": None
    ):
        inside = scored.piece.bins <= bins.max()
        table[scored.piece.bins[inside]] = scored.probabilities[inside]
    return table[bins]


def centred(
    dataset: Dataset, model: LoadedModel, request: Request, device: Device, asked: tuple[NDArray[np.int64], int]
) -> NDArray[np.float32]:
    """Probabilities of the bins (bins, T), each in a window of its own of so many bp."""
    bins, window_bp = asked
    chrom = request.regions[0].chrom
    first, length = dataset.assembly.offset(chrom), dataset.assembly.length(chrom)
    score = model_score(packed(model.module, device), device, both_strands=request.both_strands)
    assert request.cell.flat is not None
    states = request.cell.flat[first // STATE_BIN_BP : -(-(first + length) // STATE_BIN_BP)]
    reader = model.tracks
    tracks = None if reader is None else chrom_tracks(reader, request.cell.name, (first, first + length), window_bp)
    at = bins * STRIDE_BP
    starts = (at + (BIN_BP - window_bp) // 2) // STATE_BIN_BP * STATE_BIN_BP
    found = np.empty((len(bins), len(request.tfs)), dtype=np.float32)
    at_once = max(1, _AT_ONCE_BP // window_bp)
    for low in range(0, len(bins), at_once):
        some = slice(low, low + at_once)
        batch = gather(dataset.sequence(chrom), states, starts[some], window_bp)
        logits = score(batch if tracks is None else replace(batch, tracks=tracks(starts[some])))
        own = logits[np.arange(len(logits)), (at[some] - starts[some]) // STRIDE_BP]
        for t, tf in enumerate(model.tfs):
            found[some, t] = model.calibration(tf).probabilities(own[:, t])
    return found
