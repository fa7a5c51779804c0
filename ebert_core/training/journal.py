"""The journal of a run: JSON lines, one event each, readable without a server and safe to cut at any line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Journal:
    """Appends events to `path`.

    Args:
        path: the `.jsonl` file.
        keep_until: on resume, events of later steps (of the run that was cut off) are dropped first; None starts anew.
    """

    def __init__(self, path: Path, keep_until: int | None = None) -> None:
        kept = [] if keep_until is None else [event for event in read_journal(path) if event["step"] <= keep_until]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("w", encoding="utf-8")
        for event in kept:
            self._handle.write(json.dumps(event) + "\n")
        self._handle.flush()
        self._started = time.monotonic()

    def write(self, event: str, step: int, **values: Any) -> None:
        """One event, with the seconds since this process began."""
        row = {"event": event, "step": step, "seconds": round(time.monotonic() - self._started, 3), **values}
        self._handle.write(json.dumps(row) + "\n")
        self._handle.flush()

    def close(self) -> None:
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
