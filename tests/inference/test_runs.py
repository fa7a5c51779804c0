"""Runs that are stopped, resumed, shared out and joined give the bytes of an unbroken one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ebert_core.artifacts import exclusive_lock
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, InputError, OutputExistsError
from ebert_core.genome.regions import Region
from ebert_core.inference import outputs, runs
from ebert_core.inference.calls import Call
from ebert_core.inference.journal import Journal
from ebert_core.inference.merge import find_shards, merge_shards
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.output_files import OutputSet, OutputSettings
from ebert_core.inference.outputs import Written
from ebert_core.inference.pieces import Piece, Scored
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.runs import Scan, describe, run_files, run_shard, scan_identity
from ebert_core.inference.targets import Shard, Target
from ebert_core.model.device import Device
from ebert_core.reporting import Advance, Reporter

CALL = Call("f1", 0.6, 0.8, 0.5, 0.62, 10, 90)
FORMATS = ("bigwig", "narrowpeak", "bedgraph", "dream", "npz")


class Told(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)

    warn = log


@dataclass
class Runner:
    """Runs what `MadeUp` makes up, as `ebert predict` does."""

    made: Any
    model: LoadedModel
    device: Device
    folder: Path
    settings: OutputSettings = OutputSettings(FORMATS)  # noqa: RUF009 - frozen
    both_strands: bool = True

    @property
    def target(self) -> Target:
        return Target(OutputSet.named(self.folder, ("CTCF", "MAX"), "HepG2", self.settings.formats))

    def parts(self, values: Any = None) -> tuple[Scan, Any]:
        dataset, plan = self.made.dataset, self.made.plan
        request = Request(("CTCF", "MAX"), CellStates("HepG2", None, "none"), (), self.both_strands)
        scan = Scan(plan, values or self.made.values, scan_identity(dataset, self.model, request, plan, self.device))
        return scan, describe(dataset, self.model, request, plan, self.settings, [CALL, CALL])

    def __call__(self, values: Any = None, reporter: Reporter | None = None, **how: Any) -> Written:
        benchmark = self.made.dataset.benchmark_bins()
        return run_files(*self.parts(values), replace(self.target, **how), benchmark, reporter or Reporter())

    def shard(self, number: int, of: int, values: Any = None, **how: Any) -> Path:
        target = replace(self.target, shard=Shard(number, of), **how)
        run_shard(*self.parts(values), target)
        return target.output

    def stopping(self, after: int, error: BaseException) -> Callable[[Piece, Advance], Scored]:
        """Values of so many pieces, then an error."""
        left = [after]

        def values(piece: Piece, advance: Advance) -> Scored:
            left[0] -= 1
            if left[0] < 0:
                raise error
            return self.made.values(piece, advance)

        return values


@pytest.fixture
def runner(made_up: Callable[..., Any], model: LoadedModel, device: Device, tmp_path: Path) -> Runner:
    return Runner(made_up(bins_at_once=160), model, device, tmp_path / "predictions")


@pytest.fixture
def whole_run(runner: Runner, tmp_path: Path) -> dict[str, bytes]:
    """The files of an unbroken run."""
    whole = replace(runner, folder=tmp_path / "whole")
    whole()
    runner.made.scored.clear()
    return contents(whole.folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Files by relative path; a sidecar without what names its run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
            if path.name.endswith(".ebert.json"):
                sidecar = json.loads(path.read_text())
                del sidecar["created_utc"], sidecar["command"]
                found[path.name] = json.dumps(sidecar).encode()
    return found


# --- resume


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EbertError("no number", "try fp32"), ZeroDivisionError()])
@pytest.mark.parametrize("after", [1, 4, 12])
def test_a_stopped_run_goes_on_where_it_was(
    runner: Runner, whole_run: dict[str, bytes], error: BaseException, after: int
) -> None:
    num_pieces = len(runner.made.plan.pieces)
    assert num_pieces > 12
    told = Told()
    with pytest.raises(type(error)) as caught:
        runner(runner.stopping(after, error), told)
    hint = "the same command with --resume goes on"
    if isinstance(error, EbertError):
        assert caught.value.hint.startswith("try fp32; what was scored is kept in ")  # type: ignore[attr-defined]
        assert hint in caught.value.hint  # type: ignore[attr-defined]
    elif isinstance(error, KeyboardInterrupt):
        assert hint in told.lines[-1]
    assert [path.name for path in runner.folder.iterdir()] == ["CTCF+MAX.HepG2.partial"]
    first = list(runner.made.scored)
    with pytest.raises(EbertError, match="holds an unfinished run") as caught:
        runner()
    assert "--resume" in caught.value.hint  # type: ignore[attr-defined]
    runner(resume=True, reporter=told)
    assert f"resumed: {after} of {num_pieces} pieces were scored already" in told.lines
    assert runner.made.scored == list(dict.fromkeys(runner.made.scored))
    assert runner.made.scored[: len(first)] == first
    assert contents(runner.folder) == whole_run


def test_a_run_that_had_scored_nothing_leaves_nothing(runner: Runner) -> None:
    with pytest.raises(KeyboardInterrupt):
        runner(runner.stopping(0, KeyboardInterrupt()))
    assert not runner.folder.exists()


def test_resume_without_a_run_begins_one(runner: Runner, whole_run: dict[str, bytes]) -> None:
    runner(resume=True)
    assert contents(runner.folder) == whole_run
    with pytest.raises(OutputExistsError):
        runner(resume=True)
    assert contents(runner.folder) == whole_run


def test_overwrite_begins_an_unfinished_run_anew(runner: Runner, whole_run: dict[str, bytes]) -> None:
    with pytest.raises(ZeroDivisionError):
        runner(runner.stopping(3, ZeroDivisionError()))
    runner.made.scored.clear()
    runner(overwrite=True)
    assert runner.made.scored == list(range(len(runner.made.plan.pieces)))
    assert contents(runner.folder) == whole_run


@pytest.mark.parametrize("name", ["CTCF.HepG2.bw", "CTCF.HepG2.ebert.json", "MAX.HepG2.ebert.json"])
def test_killed_while_files_were_published(
    runner: Runner, whole_run: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Some files are there, the journal is too: what the run itself had published does not stop it."""
    replace_file = outputs.publish_file.__globals__["os"].replace
    kept = runner.folder.parent / "kept"

    def killed(source: Path, target: Path) -> None:
        replace_file(source, target)
        if Path(target).name == name:
            shutil.copytree(runner.folder, kept)  # what a kill leaves: nobody tidies up

    monkeypatch.setattr(outputs.publish_file.__globals__["os"], "replace", killed)
    runner()
    monkeypatch.undo()
    again = replace(runner, folder=kept)
    again.made.scored.clear()
    with pytest.raises((OutputExistsError, EbertError)):
        again()
    again(resume=True)
    assert again.made.scored == []
    assert contents(kept) == whole_run


