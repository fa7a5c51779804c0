"""What happens between a command and its user: exit codes, streams, lists typed with commas."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from ebert_cli.console import ConsoleReporter, duration, guarded, split_names, stderr, stdout
from ebert_cli.options import parse_duration, split_regions
from ebert_core.errors import EbertError
from ebert_core.training.interrupts import AnotherRankFailed, Requeue


def raised(fault):
    @guarded
    def command():
        raise fault

    with pytest.raises(typer.Exit) as caught:
        command()
    return caught.value.exit_code


def saved(stop, step):
    stop.saved_step = step
    return stop


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (EbertError("it is [bold]odd[/bold]", "mend [it]"), 1, "error: it is [bold]odd[/bold]\nhint: mend [it]\n"),
        (EbertError("no hint"), 1, "error: no hint\n"),
        (EbertError("x" * 500, "y"), 1, f"error: {'x' * 500}\nhint: y\n"),
        (MemoryError(), 1, "error: not enough memory\nhint: ask for fewer chromosomes"),
        (OSError(errno.ENOSPC, "No space"), 1, "error: no space left on the device while writing the output\n"),
        (PermissionError(errno.EACCES, "x"), 1, "error: not allowed to write the output\n"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 1, "error: a/b: Not a directory\nhint: "),
        (OSError("7 requested and 0 written"), 1, "error: a file: 7 requested and 0 written\nhint: "),
        (KeyboardInterrupt(), 130, "interrupted: "),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "error: not enough memory\n"),
        (Requeue("SIGUSR1"), 75, "stopped by SIGUSR1; run the same command again with --resume (exit code 75)\n"),
        (saved(Requeue("--max-time is over"), 7_000), 75, "stopped by --max-time is over, saved at step 7,000; run"),
    ],
)
def test_what_a_command_raises_becomes_words_and_a_code(capsys, fault, code, says):
    assert raised(fault) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(says)
    assert "Traceback" not in output.err


@pytest.mark.parametrize("bug", [ZeroDivisionError, RuntimeError])
def test_a_bug_is_not_hidden(bug):
    @guarded
    def command():
        raise bug

    with pytest.raises(bug):
        command()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Requeue("SIGTERM"), AnotherRankFailed("x")])
def test_of_several_ranks_one_tells_what_all_do(capsys, monkeypatch, stop):
    monkeypatch.setenv("RANK", "1")
    assert raised(stop) in (130, 75, 1)
    assert capsys.readouterr() == ("", "")


def test_termination_is_an_interrupt_with_its_own_code(capsys):
    before = signal.getsignal(signal.SIGTERM)

    @guarded
    def command():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 143
    assert capsys.readouterr().err.startswith("interrupted: ")
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_reporter_keeps_to_stderr(capsys):
    for quiet in (False, True):
        reporter = ConsoleReporter(quiet)
        reporter.log("a [bracket]")
        reporter.warn("careful [here]")
        with reporter.task("working", 10, "bp") as advance:
            advance(5, "chr1")
            advance(5)
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err == ("" if quiet else "a [bracket]\n") + "warning: careful [here]\n"


def test_a_long_task_tells_its_rate_in_a_pipe(capsys, monkeypatch):
    clock = iter([0.0, 4.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with ConsoleReporter().task("reading", 2_000_000, "bp"):
        pass
    assert capsys.readouterr().err == "reading: 2.0M bp in 4.0 s (500.0k bp/s)\n"


def test_a_long_task_in_a_pipe_tells_how_far_it_is_once_a_minute(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with ConsoleReporter().task("training", 1_000, "steps") as advance:
        for _ in range(150):
            clock[0] += 1.0
            advance(1, "loss 1.5")
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == [
        "training: 60 of 1,000 steps, loss 1.5, 16 min left",
        "training: 120 of 1,000 steps, loss 1.5, 15 min left",
    ]
    assert len(told) == 3


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3_599, "1 h 00 min"), (9_000, "2 h 30 min"), (277_200, "3 d 5 h")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("typed", "seconds"), [("11h50m", 42_600), ("90s", 90), ("1d2h", 93_600), (" 5m ", 300), ("1d1h1m1s", 90_061)]
)
def test_times_as_typed(typed, seconds):
    assert parse_duration(typed) == seconds


@pytest.mark.parametrize("typed", ["", "5", "h", "0m", "5m3h", "-5m", "1.5h", "soon"])
def test_what_is_no_time(typed):
    with pytest.raises(typer.BadParameter, match="write for example 11h50m"):
        parse_duration(typed)


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (None, []),
        ([], []),
        (["CTCF,MAX", "REST"], ["CTCF", "MAX", "REST"]),
        ([" CTCF , MAX ,, "], ["CTCF", "MAX"]),
        ([","], []),
    ],
)
def test_names_with_commas(typed, names):
    assert split_names(typed) == names


@pytest.mark.parametrize("split", [split_names, split_regions])
@pytest.mark.parametrize("typed", [[""], [" , "], ["", ","]])
def test_an_option_given_empty_is_not_taken_for_all(split, typed):
    with pytest.raises(EbertError, match=r"--hold-out-cell '.*' names nothing") as caught:
        split(typed, "--hold-out-cell")
    assert "leave the option out" in caught.value.hint
    assert split(None, "--hold-out-cell") == split([], "--hold-out-cell") == []


def test_chosen_names_are_shown_as_they_are(capsys, monkeypatch):
    name = "a[/b] [bold]:x:"
    for console in (stdout, stderr):
        table = Table(name)
        table.add_row(name)
        console.print(table)
    told = capsys.readouterr()
    assert told.out.count(name) == told.err.count(name) == 2


@pytest.mark.parametrize(
    ("typed", "regions"),
    [
        (None, []),
        (["chr1,chr20:5,000,000-6,000,000"], ["chr1", "chr20:5,000,000-6,000,000"]),
        (["chr20:5,000-6,000,chr21:0-1,000,000"], ["chr20:5,000-6,000", "chr21:0-1,000,000"]),
        (["chr1:0-500,chr2", "X"], ["chr1:0-500", "chr2", "X"]),
        (["20,21,22"], ["20", "21", "22"]),
        (["chr1:5,000-, chr2"], ["chr1:5,000-", "chr2"]),
    ],
)
def test_regions_with_commas(typed, regions):
    assert split_regions(typed) == regions


@given(st.lists(st.tuples(st.integers(1, 22), st.integers(0, 10**8), st.integers(0, 10**8)), max_size=4))
def test_regions_as_printed_come_apart_again(triples):
    texts = [f"chr{chrom}:{start:,}-{end:,}" for chrom, start, end in triples]
    assert split_regions([",".join(texts)]) == texts
