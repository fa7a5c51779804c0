"""Predictions on disk and in a pipe: bigWig, called sites, sidecar, BED rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import SIDECAR_SUFFIX, build_manifest, file_entry, publish_file, refuse_existing, write_json
from ebert_core.data.dataset import Dataset
from ebert_core.inference.calls import Site, call_sites, write_narrow_peak
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.predictor import CellStates, Coverage, Prediction, Request
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.io.predictions import PREDICTIONS_FORMAT
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

# A bin's value stands on its central 50 bp (docs/definitions.md).
CENTRE_OFFSET_BP: Final = (BIN_BP - STRIDE_BP) // 2


@dataclass(frozen=True)
class Outputs:
    """Files of one TF and cell type."""

    bigwig: Path
    sites: Path
    sidecar: Path

    @classmethod
    def named(cls, folder: Path, tf: str, cell: str) -> Outputs:
        stem = f"{tf}.{cell}".replace("/", "_")
        return cls(folder / f"{stem}.bw", folder / f"{stem}.narrowPeak", folder / f"{stem}{SIDECAR_SUFFIX}")

    def refuse_existing(self, overwrite: bool) -> None:
        for path in (self.bigwig, self.sites, self.sidecar):
            refuse_existing(path, overwrite)


@dataclass(frozen=True)
class Written:
    """What `write_predictions` made."""

    outputs: list[Outputs]
    num_sites: list[int]
    coverage: Coverage


def write_predictions(
    predictions: Iterator[Prediction],
    dataset: Dataset,
    model: LoadedModel,
    request: Request,
    outputs: Sequence[Outputs],
    thresholds: Sequence[float],
) -> Written:
    """Write a bigWig, called sites and a sidecar per TF; all of them appear at the end, or none."""
    tfs = request.tfs
    coverage = Coverage()
    sites: list[list[Site]] = [[] for _ in tfs]
    chroms: list[str] = []
    with contextlib.ExitStack() as stack:
        # Staged files are published in reverse order; the sidecars, which vouch for the others, come after.
        staged = [stack.enter_context(publish_file(output.bigwig, overwrite=True)) for output in outputs]
        staged_sites = [stack.enter_context(publish_file(output.sites, overwrite=True)) for output in outputs]
        with contextlib.ExitStack() as writers:
            files = [writers.enter_context(BigWigWriter(path, dataset.assembly)) for path in staged]
            for prediction in predictions:
                coverage += prediction.coverage
                chroms.append(prediction.chrom)
                for place, writer in enumerate(files):
                    _write_runs(writer, prediction.chrom, prediction.probabilities[:, place])
                    sites[place] += call_sites(prediction.chrom, prediction.probabilities[:, place], thresholds[place])
        for path, called in zip(staged_sites, sites, strict=True):
            with path.open("w", encoding="ascii") as handle:
                write_narrow_peak(called, handle)
    for tf, output, threshold in zip(tfs, outputs, thresholds, strict=True):
        body = _sidecar(dataset, model, tf, request.cell, output, threshold)
        write_json(output.sidecar, {**body, "chroms": chroms, "coverage": vars(coverage)})
    return Written(list(outputs), [len(called) for called in sites], coverage)


def _sidecar(
    dataset: Dataset, model: LoadedModel, tf: str, cell: CellStates, output: Outputs, threshold: float
) -> dict[str, Any]:
    data = model.manifest["data"]
    files = {path.name: file_entry(path) for path in (output.bigwig, output.sites)}
    return build_manifest(
        "predictions",
        PREDICTIONS_FORMAT,
        {
            "tf": tf,
            "cell": cell.name,
            "states": cell.source,
            "assembly": {"name": dataset.assembly.name, "digest": dataset.assembly.digest},
            "model": {"path": str(model.path), "files": model.manifest["files"]},
            "trained_on": {
                "tfs": data["tfs"],
                "cells": sorted({*data["cells"], *data["valid_cells"]}),
                "regions": [*data["train"], *data["valid"]],
            },
            "calibration": model.manifest["calibration"][tf],
            "threshold": threshold,
            "files": files,
        },
    )


def _write_runs(writer: BigWigWriter, chrom: str, values: NDArray[np.float32]) -> None:
    """Write each unbroken run of scored bins as one fixed-step block."""
    scored = np.flatnonzero(~np.isnan(values))
    for run in np.split(scored, np.flatnonzero(np.diff(scored) > 1) + 1):
        if len(run):
            writer.write_fixed_step(
                chrom, int(run[0]) * STRIDE_BP + CENTRE_OFFSET_BP, values[run], STRIDE_BP, STRIDE_BP
            )


def write_rows(predictions: Iterator[Prediction], handle: TextIO) -> Coverage:
    """BED4 of one TF for a pipe: chrom, start, end of the 200-bp bin, probability; in the assembly's order."""
    coverage = Coverage()
    for prediction in predictions:
        coverage += prediction.coverage
        values = prediction.probabilities[:, 0]
        scored = np.flatnonzero(~np.isnan(values))
        for first in range(0, len(scored), 100_000):
            piece = scored[first : first + 100_000]
            handle.writelines(
                f"{prediction.chrom}\t{start}\t{start + BIN_BP}\t{value:.6g}\n"
                for start, value in zip((piece * STRIDE_BP).tolist(), values[piece].tolist(), strict=True)
            )
    return coverage
