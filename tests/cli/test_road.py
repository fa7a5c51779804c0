"""The five commands one after the other on the toy world, as a user types them; stops, pipes and faults on the way."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyBigWig
import pytest
import torch
from typer.testing import CliRunner, Result

from ebert_cli.app import app
from ebert_core.inference import scorer
from ebert_core.training import interrupts
from ebert_core.training.finetune import BindingObjective
from ebert_core.training.journal import read_journal
from ebert_core.training.pretrain import MaskedLanguageObjective
from ebert_core.training.resume import resume_points

DEVICE = ["--threads", "1", "--precision", "fp32"]


def sets(**values: object) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


PRETRAIN = [
    "pretrain", *DEVICE,
    *sets(encoder__width=16, encoder__num_layers=1, encoder__num_heads=2, encoder__stem_channels=8, window_bp=1_000,
          global_batch=4, micro_batch=2, valid_windows=4, evaluate_every=10, checkpoint_every=3),
]  # fmt: skip
FINETUNE = [
    "finetune", *DEVICE, "--hold-out-cell", "HepG2", "--steps", "18",
    *sets(window_bp=1_000, context_bp=200, global_batch=4, micro_batch=2, evaluate_every=3),
]  # fmt: skip
PREDICT = ["predict", *DEVICE]


def run(folder: Path, *arguments: str, stdin: str | None = None) -> Result:
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, list(arguments), input=stdin)


def ran(folder: Path, *arguments: str, stdin: str | None = None) -> Result:
    result = run(folder, *arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def prepare_arguments(toy_files) -> list[str]:
    return [
        "prepare", "--genome", str(toy_files.genome), "--states", str(toy_files.states), "--chip", str(toy_files.chip),
        "--accessibility", str(toy_files.accessibility), "--exclude", str(toy_files.exclude),
    ]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def as_it_was() -> Iterator[None]:
    """The commands set threads and an environment variable of their process."""
    threads, policy = torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY")
    yield
    torch.set_num_threads(threads)
    if policy is None:
        os.environ.pop("OMP_WAIT_POLICY", None)


def walk(folder: Path, toy_files) -> Path:
    """prepare, pretrain, finetune and predict with no path given."""
    ran(folder, *prepare_arguments(toy_files))
    ran(folder, *PRETRAIN, "--steps", "6")
    ran(folder, *FINETUNE, "--tf", "CTCF")
    ran(folder, *PREDICT, "--tf", "CTCF", "--cell", "HepG2")
    return folder


@pytest.fixture(scope="module")
def road(toy_files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the road was walked; do not change it."""
    return walk(tmp_path_factory.mktemp("road"), toy_files)


@pytest.fixture
def copy_of_road(road: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(road, tmp_path / "road"))


def test_each_stop_leaves_its_artifact_where_the_next_one_looks(road: Path) -> None:
    names = {path.relative_to(road).as_posix() for path in road.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("dataset/")} == {
        "pretrained/ebert.json",
        "pretrained/journal.jsonl",
        "pretrained/weights.safetensors",
        "models/CTCF/ebert.json",
        "models/CTCF/journal.jsonl",
        "models/CTCF/weights.safetensors",
        "predictions/CTCF.HepG2.bw",
        "predictions/CTCF.HepG2.narrowPeak",
        "predictions/CTCF.HepG2.unscored.bed",
        "predictions/CTCF.HepG2.ebert.json",
    }
    assert {name for name in names if name.count("/") == 1 and name.startswith("dataset/")} == {
        "dataset/ebert.json", "dataset/sequence.npy", "dataset/excluded.npy",
    }  # fmt: skip


def test_evaluate_ends_the_road(copy_of_road: Path) -> None:
    result = ran(copy_of_road, "evaluate", "--allow-seen")
    assert "CTCF in HepG2" in result.stdout
    assert "no, seen" in result.stdout
    assert sorted(path.name for path in (copy_of_road / "report").iterdir()) == [
        "ebert.json", "report.html", "report.json", "report.tsv", "states.tsv",
    ]  # fmt: skip
    text = (copy_of_road / "report" / "report.html").read_text()
    assert "CTCF" in text
    assert "HepG2" in text


