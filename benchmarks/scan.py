"""Speed and memory of the genome scan on one CPU core, beside a window per bin and Hugging Face's BERT.

    python benchmarks/scan.py                  `tiny` and `small`; 4 minutes on an idle core
    python benchmarks/scan.py --quick          `small` alone, fewer rounds; under a minute
    python benchmarks/scan.py --memory 3100    memory alone, of a made-up genome of so many Mb, without a model's work
    python benchmarks/scan.py --context DEMO   what a bin's context costs in auPRC; DEMO is a folder of `ebert demo`
    python benchmarks/scan.py --command 20     the whole command on so many Mb, on one process and on one per core
    python benchmarks/scan.py --openvino       OpenVINO beside PyTorch; needs  pip install openvino

Models are those of `ebert finetune --motifs` with ten TFs and random weights; bases are a stretch of chr22 of hg19
(EBERT_REAL_DATA, default ../shared/data), random where that is missing; states and tracks are made up. One thread on
one core; programs take turns, and medians of CPU seconds are compared: what others take from the core does not count.

  dense      `ebert predict`'s own path from the dataset's files to probabilities: long windows, both strands, ten TFs
  windows    the same packed model and precision, both strands, on a window of 1 kb per bin, 51 at once
  hf_fp32    `BertModel` of transformers in fp32 with the encoder's layers, width and heads, on as many tokens, 512 at a
             time, both strands, and nothing else: no motifs, tracks or layers at strides, no token read twice; a line
             says the same with the scan's own blocks of 160 tokens

Last line: JSON of `small`. dense_vs_windows and vs_hf_fp32 are ratios of bins per second; mfu is the encoder's FLOPs in
the scan per second (formula of benchmarks/pretrain.py, forward, tokens of a block) over the best rate of bf16 matrix
products in the same run; io_share is reading (bases, states, tracks) and writing (journal, bigWig, narrowPeak) over the
scan's CPU time, as if nothing overlapped; peak_rss_mb is the most that an `ebert predict` of the stretch held;
bins_per_s is of one core. Lines before it say the same of `tiny`, where the time goes, and estimates for chromosomes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pretrain import PEAK_SHAPES, products, seconds
from scan_programs import Program, Scene, parts, peers, reading
from scan_world import GENOME_BINS, TFS, Land, make_dataset, make_model
from scan_writing import peak_of_predict, writing

from ebert_core.config import EncoderConfig
from ebert_core.data.dataset import Dataset
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.regions import Region
from ebert_core.inference.models import load_model
from ebert_core.model.device import choose_device, keep_freed_memory
from ebert_core.vocabulary import STRIDE_BP

LAND_BP = 4_000_000
ROUNDS = {"tiny": 15, "small": 7}
QUICK_ROUNDS = 3
# Long windows of a round of the scan.
WINDOWS = 2
WRITTEN_BP = 2_000_000


def encoder_flops(config: EncoderConfig, block_bp: int) -> float:
    """FLOPs of the encoder per token, forward (benchmarks/pretrain.py)."""
    width, tokens = config.width, block_bp // config.token_bp
    blocks = config.num_layers * (24 * width**2 + 4 * tokens * width)
    return (
        blocks
        + 2 * config.stem_channels * width
        + 10 * config.token_bp * (config.stem_channels * config.stem_kernel_bp + width)
    )


def timed(programs: dict[str, Program], rounds: int) -> tuple[dict[str, float], float]:
    """Median CPU seconds of each program, by name, per bin where it answers bins; and the peak in GFLOP/s."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    rates: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in PEAK_SHAPES}
    peak_steps = products()
    for number in range(rounds + 1):
        for name, program in programs.items():
            started = time.process_time()
            bins = program()
            took = time.process_time() - started
            if number:
                found[name].append(took / (bins or 1))
        for shape, product in peak_steps.items():
            rates[shape] += [2 * shape[0] * shape[1] * shape[2] / seconds(product) / 1e9 for _ in range(4)]
    medians = {name: statistics.median(values) for name, values in found.items()}
    return medians, max(statistics.median(values) for values in rates.values())


