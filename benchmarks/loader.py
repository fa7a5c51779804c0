"""How fast training batches are made, beside GenVarLoader, and what share of a training step that is.

    python benchmarks/loader.py            windows of 1, 2 and 5 kb; 2 minutes
    python benchmarks/loader.py --quick    under a minute

GenVarLoader is no dependency of ebert. To compare, run this with an interpreter that has both:

    python -m venv peers && peers/bin/pip install -e . genvarloader && peers/bin/python benchmarks/loader.py

Without it everything else is measured, and `skipped` says why its ratios are missing.

One random chromosome and random segmentations serve everybody: the same windows, cell types and strands, batches of 256
windows, as many threads for each (--threads). The contenders take turns of 5 batches in one process; medians.

  ours            `MaskedBatches.draw`: windows and cell types chosen, gathered, half on the other strand, masked
  genvarloader    its read of sequence and one track (with two it mixes windows), then plain NumPy as a user would write
                  it: letters to codes, every 200th value, tokens hidden at random, labels
  gvl_read        its read alone: letters, and the track at base resolution
  numpy           two gathers from the same memory maps and nothing else: the floor
  per_window      pysam and pyBigWig, one window after the other, without masking

Last line: JSON. `loader_vs_genvarloader` is genvarloader / ours for windows of 5 kb, which `small`, `base` and `large`
read; the others are in `by_window_bp`. `loader_share` is the time to draw a micro-batch over that and the model's
forward and backward pass on it, without the optimiser's step; draws and passes alternate there, one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 256
STATES = 18
TOKEN_BP = 10


def write_world(folder: Path, length: int, cells: int) -> None:
    """genome.fa, and for each cell type a segmentation (for ebert) and a bigWig of the same (for the peers)."""
    import pyBigWig
    import pysam

    from ebert_core.epigenome.state_models import BUILT_IN

    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)[rng.integers(0, 4, (length // 50, 50))]
    lines = np.hstack([letters, np.full((len(letters), 1), ord("\n"), dtype=np.uint8)])
    (folder / "genome.fa").write_bytes(b">chr1\n" + lines.tobytes())
    pysam.faidx(str(folder / "genome.fa"))
    (folder / "states").mkdir()
    labels = [state.label for state in BUILT_IN["roadmap18"].states]
    for cell in range(cells):
        ends = np.unique(np.append(rng.integers(1, length // 200, size=length // 200 // 30), length // 200)) * 200
        starts, states = np.append(0, ends[:-1]), rng.integers(STATES, size=len(ends))
        rows = zip(starts.tolist(), ends.tolist(), states.tolist(), strict=True)
        text = "".join(f"chr1\t{start}\t{end}\t{labels[state]}\n" for start, end, state in rows)
        (folder / "states" / f"cell{cell}_18_core_K27ac_mnemonics.bed").write_text(text)
        with pyBigWig.open(str(folder / f"cell{cell}.bw"), "w") as handle:
            handle.addHeader([("chr1", length)])
            chroms, values = ["chr1"] * len(ends), (states + 1.0).tolist()
            handle.addEntries(chroms, starts.tolist(), ends=ends.tolist(), values=values)


def open_genvarloader(folder: Path, starts: np.ndarray, window_bp: int, cells: list[str]) -> Any:
    """A GenVarLoader dataset of these windows, every second on the other strand."""
    import genvarloader as gvl
    import polars as pl

    strands = ["+" if index % 2 == 0 else "-" for index in range(len(starts))]
    table = {"chrom": ["chr1"] * len(starts), "chromStart": starts, "chromEnd": starts + window_bp, "strand": strands}
    path = folder / f"windows{window_bp}.gvl"
    tracks = gvl.BigWigs("state", {cell: str(folder / f"{cell}.bw") for cell in cells})
    gvl.write(path, pl.DataFrame(table), tracks=tracks)
    dataset = gvl.Dataset.open(path, reference=folder / "genome.fa")
    return dataset.with_seqs("reference").with_tracks("state").with_len(window_bp)


def masked_by_hand(read: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> dict[str, Any]:
    """The training batch from what GenVarLoader gives, as a user would write it."""
    import torch

    from ebert_core.vocabulary import BASE_CODES

    codes = BASE_CODES[read[0].view(np.uint8)]
    states = read[1][:, 0, ::200].astype(np.uint8)
    hidden = np.repeat(rng.random((len(codes), codes.shape[1] // TOKEN_BP)) < 0.15, TOKEN_BP, axis=1)
    hidden_states = rng.random(states.shape) < 0.15
    arrays = {
        "bases": np.where(hidden, np.uint8(5), codes),
        "base_labels": np.where(hidden & (codes < 4), codes, np.int64(-100)),
        "states": np.where(hidden_states, np.uint8(STATES + 1), states),
        "state_labels": np.where(hidden_states & (states > 0), states, np.int64(0)) - 1,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def per_window_reader(folder: Path, window_bp: int, cells: list[str]) -> Callable[[np.ndarray, np.ndarray], None]:
    """Files opened once, then one window after the other."""
    import pyBigWig
    import pysam

    from ebert_core.vocabulary import encode_bases

    genome = pysam.FastaFile(str(folder / "genome.fa"))
    tracks = [pyBigWig.open(str(folder / f"{cell}.bw")) for cell in cells]

    def read(starts: np.ndarray, chosen: np.ndarray) -> None:
        for start, cell in zip(starts.tolist(), chosen.tolist(), strict=True):
            encode_bases(genome.fetch("chr1", start, start + window_bp).encode())
            tracks[cell].values("chr1", start, start + window_bp, numpy=True)[::200].astype(np.uint8)

    return read


def medians(contenders: dict[str, Callable[[int], object]], turns: int, batches: int = 5) -> dict[str, float]:
    """Median seconds a batch of each; they take turns, and the first two turns do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 2):
        for name, run in contenders.items():
            started = time.perf_counter()
            for batch in range(batches):
                run(turn * batches + batch)
            seconds[name].append((time.perf_counter() - started) / batches)
    return {name: float(np.median(taken[2:])) for name, taken in seconds.items()}