def test_the_first_line_of_a_run_names_device_precision_threads_and_size(tmp_path: Path, road: Path) -> None:
    result = ran(road, *PRETRAIN, "--steps", "1", "--output", str(tmp_path / "p"))
    first = result.stderr.splitlines()[0]
    for word in ("cpu (1 threads)", "fp32", "parameters", "1,000 bp"):
        assert word in first
    assert result.stdout == ""


def test_equal_seeds_give_equal_bytes(road: Path, toy_files, tmp_path: Path) -> None:
    again = walk(tmp_path, toy_files)
    for name in ("predictions/CTCF.HepG2.bw", "predictions/CTCF.HepG2.narrowPeak", "models/CTCF/weights.safetensors"):
        assert (again / name).read_bytes() == (road / name).read_bytes(), name


def entries(path: Path) -> list[tuple[str, int, int, float]]:
    with pyBigWig.open(str(path)) as opened:
        return [(chrom, *row) for chrom in opened.chroms() for row in opened.intervals(chrom) or ()]


def bed(text: str) -> list[tuple[str, int, int, float]]:
    rows = [line.split("\t") for line in text.splitlines()]
    assert {name for _, _, _, name, _ in rows} == {"CTCF"}
    return [(chrom, int(start), int(end), float(value)) for chrom, start, end, _, value in rows]


def test_a_stream_holds_what_the_big_wig_holds(road: Path) -> None:
    result = ran(road, *PREDICT, "--tf", "ctcf", "--cell", "hepg2", "-o", "-")
    assert result.stderr == ""
    expected = entries(road / "predictions" / "CTCF.HepG2.bw")
    found = bed(result.stdout)
    assert [(c, s + 75, e - 75) for c, s, e, _ in found] == [(c, s, e) for c, s, e, _ in expected]
    assert [v for *_, v in found] == pytest.approx([v for *_, v in expected], rel=1e-5)


@pytest.mark.parametrize("way", ["--chrom", "--regions", "stdin"])
def test_regions_three_ways(road: Path, tmp_path: Path, way: str) -> None:
    rows = "2\t1000\t3000\nchr1\t500\t900\n"
    arguments = {
        "--chrom": ["--chrom", "2:1,000-3,000,chr1:500-900"],
        "--regions": ["--regions", str(tmp_path / "some.bed")],
        "stdin": ["--regions", "-"],
    }[way]
    (tmp_path / "some.bed").write_text(rows)
    result = ran(road, *PREDICT, "--tf", "CTCF", "--cell", "HepG2", "-o", "-", *arguments, stdin=rows)
    starts = [(chrom, start) for chrom, start, *_ in bed(result.stdout)]
    assert starts == [("chr1", at) for at in range(400, 800, 50)] + [("chr2", at) for at in range(900, 2_900, 50)]


def test_a_cells_states_from_a_file_predict_what_the_dataset_predicts(road: Path, toy_files, tmp_path: Path) -> None:
    states = next(toy_files.states.glob("HepG2*"))
    open_dna = next(toy_files.accessibility.glob("HepG2*"))
    files = ("--states", str(states), "--accessibility", str(open_dna))
    ran(road, *PREDICT, "--tf", "CTCF", "--cell", "Stranger", *files, "-o", str(tmp_path))
    found = (tmp_path / "CTCF.Stranger.bw").read_bytes()
    assert found == (road / "predictions" / "CTCF.HepG2.bw").read_bytes()
    sidecar = json.loads((tmp_path / "CTCF.Stranger.ebert.json").read_text())
    assert (sidecar["cell"], sidecar["states"]) == ("Stranger", str(states))


