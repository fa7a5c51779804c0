"""The journal: whole lines or nothing."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from ebert_core.errors import EbertError
from ebert_core.training.journal import Journal, read_journal
from ebert_core.training.tensorboard import TensorBoard, scalars


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def written(path: Path) -> Path:
    journal = Journal(path, keep_until={})
    for step in range(1, 6):
        journal.write("train", step, loss=1 / step)
        if step % 2 == 0:
            journal.write("evaluate", step, score=float(step), by_pair={"A/B": 0.1})
    journal.close()
    return path


def test_events_come_back_and_are_json_lines(path: Path) -> None:
    events = read_journal(written(path))
    assert events == [json.loads(line) for line in path.read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [
        ("train", 1), ("train", 2), ("evaluate", 2), ("train", 3), ("train", 4), ("evaluate", 4), ("train", 5),
    ]  # fmt: skip
    assert events[2]["by_pair"] == {"A/B": 0.1}
    assert all(event["seconds"] >= 0 for event in events)


def test_events_are_on_disk_before_the_journal_is_closed(path: Path) -> None:
    journal = Journal(path, keep_until={})
    journal.write("train", 1, loss=2.0)
    assert read_journal(path)[0]["loss"] == 2.0
    journal.close()


def test_cut_at_any_byte_only_the_last_event_is_lost(path: Path) -> None:
    data = written(path).read_bytes()
    everything = read_journal(path)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        found = read_journal(path)
        assert found == everything[: len(found)]
        assert whole <= len(found) <= whole + 1


def test_a_resumed_journal_keeps_each_kind_of_event_up_to_its_step(path: Path) -> None:
    journal = Journal(written(path), keep_until={"train": 4, "evaluate": 3})
    assert [(event["event"], event["step"]) for event in read_journal(path)] == [
        ("train", 1), ("train", 2), ("evaluate", 2), ("train", 3), ("train", 4),
    ]  # fmt: skip
    journal.write("evaluate", 4, score=0.0)
    journal.close()
    assert read_journal(path)[-1]["event"] == "evaluate"


def test_a_kill_while_the_journal_is_cut_back_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(path).read_bytes()

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("ebert_core.artifacts.os.replace", killed)
    with pytest.raises(SystemExit):
        Journal(path, keep_until={"train": 2, "evaluate": 2})
    assert path.read_bytes() == before


def test_no_journal_is_an_empty_one(path: Path) -> None:
    assert read_journal(path) == []


def test_listeners_are_told_what_is_written(path: Path) -> None:
    told: list[tuple[str, int, dict]] = []
    journal = Journal(path, keep_until={}, listeners=(lambda *event: told.append(event),))
    journal.write("train", 3, loss=1.5)
    journal.close()
    assert told == [("train", 3, {"loss": 1.5})]
    assert read_journal(path)[0]["loss"] == 1.5


def test_another_rank_writes_no_journal() -> None:
    told: list[object] = []
    journal = Journal(None, keep_until={}, listeners=(lambda *event: told.append(event),))
    journal.write("train", 3, loss=1.5)
    journal.close()
    assert told == []


def test_numbers_for_tensorboard() -> None:
    values = {"loss": 1.5, "by_pair": {"A/B": 0.1, "word": "x"}, "speed": {"mfu": 1}, "flag": True, "none": None}
    assert scalars("train", values) == {"train/loss": 1.5, "train/by_pair/A/B": 0.1, "train/speed/mfu": 1.0}


def test_without_tensorboard_there_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EbertError, match="TensorBoard is not installed") as caught:
        TensorBoard(tmp_path)
    assert "ebert[tensorboard]" in caught.value.hint


def test_tensorboard_is_given_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == (str(tmp_path), 7), "later steps of an earlier run are hidden"

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None: ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    board = TensorBoard(tmp_path)
    board("evaluate", 7, {"score": -2.0, "baselines": {"markov_order": 3}})
    board("train", 9, {"loss": 1.0})
    assert written == [
        ("evaluate/score", -2.0, 7), ("evaluate/baselines/markov_order", 3.0, 7), ("train/loss", 1.0, 9),
    ]  # fmt: skip
