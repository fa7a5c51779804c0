"""What a token should be, and what the pre-training should hide and read: measured on real hg19 data, three seeds.

    python benchmarks/pretrain_choices.py               six variants, three seeds, about 80 minutes on one idle core
    python benchmarks/pretrain_choices.py --seeds 0     one seed; run others beside it with the same --work
    python benchmarks/pretrain_choices.py --quick       two variants, a few steps: shows only that the script works

Tokens of 10 and of 5 bp, each made in two ways: by the package's stem (motif detectors over single bases, pooled to a
token, beside the bases spelt out), and by a table of 5-mers (a token of 10 bp sums two 5-mers, each with its own
table). Twice as many tokens cost more, so all get the same compute, not the same windows: a step of each is timed in
turn on one thread, in CPU seconds, and --seconds and --finetune-seconds become steps by that, once per work folder.
Then the objective, with the stem's tokens of 10 bp and as many steps: only bases hidden (the default hides states
too), and DNA alone, no states read in either training.

Per seed and variant, on one thread: `ebert pretrain --preset tiny` on chr20 with the states of all cell types but K562,
hidden runs of 20 bp on average whatever the token. Judged by bits per base on chr20's held-back part: for all variants
the same windows with the same bases hidden, states shown. Then `ebert finetune --tf CTCF` on chr20 in GM12878 and
HeLa-S3, scored once, at its end, in K562 on a stretch of chr22: auPRC, both strands.

Data: EBERT_REAL_DATA, default ../shared/data. Every finished run is a line of WORK/runs.jsonl and is not repeated. Last
line: JSON with mean and spread (largest minus smallest) per variant.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebert_core.config import PRESETS, EncoderConfig, FinetuneConfig
from ebert_core.data.batches import GenomeStore, MaskedBatches
from ebert_core.data.dataset import Dataset
from ebert_core.data.masking import IGNORED
from ebert_core.data.windows import eligible_starts
from ebert_core.genome.regions import Region
from ebert_core.model import encoder as encoder_module
from ebert_core.model.checkpoint import PretrainingModel, read_checkpoint
from ebert_core.model.device import choose_device, keep_freed_memory
from ebert_core.settings import resolve
from ebert_core.vocabulary import BASE_MASKED, BASE_N, NUM_BASES, STATE_BIN_BP

ROOT = Path(__file__).resolve().parents[1]
K = 5
NUM_KMERS = NUM_BASES**K
STATES = 18
HIDDEN_RUN_BP = 20
JUDGED = "chr22:17000000-37000000"


class Variant(NamedTuple):
    """One way to pre-train: bases from a table or the stem, bp a token, and what else the commands are told."""

    table: bool
    token_bp: int
    pretrain: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()


DEFAULT = "stem, 10 bp"
VARIANTS = {
    DEFAULT: Variant(False, 10),
    "stem, 5 bp": Variant(False, 5),
    "two 5-mers": Variant(True, 10),
    "5-mers": Variant(True, 5),
    "only bases hidden": Variant(False, 10, ("--set", "masking.state_rate=0")),
    "no states": Variant(False, 10, ("--no-states",), ("--no-states",)),
}
JUDGING_STREAM = 1_000
QUICK_VARIANTS = (DEFAULT, "no states")


class KmerTable(nn.Module):
    """Bases (B, W) -> token embeddings (B, L, D): the sum over a token's 5-mers of a row of that 5-mer's table.

    Two further rows stand for a 5-mer that holds an N, and for a hidden one.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.kmers = config.token_bp // K
        # As the bases spelt out in the package's stem: each of t bases adds a weight of variance 1 / (5 t).
        self.rows = nn.Parameter(torch.randn(self.kmers * (NUM_KMERS + 2), config.width) * (5 * self.kmers) ** -0.5)
        self.register_buffer("powers", NUM_BASES ** torch.arange(K), persistent=False)
        self.register_buffer("first_row", torch.arange(self.kmers) * (NUM_KMERS + 2), persistent=False)

    def forward(self, bases: Tensor) -> Tensor:
        kmers = bases.long().unflatten(1, (-1, self.kmers, K))
        code = (kmers * self.get_buffer("powers")).sum(dim=-1)
        code = torch.where((kmers == BASE_N).any(dim=-1), NUM_KMERS, code)
        code = torch.where((kmers == BASE_MASKED).any(dim=-1), NUM_KMERS + 1, code)
        return F.embedding(code + self.get_buffer("first_row"), self.rows).sum(dim=2)