def test_hidden_accessibility_is_that_of_a_cell_type_without_any(road: Path, toy_files, tmp_path: Path) -> None:
    hidden, unknown, states = tmp_path / "hidden", tmp_path / "unknown", next(toy_files.states.glob("HepG2*"))
    ran(road, *PREDICT, "--tf", "CTCF", "--cell", "HepG2", "--no-accessibility", "-o", str(hidden))
    told = ran(road, *PREDICT, "--tf", "CTCF", "--cell", "Stranger", "--states", str(states), "-o", str(unknown))
    assert "accessibility of Stranger: none in the dataset" in told.stderr
    found = (hidden / "CTCF.HepG2.bw").read_bytes()
    assert found == (unknown / "CTCF.Stranger.bw").read_bytes()
    assert found != (road / "predictions" / "CTCF.HepG2.bw").read_bytes()
    sidecar = json.loads((hidden / "CTCF.HepG2.ebert.json").read_text())
    assert sidecar["accessibility"] == "none (asked for)"


def test_names_and_the_lack_of_states(road: Path, tmp_path: Path) -> None:
    result = ran(road, *PREDICT, "--tf", "ctcf,CTCF", "--cell", "E118", "--no-states", "-o", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "CTCF.HepG2.bw", "CTCF.HepG2.ebert.json", "CTCF.HepG2.narrowPeak", "CTCF.HepG2.unscored.bed",
    ]  # fmt: skip
    assert "warning" in result.stderr
    assert (tmp_path / "CTCF.HepG2.bw").read_bytes() != (road / "predictions" / "CTCF.HepG2.bw").read_bytes()


def test_several_tfs_in_one_model(road: Path, tmp_path: Path) -> None:
    ran(road, *FINETUNE, "--tf", "ALL", "--output", str(tmp_path / "all"))
    ran(road, *PREDICT, "--tf", "MAX,CTCF", "--cell", "HepG2", "-m", str(tmp_path / "all"), "-o", str(tmp_path / "out"))
    assert len(list((tmp_path / "out").glob("*.bw"))) == 2
    sites = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.narrowPeak")}
    assert set(sites) == {"CTCF.HepG2.narrowPeak", "MAX.HepG2.narrowPeak"}


def test_all_tfs_have_a_model_called_all(copy_of_road: Path) -> None:
    ran(copy_of_road, *FINETUNE, "--tf", "All", "--steps", "1")
    assert json.loads((copy_of_road / "models" / "all" / "ebert.json").read_text())["tfs"] == ["CTCF", "MAX"]


def test_quiet_says_nothing(road: Path, tmp_path: Path) -> None:
    result = ran(road, *PREDICT, "--tf", "CTCF", "--cell", "HepG2", "-o", str(tmp_path), "--quiet", "--chrom", "chr2")
    assert (result.stdout, result.stderr) == ("", "")


def test_no_states_wins_over_settings_and_missing_states_are_told(copy_of_road: Path) -> None:
    tune = [*FINETUNE, "--tf", "MAX", "--steps", "1"]
    assert run(copy_of_road, *tune, "-o", "blind", "--no-states", "--set", "use_states=true").exit_code == 0
    assert json.loads((copy_of_road / "blind" / "ebert.json").read_text())["config"]["use_states"] is False
    manifest = copy_of_road / "dataset" / "ebert.json"
    content = json.loads(manifest.read_text())
    del content["states"]["GM12878"]
    manifest.write_text(json.dumps(content))
    told = "the dataset has no states of GM12878"
    assert told in run(copy_of_road, *tune, "-o", "partly").stderr
    assert told not in run(copy_of_road, *tune, "-o", "unasked", "--no-states").stderr


# --- faults: one error, one hint, exit 1, nothing written


