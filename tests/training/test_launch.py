"""The starter of ranks, with a shell in place of the program: `launch(n, [script])` runs the script n times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ebert_core.errors import EbertError
from ebert_core.training import launch as module
from ebert_core.training.interrupts import Requeue
from ebert_core.training.launch import launch


@pytest.fixture(autouse=True)
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shell"
    path.write_text(f'#!/bin/bash\n[ "$1 $2" = "-m ebert_cli" ] || exit 99\ncd {tmp_path}\neval "$3"\n')
    path.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(path))
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.3)
    return path


@pytest.fixture
def patient(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that leave by themselves have the time to, on a busy machine too."""
    monkeypatch.setattr(module, "_GRACE_SECONDS", 60.0)


def test_each_rank_is_told_who_it_is(tmp_path: Path) -> None:
    assert launch(3, ["echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT >said$RANK"]) == 0
    said = [(tmp_path / f"said{rank}").read_text().split() for rank in range(3)]
    assert [words[:5] for words in said] == [[str(rank), str(rank), "3", "3", "127.0.0.1"] for rank in range(3)]
    assert len({words[5] for words in said}) == 1


@pytest.mark.parametrize("code", [1, 75, 130])
def test_the_first_failure_is_the_answer_and_nobody_stays(code: int) -> None:
    started = time.monotonic()
    assert launch(3, [f"[ $RANK = 1 ] && exit {code}; exec sleep 60"]) == code
    assert time.monotonic() - started < 20
    assert psutil.Process().children() == []


def test_a_rank_killed_from_outside_is_told() -> None:
    with pytest.raises(EbertError, match="a rank was killed by SIGKILL") as caught:
        launch(2, ["[ $RANK = 0 ] && kill -9 $$; exec sleep 60"])
    assert "--resume" in caught.value.hint
    assert psutil.Process().children() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.usefixtures("patient")
def test_a_signal_reaches_every_rank(tmp_path: Path, number: signal.Signals) -> None:
    """Each waits until all wait; rank 0 then sends the signal to the starter, as a batch system does."""
    name = number.name.removeprefix("SIG")
    script = (
        f"trap 'touch heard$RANK; exit 75' {name}; touch ready$RANK; "
        f"[ $RANK = 0 ] && {{ until [ -e ready1 ]; do sleep 0.01; done; kill -{name} $PPID; }}; "
        "for i in $(seq 600); do sleep 0.05; done"
    )
    assert launch(2, [script]) == 75
    assert sorted(path.name for path in tmp_path.glob("heard*")) == ["heard0", "heard1"]


def test_a_stop_before_the_ranks_are_ready_asks_to_be_started_again() -> None:
    with pytest.raises(Requeue, match="SIGTERM"):
        launch(2, ["[ $RANK = 0 ] && kill -TERM $PPID; exec sleep 60"])


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.usefixtures("patient")
def test_a_signal_while_a_rank_is_being_started_reaches_every_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """The starter hears it when the rank runs already and is not yet known to it; the rank takes it for a stop."""

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, env: dict[str, str], **kwargs: Any) -> None:
            super().__init__(*args, env=env, **kwargs)
            if env["RANK"] == str(rank):
                until = time.monotonic() + 60
                while not (tmp_path / f"ready{rank}").exists() and time.monotonic() < until:
                    time.sleep(0.01)
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(module.subprocess, "Popen", Interrupted)
    # The other rank may not have set its trap yet: it is then ended by the signal itself.
    script = "trap 'touch heard$RANK; exit 75' TERM; touch ready$RANK; for i in $(seq 100); do sleep 0.05; done"
    try:
        assert launch(2, [script]) == 75
    except Requeue:
        assert not (tmp_path / f"ready{1 - rank}").exists()
    assert (tmp_path / f"heard{rank}").exists()


def test_ranks_do_not_outlive_a_killed_starter(tmp_path: Path, shell: Path) -> None:
    code = (
        "import sys; from ebert_core.training.launch import launch\n"
        f"sys.executable = {str(shell)!r}\n"
        "launch(2, ['echo $$ >pid$RANK; exec sleep 60'])"
    )
    starter = subprocess.Popen([sys.orig_argv[0], "-c", code], env=dict(os.environ))
    until = time.monotonic() + 60
    while not all((tmp_path / f"pid{rank}").exists() and (tmp_path / f"pid{rank}").read_text() for rank in range(2)):
        assert starter.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    starter.kill()
    starter.wait()
    pids = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(2)]
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.01)
