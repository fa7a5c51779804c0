"""`ebert predict` on several ranks: they share the work, and the last one writes the files of a single run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebert_cli import options
from ebert_core.artifacts import exclusive_lock
from ebert_core.inference import merge, pieces
from ebert_core.training.distributed import Ranks
from tests.cli.test_predict_runs import FORMATS, PREDICT, STEM, contents

Ebert = Callable[..., object]
# As `ebert`, with pieces so small that the toy genome has many; EBERT_DIES is a rank that is killed after some.
RANK = """
import os, signal
from ebert_core.inference import pieces, runs
pieces.PIECE_BINS = 40
keeper = runs._keeper
def dying(journal):
    keep = keeper(journal)
    def kept(scored):
        keep(scored)
        if os.environ.get("EBERT_DIES") == os.environ["RANK"] and len(journal) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return kept
runs._keeper = dying
from ebert_cli.app import main
main()
"""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BINS", 40)


@pytest.fixture
def rank(ebert: Ebert, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """A function that runs a command as one rank of so many, the others not being there."""

    def run(number: int, of: int, *arguments: str) -> object:
        @contextlib.contextmanager
        def meet() -> Iterator[Ranks]:
            yield Ranks(number, of)

        with monkeypatch.context() as patch:
            patch.setattr(options, "ranks_meet", meet)
            patch.setenv("WORLD_SIZE", str(of))
            return ebert(*arguments)

    return run


def test_the_last_rank_writes_the_files_of_a_single_run(ebert: Ebert, rank: Callable[..., object], here: Path) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    for number in (2, 0):
        done = rank(number, 3, *PREDICT, *FORMATS)
        assert done.exit_code == 0, done.stderr
        assert "scored;" not in done.stderr
    done = rank(1, 3, *PREDICT, *FORMATS)
    assert done.exit_code == 0, done.stderr
    assert "1,933 bins scored" in done.stderr
    assert contents(here / "predictions") == contents(here / "whole")


def test_a_resumed_run_scores_no_finished_shard_again(ebert: Ebert, rank: Callable[..., object], here: Path) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    assert rank(0, 2, *PREDICT, *FORMATS).exit_code == 0
    shard = here / "predictions" / f"{STEM}.partial" / "rank-1-of-2"
    before = (shard / "scores.bin").stat().st_mtime_ns
    done = rank(0, 2, *PREDICT, *FORMATS)
    assert (done.exit_code, f"{shard.name} already exists" in done.stderr) == (1, True)
    done = rank(0, 3, *PREDICT, *FORMATS, "--resume")
    assert (done.exit_code, "holds an unfinished run of 2 rank(s), this one has 3" in done.stderr) == (1, True)
    done = ebert(*PREDICT, *FORMATS, "--resume")
    assert (done.exit_code, "holds an unfinished run of 2 rank(s), this one has 1" in done.stderr) == (1, True)
    done = rank(0, 2, *PREDICT, *FORMATS, "--resume", "--one-strand")
    assert (done.exit_code, "is of another request: it differs in both_strands" in done.stderr) == (1, True)
    assert rank(0, 2, *PREDICT, *FORMATS, "--resume").exit_code == 0
    assert (shard / "scores.bin").stat().st_mtime_ns == before
    assert rank(1, 2, *PREDICT, *FORMATS, "--resume").exit_code == 0
    assert contents(here / "predictions") == contents(here / "whole")
    done = rank(0, 2, *PREDICT, *FORMATS, "--resume")
    assert (done.exit_code, "already exists" in done.stderr) == (1, True)


def test_a_rank_does_not_join_shards_that_are_to_be_replaced(rank: Callable[..., object], here: Path) -> None:
    assert rank(0, 2, *PREDICT).exit_code == 0
    done = rank(0, 2, *PREDICT, "--one-strand", "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert rank(1, 2, *PREDICT, "--one-strand", "--overwrite").exit_code == 0
    assert sorted(path.name for path in (here / "predictions").iterdir()) == [
        f"{STEM}.bw", f"{STEM}.ebert.json", f"{STEM}.narrowPeak", f"{STEM}.unscored.bed",
    ]  # fmt: skip


def test_a_resumed_run_may_ask_for_other_files(ebert: Ebert, rank: Callable[..., object], here: Path) -> None:
    """Scores that are there are joined into what is asked for now."""
    assert rank(0, 2, *PREDICT).exit_code == 0
    asked = ("--format", "bigwig,dream,narrowpeak", "--min-score", "0.02", "--call-at", "threshold=0.04")
    assert ebert(*PREDICT, *asked, "-o", "whole", "-q").exit_code == 0
    for number in (0, 1):
        done = rank(number, 2, *PREDICT, *asked, "--resume")
        assert done.exit_code == 0, done.stderr
    assert contents(here / "predictions") == contents(here / "whole")


def test_after_a_failed_overwriting_the_same_command_goes_on(rank: Callable[..., object], here: Path) -> None:
    """What is finished of the run that failed stays; nothing is scored and left behind."""
    for number in (0, 1):
        assert rank(number, 2, *PREDICT).exit_code == 0
    assert rank(0, 2, *PREDICT, "--one-strand", "--overwrite").exit_code == 0
    for number in (0, 1):
        done = rank(number, 2, *PREDICT, "--one-strand", "--overwrite", "--resume")
        assert done.exit_code == 0, done.stderr
    assert not list((here / "predictions").glob("*.partial"))
    sidecar = json.loads((here / "predictions" / f"{STEM}.ebert.json").read_text())
    assert sidecar["both_strands"] is False


def test_files_that_another_run_writes_are_an_error(rank: Callable[..., object], here: Path) -> None:
    """It is no other rank that joins, so somebody must speak; later the same command goes on."""
    assert rank(0, 2, *PREDICT).exit_code == 0
    with exclusive_lock(here / "predictions" / f"{STEM}.ebert.json"):
        done = rank(1, 2, *PREDICT)
    assert (done.exit_code, "another run is writing" in done.stderr) == (1, True)
    done = rank(1, 2, *PREDICT, "--resume")
    assert done.exit_code == 0, done.stderr
    assert "1,933 bins scored;" in done.stderr


def test_while_another_rank_joins_there_is_nothing_to_do(rank: Callable[..., object], here: Path) -> None:
    assert rank(0, 2, *PREDICT).exit_code == 0
    with exclusive_lock(here / "predictions" / f"{STEM}.ranks"):
        done = rank(1, 2, *PREDICT)
    assert done.exit_code == 0, done.stderr
    assert not (here / "predictions" / f"{STEM}.bw").exists()


def test_a_full_disk_while_joining_costs_no_part(
    ebert: Ebert, rank: Callable[..., object], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    assert rank(0, 2, *PREDICT, *FORMATS).exit_code == 0
    with monkeypatch.context() as patch:

        def full(*arguments: object, **more: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "predictions")

        patch.setattr(merge, "write_files", full)
        done = rank(1, 2, *PREDICT, *FORMATS)
    assert done.exit_code == 1
    assert "no space" in done.stderr.lower()
    working = here / "predictions" / f"{STEM}.partial"
    assert sorted(path.name for path in working.iterdir()) == ["rank-1-of-2", "rank-2-of-2"]
    for number in (0, 1):
        done = rank(number, 2, *PREDICT, *FORMATS, "--resume")
        if not working.exists():
            break
        assert done.exit_code == 0, done.stderr
    assert done.exit_code == 0, done.stderr
    assert contents(here / "predictions") == contents(here / "whole")


def test_many_files_are_opened_for_joining(
    rank: Callable[..., object], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(merge, "allow_open_files", lambda *numbers: asked.append(numbers))
    assert [rank(number, 2, *PREDICT).exit_code for number in (0, 1)] == [0, 0]
    assert asked == [(1, 2)]


def test_warnings_come_once(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ebert_cli", *PREDICT, "--no-states", "--devices", "2"],
        cwd=here, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: states of HepG2") == 1


@pytest.mark.parametrize("option", [("--chrom", "chr99"), ("--output", "blocked/x")])
def test_one_error_speaks_for_all_ranks(here: Path, option: tuple[str, str]) -> None:
    (here / "blocked").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "ebert_cli", *PREDICT, *option, "--devices", "2"],
        cwd=here, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert option[1].partition("/")[0] in done.stderr


def test_what_only_one_process_can_do_is_refused(ebert: Ebert, here: Path) -> None:
    for wrong in (("--output", "-"), ("--shard", "1/2"), ("--regions", "-")):
        done = ebert(*PREDICT, *wrong, "--devices", "2")
        assert done.exit_code == 1
        what = " ".join(wrong) if wrong[1] == "-" else wrong[0]
        assert f"error: {what} is for one process, --devices 2 for several\n" in done.stderr


def ranks(here: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`ebert predict` on two ranks of this machine."""
    program = here / "ebert_rank.py"
    program.write_text(RANK)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program,
         *PREDICT, *FORMATS, *more],
        env={**os.environ, **environment}, cwd=here, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_devices(ebert: Ebert, here: Path) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    done = subprocess.run(
        [sys.executable, "-m", "ebert_cli", *PREDICT, *FORMATS, "--devices", "2"],
        cwd=here, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("1,933 bins scored;") == 1
    assert contents(here / "predictions") == contents(here / "whole")


@pytest.mark.slow
def test_a_killed_rank_costs_nothing_that_was_scored(ebert: Ebert, here: Path) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    done = ranks(here, EBERT_DIES="1")
    assert done.returncode != 0
    left = {path.name for path in (here / "predictions").iterdir()}
    assert left == {f"{STEM}.partial"}
    assert (here / "predictions" / f"{STEM}.partial" / "rank-2-of-2.partial").is_dir()
    assert f"{STEM}.bw" not in left
    done = ranks(here, "--resume")
    assert done.returncode == 0, done.stderr
    assert contents(here / "predictions") == contents(here / "whole")


@pytest.mark.slow
def test_a_stopped_run_of_ranks_goes_on(ebert: Ebert, here: Path) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    command = [sys.executable, "-m", "ebert_cli", *PREDICT, *FORMATS, "--devices", "2", "--resume"]
    process = subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while (
        time.monotonic() < until and not list(here.glob("predictions/*.partial/*/run.json")) and process.poll() is None
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    if process.returncode:
        assert subprocess.run(command, cwd=here, capture_output=True, timeout=120).returncode == 0
    assert contents(here / "predictions") == contents(here / "whole")
