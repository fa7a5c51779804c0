"""A run of `ebert predict`: score what is not yet scored, keep it, and write the files or a shard of them.

While a run lasts, its scores lie in `TFS.CELL.partial/` beside its outputs (`ebert_core.inference.journal`). A run that
was killed, stopped or met a full disk leaves them there, and `--resume` goes on from them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ebert_core import __version__
from ebert_core.artifacts import (
    digest_of,
    exclusive_lock,
    explain_os_errors,
    write_json,
)
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.inference.calls import Call
from ebert_core.inference.journal import (
    RUN_FILE,
    DamagedJournalError,
    Journal,
    read_run,
    require_same,
    run_file,
)
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.output_files import OutputSettings
from ebert_core.inference.outputs import Job, Written, write_files
from ebert_core.inference.pieces import Piece, Plan, Scored, Values, score_pieces
from ebert_core.inference.predictor import Request, provenance
from ebert_core.inference.targets import Target
from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter

# Files open at once per TF: two handles of a bigWig, two of its spread, sites, bedGraph, submission, lock.
_HANDLES_PER_TF: Final = 10
_HANDLES_BESIDE: Final = 128


@dataclass(frozen=True, eq=False)
class Scan:
    """What a run scores.

    Attributes:
        plan: the bins.
        values: how they get their values.
        identity: what makes the scores what they are; only a run of the same may go on with them.
    """

    plan: Plan
    values: Values
    identity: Mapping[str, Any]


def scan_identity(dataset: Dataset, model: LoadedModel, request: Request, plan: Plan, device: Device) -> dict[str, Any]:
    """What makes the scores of a request what they are, down to the last bit; a short JSON value per reason."""
    states = request.cell.flat
    known = ("tfs", "cell", "regions")
    rest = {
        field.name: getattr(request, field.name) for field in dataclasses.fields(request) if field.name not in known
    }
    digests = dataset.digests(())
    return {
        "version of ebert": __version__,
        "TFs": list(request.tfs),
        "cell type": request.cell.name,
        "assembly": dataset.assembly.digest,
        "genome": digests["sequence"],
        "exclusion list": digests["excluded"],
        "chromatin states": None if states is None else hashlib.sha256(states.tobytes()).hexdigest(),
        "task features": None if model.tracks is None else _tracks_digest(dataset),
        "accessibility": None if model.tracks is None else model.tracks.source(request.cell.name),
        "accessibility file": None if model.tracks is None else model.tracks.given_digest(request.cell.name),
        "model": digest_of(model.manifest),
        "regions": plan.digest,
        "device": device.device.type,
        "precision": "bf16" if device.bf16 else "fp32",
        **{name: value if isinstance(value, bool | int | str) else repr(value) for name, value in rest.items()},
    }


def _tracks_digest(dataset: Dataset) -> str:
    """Of all that a dataset holds beside labels: a model's task features may be made from any of it."""
    left_out = ("labels", "created_utc", "command", "ebert_version")
    return digest_of({key: value for key, value in dataset.manifest.items() if key not in left_out})


def describe(
    dataset: Dataset, model: LoadedModel, request: Request, plan: Plan, settings: OutputSettings, calls: Sequence[Call]
) -> Job:
    """What the files of a run say beside its scores."""
    about = [
        {
            "tf": tf,
            **provenance(dataset, model, request.cell, both_strands=request.both_strands),
            "pretrained_on": model.pretrained_on,
            "calibration": asdict(model.calibration(tf)),
        }
        for tf in request.tfs
    ]
    return Job(
        tfs=request.tfs,
        cell=request.cell.name,
        assembly=dataset.assembly,
        chroms=plan.chroms,
        num_scored=plan.coverage.scored,
        settings=settings,
        calls=tuple(calls),
        about=tuple(about),
    )


def run_files(
    scan: Scan, job: Job, target: Target, benchmark: BenchmarkBins | None = None, reporter: Reporter = SILENT
) -> Written:
    """Score a whole request and write its files.

    Args:
        benchmark: the bins of a submission, where one is asked for.

    Raises:
        OutputExistsError: an output is there and may not be replaced.
        EbertError: another run is writing one of the files; an unfinished run is there and neither `overwrite` nor
            `resume` was given, or it is of another request; no space is left. What was scored is kept.
    """
    allow_open_files(len(job.tfs))
    with target.names.locked(), _journal(scan, job, target, reporter) as journal:
        overwrite = target.overwrite or target.resume
        with _pieces(scan.plan.pieces, scan, job, journal, reporter) as pieces:
            written = write_files(pieces, job, target.names, benchmark, _keeper(journal), overwrite=overwrite)
        shutil.rmtree(target.working, ignore_errors=True)
    return written


