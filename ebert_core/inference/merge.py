"""Joining shards: the files of one run from the scores that several runs of `ebert predict --shard i/n` left."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ebert_core.artifacts import exclusive_lock, explain_os_errors
from ebert_core.data.dataset import Dataset
from ebert_core.errors import BusyError, EbertError, InputError
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.inference.journal import Journal, is_journal, read_run, require_same
from ebert_core.inference.output_files import OutputSet
from ebert_core.inference.outputs import Job, Written, write_files
from ebert_core.inference.pieces import Scored
from ebert_core.inference.runs import Scan, allow_open_files, require_same_scan
from ebert_core.inference.targets import Target
from ebert_core.reporting import SILENT, Reporter

_AGAIN: Final = "make it with `ebert predict --shard`, or name other folders"


@dataclass(frozen=True)
class ShardSet:
    """The shards of one run.

    Attributes:
        name: TFS.CELL.
        job: what the files say.
        scan: what was scored.
        folders: of each shard, from the first to the last.
        num_pieces: of all of them.
    """

    name: str
    job: Job
    scan: Mapping[str, Any]
    folders: tuple[Path, ...]
    num_pieces: int


def find_shards(folders: Sequence[Path]) -> list[ShardSet]:
    """The runs whose shards lie in folders, or are themselves named; sorted by the folders' names.

    Raises:
        EbertError: there is no shard, one is missing, unfinished, given twice, or of another request than the others.
        InputError: a folder is missing or damaged.
    """
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(folder, "is no folder" if folder.exists() else "is not there", _AGAIN)
        named = is_journal(folder)
        for path in [folder] if named else sorted(each for each in folder.iterdir() if is_journal(each)):
            run = read_run(path)
            if run.get("shard") is not None:
                found.setdefault(path.name.partition(".shard-")[0], []).append((path, run))
            elif named:
                raise EbertError(
                    f"{path} is an unfinished run, no shard", "finish it: the same `ebert predict` with --resume"
                )
    if not found:
        raise EbertError(f"there is no shard in {', '.join(map(str, folders))}", _AGAIN)
    return [_shard_set(name, found[name]) for name in sorted(found)]


def _shard_set(name: str, shards: Sequence[tuple[Path, Mapping[str, Any]]]) -> ShardSet:
    """Check that the shards of a name make one run."""
    first, reference = shards[0]
    try:
        job = Job.from_json(reference["job"])
        of, num_pieces = reference["shard"]["of"], reference["num_pieces"]
        by_number: dict[int, Path] = {}
        for path, run in shards:
            hint = f"{first.name} and {path.name} are shards of two runs: give those of one"
            require_same(path, _essence(reference), _essence(run), hint)
            number = run["shard"]["number"]
            if number in by_number:
                raise EbertError(
                    f"shard {number} of {of} of {name} is given twice: {by_number[number]} and {path}",
                    "give one of them",
                )
            by_number[number] = path
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(first, f"is damaged ({type(error).__name__}: {error})", _AGAIN) from None
    lacking = [number for number in range(1, of + 1) if number not in by_number]
    unfinished = [path for path in by_number.values() if path.name.endswith(".partial")]
    if unfinished:
        raise EbertError(f"{unfinished[0]} is unfinished", "finish it: the same `ebert predict --shard` with --resume")
    if lacking:
        raise EbertError(
            f"{name}: shard {', '.join(map(str, lacking))} of {of} is missing",
            f"make it with `ebert predict ... --shard {lacking[0]}/{of}`, or name the folder that holds it, too",
        )
    folders = tuple(by_number[number] for number in range(1, of + 1))
    return ShardSet(name, job, reference["scan"], folders, num_pieces)


def _essence(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the shards of a run have in common."""
    job = run["job"]
    return {
        **run["scan"],
        "number of shards": run["shard"]["of"],
        "outputs": job["settings"],
        "called sites": job["calls"],
        "pieces": run["num_pieces"],
    }