def test_formats_may_change_on_the_way(runner: Runner, whole_run: dict[str, bytes]) -> None:
    narrow = replace(runner, settings=OutputSettings(("bigwig", "npz"), min_score=0.999999))
    with pytest.raises(EbertError, match="no bin reaches") as caught:
        narrow()
    assert "--resume" in caught.value.hint
    runner.made.scored.clear()
    runner(resume=True)
    assert runner.made.scored == []
    assert contents(runner.folder) == whole_run


@pytest.mark.parametrize("what", ["both_strands", "regions", "model", "precision", "chromatin states", "genome"])
def test_another_request_does_not_resume(runner: Runner, made_up: Callable[..., Any], what: str) -> None:
    with pytest.raises(ZeroDivisionError):
        runner(runner.stopping(3, ZeroDivisionError()))
    before = contents(runner.folder)
    other = runner
    if what == "both_strands":
        other = replace(runner, both_strands=False)
    elif what == "regions":
        other = replace(runner, made=made_up(regions=[Region("chr2", 0, 30_000)], bins_at_once=160))
    elif what == "model":
        manifest = runner.model.manifest | {"calibration": {**runner.model.manifest["calibration"], "X": 1}}
        other = replace(runner, model=replace(runner.model, manifest=manifest))
    elif what == "precision":
        other = replace(runner, device=replace(runner.device, bf16=True))
    else:
        scan, job = runner.parts()
        scan = replace(scan, identity={**scan.identity, what: "x"})
        with pytest.raises(EbertError, match=f"is of another request: it differs in {what}"):
            run_files(scan, job, replace(runner.target, resume=True))
        assert contents(runner.folder) == before
        return
    with pytest.raises(EbertError, match=f"is of another request: it differs in {what}$") as caught:
        other(resume=True)
    assert "--overwrite" in caught.value.hint
    assert contents(runner.folder) == before


