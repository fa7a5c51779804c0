"""Speed of a pre-training step on one CPU core, beside Hugging Face's BERT and the core's own bf16 matrix products.

    python benchmarks/pretrain.py            `small` and `base`, about 4 minutes on one core, 8 GB
    python benchmarks/pretrain.py --quick    `small` alone, fewer rounds; under a minute

A step is forward, loss on 15 % masked tokens, backward and fused AdamW, without dropout, on one thread pinned to one
core. All programs of a size run in turn, step by step in one process. Medians of CPU seconds are compared: what others
take from the core does not count, and what they take from the caches slows all alike.

Ours reads DNA and states, 520 tokens a window (26 whole state bins of 20 tokens). The other is `BertForMaskedLM` of
transformers with the same layers, width, heads and windows per step, 512 tokens, and a vocabulary of all 6-mers and
five special tokens: in fp32, as it runs unless told otherwise, and under bf16 autocast. It is no dependency of ebert;
without it the ratios are null. To have it:  pip install transformers

FLOPs per token, forward (D width, L tokens, C detectors of K bp, t bp a token, m masked share):
layers x (24 D^2 + 4 L D), stem 10 C K t + 2 C D + 10 t D, head m (2 D^2 + 8 t D). A backward pass costs twice as much,
but only as much for what reads the bases themselves (detectors, spelling): they are no parameters. MFU: these FLOPs per
second / the best rate of bf16 matrix products, measured between the steps.

Last line: JSON with small_vs_hf_fp32, small_vs_hf_bf16, base_vs_hf_fp32, base_vs_hf_bf16 (tokens per second, ours /
theirs), small_mfu, base_mfu, tokens per second of each, and `paper`: hours for one pass of `base` over 127 x hg19 on
H200 cards. No card is measured here: `paper` is arithmetic on the assumptions printed with it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ebert_core.config import PRESETS, EncoderConfig
from ebert_core.genome.assembly import Assembly
from ebert_core.model.checkpoint import PretrainingModel
from ebert_core.model.device import choose_device, keep_freed_memory
from ebert_core.model.encoder import count_parameters
from ebert_core.vocabulary import NUM_BASES, STATE_BIN_BP

STATES = 18
WINDOW_BP, THEIR_TOKENS = 5_200, 512
MASKED_SHARE = 0.15
WINDOWS = 4
ROUNDS = {"small": 15, "base": 5}
QUICK_ROUNDS = 5
SPECIAL_TOKENS = 5
VOCABULARY = 4**6 + SPECIAL_TOKENS
# (rows, inner, columns) of bf16 products: square ones, and those of the two sizes' own layers.
PEAK_SHAPES = [(1024, 1024, 1024), (2048, 1024, 1024), (2048, 256, 768), (2048, 768, 3072), (2048, 3072, 768)]
# Assumptions of the estimate on paper: rates and bandwidths as published for the H200 (bf16 without sparsity; NVLink in
# one direction; one 400-Gb/s link per card between machines of 8), gradients exchanged in fp32 after each step.
PAPER = {
    "epigenomes": 127,
    "card_tflops": 989,
    "share_of_card": 0.4,
    "gbytes_per_s_within_8": 450,
    "gbytes_per_s_between": 50,
    "bytes_per_gradient": 4,
}

Step = Callable[[], None]


def flops_per_token(config: EncoderConfig, num_tokens: int) -> float:
    """FLOPs of a training step per token: the formula of this file's head."""
    width, layers = config.width, config.num_layers
    blocks = layers * (24 * width**2 + 4 * num_tokens * width)
    from_motifs = 2 * config.stem_channels * width
    head = MASKED_SHARE * (2 * width**2 + 2 * NUM_BASES * config.token_bp * width)
    reads_bases = 10 * config.token_bp * (config.stem_channels * config.stem_kernel_bp + width)
    return 3 * (blocks + from_motifs + head) + 2 * reads_bases


def masked_places(num_windows: int, num_tokens: int) -> torch.Tensor:
    """The same number of random tokens of each window, as places in the flat batch."""
    each = round(MASKED_SHARE * num_tokens)
    return torch.cat([torch.randperm(num_tokens)[:each].sort().values + w * num_tokens for w in range(num_windows)])


