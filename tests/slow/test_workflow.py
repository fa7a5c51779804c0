"""The Snakemake workflow of examples/: its table is checked, it runs, is stopped, killed and goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyBigWig
import pytest

from ebert_core.inference.output_files import FORMATS, OutputSet
from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.world import build_world

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "examples" / "workflow"
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
PATIENCE_S = 900
SMALL_WORLD = WorldConfig(
    seed=5,
    chrom_lengths=(("chr1", 400_417), ("chr2", 200_863), ("chr3", 250_000), ("chrUn_1", 6_337)),
    cells=("SimBlood", "SimLiver", "SimBrain"),
    cells_without_accessibility=("SimLiver",),
    test_cell="SimBrain",
    test_chrom="chr3",
    validation_chrom="chr2",
    marginal_cells=3,
)
TABLE = "tf\tcell\tevaluate\tmodel\nSIMCTCF\tSimBrain\tyes\tboth\nSIMMAX\tSimBrain\tyes\tboth\n"
ONE_MORE = "SIMCTCF\tSimLiver\tno\tboth\n"
SHAPE = "--set encoder.width=16 --set encoder.num_layers=1 --set encoder.num_heads=2 --set encoder.stem_channels=8"
CONFIG = {
    "samples": "samples.tsv",
    "inputs": {"genome": "world/genome.fa", "states": "world/states", "chip": "world/chip",
               "accessibility": "world/dnase", "exclude": ["world/exclude.bed"]},
    "motifs": "world/motifs.meme",
    "start": "pretrain",
    "preset": "tiny",
    "test_chroms": ["chr3"],
    "predict_chroms": ["chr2", "chr3"],
    "formats": ["bigwig", "narrowpeak"],
    "shards": 2,
    "max_time": "1h",
    "retries": 2,
    "options": {
        "pretrain": f"--quiet --steps 2 --set valid_windows=1 --set optimizer.warmup_fraction=0 {SHAPE}",
        "finetune": "--steps 40 --set checkpoint_minutes=0.01 --set valid_bp=50000 --valid-chrom chr2",
        "evaluate": "--bootstrap 100 --block-bp 10000",
    },
    "resources": {name: {"threads": 1, "mem_mb": 2_000, "runtime": 10}
                  for name in ("prepare", "pretrain", "finetune", "predict", "merge", "evaluate")},
}  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """The workflow's own module; it is no part of the package."""
    spec = importlib.util.spec_from_file_location("workflow_tables", WORKFLOW / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A copy of the workflow's folder, as a user makes it, with a table and settings of the toy kind."""
    folder = tmp_path / "lab"
    shutil.copytree(WORKFLOW, folder, ignore=shutil.ignore_patterns("__pycache__"))
    # Tells who runs a command, so that a test can stop it.
    program = folder / "ebert.sh"
    program.write_text(f'#!/bin/sh\necho $$ >"$1.pid"\nexec {sys.executable} -m ebert_cli "$@"\n')
    program.chmod(0o755)
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, "ebert": "./ebert.sh"}))
    (folder / "samples.tsv").write_text(TABLE)
    return folder


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("", "is empty; expected a header with the columns tf and cell"),
        ("tf\tcell\n", "has a header and no row"),
        ("TF,Cell\nCTCF,K562\n", "line 1: the header has no column tf (found: tf,cell)"),
        ("tf\tcell\tcel\nCTCF\tK562\tx\n", "line 1: column 'cel' is unknown"),
        ("tf\tcell\ttf\nCTCF\tK562\tx\n", "line 1: column 'tf' stands in the header twice"),
        ("tf\tcell\nCTCF\n", "line 2: has 1 columns, the header has 2"),
        ("tf\tcell\n# note\n\nCTCF\t\n", "line 4: cell is ''; expected a name of letters"),
        ("tf\tcell\nCTCF;rm\tK562\n", "line 2: tf is 'CTCF;rm'; expected a name of letters"),
        ("tf\tcell\nCTCF\t../K562\n", "line 2: cell is '../K562'; expected a name of letters"),
        ("tf\tcell\tevaluate\nCTCF\tK562\tmaybe\n", "line 2: evaluate is 'maybe'; expected yes or no"),
        ("tf\tcell\tmodel\nCTCF\tK562\ta b\n", "line 2: model is 'a b'; expected a name of letters"),
        ("tf\tcell\nCTCF\tK562\nMAX\tK562\nCTCF\tK562\n", "line 4: CTCF in K562 stands in line 2 already"),
    ],
)
def test_a_bad_table_is_told_by_its_line(tables: ModuleType, tmp_path: Path, table: str, error: str) -> None:
    path = tmp_path / "samples.tsv"
    path.write_text(table)
    with pytest.raises(tables.TableError) as caught:
        tables.read_rows(str(path))
    assert str(caught.value).startswith(str(path))
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_table_asks_for(tables: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.tsv"
    path.write_text("cell\ttf\tmodel\tevaluate\nK562\tCTCF\tboth\tYES\nK562\tMAX\tboth\t\nA549\tMAX\tboth\tno\n"
                    "HepG2\tREST\t\tno\n")  # fmt: skip
    rows = tables.read_rows(str(path))
    assert [(run.model, run.cell, run.tfs) for run in tables.runs(rows)] == [
        ("both", "K562", ("CTCF", "MAX")), ("both", "A549", ("MAX",)), ("REST", "HepG2", ("REST",)),
    ]  # fmt: skip
    assert tables.tfs_of(rows, "both") == ["CTCF", "MAX"]
    assert tables.held_out(rows, "both") == ["K562"]
    assert tables.held_out(rows, "REST") == []


@pytest.mark.parametrize("number", [1, 2, 15, 40])
def test_files_are_called_as_predict_calls_them(tables: ModuleType, number: int) -> None:
    tfs = tuple(f"FACTOR{each}" for each in range(number))
    run = tables.Run("all", "K562", tfs)
    names = OutputSet.named(Path("predictions"), tfs, "K562", tuple(FORMATS))
    assert run.stem == names.stem
    written = [path for output in names.of_tf for path in (*output.files.values(), output.sidecar)]
    assert sorted(run.files(list(FORMATS))) == sorted(map(str, [*written, *names.shared.values()]))


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("CTFC\tK562\tno", "no labels of 'CTFC'; did you mean CTCF?"),
        ("CTCF\tk562\tno", "neither states nor accessibility of 'k562'; did you mean K562?"),
        ("CTCF\tE123\tno", "neither states nor accessibility of 'E123'; did you mean K562?"),
        ("CTCF\tXX\tno", "neither states nor accessibility of 'XX'; it knows A549, K562"),
        ("CTCF\tA549\tyes", "evaluate is yes, and CTCF has labels in K562 only; expected no"),
        ("CTCF\tA549\tno", None),
    ],
)
def test_names_that_the_dataset_does_not_know(tables: ModuleType, tmp_path: Path, row: str, error: str | None) -> None:
    path, manifest = tmp_path / "samples.tsv", tmp_path / "ebert.json"
    path.write_text(f"tf\tcell\tevaluate\n{row}\n")
    known = {"labels": {"CTCF": {"K562": {}}}, "states": {"K562": {}, "A549": {}}, "aliases": {"E123": "K562"}}
    manifest.write_text(json.dumps(known))
    rows = tables.read_rows(str(path))
    if error is None:
        tables.require_known(rows, str(path), str(manifest))
        return
    with pytest.raises(tables.TableError) as caught:
        tables.require_known(rows, str(path), str(manifest))
    assert f"{path}, line 2: " in str(caught.value)
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"shard": 4}, "'shard' is unknown; did you mean shards?"),
        ({"shards": 0}, "shards is 0; expected a whole number of 1 or more"),
        ({"retries": "many"}, "retries is 'many'; expected a whole number of 0 or more"),
        ({"start": "elsewhere"}, "start is 'elsewhere'; expected pretrain, scratch, or the folder of a checkpoint"),
        ({"preset": "huge"}, "preset is 'huge'; expected one of tiny"),
        ({"formats": ["bigwig", "bam"]}, "formats: 'bam' is unknown"),
        ({"formats": ["narrowpeak"]}, "formats lacks bigwig"),
        ({"max_time": 12}, "max_time is 12; expected a time such as 11h30m"),
        ({"inputs": {"genome": "none.fa", "chip": "world/chip"}}, "inputs: genome: none.fa is not there"),
        ({"inputs": {"genome": "world/genome.fa"}}, "inputs: chip is missing"),
        ({"resources": {}}, "resources: prepare is missing"),
        ({"test_chroms": [1]}, "test_chroms: 1 is no text"),
    ],
)
def test_bad_settings(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("world/states", "world/chip", "world/dnase"):
        Path(path).mkdir(parents=True)
    for path in ("world/genome.fa", "world/exclude.bed", "world/motifs.meme"):
        Path(path).touch()
    good = {**CONFIG, "ebert": "ebert"}
    assert tables.read_settings(good).shards == 2
    with pytest.raises(tables.TableError) as caught:
        tables.read_settings({**good, **change})
    assert str(caught.value).startswith("config.yaml")
    assert error in str(caught.value)


def test_a_dataset_is_known_by_its_files(tables: ModuleType, tmp_path: Path) -> None:
    files, mark = [str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "mark")
    for path in files:
        Path(path).write_text("text")
    assert not tables.is_checked(mark, files)
    tables.write_checked(mark, files)
    assert tables.is_checked(mark, files)
    assert not tables.is_checked(mark, files[:1])
    Path(files[0]).write_text("more text")
    assert not tables.is_checked(mark, files)


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it says is in `stderr`."""
    command = [SNAKEMAKE, "--profile", "profiles/local", "--cores", "2", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that a run in the background does."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
def test_a_bad_table_stops_it_before_anything_runs(lab: Path) -> None:
    build_world(SMALL_WORLD, lab / "world")
    (lab / "samples.tsv").write_text(TABLE.replace("yes", "perhaps"))
    done = snakemake(lab)
    assert done.returncode == 1
    assert "samples.tsv, line 2: evaluate is 'perhaps'; expected yes or no" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(lab.glob("*.pid"))


@pytest.mark.slow
def test_the_demo_world_stopped_killed_and_continued(lab: Path) -> None:
    """Fine-tuning is asked to save (exit code 75) and requeued; all is killed amid the predictions, and goes on."""
    build_world(SMALL_WORLD, lab / "world")
    command = [SNAKEMAKE, "--profile", "profiles/local", "--cores", "2"]
    with (lab / "first.log").open("w") as said:
        first = subprocess.Popen(command, cwd=lab, env=environment(), stderr=said, text=True, start_new_session=True)
    until(lambda: list(lab.glob("models/both.partial/resume-step-*")), first)
    os.kill(int((lab / "finetune.pid").read_text()), signal.SIGUSR1)
    until(lambda: list(lab.glob("shards/both/*.partial/run.json")), first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    # The log is that of the last attempt; what earlier ones said, Snakemake repeats.
    assert "run the same command again with --resume (exit code 75)" in (lab / "first.log").read_text()
    assert "resumed at step" in (lab / "logs/finetune/both.log").read_text()
    assert not (lab / "predictions").exists() or not list((lab / "predictions").glob("*.bw"))
    model = (lab / "models/both/ebert.json").stat().st_mtime_ns

    assert snakemake(lab, "--unlock").returncode == 0
    second = snakemake(lab)
    assert second.returncode == 0, second.stderr
    assert (lab / "models/both/ebert.json").stat().st_mtime_ns == model, "nothing finished is done again"
    assert not list(lab.glob("shards/both/*"))
    again = snakemake(lab)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stderr
    require_results(lab)
    (lab / "samples.tsv").write_text(TABLE.replace("SIMMAX", "SIMMAXX"))
    misspelt = snakemake(lab)
    assert misspelt.returncode == 1
    assert "samples.tsv, line 3: the dataset has no labels of 'SIMMAXX'; did you mean SIMMAX?" in misspelt.stderr
    assert "Job stats" not in misspelt.stderr, "nothing runs"

    # A row more predicts and trains nothing anew, unless its cell type must be held out.
    assert jobs_of(lab, TABLE + ONE_MORE) == {"predict": 2, "merge_both_SimLiver": 1, "all": 1, "total": 4}
    held_out = jobs_of(lab, TABLE + ONE_MORE.replace("no", "yes"))
    assert (held_out["finetune"], held_out["predict"], held_out["evaluate"]) == (1, 4, 3)
    assert "pretrain" not in held_out
    # Another exclusion list is another dataset.
    with (lab / "world/exclude.bed").open("a") as handle:
        handle.write("chr1\t1000\t1200\n")
    assert jobs_of(lab, TABLE).keys() >= {"prepare", "check", "pretrain", "finetune", "predict", "evaluate"}


def jobs_of(lab: Path, table: str) -> dict[str, int]:
    """Numbers of jobs by rule that a table would start."""
    (lab / "samples.tsv").write_text(table)
    planned = snakemake(lab, "--dry-run").stdout.split("Job stats:")[-1].split("total")
    lines = [*planned[0].splitlines()[3:], "total " + planned[1].splitlines()[0]]
    return {name: int(count) for name, count in map(str.split, lines)}


def require_results(lab: Path) -> None:
    """Files of the right kinds, equal to those of one run of `ebert predict`, and figures of what was held out."""
    whole = [sys.executable, "-m", "ebert_cli", "predict", "--tf", "SIMCTCF,SIMMAX", "--cell", "SimBrain", "--model",
             "models/both", "--chrom", "chr2,chr3", "--output", "whole", "--threads", "1", "--quiet"]  # fmt: skip
    subprocess.run(whole, cwd=lab, env=environment(), check=True)
    for tf in ("SIMCTCF", "SIMMAX"):
        for ending in ("bw", "narrowPeak", "unscored.bed"):
            name = f"{tf}.SimBrain.{ending}"
            assert (lab / "predictions" / name).read_bytes() == (lab / "whole" / name).read_bytes(), name
        with pyBigWig.open(str(lab / f"predictions/{tf}.SimBrain.bw")) as handle:
            assert sum(len(handle.intervals(chrom) or ()) for chrom in ("chr2", "chr3")) > 5_000
            assert all(0 <= value <= 1 for *_, value in handle.intervals("chr3"))
        for line in (lab / f"predictions/{tf}.SimBrain.narrowPeak").read_text().splitlines():
            assert len(line.split("\t")) == 10
        report = json.loads((lab / f"reports/{tf}.SimBrain/report.json").read_text())
        (evaluation,) = report["evaluations"]
        assert evaluation["chroms"] == ["chr3"]
        assert evaluation["rows"][0]["held_out"]["status"] == "held out"
    header, *lines = [line.split("\t") for line in (lab / "evaluations.tsv").read_text().splitlines()]
    figures = [dict(zip(header, line, strict=True)) for line in lines]
    ours = [each for each in figures if each["kind"] == "prediction" and each["chrom"] == "all"]
    assert [(each["tf"], each["cell"]) for each in ours] == [("SIMCTCF", "SimBrain"), ("SIMMAX", "SimBrain")]
    assert all(0 <= float(each["auprc"]) <= 1 for each in ours)
