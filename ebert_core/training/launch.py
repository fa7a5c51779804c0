"""Starting the ranks of a run on this machine: one process per device, ended together."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from ebert_core.errors import EbertError
from ebert_core.training.interrupts import Stops

LAUNCHED: Final = "EBERT_LAUNCHED"
"""Set in the processes started here: of one that was killed, their starter tells."""
# After one rank has failed, the others notice and leave by themselves, or are ended.
_GRACE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05
_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_PR_SET_PDEATHSIG: Final = 1  # prctl.h


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run `ebert ARGUMENTS` on so many ranks and wait for them; signals are passed on to each.

    Returns:
        The exit code of the first rank that did not end with 0, or 0.

    Raises:
        EbertError: a rank was killed from outside.
        KeyboardInterrupt: stopped before the ranks had begun; `Requeue` is one.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)  # `_wait` passes it on: a rank that is just being started would not get it from here

    previous = {number: signal.signal(number, hear) for number in _FORWARDED}
    try:
        port = _free_port()
        for rank in range(devices):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, LAUNCHED: 1}
            environment = {**os.environ, **{name: str(value) for name, value in {**place, **address}.items()}}
            # In a session of its own, so that Ctrl-C comes once: from here.
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-m", "ebert_cli", *arguments],
                    env=environment,
                    start_new_session=True,
                    preexec_fn=_dies_with(os.getpid()),
                )
            )
        code = _wait(ranks, heard)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if -code in heard:  # it came before the ranks were ready for it
        Stops().on_signal(-code, None)
    if code < 0:
        raise EbertError(
            f"a rank was killed by {signal.Signals(-code).name}",
            "was there enough memory? the same command with --resume goes on from the last resume point",
        )
    return code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _dies_with(parent: int) -> Callable[[], None]:
    """What a new rank does first: it arranges to end when its starter does, even if that is killed."""
    prctl = ctypes.CDLL(None).prctl  # found before the fork: a child of a threaded process may not load anything

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _wait(ranks: Sequence[subprocess.Popen[bytes]], heard: Sequence[int]) -> int:
    """The code of the first rank to end with another than 0; the others then get a moment to leave.

    Signals in `heard` go to every rank, each once, also those that came before all ranks were there.
    """
    code, until, passed_on = 0, float("inf"), 0
    while time.monotonic() < until:
        for number in heard[passed_on:]:
            for rank in ranks:
                rank.send_signal(number)
            passed_on += 1
        codes = [rank.poll() for rank in ranks]
        code = code or next((found for found in codes if found), 0)
        if None not in codes:
            break
        if code and until == float("inf"):
            until = time.monotonic() + _GRACE_SECONDS
        time.sleep(_POLL_SECONDS)
    return code