def test_two_runs_of_the_same_files(runner: Runner) -> None:
    with exclusive_lock(runner.folder / "MAX.HepG2.ebert.json"):
        with pytest.raises(EbertError, match="another run is writing"):
            runner()
        assert runner.made.scored == []


def test_a_journal_that_was_changed_is_told(runner: Runner) -> None:
    with pytest.raises(ZeroDivisionError):
        runner(runner.stopping(3, ZeroDivisionError()))
    path = runner.target.working / "scores.bin"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="does not match its digest"):
        runner(resume=True)
    assert [item.name for item in runner.folder.iterdir()] == ["CTCF+MAX.HepG2.partial"]


# --- shards


@pytest.mark.parametrize("of", [1, 2, 5, 40])
def test_shards_join_to_the_files_of_a_single_run(
    runner: Runner, whole_run: dict[str, bytes], toy_dataset: Dataset, tmp_path: Path, of: int
) -> None:
    folders = [tmp_path / "somewhere" / str(number % 2) for number in range(of)]
    for number in reversed(range(of)):
        replace(runner, folder=folders[number]).shard(number + 1, of)
    assert sorted(runner.made.scored) == list(range(len(runner.made.plan.pieces)))
    (shards,) = find_shards(sorted(set(folders)))
    assert shards.name == "CTCF+MAX.HepG2"
    merge_shards(shards, runner.folder, toy_dataset)
    assert contents(runner.folder) == whole_run
    with pytest.raises(OutputExistsError):
        merge_shards(shards, runner.folder, toy_dataset)
    merge_shards(shards, runner.folder, toy_dataset, overwrite=True)
    assert contents(runner.folder) == whole_run


def test_a_shard_is_resumed_and_may_lie_beside_its_files(
    runner: Runner, whole_run: dict[str, bytes], toy_dataset: Dataset
) -> None:
    with pytest.raises(KeyboardInterrupt):
        runner.shard(1, 2, runner.stopping(2, KeyboardInterrupt()))
    runner.shard(2, 2)
    with pytest.raises(EbertError, match=r"shard-1-of-2\.partial is unfinished") as caught:
        find_shards([runner.folder])
    assert "--resume" in caught.value.hint
    with pytest.raises(EbertError, match="holds an unfinished run"):
        runner.shard(1, 2)
    runner.shard(1, 2, resume=True)
    assert len(set(runner.made.scored)) == len(runner.made.scored)
    with pytest.raises(OutputExistsError):
        runner.shard(1, 2)
    (shards,) = find_shards([runner.folder])
    merge_shards(shards, runner.folder, toy_dataset)
    for folder in runner.folder.glob("*.shard-*"):
        shutil.rmtree(folder)
    assert contents(runner.folder) == whole_run


def test_a_spread_goes_through_shards(runner: Runner, toy_dataset: Dataset, tmp_path: Path) -> None:
    runner.made.with_spread = True
    whole = replace(runner, folder=tmp_path / "whole")
    whole()
    for number in (1, 2, 3):
        runner.shard(number, 3)
    (shards,) = find_shards([runner.folder])
    merge_shards(shards, tmp_path / "merged", toy_dataset)
    assert contents(tmp_path / "merged") == contents(whole.folder)
    assert len(list((tmp_path / "merged").glob("*.spread.bw"))) == 2