def our_step(config: EncoderConfig, num_windows: int) -> Step:
    module, device = PretrainingModel(config, STATES), choose_device("cpu", "bf16")
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    bases = torch.randint(0, NUM_BASES, (num_windows, WINDOW_BP), dtype=torch.uint8)
    states = torch.randint(1, STATES + 1, (num_windows, WINDOW_BP // STATE_BIN_BP), dtype=torch.uint8)
    masked = masked_places(num_windows, WINDOW_BP // config.token_bp)
    targets = torch.randint(0, NUM_BASES, (len(masked) * config.token_bp,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with device.autocast():
            logits = module.head.base_logits(module.encoder(bases, states), masked)
        F.cross_entropy(logits.float().view(-1, NUM_BASES), targets).backward()
        optimizer.step()

    return step


def their_step(config: EncoderConfig, num_windows: int, *, bf16: bool) -> Step:
    """`BertForMaskedLM`; `ImportError` without transformers."""
    from transformers import BertConfig, BertForMaskedLM

    shape = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_ratio * config.width,
        max_position_embeddings=THEIR_TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    module = BertForMaskedLM(shape).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(SPECIAL_TOKENS, VOCABULARY, (num_windows, THEIR_TOKENS))
    masked = masked_places(num_windows, THEIR_TOKENS)
    labels = torch.full_like(tokens, -100)
    labels.view(-1)[masked] = tokens.view(-1)[masked]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = module(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()

    return step


def products() -> dict[tuple[int, int, int], Step]:
    """bf16 matrix products, each into memory of its own."""

    def product(rows: int, inner: int, columns: int) -> Step:
        left, right = torch.randn(rows, inner).bfloat16(), torch.randn(inner, columns).bfloat16()
        out = torch.empty(rows, columns, dtype=torch.bfloat16)
        return lambda: torch.mm(left, right, out=out)

    return {shape: product(*shape) for shape in PEAK_SHAPES}


def seconds(step: Step) -> float:
    started = time.process_time()
    step()
    return time.process_time() - started


def measure(config: EncoderConfig, num_windows: int, rounds: int) -> dict[str, Any]:
    """Median seconds of each program, and the peak, in GFLOP/s; the first round warms up."""
    steps = {"ebert": our_step(config, num_windows)}
    try:
        steps |= {
            f"hf_{'bf16' if bf16 else 'fp32'}": their_step(config, num_windows, bf16=bf16) for bf16 in (False, True)
        }
    except ImportError as error:
        print(f"Hugging Face left out: {error}; to have it: pip install transformers", file=sys.stderr)
    found: dict[str, list[float]] = {name: [] for name in steps}
    rates: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in PEAK_SHAPES}
    peak_steps = products()
    for number in range(rounds + 1):
        for name, step in steps.items():
            took = seconds(step)
            for shape, product in peak_steps.items():
                rates[shape] += [2 * shape[0] * shape[1] * shape[2] / seconds(product) / 1e9 for _ in range(4)]
            if number:
                found[name].append(took)
    return {
        "seconds": {name: statistics.median(values) for name, values in found.items()},
        "peak_gflops": max(statistics.median(values) for values in rates.values()),
    }


def report(size: str, rounds: int) -> dict[str, Any]:
    """The figures of one size."""
    # The preset's dropout is left out on both sides.
    config = PRESETS[size].encoder.model_copy(update={"dropout": 0.0})
    num_tokens, num_windows = WINDOW_BP // config.token_bp, WINDOWS
    measured = measure(config, num_windows, rounds)
    rates = {
        name: num_windows * (num_tokens if name == "ebert" else THEIR_TOKENS) / took
        for name, took in measured["seconds"].items()
    }
    gflops = rates["ebert"] * flops_per_token(config, num_tokens) / 1e9
    print(f"{size}: {gflops:.0f} of {measured['peak_gflops']:.0f} GFLOP/s; tokens/s {rates}", file=sys.stderr)
    ratios = {
        f"{size}_vs_{name}": round(rates["ebert"] / rates[name], 2) if name in rates else None
        for name in ("hf_fp32", "hf_bf16")
    }
    return ratios | {
        f"{size}_mfu": round(gflops / measured["peak_gflops"], 3),
        f"{size}_peak_gflops": round(measured["peak_gflops"]),
        f"{size}_tokens_per_s": {name: round(rate) for name, rate in rates.items()},
    }


def on_paper() -> dict[str, Any]:
    """Hours of one pass of `base` over 127 x hg19 and what is sent meanwhile, from the assumptions alone."""
    preset = PRESETS["base"]
    num_tokens = preset.window_bp // preset.encoder.token_bp
    tokens = PAPER["epigenomes"] * sum(Assembly.built_in("hg19").lengths) / preset.encoder.token_bp
    steps = tokens / (preset.global_batch * num_tokens)
    with torch.device("meta"):
        gradient_bytes = PAPER["bytes_per_gradient"] * count_parameters(PretrainingModel(preset.encoder, STATES))
    compute_s = (
        tokens * flops_per_token(preset.encoder, num_tokens) / (1e12 * PAPER["card_tflops"] * PAPER["share_of_card"])
    )
    cards = {}
    for count in (1, 8, 64):
        # Each card of a ring sends and receives 2 (n - 1) / n of the gradients; nothing is hidden behind computing.
        sent = steps * gradient_bytes * 2 * (count - 1) / count
        rate = 1e9 * PAPER["gbytes_per_s_within_8" if count <= 8 else "gbytes_per_s_between"]
        cards[str(count)] = {
            "hours": round((compute_s / count + sent / rate) / 3600, 2),
            "sent_per_card_tb": round(sent / 1e12, 1),
        }
    return {"measured": False, "assumed": PAPER, "tokens": tokens, "steps": round(steps), "cards": cards}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to run on")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    result: dict[str, Any] = {}
    for size in ("small",) if options.quick else ("small", "base"):
        result |= report(size, QUICK_ROUNDS if options.quick else ROUNDS[size])
    print(json.dumps(result | {"paper": on_paper()}))


if __name__ == "__main__":
    main()
