"""Predictions on disk and in a pipe: bigWig, called sites, submission, sidecar, BED rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import build_manifest, exclusive_lock, file_entry, publish_file
from ebert_core.data.dataset import Dataset
from ebert_core.inference.calls import Call, Site, call_sites, write_narrow_peak
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.output_files import Outputs
from ebert_core.inference.predictor import Coverage, Prediction, Request
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.io.predictions import PREDICTIONS_FORMAT
from ebert_core.io.submission_writer import SubmissionWriter
from ebert_core.io.submissions import WHOLE_ROWS, row_chroms
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

# A bin's value stands on its central 50 bp (docs/definitions.md).
CENTRE_OFFSET_BP: Final = (BIN_BP - STRIDE_BP) // 2
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Written:
    """What `write_predictions` made.

    Attributes:
        outputs: its files.
        num_sites: called sites of each output; empty where they were not asked for.
        coverage: what was scored.
        submission: `rows` of each submission, and how many `unscored` of them say 0; None where not asked for.
    """

    outputs: list[Outputs]
    num_sites: list[int]
    coverage: Coverage
    submission: dict[str, int] | None


class _BigWig(BigWigWriter):
    def add(self, chrom: str, values: Floats) -> None:
        """Each unbroken run of scored bins is one fixed-step block."""
        scored = np.flatnonzero(~np.isnan(values))
        for run in np.split(scored, np.flatnonzero(np.diff(scored) > 1) + 1):
            if len(run):
                start = int(run[0]) * STRIDE_BP + CENTRE_OFFSET_BP
                self.write_fixed_step(chrom, start, values[run], STRIDE_BP, STRIDE_BP)


class _Submission(SubmissionWriter):
    def add(self, chrom: str, values: Floats) -> None:
        if chrom in self.chroms:
            self.write(chrom, values[self.bins.starts(chrom) // STRIDE_BP])


class _Sites:
    """Called sites, written when the `with` block ends."""

    def __init__(self, path: Path, threshold: float) -> None:
        self._path = path
        self._threshold = threshold
        self.sites: list[Site] = []

    def __enter__(self) -> _Sites:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._path.open("w", encoding="ascii") as handle:
                write_narrow_peak(self.sites, handle)

    def add(self, chrom: str, values: Floats) -> None:
        self.sites += call_sites(chrom, values, self._threshold)


_File = _BigWig | _Sites | _Submission


def write_predictions(
    predictions: Iterator[Prediction],
    dataset: Dataset,
    model: LoadedModel,
    request: Request,
    outputs: Sequence[Outputs],
    calls: Sequence[Call],
    *,
    overwrite: bool = False,
) -> Written:
    """Write the files and a sidecar per TF from one scan; all of them appear at the end, or none.

    Args:
        predictions: chromosomes in the assembly's order; all that have bins where a submission is asked for.
        outputs, calls: of each TF of the request.

    Raises:
        OutputExistsError: an output is there and may not be replaced.
        EbertError: another run is writing one, or no bin has a value.
    """
    with contextlib.ExitStack() as locks:
        for output in outputs:
            for path in (*output.files.values(), output.sidecar):
                locks.enter_context(exclusive_lock(path))
        left_over = [path for output in outputs for path in output.left_over()]
        with contextlib.ExitStack() as staging:

            def stage(path: Path) -> Path:
                return staging.enter_context(publish_file(path, overwrite=overwrite))

            # What is staged first is published last: the sidecars, which vouch for the others.
            sidecars = [stage(output.sidecar) for output in outputs]
            staged = [{name: stage(path) for name, path in output.files.items()} for output in outputs]
            files, chroms, coverage = _write_files(predictions, dataset, staged, calls)
            submission = _submission_entry(files[0])
            for place, sidecar in enumerate(sidecars):
                body = {
                    **_describe(dataset, model, request, place),
                    "call": asdict(calls[place]) if "narrowpeak" in staged[place] else None,
                    "chroms": chroms,
                    "coverage": asdict(coverage),
                    "submission": submission,
                    "files": {outputs[place].files[name].name: file_entry(at) for name, at in staged[place].items()},
                }
                manifest = build_manifest("predictions", PREDICTIONS_FORMAT, body)
                sidecar.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in left_over:
            path.unlink(missing_ok=True)
    num_sites = [len(file.sites) for of_tf in files for file in of_tf.values() if isinstance(file, _Sites)]
    return Written(list(outputs), num_sites, coverage, submission)


def _write_files(
    predictions: Iterator[Prediction], dataset: Dataset, staged: Sequence[Mapping[str, Path]], calls: Sequence[Call]
) -> tuple[list[dict[str, _File]], list[str], Coverage]:
    """(files of each TF by format, chromosomes written, coverage), from one pass over the predictions."""
    coverage, chroms = Coverage(), []
    files: list[dict[str, _File]] = []
    with contextlib.ExitStack() as writing:
        for paths, call in zip(staged, calls, strict=True):
            files.append({})
            for name, path in paths.items():
                files[-1][name] = file = _open(name, path, dataset, call)
                writing.enter_context(file)
        for prediction in predictions:
            coverage += prediction.coverage
            chroms.append(prediction.chrom)
            for place, of_tf in enumerate(files):
                for file in of_tf.values():
                    file.add(prediction.chrom, prediction.probabilities[:, place])
    return files, chroms, coverage


def _open(name: str, path: Path, dataset: Dataset, call: Call) -> _File:
    if name == "bigwig":
        return _BigWig(path, dataset.assembly)
    if name == "dream":
        return _Submission(path, dataset.benchmark_bins())
    return _Sites(path, call.threshold)


def submission_note(dataset: Dataset) -> str | None:
    """Why a submission of this dataset's bins is not one that the challenge took; None where it is."""
    bins = dataset.benchmark_bins()
    rows = bins.num_rows(row_chroms(bins))
    if rows == WHOLE_ROWS:
        return None
    return (
        f"the dataset has {rows:,} bins of the benchmark, a whole submission has {WHOLE_ROWS:,} rows: "
        "the files can be evaluated on this dataset's bins only"
    )


def _submission_entry(files: Mapping[str, _File]) -> dict[str, int] | None:
    """How many rows a submission has, and how many of them say 0 because their bin has no value."""
    for file in files.values():
        if isinstance(file, _Submission):
            return {"rows": file.num_rows, "unscored": file.unscored}
    return None


def _describe(dataset: Dataset, model: LoadedModel, request: Request, place: int) -> dict[str, Any]:
    """What a sidecar says of how its files were made."""
    tf = request.tfs[place]
    calibration = model.calibration(tf)
    return {
        "tf": tf,
        "cell": request.cell.name,
        "states": request.cell.source,
        "assembly": {"name": dataset.assembly.name, "digest": dataset.assembly.digest},
        "model": {"path": str(model.path), "files": model.manifest["files"]},
        "trained_on": model.trained_on,
        "pretrained_on": model.pretrained_on,
        "both_strands": request.both_strands,
        "calibration": asdict(calibration),
    }


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
