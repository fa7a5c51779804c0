"""Where the command line speaks: data to stdout, everything else to stderr, errors as one line and a hint."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ebert_core.artifacts import explain_os_errors
from ebert_core.errors import EbertError
from ebert_core.reporting import Advance, Reporter
from ebert_core.training.interrupts import AnotherRankFailed, Requeue

P = ParamSpec("P")
EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143
# EX_TEMPFAIL of sysexits.h: a run that saved and wants to be started again.
EXIT_REQUEUE = 75
# A task in a pipe or a log file tells how far it is no oftener than this.
_TELL_SECONDS = 60.0


class _Console(Console):
    """Leaves it to `guarded` that the reader of a pipe has gone; rich would exit 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


# Names that users chose are shown as they are: `[x]` is no markup and `:x:` no picture.
stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
stdout = _Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{_short(speed)} {task.fields['unit']}/s", style="dim")


def _short(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}{letter}"
    return f"{value:.1f}"


class ConsoleReporter(Reporter):
    """Draws progress bars on a terminal; in a pipe or a log file prints a line when a task of over 2 s ends."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def log(self, text: str) -> None:
        if not self.quiet:
            stderr.print(text, markup=False)

    def warn(self, text: str) -> None:
        stderr.print(Text.assemble(("warning: ", "yellow"), text))

    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Advance]:
        if self.quiet:
            yield lambda amount, note="": None
        elif stderr.is_terminal:
            with Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                _Rate(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", style="dim"),
                console=stderr,
                transient=True,
            ) as bar:
                row = bar.add_task(description, total=total, unit=unit, note="")

                def advance(amount: float, note: str = "") -> None:
                    bar.update(row, advance=amount, note=note or bar.tasks[row].fields["note"])

                started = time.monotonic()
                yield advance
            self._ended(description, total, unit, time.monotonic() - started)
        else:
            teller = _Teller(self, description, total, unit)
            yield teller.advance
            self._ended(description, total, unit, time.monotonic() - teller.started)

    def _ended(self, description: str, total: float, unit: str, seconds: float) -> None:
        if seconds >= 2:
            self.log(f"{description}: {_short(total)} {unit} in {seconds:.1f} s ({_short(total / seconds)} {unit}/s)")


class _Teller:
    """A line a minute instead of a bar."""

    def __init__(self, reporter: ConsoleReporter, description: str, total: float, unit: str) -> None:
        self._reporter, self._description, self._total, self._unit = reporter, description, total, unit
        self._done = 0.0
        self.started = self._told = time.monotonic()

    def advance(self, amount: float, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._told < _TELL_SECONDS:
            return
        self._told = now
        left = (now - self.started) / self._done * (self._total - self._done) if self._done else 0.0
        place = f"{self._done:,.0f} of {self._total:,.0f} {self._unit}"
        parts = (f"{self._description}: {place}", note, f"{duration(left)} left")
        self._reporter.log(", ".join(part for part in parts if part))


def duration(seconds: float) -> str:
    """For example `3 d 4 h`, `2 h 05 min`, `14 min` or `12 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24:,} d {hours % 24} h"


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a command raises into a message and an exit code; nothing a user can cause shows a traceback."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        terminated = False

        def on_terminate(number: int, frame: FrameType | None) -> None:
            nonlocal terminated
            terminated = True
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGTERM, on_terminate)
        try:
            with explain_os_errors_of_streams():
                command(*args, **kwargs)
        except AnotherRankFailed:
            raise typer.Exit(EXIT_ERROR) from None
        except EbertError as error:
            print_error(error)
            raise typer.Exit(EXIT_ERROR) from None
        except OSError as error:
            print_error(EbertError(f"{error.filename or 'a file'}: {error.strerror or error}", "check that path"))
            raise typer.Exit(EXIT_ERROR) from None
        except Requeue as stop:
            saved = "" if stop.saved_step is None else f", saved at step {stop.saved_step:,}"
            if _speaks():
                stderr.print(
                    f"stopped by {stop.reason}{saved}; run the same command again with --resume (exit code 75)"
                )
            raise typer.Exit(EXIT_REQUEUE) from None
        except KeyboardInterrupt:
            if _speaks():
                stderr.print("interrupted: nothing half-written was left in an output", markup=False)
            raise typer.Exit(EXIT_TERMINATED if terminated else EXIT_INTERRUPTED) from None
        except (MemoryError, RuntimeError) as error:
            # torch's own kind of it is a RuntimeError, and torch may not be imported here.
            if not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"):
                raise
            print_error(
                EbertError("not enough memory", "ask for fewer chromosomes with --chrom, or use a larger machine")
            )
            raise typer.Exit(EXIT_ERROR) from None
        finally:
            signal.signal(signal.SIGTERM, previous)

    return wrapper


@contextlib.contextmanager
def explain_os_errors_of_streams() -> Iterator[None]:
    """End quietly when the reader of a pipe has gone; explain a full disk wherever it shows."""
    try:
        with explain_os_errors("the output"):  # type: ignore[arg-type]
            yield
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def _speaks() -> bool:
    """Whether this is the process, of several ranks, that tells what all of them do."""
    return os.environ.get("RANK", "0") == "0"


def print_error(error: EbertError) -> None:
    stderr.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.hint:
        stderr.print(Text.assemble(("hint: ", "bold"), error.hint))


def split_names(values: list[str] | None, option: str | None = None) -> list[str]:
    """`--tf CTCF,MAX --tf REST` -> ['CTCF', 'MAX', 'REST']; empty where the option was not given."""
    names = [name.strip() for value in values or [] for name in value.split(",") if name.strip()]
    return require_some(values, names, option) if option else names


def require_some(values: list[str] | None, names: list[str], option: str) -> list[str]:
    """The names; `EbertError` where the option was given without any: an empty shell variable does not mean "all"."""
    if values and not names:
        raise EbertError(f"{option} {','.join(values)!r} names nothing", "name something, or leave the option out")
    return names