def merge_shards(
    shards: ShardSet, folder: Path, dataset: Dataset | None, reporter: Reporter = SILENT, *, overwrite: bool = False
) -> Written:
    """Write the files of the shards' run, equal to those of a run that was never shared out.

    Args:
        folder: for the files.
        dataset: for a submission: the one that was predicted on.

    Raises:
        OutputExistsError: an output is there and may not be replaced.
        EbertError: another run is writing one of the files, no space is left, or a submission needs another dataset.
        InputError: a shard is damaged.
    """
    job = shards.job
    names = OutputSet.named(folder, job.tfs, job.cell, job.settings.formats)
    names.refuse_existing(overwrite)
    benchmark = _benchmark(shards, dataset)
    with names.locked():
        return _write_joined(shards, names, benchmark, reporter, overwrite=overwrite)


def join_ranks(
    scan: Scan, job: Job, target: Target, benchmark: BenchmarkBins | None = None, reporter: Reporter = SILENT
) -> Written | None:
    """What the last rank of a run does when its part is finished: write the files from all parts, and remove those.

    Ranks need not talk to each other for this, but share a folder. A rank leaves its part before it looks for the
    others', so the last one sees all of them; where two do, one writes.

    Args:
        target: of this rank.
        benchmark: the bins of a submission, where one is asked for.

    Returns:
        None where other ranks are not ready yet, or another joins or has joined the parts.

    Raises:
        EbertError: a part is of another request; another run is writing one of the files; no space is left.
        InputError: a part is damaged.
    """
    assert target.shard is not None
    names, of = target.names, target.shard.of
    folders = tuple(names.rank(number, of) for number in range(1, of + 1))
    with contextlib.ExitStack() as stack:
        if not all(map(is_journal, folders)):
            return None
        try:
            stack.enter_context(exclusive_lock(names.folder / f"{names.stem}.ranks"))
        except BusyError:
            return None
        if not all(map(is_journal, folders)):
            return None
        for folder in folders:
            require_same_scan(folder, scan)
        stack.enter_context(names.locked())
        shards = ShardSet(names.stem, job, scan.identity, folders, len(scan.plan.pieces))
        written = _write_joined(shards, names, benchmark, reporter, overwrite=True)
        with explain_os_errors(names.working):
            gone = names.working.with_name(f".{names.working.name}.gone")
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(names.working, gone)  # at once: none of them is met alone
            shutil.rmtree(gone, ignore_errors=True)
    return written


def _write_joined(
    shards: ShardSet, names: OutputSet, benchmark: BenchmarkBins | None, reporter: Reporter, *, overwrite: bool
) -> Written:
    """Write the files, which are locked."""
    job = shards.job
    allow_open_files(len(job.tfs), len(shards.folders))
    with contextlib.ExitStack() as stack:
        journals = [stack.enter_context(Journal.open(path)) for path in shards.folders]
        owner = {number: journal for journal in journals for number in journal.numbers}
        held = sum(map(len, journals))
        if sorted(owner) != list(range(shards.num_pieces)) or held != shards.num_pieces:
            raise EbertError(
                f"the shards of {names.stem} hold {held:,} pieces, {shards.num_pieces:,} make the run",
                "a shard is damaged: make them anew",
            )
        advance = stack.enter_context(reporter.task(f"joining {names.stem}", job.num_scored, "bins"))

        def pieces() -> Iterator[Scored]:
            for number in range(shards.num_pieces):
                scored = owner[number].read(number)
                advance(len(scored.probabilities), scored.piece.chrom)
                yield scored

        return write_files(pieces(), job, names, benchmark, overwrite=overwrite)


def _benchmark(shards: ShardSet, dataset: Dataset | None) -> BenchmarkBins | None:
    if "dream" not in shards.job.settings.formats:
        return None
    if dataset is None:
        raise EbertError("a submission's rows are those of its dataset", "name the dataset with --dataset")
    theirs = {"genome": dataset.digests(())["sequence"], "exclusion list": dataset.digests(())["excluded"]}
    require_same(dataset.path, theirs, {key: shards.scan[key] for key in theirs}, "name the dataset of the shards")
    return dataset.benchmark_bins()