PREDICT_CTCF = [*PREDICT, "--tf", "CTCF", "--cell", "HepG2"]
ELSEWHERE = ["-o", "elsewhere"]
FAULTS = {
    "unknown TF": ([*PREDICT, "--tf", "CTFC", "--cell", "HepG2"], "unknown TF 'CTFC'", "did you mean CTCF"),
    "TF that the model lacks": (
        [*PREDICT, "--tf", "MAX", "--cell", "HepG2", "-m", "models/CTCF"], "unknown TF 'MAX'", "CTCF"
    ),
    "unknown cell": ([*PREDICT, "--tf", "CTCF", "--cell", "HepG3"], "unknown cell type 'HepG3'", "did you mean HepG2"),
    "predictions exist": (PREDICT_CTCF, "CTCF.HepG2.bw already exists", "--overwrite"),
    "output is a file": ([*PREDICT_CTCF, "-o", "taken"], "taken", ""),
    "two TFs in one bedGraph": (
        ["predict", "--tf", "A,B", "--cell", "X", "-o", "-", "--format", "bedgraph"], "holds one TF, 2", "--format tsv"
    ),
    "two ways to choose": ([*PREDICT_CTCF, "--chrom", "chr1", "--regions", "x.bed"], "--regions were both", "one"),
    "unknown chromosome": ([*PREDICT_CTCF, "--chrom", "chr7"], "unknown chromosome 'chr7'", "chr1"),
    "region past the end": ([*PREDICT_CTCF, "--chrom", "chr2:40,000-41,338"], "past the end of chr2 (41,337 bp)", ""),
    "regions are missing": ([*PREDICT_CTCF, "--regions", "x.bed"], "x.bed: is not there", ""),
    "regions are empty": ([*PREDICT_CTCF, "--regions", "taken"], "no data lines", ""),
    "nothing to score": ([*PREDICT_CTCF, *ELSEWHERE, "--chrom", "chrShort"], "no bin to score: 0 hold", "regions"),
    "nothing to print": ([*PREDICT_CTCF, "-o", "-", "--chrom", "chrShort"], "no bin to score: 0 hold", "regions"),
    "states are missing": (["predict", "--tf", "CTCF", "--cell", "X", "--states", "x.bed"], "x.bed: is not there", ""),
    "no such model": ([*PREDICT_CTCF, "-m", "models/MAX"], "model models/MAX is not there", "ebert finetune"),
    "a checkpoint is no model": ([*PREDICT_CTCF, "-m", "pretrained"], "holds a checkpoint, expected a model", ""),
    "no dataset": ([*PREDICT_CTCF, "-d", "nothing"], "dataset nothing is not there", "ebert prepare"),
    "unknown device": ([*PREDICT_CTCF, *ELSEWHERE, "--device", "gpu"], "unknown device 'gpu'", "cuda"),
    "unknown precision": ([*PREDICT_CTCF, "--precision", "fp16"], "unknown precision 'fp16'", "bf16"),
    "checkpoint exists": ([*PRETRAIN, "--steps", "1"], "pretrained already exists", "--overwrite"),
    "unknown preset": (["pretrain", "-p", "tinny"], "unknown preset 'tinny'", "did you mean tiny"),
    "unknown setting": (["pretrain", "--set", "encoder.with=3"], "encoder.with is not a setting", "width"),
    "impossible setting": (["pretrain", "--set", "encoder.token_bp=7"], "does not divide 50", ""),
    "setting that is no number": (["pretrain", "--set", "steps=many"], "steps = 'many'", ""),
    "seed too large": (["pretrain", "--seed", str(2**32)], "seed", ""),
    "no window of that length": ([*PRETRAIN, "-o", "x", "--set", "window_bp=30000"], "no window of 30,000 bp", ""),
    "no cell left": ([*PRETRAIN, "-o", "x", "--exclude-cell", "E116,HepG2,MyCell"], "no cell type is left", "--cell"),
    "model exists": ([*FINETUNE, "--tf", "CTCF"], "CTCF already exists", "--overwrite"),
    "no checkpoint": ([*FINETUNE, "--tf", "MAX", "--checkpoint", "x"], "checkpoint x is not there", "ebert pretrain"),
    "TF without labels": ([*FINETUNE, "--tf", "RAD21"], "unknown TF 'RAD21'", "CTCF"),
    "held out and asked for": ([*FINETUNE, "--tf", "MAX", "--valid-cell", "E118"], "HepG2 is held out", ""),
    "no name at all": ([*FINETUNE, "--tf", ","], "no TF was named", "CTCF"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(copy_of_road: Path, digest_tree: Callable[[Path], dict], fault: str) -> None:
    arguments, message, hint = FAULTS[fault]
    (copy_of_road / "taken").write_text("")
    before = digest_tree(copy_of_road)
    result = run(copy_of_road, *arguments)
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert message in lines[errors[0]]
    assert hint in "\n".join(lines[errors[0] + 1 :])
    assert "Traceback" not in result.stderr
    assert digest_tree(copy_of_road) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [*PREDICT_CTCF, "--threads", "0"],
        ["pretrain", "--steps", "0"],
        ["finetune"],
        ["predict", "--tf", "CTCF"],
        ["pretrain", "--thread", "1"],
    ],
)
def test_wrong_usage(road: Path, arguments: list[str]) -> None:
    result = run(road, *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("models/CTCF/weights.safetensors", [*PREDICT_CTCF, *ELSEWHERE]),
        ("models/CTCF/ebert.json", [*PREDICT_CTCF, *ELSEWHERE, "-m", "models/CTCF"]),
        ("pretrained/weights.safetensors", [*FINETUNE, "--tf", "MAX"]),
        ("pretrained/ebert.json", [*FINETUNE, "--tf", "MAX"]),
        ("dataset/sequence.npy", [*PREDICT_CTCF, *ELSEWHERE]),
        ("dataset/states/HepG2.npy", [*PREDICT_CTCF, *ELSEWHERE]),
    ],
)
def test_damaged_artifacts_are_refused(copy_of_road: Path, file: str, arguments: list[str]) -> None:
    path = copy_of_road / file
    if path.suffix == ".json":
        path.write_text(path.read_text().replace('"token_bp": 10', '"token_bp": 7'))
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    result = run(copy_of_road, *arguments)
    assert result.exit_code == 1
    assert result.stderr.count("error: ") == 1
    assert file in result.stderr
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)