def report(size: str, dataset: Dataset, folder: Path, rounds: int) -> dict[str, Any]:
    """The figures of one size."""
    make_model(folder / size, dataset, size)
    device = choose_device("cpu", "auto")
    model = load_model(folder / size, dataset, device)
    chrom = dataset.assembly.chroms[0]
    geometry = Scene.of(dataset, model, device, Region(chrom, 0, STRIDE_BP)).geometry
    first = 2 * geometry.core_bp
    few = Scene.of(dataset, model, device, Region(chrom, first + 100, first + 100 + WINDOWS * geometry.core_bp))
    many = Scene.of(dataset, model, device, Region(chrom, first + 100, first + 100 + WRITTEN_BP))
    each = parts(few)
    taken, peak = timed({**peers(few), **each}, rounds)
    rates = {name: 1 / seconds_ for name, seconds_ in taken.items() if name not in each}
    tokens = geometry.window_bp // model.module.encoder.config.token_bp
    gflops = (
        encoder_flops(model.module.encoder.config, geometry.grid_bp) * tokens / taken["encoder of one strand"] / 1e9
    )
    read_s, bins = measured(reading(many, 10**9))
    written_s, _ = measured(writing(many, folder / f"{size}-files"))
    peak_mb = peak_of_predict(dataset, folder / size, many.request, folder / f"{size}-predictions")
    figures = {
        "dense_vs_windows": round(rates["dense"] / rates["windows"], 1),
        "vs_hf_fp32": round(rates["dense"] / rates["hf_fp32"], 2) if "hf_fp32" in rates else None,
        "mfu": round(gflops / peak, 3),
        "io_share": round((read_s + written_s) / (bins / rates["dense"] + written_s), 4),
        "peak_rss_mb": round(peak_mb),
        "bins_per_s": round(rates["dense"]),
    }
    window_s = geometry.core_bins / rates["dense"]
    shares = {
        name: f"{taken[name] * (2 if 'one strand' in name else 1) / window_s:.1%}" for name in list(parts(few))[:4]
    }
    print(f"{size}: {json.dumps(figures)}; encoder {gflops:.0f} of {peak:.0f} GFLOP/s")
    print(f"{size}: bins/s of a core { ({name: round(rate) for name, rate in rates.items()}) }")
    print(
        f"{size}: of the scan's time {shares}; reading {read_s * rates['dense'] / bins:.1%}, "
        f"writing {written_s * rates['dense'] / bins:.1%}"
    )
    for line in estimates(size, rates["dense"]):
        print(line)
    return figures


def measured(program: Program) -> tuple[float, int]:
    """CPU seconds of the second of two runs, and its bins."""
    program()
    started = time.process_time()
    bins = program()
    return time.process_time() - started, bins


def estimates(size: str, rate: float) -> list[str]:
    """What chr21 and chr22, and hg19, take on two cores at so many bins per second and core."""
    lengths = Assembly.built_in("hg19")
    bins = {
        "chr21 + chr22": sum(lengths.length(chrom) // STRIDE_BP for chrom in ("chr21", "chr22")),
        "the bins of ENCODE-DREAM": GENOME_BINS,
    }
    return [
        f"{size}: {name}, {number:,} bins x {len(TFS)} TFs, both strands: {number / (2 * rate):,.0f} s "
        f"({number / (2 * rate) / 3600:.2f} h) on two cores as two shards, {2 * rate:,.0f} bins/s; an estimate"
        for name, number in bins.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", type=int, metavar="MB")
    parser.add_argument("--context", type=Path, metavar="DEMO")
    parser.add_argument("--command", type=int, metavar="MB")
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to run on")
    parser.add_argument("--work", type=Path, help="folder for what is made; default: a temporary one")
    options = parser.parse_args()
    if options.command:
        from scan_commands import commands

        with tempfile.TemporaryDirectory(dir=options.work) as made:
            print(json.dumps(commands(options.command, Path(made))))
        return
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(dir=options.work) as made:
        print(json.dumps(chosen(options, Path(made))))


def chosen(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures that were asked for."""
    if options.memory:
        from scan_memory import memory

        return memory(options.memory, folder)
    if options.context:
        from scan_context import context

        return context(options.context)
    if options.openvino:
        from scan_openvino import openvino

        return openvino(ROUNDS["small"])
    dataset = make_dataset(folder, Land(LAND_BP))
    for size in () if options.quick else ("tiny",):
        report(size, dataset, folder, ROUNDS[size])
    return report("small", dataset, folder, QUICK_ROUNDS if options.quick else ROUNDS["small"])


if __name__ == "__main__":
    main()
