"""From scored pieces to files: all formats in one pass, and a sidecar per TF that vouches for them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ebert_core.artifacts import build_manifest, file_entry, publish_file
from ebert_core.errors import EbertError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.inference.behind import Behind
from ebert_core.inference.calls import Call
from ebert_core.inference.matrix import NpzMatrix, ParquetMatrix
from ebert_core.inference.output_files import Outputs, OutputSet, OutputSettings
from ebert_core.inference.pieces import Coverage, Piece, Runs, Scored, joined
from ebert_core.inference.tracks import (
    CENTRE_OFFSET_BP,
    BedGraphTrack,
    BigWigTrack,
    SitesTrack,
    SubmissionTrack,
    Track,
)
from ebert_core.io.predictions import PREDICTIONS_FORMAT
from ebert_core.io.submissions import WHOLE_ROWS, row_chroms
from ebert_core.vocabulary import STRIDE_BP


@dataclass(frozen=True)
class Job:
    """What the files of a run say beside its scores; as JSON it lies in the run's working folder.

    Attributes:
        tfs: in the order of the scores' columns.
        cell: cell type.
        assembly: coordinates.
        chroms: chromosomes asked for, in the order of the pieces.
        num_scored: bins that get a value.
        settings: which files, and how.
        calls: where each TF's sites are called.
        about: each TF's part of its sidecar: model, calibration and all else that made the scores.
    """

    tfs: tuple[str, ...]
    cell: str
    assembly: Assembly
    chroms: tuple[str, ...]
    num_scored: int
    settings: OutputSettings
    calls: tuple[Call, ...]
    about: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "tfs": list(self.tfs),
            "cell": self.cell,
            "assembly": self.assembly.to_json(),
            "chroms": list(self.chroms),
            "num_scored": self.num_scored,
            "settings": self.settings.to_json(),
            "calls": [asdict(call) for call in self.calls],
            "about": [dict(about) for about in self.about],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        """KeyError, TypeError or ValueError where it is none."""
        return cls(
            tfs=tuple(value["tfs"]),
            cell=value["cell"],
            assembly=Assembly.from_sizes((name, length) for name, length in value["assembly"]["chroms"]),
            chroms=tuple(value["chroms"]),
            num_scored=value["num_scored"],
            settings=OutputSettings.from_json(value["settings"]),
            calls=tuple(Call(**call) for call in value["calls"]),
            about=tuple(value["about"]),
        )


@dataclass(frozen=True)
class Written:
    """What `write_files` made.

    Attributes:
        files: of each TF, by format; `unscored` and, of an ensemble, `spread` among them.
        shared: files of all TFs, by format.
        num_sites: called sites of each TF; empty where they were not asked for.
        coverage: what was scored.
        submission: `rows` of each submission, and how many `unscored` of them say 0; None where not asked for.
    """

    files: list[dict[str, Path]]
    shared: dict[str, Path]
    num_sites: list[int]
    coverage: Coverage
    submission: dict[str, int] | None


def write_files(
    pieces: Iterator[Scored],
    job: Job,
    names: OutputSet,
    benchmark: BenchmarkBins | None,
    keep: Callable[[Scored], None] | None = None,
    *,
    overwrite: bool = False,
) -> Written:
    """Write the files and a sidecar per TF; all of them appear at the end, or none. The caller holds their lock.

    Args:
        pieces: in order, all that have bins where a submission is asked for.
        benchmark: the bins of a submission.
        keep: is called with each piece before it is written, in the writing thread.

    Raises:
        OutputExistsError: an output is there and may not be replaced.
        EbertError: no bin has a value, or no space is left.
    """
    first = next(pieces, None)
    if first is None:
        raise EbertError("no bin has a value", "choose chromosomes or regions that have bins")
    with_spread = first.spread is not None
    left_over = [path for output in names.of_tf for path in output.left_over(with_spread=with_spread)]
    with contextlib.ExitStack() as staging:

        def stage(paths: Mapping[str, Path]) -> dict[str, Path]:
            return {name: staging.enter_context(publish_file(at, overwrite=overwrite)) for name, at in paths.items()}

        # What is staged first is published last: the sidecars, which vouch for the others.
        sidecars = [stage({"sidecar": output.sidecar})["sidecar"] for output in names.of_tf]
        files = [_files_of(output, job, with_spread=with_spread) for output in names.of_tf]
        staged, staged_shared = [stage(paths) for paths in files], stage(names.shared)
        with _Files(staged, staged_shared, job, benchmark) as writing:

            def write(scored: Scored) -> None:
                if keep:
                    keep(scored)
                writing.add(scored)

            with Behind(write) as behind:
                for scored in itertools.chain([first], pieces):
                    behind.put(scored)
        shared = {names.shared[name].name: file_entry(at) for name, at in staged_shared.items()}
        for place, sidecar in enumerate(sidecars):
            own = {files[place][name].name: file_entry(at) for name, at in staged[place].items()}
            body = {**_body(job, place), **writing.told, "files": own | shared}
            manifest = build_manifest("predictions", PREDICTIONS_FORMAT, body)
            sidecar.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for path in left_over:
        path.unlink(missing_ok=True)
    return Written(files, dict(names.shared), writing.num_sites, writing.coverage, writing.submission)


def _files_of(output: Outputs, job: Job, *, with_spread: bool) -> dict[str, Path]:
    spread = {"spread": output.spread} if with_spread and "bigwig" in job.settings.formats else {}
    return {**output.files, **spread}


def _body(job: Job, place: int) -> dict[str, Any]:
    """A sidecar without what is known only once all is written."""
    settings = job.settings
    return {
        **job.about[place],
        "call": asdict(job.calls[place]) if "narrowpeak" in settings.formats else None,
        "chroms": list(job.chroms),
        "min_score": settings.min_score,
        "round_digits": settings.round_digits,
    }


class _Files(contextlib.ExitStack):
    """All files of a run that are being written."""

    def __init__(
        self,
        paths: Sequence[Mapping[str, Path]],
        shared: Mapping[str, Path],
        job: Job,
        benchmark: BenchmarkBins | None,
    ) -> None:
        super().__init__()
        self._job = job
        self._benchmark = benchmark
        self._gaps: dict[str, list[Piece]] = {}
        self._unscored = [of_tf["unscored"] for of_tf in paths]
        self.coverage = Coverage()
        self._tracks: list[dict[str, Track]] = []
        self._matrices: list[NpzMatrix | ParquetMatrix] = []
        with contextlib.ExitStack() as undone:
            undone.push(self.__exit__)
            for place, of_tf in enumerate(paths):
                self._tracks.append({})
                for name in [name for name in of_tf if name != "unscored"]:
                    self._tracks[-1][name] = track = self._open(name, of_tf[name], place)
                    self.enter_context(track)
            for name, path in shared.items():
                self._matrices.append(matrix := self._open_matrix(name, path))
                self.enter_context(matrix)
            undone.pop_all()

    def _open(self, name: str, path: Path, place: int) -> Track:
        job = self._job
        called = f"{job.tfs[place]} in {job.cell}"
        if name == "bigwig":
            return BigWigTrack(path, job.assembly, job.settings, called)
        if name == "spread":
            return BigWigTrack(path, job.assembly, OutputSettings(round_digits=job.settings.round_digits), called)
        if name == "bedgraph":
            return BedGraphTrack(path, job.settings)
        if name == "dream":
            assert self._benchmark is not None
            return SubmissionTrack(path, self._benchmark)
        return SitesTrack(path, job.calls[place].threshold)

    def _open_matrix(self, name: str, path: Path) -> NpzMatrix | ParquetMatrix:
        job = self._job
        chroms = {chrom: job.assembly.length(chrom) for chrom in job.chroms}
        matrix = NpzMatrix if name == "npz" else ParquetMatrix
        return matrix(path, (job.tfs, job.cell), chroms, job.num_scored, half=job.settings.half)

    def add(self, scored: Scored) -> None:
        piece, bins = scored.piece, scored.piece.bins
        self.coverage += piece.coverage
        self._gaps.setdefault(piece.chrom, []).append(piece)
        for place, tracks in enumerate(self._tracks):
            values = np.ascontiguousarray(scored.probabilities[:, place])
            for name, track in tracks.items():
                if name == "spread":
                    if scored.spread is not None:
                        track.add(piece.chrom, bins, np.ascontiguousarray(scored.spread[:, place]))
                else:
                    track.add(piece.chrom, bins, values)
        for matrix in self._matrices:
            matrix.add(scored)

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            rows = "".join(unscored_rows(chrom, pieces) for chrom, pieces in self._gaps.items())
            for path in self._unscored:
                path.write_text(rows, encoding="ascii")
        return super().__exit__(*error)

    @property
    def num_sites(self) -> list[int]:
        """Called sites of each TF."""
        every = [track for tracks in self._tracks for track in tracks.values()]
        return [track.num_sites for track in every if isinstance(track, SitesTrack)]

    @property
    def submission(self) -> dict[str, int] | None:
        """How many rows a submission has, and how many of them say 0 because their bin has no value."""
        for track in self._tracks[0].values():
            if isinstance(track, SubmissionTrack):
                return {"rows": track.num_rows, "unscored": track.unscored}
        return None

    @property
    def told(self) -> dict[str, Any]:
        """For the sidecars, after all was written."""
        return {"coverage": asdict(self.coverage), "submission": self.submission}


def unscored_rows(chrom: str, pieces: Sequence[Piece]) -> str:
    """BED4 of the bins of a chromosome that were asked for and got no value: their central 50 bp, merged; why."""
    rows: list[tuple[int, int, str]] = []
    for reason, parts in (("N", [p.all_n for p in pieces]), ("excluded", [p.excluded for p in pieces])):
        runs: Runs = joined(parts)
        rows += [(first, last, reason) for first, last in runs.tolist()]
    return "".join(
        f"{chrom}\t{first * STRIDE_BP + CENTRE_OFFSET_BP}\t{last * STRIDE_BP + CENTRE_OFFSET_BP}\t{reason}\n"
        for first, last, reason in sorted(rows)
    )


def submission_note(bins: BenchmarkBins) -> str | None:
    """Why a submission of a dataset's bins is not one that the challenge took; None where it is."""
    rows = bins.num_rows(row_chroms(bins))
    if rows == WHOLE_ROWS:
        return None
    return (
        f"the dataset has {rows:,} bins of the benchmark, a whole submission has {WHOLE_ROWS:,} rows: "
        "the files can be evaluated on this dataset's bins only"
    )