# --- stops


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_prediction_leaves_nothing(
    copy_of_road: Path, monkeypatch: pytest.MonkeyPatch, digest_tree: Callable[[Path], dict], number: int, code: int
) -> None:
    def stopped(*_: object) -> Iterator[None]:
        signal.raise_signal(number)
        yield

    before = digest_tree(copy_of_road)
    monkeypatch.setattr(scorer, "scan", stopped)
    result = run(copy_of_road, *PREDICT_CTCF, "-o", "elsewhere")
    assert result.exit_code == code
    assert "interrupted" in result.stderr
    assert digest_tree(copy_of_road) == before


@pytest.fixture
def unfinished(road: Path, tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """A function that begins `ebert pretrain --steps N` in its own process and returns once it has a resume point."""
    started: list[subprocess.Popen[str]] = []
    shutil.copytree(road / "dataset", tmp_path / "dataset")

    def begin(steps: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ebert_cli", *PRETRAIN, "--steps", str(steps)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
        started.append(process)
        until = time.monotonic() + 180
        while not resume_points(tmp_path / "pretrained.partial"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.002)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def check_stop(said: str, number: signal.Signals, code: int) -> None:
    """What a run says that a signal ended."""
    assert "--resume" in said
    assert "Traceback" not in said
    if code == 75:
        told = said.splitlines()[-1]
        assert told.startswith(f"stopped by {number.name}, saved at step ")
        assert told.endswith("; run the same command again with --resume (exit code 75)")


def test_a_stopped_process_ends_with_its_code(
    unfinished: Callable[[int], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = unfinished(100_000)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75
    check_stop(said, signal.SIGTERM, 75)
    saved = int(said.splitlines()[-1].partition("at step ")[2].partition(";")[0].replace(",", ""))
    assert int(resume_points(tmp_path / "pretrained.partial")[-1].name[-8:]) == saved >= 3
    assert not (tmp_path / "pretrained").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_stop_saves_and_says_how_to_go_on(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    shutil.copytree(road / "dataset", tmp_path / "dataset")
    draw = MaskedLanguageObjective.draw

    def stopping(self: MaskedLanguageObjective, step: int, first: int, count: int) -> object:
        if step == 4:
            signal.raise_signal(number)
        return draw(self, step, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedLanguageObjective, "draw", stopping)
        stopped = run(tmp_path, *PRETRAIN, "--steps", "100000")
    assert stopped.exit_code == code
    check_stop(stopped.stderr, number, code)
    assert [point.name[-1] for point in resume_points(tmp_path / "pretrained.partial")] == ["3", "4"]
    assert not (tmp_path / "pretrained").exists()
    refused = run(tmp_path, *PRETRAIN, "--steps", "100000")
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr
    other = run(tmp_path, *PRETRAIN, "--steps", "99", "--resume")
    assert other.exit_code == 1
    assert "other settings" in other.stderr
    ran(tmp_path, *PRETRAIN, "--steps", "1", "--overwrite")
    assert not (tmp_path / "pretrained.partial").exists()


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_equals_unbroken(
    unfinished: Callable[[int], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process, delay = unfinished(80), random.random() * 0.15
    time.sleep(delay)
    process.kill()
    process.wait()
    assert resume_points(tmp_path / "pretrained.partial"), f"killed {delay:.3f} s after the first resume point"
    resumed = ran(tmp_path, *PRETRAIN, "--steps", "80", "--resume")
    assert "resumed at step" in resumed.stderr
    ran(tmp_path, *PRETRAIN, "--steps", "80", "--output", "whole")
    ends = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("pretrained", "whole")]
    assert ends[0] == ends[1], f"killed {delay:.3f} s after the first resume point"
    journals = [
        [
            {k: v for k, v in event.items() if k not in ("seconds", "speed")}
            for event in read_journal(tmp_path / name / "journal.jsonl")
        ]
        for name in ("pretrained", "whole")
    ]
    assert journals[0] == journals[1]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"dataset", "pretrained", "whole"}, "nothing of the killed run stays"


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_started_again_by_the_clock_until_it_is_done_equals_unbroken(copy_of_road: Path, command: str) -> None:
    """`until ebert ... --max-time 1s --resume; do :; done`, with less than a second: nothing is lost between rounds."""
    steps = ["--steps", "24", "--overwrite", "--output"] if command == "pretrain" else ["--tf", "MAX", "--output"]
    arguments = [*(PRETRAIN if command == "pretrain" else FINETUNE), *steps]
    rounds = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interrupts.signal, "setitimer", shorter_and_shorter(rounds_left := [3]))
        while (result := run(copy_of_road, *arguments, "again", "--resume", "--max-time", "1s")).exit_code == 75:
            rounds += 1
            assert "stopped by --max-time is over" in result.stderr
    assert result.exit_code == 0, result.output
    assert rounds == 3
    assert rounds_left == [0]
    ran(copy_of_road, *arguments, "whole")
    ends = [(copy_of_road / name / "weights.safetensors").read_bytes() for name in ("again", "whole")]
    assert ends[0] == ends[1]


def shorter_and_shorter(rounds: list[int]) -> Callable[[int, float], None]:
    """In place of `setitimer`: the alarm goes off at the 11th draw, and after some rounds no more."""

    def arm(which: int, seconds: float) -> None:
        drawn = [0]
        for objective in (MaskedLanguageObjective, BindingObjective):
            draw = getattr(objective.draw, "plain", objective.draw)

            def counted(self: object, *place: int, draw: Callable[..., object] = draw) -> object:
                drawn[0] += 1
                if seconds and drawn[0] == 11 and rounds[0]:
                    rounds[0] -= 1
                    signal.raise_signal(signal.SIGALRM)
                return draw(self, *place)

            counted.plain = draw  # type: ignore[attr-defined]
            objective.draw = counted  # type: ignore[method-assign]

    return arm


def test_several_processes_stop_and_go_on(road: Path, tmp_path: Path) -> None:
    """`--devices 2`: SIGTERM to the starter ends both with one line; one process goes on with what two began."""
    shutil.copytree(road / "dataset", tmp_path / "dataset")
    command = [*PRETRAIN, "--steps", "100000", "--set", "encoder.dropout=0"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ebert_cli", *command, "--devices", "2"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        until = time.monotonic() + 180
        while not resume_points(tmp_path / "pretrained.partial"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.01)
        process.terminate()
        out, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75, said
    assert out == ""
    assert said.count("stopped by SIGTERM, saved at step ") == 1
    assert "2 ranks" in said.splitlines()[0]
    assert "Traceback" not in said
    (point,) = resume_points(tmp_path / "pretrained.partial")[-1:]
    step = int(point.name[-8:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedLanguageObjective, "draw", lambda self, step, *_: stop_at(step))
        resumed = run(tmp_path, *command, "--resume")
    assert resumed.exit_code == 130
    assert f"resumed at step {step:,} of 100,000" in resumed.stderr


def stop_at(step: int) -> None:
    raise KeyboardInterrupt


def test_a_dry_run_tells_and_writes_nothing(road: Path, digest_tree: Callable[[Path], dict]) -> None:
    before = digest_tree(road)
    text = ran(road, *PRETRAIN, "--dry-run", "--quiet")
    found = json.loads(ran(road, *PRETRAIN, "--dry-run", "--quiet", "--format", "json").stdout)
    assert digest_tree(road) == before
    assert text.stderr == ""
    for word in ("parameters", "tokens/s", "MFU", "one pass", "memory"):
        assert word in text.stdout
    manifest = json.loads((road / "pretrained" / "ebert.json").read_text())
    assert found["run"]["parameters"] == manifest["num_parameters"]
    assert found["run"]["tokens_per_step"] == 4 * 1_000 / 10
    assert found["probe"]["steps"] == 20
    assert found["memory_bytes"]["optimiser"] == 8 * manifest["num_parameters"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--max-time", "soon"], 2, "'soon' is no time; write for example 11h50m"),
        (["--max-time", "0s"], 2, "is no time"),
        (["--devices", "0"], 2, "--devices"),
        (["--dry-run", "--format", "yaml"], 1, "unknown format 'yaml'"),
    ],
)
def test_faulty_options_of_pretraining(road: Path, arguments: list[str], code: int, says: str) -> None:
    result = run(road, *PRETRAIN, *arguments)
    assert result.exit_code == code
    assert says in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("environment", "command", "says"),
    [
        ({"WORLD_SIZE": "2"}, PRETRAIN, "RANK is not set"),
        ({"WORLD_SIZE": "x"}, PRETRAIN, "WORLD_SIZE is 'x', expected a whole number"),
        ({"WORLD_SIZE": "2"}, [*PRETRAIN, "--devices", "3"], "--devices 3 within a run of 2 ranks"),
    ],
)
def test_ranks_that_nobody_started(
    road: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], command: list[str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run(road, *command)
    assert result.exit_code == 1
    assert says in result.stderr


def test_a_reader_that_goes_away_is_no_error(road: Path) -> None:
    """`ebert predict -o - | head -1`, with a reader that is gone before the first line.

    What fits the buffer, as here, is written when the command ends; test_predict_runs.py has more rows than that.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ebert_cli", *PREDICT_CTCF, "-o", "-", "--chrom", "chr2:1,000-3,000"],
        cwd=road,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": ""},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read().decode()
    assert process.wait(timeout=180) == 0
    assert said == ""
