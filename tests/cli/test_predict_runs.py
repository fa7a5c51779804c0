"""`ebert predict` that is stopped, resumed, shared out and piped; `ebert merge`; and regions of all kinds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ebert_core.inference import pieces, runs
from ebert_core.inference.pieces import Scored

PREDICT = ("predict", "--tf", "CTCF", "--cell", "HepG2", "--threads", "1")
FORMATS = ("--format", "bigwig,narrowpeak,bedgraph,dream,npz")
STEM = "CTCF.HepG2"
Ebert = Callable[..., object]
# As `ebert`, with pieces so small that the toy genome has many.
SMALL_PIECES = """
from ebert_core.inference import pieces
pieces.PIECE_BINS = pieces.STREAM_BINS = 40
from ebert_cli.app import main
main()
"""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BINS", 100)


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name; a sidecar without what names its run."""
    found = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = path.read_bytes()
        if path.name.endswith(".ebert.json"):
            sidecar = json.loads(path.read_text())
            del sidecar["created_utc"], sidecar["command"]
            found[path.name] = json.dumps(sidecar).encode()
    return found


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """A function: after so many pieces of a run, this process gets a signal."""
    score = runs.score_pieces

    def arm(number: int, pieces_first: int) -> None:
        done = [0]

        def counted(*arguments: object) -> object:
            for scored in score(*arguments):  # type: ignore[arg-type]
                if done[0] == pieces_first:
                    monkeypatch.setattr(runs, "score_pieces", score)
                    signal.raise_signal(number)
                done[0] += 1
                yield scored

        monkeypatch.setattr(runs, "score_pieces", counted)

    return arm


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_prediction_says_how_to_go_on(
    ebert: Ebert, here: Path, stop_after: Callable[[int, int], None], number: int, code: int
) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    stop_after(number, 5)
    done = ebert(*PREDICT, *FORMATS)
    assert done.exit_code == code
    kept = f"warning: what was scored is kept in predictions/{STEM}.partial: the same command with --resume goes on\n"
    assert kept in done.stderr
    assert [path.name for path in (here / "predictions").iterdir()] == [f"{STEM}.partial"]
    done = ebert(*PREDICT, *FORMATS)
    assert done.exit_code == 1
    assert f"error: predictions/{STEM}.partial holds an unfinished run\nhint: pass --resume to go on" in done.stderr
    done = ebert(*PREDICT, *FORMATS, "--resume", "--one-strand")
    assert done.exit_code == 1
    assert f"predictions/{STEM}.partial is of another request: it differs in both_strands" in done.stderr
    done = ebert(*PREDICT, *FORMATS, "--resume")
    assert done.exit_code == 0, done.stderr
    assert "resumed: 5 of 21 pieces were scored already" in done.stderr
    assert contents(here / "predictions") == contents(here / "whole")


def test_shards_and_merge(ebert: Ebert, here: Path) -> None:
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    for number in (3, 1):
        done = ebert(*PREDICT, *FORMATS, "--shard", f"{number}/3")
        assert done.exit_code == 0, done.stderr
    assert f"shard 1 of 3: 643 of 1,933 bins scored, in predictions/{STEM}.shard-1-of-3\n" in done.stderr
    assert "once all 3 are there: ebert merge predictions\n" in done.stderr
    done = ebert("merge")
    assert done.exit_code == 1
    assert f"error: {STEM}: shard 2 of 3 is missing\nhint: make it with `ebert predict ... --shard 2/3`" in done.stderr
    assert ebert(*PREDICT, *FORMATS, "--shard", "2/3", "-o", "elsewhere", "-q").exit_code == 0
    done = ebert("merge", "predictions", "elsewhere", "-o", "joined")
    assert done.exit_code == 0, done.stderr
    assert f"{STEM}: 3 shards" in done.stderr
    assert f"joined/{STEM}.narrowPeak" in done.stderr
    assert contents(here / "joined") == contents(here / "whole")
    assert ebert("merge", "predictions", "elsewhere", "-o", "joined").exit_code == 1
    assert ebert("merge", "predictions", "elsewhere", "-o", "joined", "--overwrite", "-q").stderr == ""
    done = ebert("merge", f"predictions/{STEM}.shard-1-of-3", "nowhere")
    assert (done.exit_code, "nowhere: is not there" in done.stderr) == (1, True)
    assert ebert("merge", "joined").stderr.startswith("error: there is no shard in joined\n")


def test_merge_joins_what_lies_in_a_folder_of_several_runs(ebert: Ebert, here: Path) -> None:
    for cell in ("HepG2", "GM12878"):
        for shard in ("1/2", "2/2"):
            done = ebert("predict", "--tf", "CTCF", "--cell", cell, "--threads", "1", "--shard", shard, "-q")
            assert done.exit_code == 0, done.stderr
    assert ebert("merge", "-q").exit_code == 0
    assert {path.name for path in (here / "predictions").glob("*.bw")} == {"CTCF.HepG2.bw", "CTCF.GM12878.bw"}
    done = ebert("evaluate", "--chrom", "chr2", "--missing", "zero", "--allow-seen", "--no-baselines")
    assert done.exit_code == 0, done.stderr


