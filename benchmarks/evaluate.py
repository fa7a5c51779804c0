"""What it takes to score the challenge's ladder, beside scikit-learn and bedtools in the same run.

    python benchmarks/evaluate.py            10 M bins, three ladder chromosomes, about 4 minutes, 1 GB of disk
    python benchmarks/evaluate.py --quick    2 M bins, chr21's labels, the ladder from a bigWig alone; under a minute

The scores are simulated: a quarter of a percent of the bins is bound, in runs, and scores higher. The bins are the
challenge's own 8,843,011 rows on chr1, chr8 and chr21: EBERT_REAL_DATA (default ../shared/data) must hold
dream/test_regions.blacklistfiltered.merged.bed. Needs bedtools on the PATH.

Last line: JSON with
  measures_vs_sklearn   seconds of scikit-learn's three calls / seconds of all our measures
  measures_memory       peak memory of our measures beyond the scores / memory of the scores
  measures_difference   largest difference in auROC and average precision
  labels_vs_bedtools    seconds of bedtools / seconds of our labels, from peak files to labels of the same bins
  labels_different      bins labelled otherwise than by bedtools
  labels_genome_s       seconds of our labels of all 60.5 M bins
  ladder_s, peak_rss_mb of `ebert evaluate --challenge final` of one pair, by kind of file: reading, checking every
                        row, all measures, ten subsamples, rank, 1,000 resamples
and under `ladders` both files' figures; `intervals_hold_their_figure` is the share of measures inside their interval.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from ebert_core.evaluation.challenge import RANKED_ROWS
from ebert_core.evaluation.measures import measure
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND, label_bins
from ebert_core.io.bed import read_bin_regions, read_peaks
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.io.labels import write_label_table

REGIONS = "dream/test_regions.blacklistfiltered.merged.bed"
TF, CELL = "CTCF", "PC-3"


def simulated(num_bins: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores and labels: bound runs of eight bins, a quarter of a percent in all, score higher."""
    bound = np.zeros(num_bins, bool)
    for first in rng.choice(num_bins - 8, num_bins // 3200, replace=False).tolist():
        bound[first : first + 8] = True
    logit = rng.normal(-6, 2, num_bins).astype(np.float32) + np.float32(5) * bound
    return (1 / (1 + np.exp(-logit))).astype(np.float32), bound


def compare_measures(num_bins: int) -> dict[str, float]:
    scores, bound = simulated(num_bins, np.random.default_rng(0))
    ours = []
    for _ in range(3):
        started = time.perf_counter()
        found = measure(scores, bound)
        ours.append(time.perf_counter() - started)
    started = time.perf_counter()
    auroc, ap = roc_auc_score(bound, scores), average_precision_score(bound, scores)
    precision_recall_curve(bound, scores)
    theirs = time.perf_counter() - started
    tracemalloc.start()
    measure(scores, bound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "bins": num_bins,
        "measures_vs_sklearn": round(theirs / float(np.median(ours)), 1),
        "measures_memory": round(peak / scores.nbytes, 2),
        "measures_difference": max(abs(found.auroc - auroc), abs(found.average_precision - ap)),
    }


def write_peaks(path: Path, assembly: Assembly, count: int, rng: np.random.Generator) -> None:
    """Random peaks of 100 to 600 bp over the genome, unsorted, as narrowPeak."""
    chroms = rng.choice(len(assembly.chroms), count, p=np.array(assembly.lengths) / sum(assembly.lengths))
    with path.open("w", encoding="ascii") as handle:
        for index in chroms.tolist():
            start, width = int(rng.integers(assembly.lengths[index] - 1000)), int(rng.integers(100, 600))
            ends = f"{start}\t{start + width}"
            handle.write(f"{assembly.chroms[index]}\t{ends}\t.\t0\t.\t{rng.random():.4f}\t-1\t-1\t{width // 2}\n")


def bedtools_labels(folder: Path, windows: Path, num_bins: int) -> NDArray[np.uint8]:
    """The organisers' way: merge both peak sets, count overlaps per bin, apply the rule."""
    counts = []
    for name, options in (("strong", "-f 0.5 -F 0.5 -e"), ("weak", "")):
        script = (
            f"bedtools sort -i {name}.narrowPeak -g sizes | bedtools merge -i - > {name}.bed && "
            f"bedtools intersect -sorted -g sizes -c {options} -a {windows} -b {name}.bed | cut -f 4"
        )
        done = subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True)
        counts.append(np.array(done.stdout.split(), dtype=np.int64))
        assert len(counts[-1]) == num_bins
    strong, weak = counts
    labels = np.full(num_bins, AMBIGUOUS, np.uint8)
    labels[(strong == 0) & (weak == 0)] = UNBOUND
    labels[(strong == 1) & (weak == 1)] = BOUND
    return labels


def our_labels(folder: Path, bins: BenchmarkBins, chroms: tuple[str, ...]) -> NDArray[np.uint8]:
    strong = read_peaks(folder / "strong.narrowPeak", bins.assembly)
    weak = read_peaks(folder / "weak.narrowPeak", bins.assembly)
    return np.concatenate([label_bins(bins.starts(c), strong.on(c), weak.on(c)) for c in chroms])