def compare(folder: Path, dataset: Any, window_bp: int, windows: int, repeats: int, with_peer: bool) -> dict[str, Any]:
    """Seconds a batch of each contender, and the ratios."""
    import torch
    from numpy.lib.stride_tricks import sliding_window_view

    from ebert_core.config import EncoderConfig, PretrainConfig
    from ebert_core.data.batches import GenomeStore, MaskedBatches
    from ebert_core.data.windows import eligible_starts
    from ebert_core.genome.regions import whole

    rng = np.random.default_rng(1)
    cells = list(dataset.state_cells)
    starts = np.sort(rng.choice(eligible_starts(dataset, whole(dataset.assembly), window_bp), windows, replace=False))
    config = PretrainConfig(window_bp=window_bp, encoder=EncoderConfig(token_bp=TOKEN_BP))
    batches = MaskedBatches(GenomeStore(dataset, cells, torch.device("cpu")), starts, config)
    bases = sliding_window_view(dataset.flat_sequence, window_bp)[::200]
    stacked = np.stack([dataset.flat_states(cell) for cell in cells])
    tracks = sliding_window_view(stacked.reshape(-1), window_bp // 200)
    chosen = [(rng.integers(windows, size=BATCH), rng.integers(len(cells), size=BATCH)) for _ in range(8)]
    one_by_one = per_window_reader(folder, window_bp, cells)

    def floor(turn: int) -> object:
        rows, cell = starts[chosen[turn % 8][0]] // 200, chosen[turn % 8][1]
        return bases[rows], tracks[rows + cell * stacked.shape[1]]

    contenders: dict[str, Callable[[int], object]] = {
        "ours": lambda turn: batches.draw(0, turn, 0, BATCH, BATCH),
        "numpy": floor,
        "per_window": lambda turn: one_by_one(starts[chosen[turn % 8][0]], chosen[turn % 8][1]),
    }
    if with_peer:
        peer = open_genvarloader(folder, starts, window_bp, cells)
        check_same(peer[chosen[0]], floor(0), chosen[0][0])
        contenders["gvl_read"] = lambda turn: peer[chosen[turn % 8]]
        contenders["genvarloader"] = lambda turn: masked_by_hand(peer[chosen[turn % 8]], rng)
    seconds = medians(contenders, repeats)
    return {
        "windows_per_second": {name: round(BATCH / taken) for name, taken in seconds.items()},
        "ours_vs": {name: round(taken / seconds["ours"], 2) for name, taken in seconds.items() if name != "ours"},
    }


def check_same(read: tuple[np.ndarray, np.ndarray], ours: Any, rows: np.ndarray) -> None:
    """The peer and we must read the same windows: forward ones are compared value for value."""
    from ebert_core.vocabulary import BASE_CODES

    forward = rows % 2 == 0
    same = np.array_equal(BASE_CODES[read[0].view(np.uint8)][forward], ours[0][forward])
    if not same or not np.array_equal(read[1][forward, 0, ::200].astype(np.uint8), ours[1][forward]):
        raise SystemExit("GenVarLoader and the gather disagree: nothing is compared")


def share_of_step(dataset: Any, preset: str, repeats: int) -> dict[str, float]:
    """Milliseconds to draw a preset's micro-batch, and to pass it forward and backward."""
    import torch.nn.functional as F

    from ebert_core.config import PRESETS
    from ebert_core.data.batches import IGNORED, GenomeStore, MaskedBatches
    from ebert_core.data.windows import eligible_starts
    from ebert_core.genome.regions import whole
    from ebert_core.model.checkpoint import PretrainingModel
    from ebert_core.model.device import choose_device

    config, device = PRESETS[preset], choose_device("cpu")
    starts = eligible_starts(dataset, whole(dataset.assembly), config.window_bp)
    batches = MaskedBatches(GenomeStore(dataset, dataset.state_cells, device.device), starts, config)
    module = PretrainingModel(config.encoder, STATES)
    batch = batches.draw(0, 0, 0, config.micro_batch, config.global_batch)

    def passes(turn: int) -> None:
        with device.autocast():
            tokens = module.encoder(batch.bases, batch.states)
            bases = module.head.base_logits(tokens, batch.base_index)
            states = module.head.state_logits(tokens, batch.state_index)
        loss = F.cross_entropy(bases.float().flatten(0, -2), batch.base_targets.view(-1), ignore_index=IGNORED)
        loss = loss + F.cross_entropy(states.float(), batch.state_targets, ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]

    seconds = medians(
        {"draw": lambda turn: batches.draw(0, turn, 0, config.micro_batch, config.global_batch), "passes": passes},
        repeats,
        batches=1,
    )
    share = seconds["draw"] / (seconds["draw"] + seconds["passes"])
    return {name: round(taken * 1e3, 3) for name, taken in seconds.items()} | {"share": round(share, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="for PyTorch and for GenVarLoader")
    options = parser.parse_args()
    os.environ["GVL_NUM_THREADS"] = str(options.threads)  # read when it is imported
    import torch

    from ebert_core.config import PrepareConfig
    from ebert_core.data.prepare import prepare
    from ebert_core.model.device import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(options.threads)
    skipped = ""
    try:
        import genvarloader  # noqa: F401
    except ImportError as error:
        skipped = f"{error}; see the first lines of this file"
    length, cells, windows, repeats = (10_000_000, 4, 4_000, 12) if options.quick else (50_000_000, 8, 20_000, 40)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder, length, cells)
        inputs = PrepareConfig(output=folder / "dataset", genome=folder / "genome.fa", states=folder / "states")
        dataset = prepare(inputs).dataset
        by_window = {
            window_bp: compare(folder, dataset, window_bp, windows, repeats, not skipped)
            for window_bp in ([1_000, 5_000] if options.quick else [1_000, 2_000, 5_000])
        }
        shares = {
            preset: share_of_step(dataset, preset, repeats // 2 if preset == "small" else repeats)
            for preset in ("tiny", "small")
        }
    result = {
        "threads": options.threads,
        "batch": BATCH,
        "by_window_bp": by_window,
        "steps_ms": shares,
        "skipped": skipped,
        "loader_windows_per_second": by_window[5_000]["windows_per_second"]["ours"],
        "loader_vs_genvarloader": by_window[5_000]["ours_vs"].get("genvarloader"),
        "loader_share": max(entry["share"] for entry in shares.values()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