def use_table() -> None:
    """From here on, this process's encoders read k-mers."""
    encoder_module.Stem = KmerTable


@contextlib.contextmanager
def tokens_of(variant: str) -> Iterator[int]:
    """Encoders made in this context are of the variant; gives its bp a token."""
    package_stem = encoder_module.Stem
    encoder_module.Stem = KmerTable if VARIANTS[variant].table else package_stem
    try:
        yield VARIANTS[variant].token_bp
    finally:
        encoder_module.Stem = package_stem


def step_seconds(config: EncoderConfig, windows: int, window_bp: int) -> Callable[[], float]:
    """A function that takes one training step of random windows and says its CPU seconds."""
    module, device = PretrainingModel(config, STATES), choose_device("cpu")
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    bases = torch.randint(0, NUM_BASES, (windows, window_bp), dtype=torch.uint8)
    states = torch.randint(1, STATES + 1, (windows, window_bp // STATE_BIN_BP), dtype=torch.uint8)
    masked = torch.arange(0, windows * window_bp // config.token_bp, 7)

    def step() -> float:
        started = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        with device.autocast():
            logits = module.head.base_logits(module.encoder(bases, states), masked)
        logits.float().logsumexp(dim=-1).sum().backward()
        optimizer.step()
        return time.process_time() - started

    return step


def time_steps(rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds of a pre-training and of a fine-tuning step per variant, medians of variants timed in turn."""
    torch.set_num_threads(1)
    keep_freed_memory()
    preset, fine = PRESETS["tiny"], FinetuneConfig()
    steps, parts = {}, preset.global_batch // preset.micro_batch
    for variant, (_, _, *told) in VARIANTS.items():
        if any(told):
            continue  # as many steps as the default's
        with tokens_of(variant) as token_bp:
            config = preset.encoder.model_copy(update={"token_bp": token_bp})
            steps[variant] = (
                step_seconds(config, preset.micro_batch, preset.window_bp),
                step_seconds(config, fine.global_batch, fine.window_bp),
            )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, (pretrain, finetune) in steps.items():
            took = parts * pretrain(), finetune()
            if number >= 2:
                found[name].append(took)
    return {
        name: {"pretrain": statistics.median(a for a, _ in took), "finetune": statistics.median(b for _, b in took)}
        for name, took in found.items()
    }


def ebert(folder: Path, table: bool, *arguments: str) -> None:
    """Run one command of the package in `folder`, on one thread, with a table of k-mers or as it is."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
    code += "from pretrain_choices import use_table; use_table()\n" if table else ""
    code += "from ebert_cli.app import main; main()"
    subprocess.run([sys.executable, "-c", code, *arguments, "--quiet"], cwd=folder, check=True)


def prepare(folder: Path) -> None:
    data = Path(os.environ.get("EBERT_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        sys.exit(f"no real hg19 files in {data}; name their folder with EBERT_REAL_DATA")
    data = data.resolve()
    ebert(folder, False, "prepare", "--genome", str(data / "genome/hg19.chr20_21_22.fa.gz"),
          "--states", str(data / "states/roadmap18"), "--chip", str(data / "chip/uniform"),
          "--exclude", str(data / "annotation/wgEncodeDacMapabilityConsensusExcludable.bed.gz"))  # fmt: skip


def run_once(folder: Path, variant: str, seed: int, steps: tuple[int, int], quick: bool) -> dict[str, float]:
    """Pre-train and fine-tune one variant: bits per base, auPRC."""
    table, token_bp, *told = VARIANTS[variant]
    place = f"{variant.replace(',', '').replace(' ', '-')}-{seed}"
    common = ["--seed", str(seed), "--threads", "1", "--overwrite"]
    ebert(folder, table, "pretrain", "--preset", "tiny", "--chrom", "chr20", "--exclude-cell", "K562", *common,
          "--steps", str(steps[0]), "--set", f"encoder.token_bp={token_bp}",
          "--set", f"masking.dna_span_tokens={HIDDEN_RUN_BP / token_bp}", "--set", f"evaluate_every={steps[0]}",
          "--output", f"pretrained/{place}", *told[0])  # fmt: skip
    judged = "chr22:20000000-21000000" if quick else JUDGED
    ebert(folder, table, "finetune", "--tf", "CTCF", "--chrom", "chr20,chr22", "--valid-cell", "K562",
          "--valid-chrom", judged, "--hold-out-chrom", "chr22:1-17000000,chr22:37000000-51304566", *common,
          "--checkpoint", f"pretrained/{place}", "--steps", str(steps[1]), "--set", f"evaluate_every={steps[1]}",
          "--set", "valid_bp=1000000", "--output", f"models/{place}", *told[1])  # fmt: skip
    model = json.loads((folder / "models" / place / "ebert.json").read_text())
    return {
        "bits_per_base": held_out_bits(folder, place, variant, 16 if quick else 1_024),
        "auprc": model["validation"]["CTCF/K562"]["auprc"],
    }


@torch.inference_mode()
def held_out_bits(folder: Path, place: str, variant: str, windows: int, part: int = 16) -> float:
    """Bits per hidden base of the held-back part; every variant is shown the same windows, hidden alike."""
    with tokens_of(variant) as token_bp:
        module, _, manifest = read_checkpoint(folder / "pretrained" / place)
    shown = resolve(PRESETS["tiny"], None, ["masking.state_rate=0", "masking.state_dropout=0"])
    reads_states = manifest["config"]["use_states"]
    dataset, device = Dataset.open(folder / "dataset"), choose_device("cpu")
    starts = eligible_starts(dataset, [Region(*entry) for entry in manifest["data"]["valid"]], shown.window_bp)
    store = GenomeStore(dataset, manifest["data"]["cells"], device.device)
    batches, pieces = MaskedBatches(store, starts, shown), shown.encoder.token_bp // token_bp
    nats, bases = 0.0, 0
    for first in range(0, windows, part):
        batch = batches.draw(JUDGING_STREAM, 0, first, part, windows)
        # A hidden token of 10 bp is two neighbouring tokens of 5 bp.
        hidden = (batch.base_index[:, None] * pieces + torch.arange(pieces)).flatten()
        with device.autocast():
            states = batch.states if reads_states else torch.zeros_like(batch.states)
            logits = module.head.base_logits(module.encoder(batch.bases, states), hidden)
        targets = batch.base_targets.flatten()
        nats += F.cross_entropy(
            logits.float().view(-1, NUM_BASES), targets, ignore_index=IGNORED, reduction="sum"
        ).item()
        bases += int((targets != IGNORED).sum())
    return nats / bases / math.log(2)


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as handle:
        handle.write(json.dumps(record) + "\n")
    print(json.dumps(record), file=sys.stderr, flush=True)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variant in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == variant]
        figures = {name: [run[name] for run in own] for name in ("bits_per_base", "auprc")}
        found[variant] = {"seeds": sorted(run["seed"] for run in own)} | {
            name: {"mean": round(statistics.mean(values), 4), "spread": round(max(values) - min(values), 4)}
            for name, values in figures.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("work/pretrain_choices"), help="folder of the dataset and the runs"
    )
    parser.add_argument("--seconds", type=float, default=120, help="CPU seconds of a pre-training")
    parser.add_argument("--finetune-seconds", type=float, default=90, help="CPU seconds of a fine-tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.work, options.seeds = options.work / "quick", options.seeds[:1]
        options.seconds, options.finetune_seconds = 2.0, 2.0
    options.work.mkdir(parents=True, exist_ok=True)
    log, times = options.work / "runs.jsonl", options.work / "step_seconds.json"
    if not times.exists():
        times.write_text(json.dumps(time_steps(3 if options.quick else 15), indent=1))
    seconds = json.loads(times.read_text())
    if not (options.work / "dataset").exists():
        prepare(options.work)
    budget = {"seconds": options.seconds, "finetune_seconds": options.finetune_seconds}
    for seed in options.seeds:
        for variant in QUICK_VARIANTS if options.quick else VARIANTS:
            key = {"variant": variant, "seed": seed, **budget}
            if any(key.items() <= run.items() for run in kept(log)):
                continue
            timed = seconds.get(variant, seconds[DEFAULT])
            steps = round(options.seconds / timed["pretrain"]), round(options.finetune_seconds / timed["finetune"])
            found = run_once(options.work, variant, seed, steps, options.quick)
            keep(log, key | {"pretrain_steps": steps[0], "finetune_steps": steps[1], **found})
    runs = [run for run in kept(log) if budget.items() <= run.items()]
    print(json.dumps({**budget, "step_seconds": seconds, "variants": summary(runs)}))


if __name__ == "__main__":
    main()
