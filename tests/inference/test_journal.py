"""What a run keeps: whole pieces whatever cut it off, and never another request's."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.errors import EbertError, InputError
from ebert_core.inference import journal as journal_module
from ebert_core.inference.journal import Journal, is_journal, read_run, require_same
from ebert_core.inference.pieces import Scored

RUN = {"scan": {"model": "a"}, "shard": None}


def same(ours: Scored, theirs: Scored) -> bool:
    pairs = [(getattr(ours.piece, name), getattr(theirs.piece, name)) for name in ("wanted", "all_n", "excluded")]
    pairs += [(ours.probabilities, theirs.probabilities)]
    assert (ours.spread is None) == (theirs.spread is None)
    if ours.spread is not None and theirs.spread is not None:
        pairs.append((ours.spread, theirs.spread))
    assert (ours.piece.number, ours.piece.chrom) == (theirs.piece.number, theirs.piece.chrom)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("with_spread", [False, True])
def test_pieces_come_back_as_they_were(made_up: Callable[..., Any], tmp_path: Path, with_spread: bool) -> None:
    made = made_up()
    made.with_spread = with_spread
    pieces = list(made.pieces())
    with Journal.create(tmp_path / "j", RUN) as journal:
        for scored in pieces[::-1]:
            journal.append(scored)
            assert same(journal.read(scored.piece.number), scored)
    assert is_journal(tmp_path / "j")
    with Journal.open(tmp_path / "j") as journal:
        assert journal.numbers == list(range(len(pieces)))
        assert all(same(journal.read(scored.piece.number), scored) for scored in pieces)
        assert journal.run["scan"] == RUN["scan"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_anywhere_it_holds_the_pieces_before_the_cut(
    made_up: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A kill leaves any length of either file; what is appended after it is whole, too."""
    folder, made = tmp_path_factory.mktemp("cut") / "j", made_up()
    pieces, ends = list(made.pieces()), []
    with Journal.create(folder, RUN) as journal:
        for scored in pieces:
            ends.append(tuple((folder / name).stat().st_size for name in ("scores.bin", "journal.jsonl")))
            journal.append(scored)
    kept = data.draw(st.integers(0, len(pieces) - 1))
    sizes = (*ends[kept],)
    after = ends[kept + 1] if kept + 1 < len(ends) else None
    # The scores are written first, the line after them.
    more = data.draw(st.integers(0, 10_000))
    scores = folder / "scores.bin"
    scores.write_bytes(scores.read_bytes()[: sizes[0] + more])
    line = folder / "journal.jsonl"
    limit = (
        (after[1] - 1 if after else line.stat().st_size - 1)
        if scores.stat().st_size >= (after or ends[-1])[0]
        else sizes[1]
    )
    line.write_bytes(line.read_bytes()[: data.draw(st.integers(sizes[1], max(sizes[1], limit)))])
    with Journal.open(folder) as journal:
        assert journal.numbers == list(range(kept))
        for scored in pieces[kept:]:
            journal.append(scored)
    with Journal.open(folder) as journal:
        assert all(same(journal.read(scored.piece.number), scored) for scored in pieces)


def test_a_changed_byte_is_told(made_up: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "j"
    with Journal.create(folder, RUN) as journal:
        for scored in made_up().pieces():
            journal.append(scored)
    data = bytearray((folder / "scores.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "scores.bin").write_bytes(data)
    with Journal.open(folder) as journal, pytest.raises(InputError, match="does not match its digest") as caught:
        _ = [journal.read(number) for number in journal.numbers]
    assert f"remove {folder}" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "has no run.json"),
        ("run.json", "{", "is not valid JSON"),
        ("run.json", "[]", "of another version of ebert, or damaged"),
        ("run.json", '{"kind": "unfinished predictions", "format_version": 2}', "of another version"),
        ("journal.jsonl", None, "is damaged or missing"),
        ("journal.jsonl", "x\n", "is damaged or missing"),
        ("journal.jsonl", '{"piece": 0}\n', "is damaged or missing"),
        ("scores.bin", None, "is damaged or missing"),
        ("scores.bin", "", "is shorter than its journal says"),
    ],
)
def test_damaged_journals(
    made_up: Callable[..., Any], tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    folder = tmp_path / "j"
    with Journal.create(folder, RUN) as journal:
        journal.append(next(made_up().pieces()))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        Journal.open(folder)
    assert caught.value.hint


@pytest.mark.parametrize("fails", ["scores.bin", "journal.jsonl"])
def test_a_full_disk_leaves_the_journal_as_it_was(
    made_up: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    pieces = list(made_up().pieces())
    with Journal.create(tmp_path / "j", RUN) as journal:
        journal.append(pieces[0])
        sync, before = os.fsync, {path: path.read_bytes() for path in (tmp_path / "j").iterdir()}

        def full(descriptor: int) -> None:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(fails):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)

        monkeypatch.setattr(journal_module.os, "fsync", full)
        with pytest.raises(EbertError, match=f"no space left on the device while writing {tmp_path / 'j'}"):
            journal.append(pieces[1])
        monkeypatch.undo()
        assert len(journal) == 1
        after = {path: path.read_bytes() for path in (tmp_path / "j").iterdir()}
        assert {path.name for path in before if before[path] != after[path]} <= {"scores.bin"}
        journal.append(pieces[1])
    with Journal.open(tmp_path / "j") as journal:
        assert all(same(journal.read(scored.piece.number), scored) for scored in pieces[:2])


def test_what_differs_is_named(tmp_path: Path) -> None:
    require_same(tmp_path, {"model": "a", "regions": "b"}, {"regions": "b", "model": "a"}, "hint")
    with pytest.raises(EbertError, match="is of another request: it differs in model, precision") as caught:
        require_same(tmp_path, {"model": "a", "regions": "b"}, {"model": "x", "regions": "b", "precision": 1}, "do it")
    assert caught.value.hint == "do it"


def test_a_new_journal_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "old").write_text("x")
    with Journal.create(tmp_path / "j", RUN) as journal:
        assert len(journal) == 0
    assert sorted(path.name for path in (tmp_path / "j").iterdir()) == ["journal.jsonl", "run.json", "scores.bin"]
    assert json.loads((tmp_path / "j" / "run.json").read_text())["scan"] == {"model": "a"}
    assert read_run(tmp_path / "j")["shard"] is None
