"""`--help` word by word, and what it must not cost.

EBERT_UPDATE_GOLDEN=1 rewrites the golden texts: read the difference before it is committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import ebert_core
from ebert_cli.app import app

GOLDEN = Path(__file__).with_name("golden")
COMMANDS = ("prepare", "pretrain", "finetune", "predict", "merge", "evaluate", "explain", "variants", "demo")
# What takes long to import: no help may wait for it.
HEAVY = {"torch", "numpy", "pysam", "pyBigWig", "sklearn", "safetensors", "jinja2", "ebert_core.config"}
# Runs the program in a fresh process and reports, after its output, what it imported.
SCRIPT = (
    "import json, sys\n"
    "from ebert_cli.app import main\n"
    "try:\n    main()\n"
    "finally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
)
TERMINAL = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}


def run(*arguments: str, script: bool = False) -> subprocess.CompletedProcess[str]:
    # Whoever runs the tests may force colours; the golden texts have none.
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "PY_COLORS")}
    command = [sys.executable, *(("-c", SCRIPT) if script else ("-m", "ebert_cli")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**environment, **TERMINAL}, check=False)


def test_every_command_is_here():
    assert tuple(command.name for command in app.registered_commands) == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_the_golden_text_and_imports_nothing_heavy(command):
    done = run(*command.split(), "--help", script=True)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stderr))
    assert "typer" in imported
    assert not imported & HEAVY

    text = "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"
    golden = GOLDEN / f"{command or 'ebert'}.txt"
    if os.environ.get("EBERT_UPDATE_GOLDEN") == "1":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), "EBERT_UPDATE_GOLDEN=1 rewrites the golden text"
    assert "Usage: ebert" in text


def test_no_golden_text_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == {"ebert", *COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_in_a_sentence(command):
    for parameter in typer.main.get_command(app).commands[command].params:
        assert len(parameter.help.split()) > 2, parameter.name
        assert parameter.help.rstrip().endswith((".", ":")), parameter.name


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option):
    done = run(option)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ebert {ebert_core.__version__}\n", "")


def test_no_arguments_show_the_help():
    done = run()
    assert "Usage: ebert [OPTIONS] COMMAND" in done.stdout + done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepair"], "Did you mean 'prepare'"),
        (["prepare", "--genomes", "x"], "--genome"),
        (["finetune"], "Missing option '--tf'"),
        (["pretrain", "--steps", "0"], "--steps"),
        (["pretrain", "--seed", "x"], "--seed"),
    ],
)
def test_wrong_usage_ends_with_2_and_no_traceback(arguments, says):
    done = CliRunner(env=TERMINAL).invoke(app, arguments)
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
