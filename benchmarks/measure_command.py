"""Run a command and append what it took to the JSON-lines file named by EBERT_MEASURES.

python benchmarks/measure_command.py ebert prepare --genome ...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    started = time.monotonic()
    child = subprocess.Popen(sys.argv[1:])
    _, status, usage = os.wait4(child.pid, 0)
    row = {
        "command": " ".join(sys.argv[2:3]),
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),
        "exit": os.waitstatus_to_exitcode(status),
    }
    with Path(os.environ["EBERT_MEASURES"]).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(row) + "\n")
    sys.exit(row["exit"])


if __name__ == "__main__":
    main()
