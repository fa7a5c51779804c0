"""How fast variants are scored on a CPU, beside the same model shown each allele in a window of its own.

    python benchmarks/variants.py            `tiny` and `small`, about 5 minutes
    python benchmarks/variants.py --quick    `small`, few variants; under a minute

The model has the shape that `ebert finetune --motifs` gives by default and random weights: 45 motifs, 5 layers at
strides, 450 trees, an encoder that reads blocks of 1,600 bp. SNVs at random places of chr22 (EBERT_REAL_DATA, default
../shared/data; without it of a random chromosome), in two densities: `spread`, as 10,000 on all of chr22, where few
share a block of the reference, and `dense`, one per 700 bp, about as in one person's genome. Logits of both strands are
averaged, in the precision that the commands choose.

  ours     `VariantScorer`, neighbouring variants together, as `ebert variants` calls it
  plain    the model's own forward pass, two windows of its training at a time: reference and alternative

They take turns. `vs_plain` is a ratio of CPU seconds, so what others take from the cores does not count. Seconds per
10,000 variants are those of the clock; `cpu_s_per_10000` is the CPU time of all threads.

Last line: JSON with vs_plain, vs_plain_dense, variants_per_s, seconds_per_10000 and seconds_per_10000_dense of `small`,
all figures of each size under its name, `difference`, the largest between the logits of the two ways, and `explain_ms`,
the substitutions and states of one site of `ebert explain`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scan_world import random_trees

from ebert_core.config import PRESETS, PrepareConfig, finetune_defaults
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.data.windows import Batch
from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.genome.regions import Region
from ebert_core.inference.alleles import Judge, Variant
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.mutagenesis import Mutagenesis, Settings
from ebert_core.inference.predictor import CellStates
from ebert_core.inference.rescore import model_rescore
from ebert_core.inference.scan import model_score
from ebert_core.inference.sites import Site
from ebert_core.inference.variants import VariantScorer
from ebert_core.inference.windows import ChromReader, Layout
from ebert_core.io.vcf import VcfRecord
from ebert_core.model.checkpoint import vocabulary_entry
from ebert_core.model.device import Device, choose_device, keep_freed_memory
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan
from ebert_core.vocabulary import BASES, STRIDE_BP

ROOT = Path(__file__).resolve().parents[1]
MOTIFS, MOTIF_BP = 45, 21
TFS = 1
CHR22_BP, NUM_VARIANTS = 35_000_000, 10_000
DENSE_BP = 700
SYNTHETIC_BP = 4_000_000


def chromosome(folder: Path) -> tuple[Dataset, str, str]:
    """(dataset, chromosome, cell type): real if the data are there."""
    data = Path(os.environ.get("EBERT_REAL_DATA", ROOT.parent / "shared" / "data"))
    genome = data / "genome" / "hg19.chr20_21_22.fa.gz"
    if genome.exists():
        inputs = PrepareConfig(
            output=folder / "dataset", genome=genome, states=data / "states" / "roadmap18", chroms=("chr22",)
        )
        return prepare(inputs).dataset, "chr22", "K562"
    rng = np.random.default_rng(0)
    letters = np.frombuffer(BASES.encode(), dtype=np.uint8)[rng.integers(0, 4, SYNTHETIC_BP)]
    (folder / "genome.fa").write_bytes(b">chr1\n" + letters.tobytes() + b"\n")
    return prepare(PrepareConfig(output=folder / "dataset", genome=folder / "genome.fa")).dataset, "chr1", "none"


def random_model(size: str) -> LoadedModel:
    """Random weights in the default shape of fine-tuning with motifs."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    encoder = PRESETS[size].encoder.model_copy(update={"dropout": 0.0})
    config = finetune_defaults(encoder, motifs=True)
    motifs = MotifScan([rng.normal(0, 1.5, (MOTIF_BP, 4)).astype(np.float32) for _ in range(MOTIFS)])
    shape = BindingShape(config.fusion, config.features.composition, (MOTIFS, MOTIF_BP), 0)
    module = BindingModel(Encoder(encoder, 18), TFS, shape, motifs).eval()
    with torch.no_grad():
        # A fresh model does not listen to its encoder.
        module.head.from_tokens.weight.normal_(std=module.head.from_tokens.in_features**-0.5)
    module.grow(random_trees(module, config.trees))
    manifest = {
        "tfs": ["CTCF"],
        "config": config.model_dump(),
        "vocabulary": vocabulary_entry(encoder, BUILT_IN["roadmap18"]),
    }
    return LoadedModel(Path("random"), (module,), manifest)