# --- a pipe


def piped(command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "EBERT": SMALL_PIECES, "PY": sys.executable, **more}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_sites_through_a_pipe(ebert: Ebert, here: Path) -> None:
    """The line of the README: sites in, best bins out, and not a word beside."""
    (here / "sites.bed").write_text("chr2\t5000\t5300\nchr1\t1000\t1300\nchr2\t4000\t4100\nchr2\t5100\t5200\n")
    predict = '"$PY" -c "$EBERT" predict --tf CTCF --cell HepG2 --threads 1'
    done = piped(f"gzip -c sites.bed | zcat | {predict} --regions - -o - | sort -k5,5gr | head -n 3", here)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [len(row) for row in rows] == [5, 5, 5]
    scores = [float(row[4]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    everything = ebert(*PREDICT, "--regions", "sites.bed", "-o", "-").stdout.splitlines()
    assert len(everything) == len(set(everything)) == 6 + 6 + 2
    assert max(float(line.split("\t")[4]) for line in everything) == scores[0]


def test_the_first_rows_come_before_the_last_are_scored(here: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL_PIECES.replace("= 40", "= 20"), *PREDICT, "-o", "-"],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    assert first.startswith("chr1\t0\t200\tCTCF\t")
    # A reader that has seen enough: more than a pipe holds (64 KiB) is still to come, or the program is done already.
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=180) == 0


# --- regions


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("chr2\t100\t50\n", "line 1: end 50 is not beyond start 100"),
        ("chr2\t0\t500\nchr2\t41000\t41338\n", "line 2: end 41,338 is past the end of chr2 (41,337 bp)"),
        ("chr2\t-5\t500\n", "line 1: start is -5, expected 0 or more"),
        ("chr9\t0\t500\n", "has no row on the genome's chromosomes"),
        ("chr2\t0\n", "line 1"),
    ],
)
def test_faulty_regions(ebert: Ebert, here: Path, rows: str, message: str) -> None:
    (here / "some.bed").write_text(rows)
    for output in ("predictions", "-"):
        done = ebert(*PREDICT, "--regions", "some.bed", "-o", output)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error: some.bed")
        assert message in done.stderr
        assert "hint: " in done.stderr
    assert not (here / "predictions").exists()


@pytest.mark.parametrize(
    ("region", "message"),
    [("chr9", "unknown chromosome 'chr9'"), ("chr2:500-100", "is empty"), ("chr2:0-99999", "past the end of chr2")],
)
def test_faulty_chromosomes(ebert: Ebert, here: Path, region: str, message: str) -> None:
    done = ebert(*PREDICT, "--chrom", region)
    assert done.exit_code == 1
    assert message in done.stderr
    assert "hint: " in done.stderr


def test_thousands_of_overlapping_regions_in_any_order(ebert: Ebert, here: Path) -> None:
    starts = np.random.default_rng(3).integers(12_000, 14_000, 20_000)
    (here / "some.bed").write_text("".join(f"chr2\t{start}\t{start + 300}\n" for start in starts))
    began = time.perf_counter()
    done = ebert(*PREDICT, "--regions", "some.bed", "-o", "-")
    assert time.perf_counter() - began < 20
    places = [int(line.split("\t")[1]) for line in done.stdout.splitlines()]
    first, last = int(starts.min()), int(starts.max()) + 300
    assert places == [at for at in range(0, 41_000, 50) if first <= at + 100 < last]


# --- places that may not be written to


def test_a_folder_that_may_not_be_written_to(ebert: Ebert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[Scored] = []
    monkeypatch.setattr(runs, "score_pieces", lambda *_: scored)
    (here / "taken").write_text("x")
    done = ebert(*PREDICT, "-o", "taken")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-2].startswith("error: taken is a file, expected a folder")
    if os.geteuid() != 0:
        (here / "locked").mkdir(mode=0o500)
        done = ebert(*PREDICT, "-o", "locked")
        assert "error: not allowed to write" in done.stderr


def test_a_disk_that_fills_while_scores_are_kept(ebert: Ebert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was scored before stays, and is gone on from once there is room."""
    assert ebert(*PREDICT, *FORMATS, "-o", "whole", "-q").exit_code == 0
    sync, left = os.fsync, [9]

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("scores.bin"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, os.strerror(28))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    done = ebert(*PREDICT, *FORMATS, "-q")
    assert done.exit_code == 1
    error, hint = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert error == f"error: no space left on the device while writing predictions/{STEM}.partial"
    assert hint.endswith(
        f"what was scored is kept in predictions/{STEM}.partial: the same command with --resume goes on"
    )
    assert [path.name for path in (here / "predictions").iterdir()] == [f"{STEM}.partial"]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr(pieces, "PIECE_BINS", 100)
    done = ebert(*PREDICT, *FORMATS, "--resume")
    assert "resumed: 9 of 21 pieces" in done.stderr
    assert contents(here / "predictions") == contents(here / "whole")
