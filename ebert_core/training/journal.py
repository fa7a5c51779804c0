"""The journal of a run: JSON lines, one event each, readable without a server and safe to cut at any line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ebert_core.artifacts import publish_file

Listener = Callable[[str, int, Mapping[str, Any]], None]
"""`listener(event, step, values)`: is told what the journal is told."""


class Journal:
    """Appends events to `path`.

    Args:
        path: the `.jsonl` file; None, on all ranks but the first, keeps nothing.
        keep_until: event -> last step to keep. Later events, of a run that was cut off, are dropped first.
        listeners: are told of each event, too.
    """

    def __init__(self, path: Path | None, keep_until: Mapping[str, int], listeners: tuple[Listener, ...] = ()) -> None:
        self._handle = None
        self._listeners = listeners
        self._started = time.monotonic()
        if path is not None:
            kept = [event for event in read_journal(path) if event["step"] <= keep_until.get(event["event"], 0)]
            with publish_file(path, overwrite=True) as staged:
                staged.write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")
            self._handle = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, **values: Any) -> None:
        """One event, with the seconds since this process began."""
        if self._handle is None:
            return
        row = {"event": event, "step": step, "seconds": round(time.monotonic() - self._started, 3), **values}
        self._handle.write(json.dumps(row) + "\n")
        self._handle.flush()
        for listener in self._listeners:
            listener(event, step, values)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole events of a journal; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events