def compare_labels(folder: Path, bins: BenchmarkBins, chroms: tuple[str, ...]) -> dict[str, float]:
    rng = np.random.default_rng(1)
    write_peaks(folder / "strong.narrowPeak", bins.assembly, 50_000, rng)
    write_peaks(folder / "weak.narrowPeak", bins.assembly, 150_000, rng)
    text = (folder / "strong.narrowPeak").read_text()  # conservative peaks are among the relaxed ones
    with (folder / "weak.narrowPeak").open("a") as handle:
        handle.write(text)
    sizes = zip(bins.assembly.chroms, bins.assembly.lengths, strict=True)
    (folder / "sizes").write_text("".join(f"{chrom}\t{length}\n" for chrom, length in sorted(sizes)))
    windows = folder / "windows.bed"
    with windows.open("w") as handle:
        for chrom in chroms:
            handle.writelines(f"{chrom}\t{start}\t{start + 200}\n" for start in bins.starts(chrom).tolist())
    started = time.perf_counter()
    ours = our_labels(folder, bins, chroms)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    theirs = bedtools_labels(folder, windows, len(ours))
    theirs_seconds = time.perf_counter() - started
    started = time.perf_counter()
    our_labels(folder, bins, bins.chroms)
    return {
        "labels_bins": len(ours),
        "labels_vs_bedtools": round(theirs_seconds / seconds, 1),
        "labels_different": int((ours != theirs).sum()),
        "labels_genome_s": round(time.perf_counter() - started, 2),
    }


def write_ladder(folder: Path, bins: BenchmarkBins, *, text: bool) -> dict[str, Path]:
    """A label table and one prediction as bigWig and, if asked, as a submission."""
    rng = np.random.default_rng(2)
    found, labels = {}, {}
    for chrom in sorted(RANKED_ROWS):
        starts = bins.starts(chrom)
        scores, bound = simulated(len(starts), rng)
        code = np.where(bound, BOUND, UNBOUND).astype(np.uint8)
        code[(np.roll(bound, 1) | np.roll(bound, -1)) & ~bound] = AMBIGUOUS
        labels[chrom] = (starts, code[:, None])
        found[chrom] = (starts, scores)
    (folder / "labels").mkdir()
    write_label_table(folder / "labels" / f"{TF}.test.labels.tsv.gz", [CELL], labels)
    files = {"bigwig": folder / "bigwig" / f"F.{TF}.{CELL}.bw"}
    files["bigwig"].parent.mkdir()
    with BigWigWriter(files["bigwig"], bins.assembly) as writer:
        for chrom in [chrom for chrom in bins.assembly.chroms if chrom in found]:
            starts, scores = found[chrom]
            for run in np.split(np.arange(len(starts)), np.flatnonzero(np.diff(starts) != 50) + 1):
                writer.write_fixed_step(chrom, int(starts[run[0]]) + 75, scores[run], 50, 50)
    if text:
        files["tab_gz"] = folder / "tab_gz" / f"L.{TF}.{CELL}.tab.gz"
        files["tab_gz"].parent.mkdir()
        command = ["gzip", "-4", "-c"]
        with files["tab_gz"].open("wb") as out, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out) as pipe:
            assert pipe.stdin is not None
            for chrom in sorted(found):
                starts, scores = found[chrom]
                for at in range(0, len(starts), 1 << 18):
                    rows = zip(starts[at : at + (1 << 18)].tolist(), scores[at : at + (1 << 18)].tolist(), strict=True)
                    pipe.stdin.write("".join(f"{chrom}\t{a}\t{a + 200}\t{b:.9g}\n" for a, b in rows).encode())
    return files


def run_ladder(folder: Path, path: Path, regions: Path) -> dict[str, float]:
    command = [
        sys.executable, "-m", "ebert_cli", "evaluate", "--challenge", "final", str(path), "--labels", "labels",
        "--regions", str(regions), "--no-baselines", "-o", "-", "--format", "json", "--quiet",
    ]  # fmt: skip
    started = time.monotonic()
    with (folder / "result.json").open("wb") as out:
        child = subprocess.Popen(command, cwd=folder, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit("evaluate failed")
    seconds = time.monotonic() - started
    content = json.loads((folder / "result.json").read_text())
    row = content["evaluations"][0]["rows"][0]
    inside = [each["lower"] <= row["measures"][key] <= each["upper"] for key, each in row["intervals"].items()]
    return {
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(usage.ru_maxrss * 1024 / 1e6),
        "bins": row["measures"]["num_bins"],
        "auprc": row["measures"]["auprc"],
        "intervals_hold_their_figure": sum(inside) / len(inside),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    data = Path(os.environ.get("EBERT_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    regions = (data / REGIONS).resolve()
    if not regions.is_file():
        sys.exit(f"{regions} is not there; set EBERT_REAL_DATA")
    assembly = Assembly.built_in("hg19")
    bins = BenchmarkBins.from_regions(assembly, read_bin_regions(regions, assembly)[0])
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_ladder(folder, bins, text=not quick)
        ladders = {kind: run_ladder(folder, path, regions) for kind, path in files.items()}
        for kind, ladder in ladders.items():
            print(f"ladder from {kind}: {ladder}", file=sys.stderr)
        result |= compare_labels(folder, bins, ("chr21",) if quick else tuple(sorted(RANKED_ROWS)))
    result |= compare_measures(2_000_000 if quick else 10_000_000)
    result["ladder_s"] = max(each["seconds"] for each in ladders.values())
    result["peak_rss_mb"] = max(each["peak_rss_mb"] for each in ladders.values())
    result["ladders"] = ladders
    print(json.dumps(result))


if __name__ == "__main__":
    main()