def test_faulty_sets_of_shards(runner: Runner, toy_dataset: Dataset, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        runner.shard(number, 3)
    stem = "CTCF+MAX.HepG2.shard-{}-of-3"
    with pytest.raises(EbertError, match=r"CTCF\+MAX\.HepG2: shard 1, 3 of 3 is missing") as caught:
        find_shards([runner.folder / stem.format(2)])
    assert "--shard 1/3" in caught.value.hint
    copied = shutil.copytree(runner.folder / stem.format(2), tmp_path / "again" / stem.format(2))
    with pytest.raises(EbertError, match=r"shard 2 of 3 of .* is given twice: .*predictions.* and .*again"):
        find_shards([runner.folder, tmp_path / "again"])
    shutil.rmtree(copied)
    replace(runner, both_strands=False, folder=tmp_path / "again").shard(2, 3)
    (runner.folder / stem.format(2)).rename(tmp_path / "away")
    with pytest.raises(EbertError, match="is of another request: it differs in both_strands") as caught:
        find_shards([runner.folder, tmp_path / "again"])
    assert "two runs" in caught.value.hint
    shutil.rmtree(tmp_path / "again")
    replace(runner, settings=OutputSettings(("bigwig",)), folder=tmp_path / "again").shard(2, 3)
    with pytest.raises(EbertError, match="it differs in outputs"):
        find_shards([runner.folder, tmp_path / "again"])
    runner.shard(1, 2)
    with pytest.raises(EbertError, match="it differs in number of shards"):
        find_shards([runner.folder])
    with pytest.raises(InputError, match="nowhere: is not there"):
        find_shards([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(EbertError, match=r"there is no shard in .*empty"):
        find_shards([tmp_path / "empty"])


def test_an_unfinished_run_is_no_shard(runner: Runner) -> None:
    with pytest.raises(ZeroDivisionError):
        runner(runner.stopping(3, ZeroDivisionError()))
    with pytest.raises(EbertError, match="is an unfinished run, no shard"):
        find_shards([runner.target.working])
    with pytest.raises(EbertError, match="there is no shard"):
        find_shards([runner.folder])


def test_shards_that_were_changed_are_told(runner: Runner, toy_dataset: Dataset, tmp_path: Path) -> None:
    folders = [runner.shard(number, 2) for number in (1, 2)]
    journal = folders[1] / "journal.jsonl"
    whole = journal.read_text()
    journal.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    (shards,) = find_shards(folders)
    with pytest.raises(EbertError, match=r"hold \d+ pieces, \d+ make the run"):
        merge_shards(shards, tmp_path / "merged", toy_dataset)
    assert not (tmp_path / "merged").exists()
    journal.write_text(whole)
    run = json.loads((folders[1] / "run.json").read_text())
    del run["job"]["settings"]
    (folders[1] / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match="is damaged"):
        find_shards(folders)


def test_a_submission_needs_the_dataset_of_the_shards(
    runner: Runner, copied_dataset: Callable[[], Dataset], tmp_path: Path
) -> None:
    folders = [runner.shard(number, 2) for number in (1, 2)]
    (shards,) = find_shards(folders)
    with pytest.raises(EbertError, match="rows are those of its dataset"):
        merge_shards(shards, tmp_path / "merged", None)
    other = copied_dataset()
    other.manifest["excluded"] = {**other.manifest["excluded"], "sha256": "x"}
    with pytest.raises(EbertError, match="it differs in exclusion list"):
        merge_shards(shards, tmp_path / "merged", other)


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/2"])
def test_faulty_shards(text: str) -> None:
    with pytest.raises(EbertError, match="expected a number and how many") as caught:
        Shard.parse(text)
    assert "--shard 2/8" in caught.value.hint


def test_shards_as_typed() -> None:
    assert str(Shard.parse(" 3/8 ")) == "shard 3 of 8"


# --- limits


def test_the_limit_of_open_files_is_raised_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(runs.resource, "setrlimit", lambda _, limits: set_to.append(limits))
    monkeypatch.setattr(runs.resource, "getrlimit", lambda _: (1_024, 4_096))
    runs.allow_open_files(2)
    assert set_to == []
    runs.allow_open_files(300)
    assert set_to == [(3_128, 4_096)]
    with pytest.raises(EbertError, match="700 TFs need 7,128 open files, this system allows 4,096") as caught:
        runs.allow_open_files(700)
    assert "predict 396 TFs at a time" in caught.value.hint


def test_a_journal_is_read_once_per_piece(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory: a resumed run holds one piece at a time, not the journal."""
    read: list[int] = []
    original = Journal.read

    def counted(self: Journal, number: int) -> Scored:
        read.append(number)
        return original(self, number)

    monkeypatch.setattr(Journal, "read", counted)
    with pytest.raises(ZeroDivisionError):
        runner(runner.stopping(5, ZeroDivisionError()))
    runner(resume=True)
    assert read == list(range(5))