def snvs(judge: Judge, dataset: Dataset, chrom: str, apart_bp: int, num: int) -> list[Variant]:
    """Neighbouring SNVs at random places, so far apart on average."""
    rng = np.random.default_rng(1)
    middle = dataset.assembly.length(chrom) * 3 // 5
    bases = dataset.sequence(chrom)
    found: list[Variant | str] = []
    for at in np.sort(middle + rng.choice(apart_bp * num, num, replace=False)).tolist():
        code = int(bases[at])
        if code < len(BASES):
            ref, alt = BASES[code], BASES[(code + int(rng.integers(1, 4))) % 4]
            found += judge.alleles(VcfRecord(0, chrom, at, ".", ref, (alt,), ""))
    return [variant for variant in found if isinstance(variant, Variant)]


def plain_logits(model: LoadedModel, device: Device, variants: list[Variant]) -> np.ndarray:
    """The two alleles of each substitution, one variant at a time, (V, 2, T)."""
    score = model_score(model.module, device, both_strands=True)
    window_bp, block = model.geometry().window_bp, model.module.shape.fusion.encoder_bp
    found = []
    for variant in variants:
        start = (variant.start - window_bp // 2) // block * block
        window = variant.reader.windows(np.array([start]), window_bp)
        bases = np.repeat(window.bases, 2, axis=0)
        bases[1, variant.start - start] = variant.alt[0]
        logits = score(Batch(bases, np.repeat(window.states, 2, axis=0)))
        found.append(logits[:, variant.bins - start // STRIDE_BP].max(axis=1))
    return np.stack(found)


def timed(run: Any) -> tuple[Any, float, float]:
    """(result, seconds of the clock, CPU seconds)."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, time.perf_counter() - clock, time.process_time() - cpu


def measure(
    model: LoadedModel, device: Device, variants: list[Variant], each_turn: int, plain: int, turns: int
) -> dict[str, float]:
    """Both ways in turn; the first turn warms up."""
    rescore = model_rescore(model.members, device, both_strands=True)
    scorer = VariantScorer(rescore, range(TFS), Layout.of(model))
    clocks, ours, theirs, difference = [], [], [], 0.0
    for turn in range(turns + 1):
        some = variants[turn * each_turn : (turn + 1) * each_turn]
        found, clock, cpu = timed(lambda some=some: np.stack(scorer.logits(some), axis=1))
        expected, _, slow = timed(lambda some=some: plain_logits(model, device, some[:plain]))
        difference = max(difference, float(np.abs(found[:plain] - expected).max()))
        if turn:
            clocks.append(clock / len(some))
            ours.append(cpu / len(some))
            theirs.append(slow / plain)
    return {
        "vs_plain": round(statistics.median(theirs) / statistics.median(ours), 2),
        "variants_per_s": round(1 / statistics.median(clocks), 1),
        "seconds_per_10000": round(NUM_VARIANTS * statistics.median(clocks), 1),
        "cpu_s_per_10000": round(NUM_VARIANTS * statistics.median(ours), 1),
        "difference": round(difference, 4),
    }


def explain_ms(model: LoadedModel, device: Device, reader: ChromReader, middle: int) -> float:
    """Milliseconds of a site: 600 substitutions and 19 states, as `ebert explain` scores them."""
    mutagenesis = Mutagenesis(model, model_rescore(model.members, device, both_strands=True), 0, Settings())
    site = Site.of(Region(reader.chrom, middle - 100, middle + 100))
    _, clock, _ = timed(lambda: mutagenesis.effects(reader, site))
    return round(1e3 * clock)


def report(size: str, dataset: Dataset, chrom: str, cell: str, *, quick: bool) -> dict[str, Any]:
    """All figures of a size."""
    device, model = choose_device("cpu"), random_model(size)
    states = dataset.flat_states(cell) if cell in dataset.state_cells else None
    source = CellStates(cell, states, "dataset")
    judge = Judge(dataset, model, source)
    each_turn, plain, turns = (64, 2, 2) if quick else (256, 8, 5)
    found: dict[str, Any] = {}
    for name, apart in (("spread", CHR22_BP // NUM_VARIANTS), ("dense", DENSE_BP)):
        variants = snvs(judge, dataset, chrom, apart, each_turn * (turns + 2))
        found[name] = measure(model, device, variants, each_turn, plain, turns)
        print(f"{size}, {name}: {found[name]}", file=sys.stderr)
    if not quick:
        found["explain_ms"] = explain_ms(model, device, variants[0].reader, variants[0].start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        dataset, chrom, cell = chromosome(Path(name))
        sizes = {
            size: report(size, dataset, chrom, cell, quick=options.quick)
            for size in (("small",) if options.quick else ("tiny", "small"))
        }
    spread, dense = sizes["small"]["spread"], sizes["small"]["dense"]
    result = {
        "threads": options.threads,
        "precision": choose_device("cpu").describe(),
        "vs_plain": spread["vs_plain"],
        "vs_plain_dense": dense["vs_plain"],
        "variants_per_s": spread["variants_per_s"],
        "seconds_per_10000": spread["seconds_per_10000"],
        "seconds_per_10000_dense": dense["seconds_per_10000"],
        **sizes,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