def run_shard(scan: Scan, job: Job, target: Target, reporter: Reporter = SILENT) -> int:
    """Score a shard's pieces and leave them for `merge`, in the folder `target.output`; how many bins they have.

    A resumed run that finds its shard finished leaves it as it is.

    Raises:
        as `run_files`.
    """
    assert target.shard is not None
    own = scan.plan.shard(target.shard.number, target.shard.of)
    if target.finished:
        require_same_scan(target.output, scan)
        write_json(target.output / RUN_FILE, _run(scan, job, target))
        return _num_bins(own)
    with exclusive_lock(target.output), _journal(scan, job, target, reporter) as journal:
        with _pieces(own, scan, job, journal, reporter) as pieces:
            keep = _keeper(journal)
            for scored in pieces:
                keep(scored)
        with explain_os_errors(target.output):
            shutil.rmtree(target.output, ignore_errors=True)
            os.replace(target.working, target.output)
    return _num_bins(own)


def _run(scan: Scan, job: Job, target: Target) -> dict[str, Any]:
    """The content of the run's `run.json`."""
    shard = asdict(target.shard) if target.shard else None
    return run_file(
        {"shard": shard, "scan": dict(scan.identity), "num_pieces": len(scan.plan.pieces), "job": job.to_json()}
    )


def _num_bins(pieces: Sequence[Piece]) -> int:
    return sum(piece.coverage.scored for piece in pieces)


def require_same_scan(folder: Path, scan: Scan) -> None:
    """`EbertError` where a resumed run finds the scores of another request."""
    hint = "repeat its options with --resume, or begin anew with --overwrite alone"
    require_same(folder, scan.identity, read_run(folder).get("scan", {}), hint)


@contextlib.contextmanager
def _journal(scan: Scan, job: Job, target: Target, reporter: Reporter) -> Iterator[Journal]:
    """The run's journal, begun or opened again; an empty one does not outlive an error."""
    target.refuse_existing()
    if target.resumes:
        require_same_scan(target.working, scan)
        write_json(target.working / RUN_FILE, _run(scan, job, target))
        journal = Journal.open(target.working)
    else:
        journal = Journal.create(target.working, _run(scan, job, target))
    with journal:
        if len(journal):
            reporter.log(f"resumed: {len(journal):,} of {len(scan.plan.pieces):,} pieces were scored already")
        try:
            yield journal
        except BaseException as error:
            if not len(journal):
                shutil.rmtree(target.working, ignore_errors=True)
                raise
            kept = f"what was scored is kept in {target.working}: the same command with --resume goes on"
            if isinstance(error, EbertError) and not isinstance(error, DamagedJournalError):
                error.hint = f"{error.hint}; {kept}"
            if isinstance(error, KeyboardInterrupt):
                reporter.warn(kept)
            raise


@contextlib.contextmanager
def _pieces(
    pieces: Sequence[Piece], scan: Scan, job: Job, journal: Journal, reporter: Reporter
) -> Iterator[Iterator[Scored]]:
    """Pieces in order: from the journal where it has them, else scored now."""
    total = _num_bins(pieces)
    with reporter.task(f"scanning {job.cell}", total, "bins") as advance:

        def stream() -> Iterator[Scored]:
            for piece in pieces:
                if piece.number in journal:
                    advance(piece.coverage.scored, piece.chrom)
                    yield journal.read(piece.number)
                else:
                    yield from score_pieces([piece], scan.values, advance)

        yield stream()


def _keeper(journal: Journal) -> Callable[[Scored], None]:
    def keep(scored: Scored) -> None:
        if scored.piece.number not in journal:
            journal.append(scored)

    return keep


def allow_open_files(num_tfs: int, num_shards: int = 0) -> None:
    """Raise this process's limit of open files where so many TFs, or shards to join, need it."""
    needed = _HANDLES_BESIDE + _HANDLES_PER_TF * num_tfs + num_shards
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise EbertError(
            f"{num_tfs:,} TFs need {needed:,} open files, this system allows {hard:,}",
            f"predict {max(1, (hard - _HANDLES_BESIDE) // _HANDLES_PER_TF):,} TFs at a time, or raise `ulimit -Hn`",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
