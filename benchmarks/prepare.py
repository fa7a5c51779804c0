"""What `ebert prepare` takes at full size: a genome of hg19's size and many whole-genome epigenomes.

    python benchmarks/prepare.py            3.1 Gbp and 127 epigenomes, about 6 minutes, 10 GB of disk
    python benchmarks/prepare.py --quick    60 Mbp and 4 epigenomes, under a minute

The sequence is random and the segmentations are drawn segments of the 15-state model (about 0.5 M rows each at full
size, like Roadmap); the work does not depend on what they say. Last line: JSON with seconds, peak memory, the size of
the dataset, and the ratio of the time to that of inflating and reading the same files, the machine's own floor.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# UCSC chrom.sizes of hg19, chr1-22 and X.
HG19 = [
    249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022, 141213431,
    135534747, 135006516, 133851895, 115169878, 107349540, 102531392, 90354753, 81195210, 78077248, 59128983,
    63025520, 48129895, 51304566, 155270560,
]  # fmt: skip
STATES = [
    "1_TssA", "2_TssAFlnk", "3_TxFlnk", "4_Tx", "5_TxWk", "6_EnhG", "7_Enh", "8_ZNF/Rpts", "9_Het", "10_TssBiv",
    "11_BivFlnk", "12_EnhBiv", "13_ReprPC", "14_ReprPCWk", "15_Quies",
]  # fmt: skip
MEAN_SEGMENT_BINS = 30


def write_genome(path: Path, lengths: list[int]) -> None:
    """Random bases in lines of 50."""
    rng = np.random.default_rng(0)
    line = np.frombuffer(b"ACGT", dtype=np.uint8)[rng.integers(0, 4, (20_000, 50))]
    block = np.hstack([line, np.full((20_000, 1), ord("\n"), dtype=np.uint8)]).tobytes()
    with path.open("wb") as handle:
        for index, length in enumerate(lengths, start=1):
            handle.write(f">chr{index}\n".encode())
            rows, rest = divmod(length, 50)
            for first in range(0, rows, 20_000):
                handle.write(block[: min(20_000, rows - first) * 51])
            handle.write(block[:rest] + b"\n" if rest else b"")


def write_segmentation(path: Path, lengths: list[int], seed: int) -> None:
    """Geometric segments of random states that tile every chromosome."""
    rng = np.random.default_rng(seed)
    with gzip.open(path, "wt", compresslevel=1) as handle:
        for index, length in enumerate(lengths, start=1):
            bins = length // 200
            ends = np.cumsum(rng.geometric(1 / MEAN_SEGMENT_BINS, size=2 * bins // MEAN_SEGMENT_BINS + 10))
            ends = np.append(ends[ends < bins], bins) * 200
            starts = np.append(0, ends[:-1])
            names = rng.integers(0, len(STATES), len(ends))
            handle.writelines(
                f"chr{index}\t{start}\t{end}\t{STATES[name]}\n"
                for start, end, name in zip(starts.tolist(), ends.tolist(), names.tolist(), strict=True)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    lengths, epigenomes = ([40_000_000, 20_000_123], 4) if options.quick else (HG19, 127)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_genome(folder / "genome.fa", lengths)
        (folder / "states").mkdir()
        # Eight different files serve all epigenomes; prepare reads each path on its own.
        drawn = [folder / f"drawn{i}.bed.gz" for i in range(min(8, epigenomes))]
        for seed, path in enumerate(drawn):
            write_segmentation(path, lengths, seed)
        for index in range(epigenomes):
            os.link(drawn[index % len(drawn)], folder / "states" / f"cell{index}_15_coreMarks_mnemonics.bed.gz")

        started = time.monotonic()
        for path in sorted((folder / "states").iterdir()):
            gzip.decompress(path.read_bytes())
        with (folder / "genome.fa").open("rb") as handle:
            while handle.read(1 << 24):  # in pieces: a child's peak memory counts its parent's before the fork
                pass
        floor = time.monotonic() - started

        command = [sys.executable, "-m", "ebert_cli", "prepare", "--genome", "genome.fa", "--states", "states"]
        started = time.monotonic()
        child = subprocess.Popen(command, cwd=folder)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        if status:
            sys.exit("prepare failed")
        size = sum(path.stat().st_size for path in (folder / "dataset").rglob("*") if path.is_file())
    print(
        json.dumps(
            {
                "genome_bp": sum(lengths),
                "epigenomes": epigenomes,
                "seconds": round(seconds, 1),
                "seconds_per_read_floor": round(seconds / floor, 1),
                "peak_rss_mb": round(usage.ru_maxrss * 1024 / 1e6),
                "dataset_gb": round(size / 1e9, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
