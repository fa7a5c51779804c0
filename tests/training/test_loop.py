"""The training loop on a small regression: stopped anywhere and resumed, it equals an unbroken run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebert_core import artifacts
from ebert_core.config import OptimizerConfig
from ebert_core.errors import EbertError
from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training import loop
from ebert_core.training.journal import read_journal
from ebert_core.training.loop import JOURNAL_FILE, LoopConfig, LoopState, resume_points, train
from ebert_core.training.schedule import build_optimizer, learning_rate

Weights = dict[str, Tensor]


@dataclass
class Regression:
    """y = A x with dropout; `hook` is called with ('loss', step, part) and ('evaluate', None, None)."""

    hook: Callable[..., None] = lambda *_: None
    parts: int = 2
    scores: dict[int, float] = field(default_factory=dict)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        torch.manual_seed(1)
        self.module = nn.Sequential(nn.Dropout(self.dropout), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.seen: list[tuple[int, int]] = []
        self.modes: list[tuple[str, bool]] = []

    def batch(self, step: int, part: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step * self.parts + part))
        return x, x.sum(dim=1, keepdim=True)

    def loss(self, step: int, part: int) -> tuple[Tensor, dict[str, float]]:
        self.hook("loss", step, part)
        self.seen.append((step, part))
        self.modes.append(("train", self.module.training))
        x, y = self.batch(step, part)
        return (self.module(x) - y).square().mean(), {"part": float(part)}

    def evaluate(self) -> dict[str, Any]:
        self.hook("evaluate", None, None)
        self.modes.append(("evaluate", self.module.training))
        x, y = self.batch(10_000, 0)
        score = -float((self.module(x) - y).square().mean())
        return {"score": self.scores.get(self.seen[-1][0] + 1, score) if self.scores else score}

    def bases_per_part(self) -> int:
        return 1


CONFIG = LoopConfig(
    steps=5,
    parts=2,
    evaluate_every=2,
    checkpoint_every=2,
    patience=None,
    optimizer=OptimizerConfig(learning_rate=0.05),
    seed=3,
)


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)


@dataclass(frozen=True)
class Outcome:
    state: LoopState
    best: Weights
    last: Weights
    events: list[dict[str, Any]]
    objective: Regression


@pytest.fixture
def run(tmp_path: Path, device: Device) -> Callable[..., Outcome]:
    """Train in `tmp_path / name`, with build_optimizer and the config given."""

    def go(
        name: str,
        objective: Regression | None = None,
        config: LoopConfig = CONFIG,
        fingerprint: str = "f",
        reporter: Reporter = SILENT,
    ) -> Outcome:
        objective = objective or Regression()
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        optimizer = build_optimizer([(objective.module, 1.0)], config.optimizer)
        state, best = train(objective, optimizer, config, device, folder, reporter, fingerprint)
        events = [{k: v for k, v in e.items() if k != "seconds"} for e in read_journal(folder / JOURNAL_FILE)]
        last = {name: tensor.clone() for name, tensor in objective.module.state_dict().items()}
        return Outcome(state, best, last, events, objective)

    return go


def assert_same(found: Outcome, expected: Outcome) -> None:
    for a, b in ((found.last, expected.last), (found.best, expected.best)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert found.state == expected.state
    assert found.events == expected.events


def test_equal_seeds_give_equal_bits_and_others_do_not(run: Callable[..., Outcome]) -> None:
    first = run("a")
    assert_same(run("b"), first)
    other = run("c", config=LoopConfig(**{**vars(CONFIG), "seed": 4}))
    assert any(not torch.equal(other.last[name], first.last[name]) for name in first.last)


def test_what_the_loop_asks_for(run: Callable[..., Outcome]) -> None:
    outcome = run("a")
    assert outcome.objective.seen == [(step, part) for step in range(5) for part in range(2)]
    assert set(outcome.objective.modes) == {("train", True), ("evaluate", False)}
    assert [(e["event"], e["step"]) for e in outcome.events] == [
        ("train", 1), ("train", 2), ("evaluate", 2), ("train", 3), ("train", 4), ("evaluate", 4), ("train", 5),
        ("evaluate", 5),
    ]  # fmt: skip
    for event in outcome.events:
        if event["event"] == "train":
            assert event["part"] == 0.5
            assert event["learning_rate"] == learning_rate(event["step"] - 1, 5, CONFIG.optimizer)


class Killed(BaseException):
    """Stands for a process that is gone."""


STOPS = [("loss", 0, 0), ("loss", 0, 1), ("loss", 1, 1), ("loss", 2, 0), ("loss", 3, 1), ("loss", 4, 1)]


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_in_a_step_and_resumed(run: Callable[..., Outcome], tmp_path: Path, stop: tuple[str, int, int]) -> None:
    def hook(*place: object) -> None:
        if place == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", Regression(hook))
    assert [path.name for path in resume_points(tmp_path / "broken")] == [f"resume-step-{stop[1]:08d}"]
    resumed = run("broken")
    assert resumed.objective.seen[0] == (stop[1], 0)
    assert_same(resumed, run("whole"))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_stopped_in_an_evaluation_and_resumed(run: Callable[..., Outcome], number: int) -> None:
    calls = []

    def hook(what: str, *_: object) -> None:
        calls.append(what)
        if calls.count("evaluate") == number:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", Regression(hook))
    assert_same(run("broken"), run("whole"))


def signal_at_line(number: int) -> Callable[..., Any]:
    """A trace function that sends SIGINT before the `number`-th line executed in loop.py."""
    left = [number]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != loop.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    return trace


# Between the opening of the journal and the block that closes it there is a line, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_line_of_the_loop(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may arrive between any two lines: after the optimiser's step and before the count of it, for one."""
    short = LoopConfig(**{**vars(CONFIG), "steps": 3})
    whole = run("whole", config=short)
    stopped, number = 0, 0
    while True:
        number += 1
        name = f"line{number}"
        before = sys.gettrace()
        sys.settrace(signal_at_line(number))
        try:
            run(name, config=short)
            break  # the run ended before that line
        except KeyboardInterrupt:
            stopped += 1
        finally:
            sys.settrace(before)
        assert_same(run(name, config=short), whole)
    assert stopped > 100


def test_a_kill_while_saving_leaves_a_whole_resume_point(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each rename and each removal of the second save, and with nobody left to tidy up."""
    whole = run("whole")
    for number in range(1, 40):
        name = f"kill{number}"
        calls = [0]

        def counted(function: Callable[..., Any], calls: list[int] = calls, last: int = number) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                calls[0] += 1
                if calls[0] == last:
                    raise Killed
                return function(*args, **kwargs)

            return wrapper

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(artifacts, "_remove", lambda path: None)
            patch.setattr(artifacts.os, "replace", counted(os.replace))
            patch.setattr(loop, "save_weights", counted(loop.save_weights))
            patch.setattr(loop.shutil, "rmtree", counted(loop.shutil.rmtree))
            run(name)
            break
        points = resume_points(tmp_path / name)
        assert points or calls[0] < 7, "the first point takes 6 calls"
        assert_same(run(name), whole)
    assert number > 10


def test_older_points_go_only_after_the_new_one_is_there(run: Callable[..., Outcome], tmp_path: Path) -> None:
    run("a")
    assert [path.name for path in resume_points(tmp_path / "a")] == ["resume-step-00000005"]


def test_a_full_disk_leaves_the_last_resume_point(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights, calls = loop.save_weights, []

    def full(tensors: Weights, path: Path) -> None:
        calls.append(path)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        save_weights(tensors, path)

    monkeypatch.setattr(loop, "save_weights", full)
    with pytest.raises(EbertError, match="no space left"):
        run("a")
    assert [path.name for path in (tmp_path / "a").glob("*resume*")] == ["resume-step-00000002"]
    monkeypatch.undo()
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)
    assert_same(run("a"), run("whole"))


def test_a_resume_point_of_another_run_is_refused(run: Callable[..., Outcome], tmp_path: Path) -> None:
    run("a")
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    with pytest.raises(EbertError, match="other settings") as caught:
        run("a", fingerprint="g")
    assert "--overwrite" in caught.value.hint
    assert before == {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}


def test_a_damaged_resume_point_is_an_error(run: Callable[..., Outcome], tmp_path: Path) -> None:
    run("a")
    path = resume_points(tmp_path / "a")[0] / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(EbertError, match="safetensors"):
        run("a")


def test_a_finished_run_resumes_to_its_end(run: Callable[..., Outcome]) -> None:
    config = LoopConfig(**{**vars(CONFIG), "steps": 4})
    first = run("a", config=config)
    again = run("a", config=config)
    assert again.objective.seen == []
    assert_same(again, first)


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(run: Callable[..., Outcome], tmp_path: Path, fault: float) -> None:
    class Sick(Regression):
        def loss(self, step: int, part: int) -> tuple[Tensor, dict[str, float]]:
            value, figures = super().loss(step, part)
            return (value * fault, figures) if (step, part) == (3, 1) else (value, figures)

    with pytest.raises(EbertError, match=r"not finite at step 4 \(loss (nan|inf)") as caught:
        run("a", Sick())
    assert "learning_rate" in caught.value.hint
    assert [path.name for path in resume_points(tmp_path / "a")] == ["resume-step-00000002"]
    assert_same(run("a"), run("whole"))


def test_a_finite_loss_with_an_infinite_gradient_stops_the_run(run: Callable[..., Outcome]) -> None:
    class Steep(Regression):
        def loss(self, step: int, part: int) -> tuple[Tensor, dict[str, float]]:
            parameter = self.module[1].weight
            return (parameter - parameter.detach()).abs().sqrt().sum(), {}

    with pytest.raises(EbertError, match="not finite"):
        run("a", Steep())


def scored(run: Callable[..., Outcome], scores: list[float], patience: int | None, every: int = 1) -> Outcome:
    config = LoopConfig(**{**vars(CONFIG), "steps": len(scores) * every, "evaluate_every": every, "patience": patience})
    objective = Regression(scores={(i + 1) * every: score for i, score in enumerate(scores)})
    return run("scored", objective, config)


@pytest.mark.parametrize(
    ("scores", "patience", "steps", "best"),
    [
        ([1, 2, 3, 4], 1, 4, 4),
        ([1, 2, 2, 9], 1, 3, 2),
        ([5, 1, 1, 6, 1, 1, 1, 9], 3, 7, 4),
        ([5, 4, 3, 2, 1], None, 5, 1),
        ([-1, -2, -3], 2, 3, 1),
    ],
)
@pytest.mark.parametrize("every", [1, 2])
def test_patience_and_the_best(
    run: Callable[..., Outcome], scores: list[float], patience: int | None, steps: int, best: int, every: int
) -> None:
    outcome = scored(run, scores, patience, every)
    assert (outcome.state.step, outcome.state.best_step) == (steps * every, best * every)
    assert outcome.state.best_figures == {"score": scores[best - 1]}
    rising = Regression(scores={step: step if step <= best * every else -9 for step in range(1, 99)})
    shorter = run("shorter", rising, LoopConfig(**{**vars(CONFIG), "steps": len(scores) * every, "evaluate_every": 1}))
    assert all(torch.equal(outcome.best[name], shorter.best[name]) for name in shorter.best)


def test_an_evaluation_repeated_after_a_stop_is_told_once(run: Callable[..., Outcome]) -> None:
    """Stopped in it, resumed, then killed before the next resume point: it is made a third time."""

    def in_evaluation(what: str, *_: object) -> None:
        if what == "evaluate":
            raise KeyboardInterrupt

    def in_step_2(*place: object) -> None:
        if place == ("loss", 2, 0):
            raise Killed

    for hook, error in ((in_evaluation, KeyboardInterrupt), (in_step_2, Killed)):
        with pytest.raises(error):
            run("broken", Regression(hook))
    assert_same(run("broken"), run("whole"))


def test_noise_differs_from_step_to_step_and_from_seed_to_seed(run: Callable[..., Outcome]) -> None:
    noise = []

    def hook(what: str, *_: object) -> None:
        if what == "loss":
            noise.append(torch.rand(()).item())

    for seed in (0, 1, 2**32 - 1):
        run(f"seed{seed}", Regression(hook), LoopConfig(**{**vars(CONFIG), "seed": seed}))
    assert len(noise) == len(set(noise)) == 3 * CONFIG.steps * CONFIG.parts


def test_patience_survives_a_stop(run: Callable[..., Outcome]) -> None:
    scores = dict(enumerate([5.0, 1, 1, 6, 1, 1, 1, 9], start=1))
    config = LoopConfig(**{**vars(CONFIG), "steps": 8, "evaluate_every": 1, "patience": 3})
    whole = run("whole", Regression(scores=scores), config)

    def hook(*place: object) -> None:
        if place == ("loss", 5, 0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", Regression(hook, scores=scores), config)
    assert_same(run("broken", Regression(scores=scores), config), whole)


@pytest.mark.parametrize("clip_norm", [0.01, 1e9])
def test_micro_batches_add_up_to_the_global_batch(tmp_path: Path, device: Device, clip_norm: float) -> None:
    """The mean of the parts' gradients is the gradient of the whole batch; then it is clipped, then it is scaled."""

    class Whole(Regression):
        def batch(self, step: int, part: int) -> tuple[Tensor, Tensor]:
            halves = [Regression.batch(self, step, half) for half in range(2)]
            return torch.cat([x for x, _ in halves]), torch.cat([y for _, y in halves])

    ends = []
    for number, (kind, parts) in enumerate(((Regression, 2), (Whole, 1))):
        objective = kind(dropout=0.0)
        config = LoopConfig(
            **{**vars(CONFIG), "parts": parts, "steps": 1, "optimizer": OptimizerConfig(clip_norm=clip_norm)}
        )
        groups = [{"params": list(objective.module.parameters()), "share": 0.5}]
        before = {name: tensor.clone() for name, tensor in objective.module.state_dict().items()}
        folder = tmp_path / str(number)
        folder.mkdir()
        train(objective, torch.optim.SGD(groups, lr=9.0), config, device, folder, SILENT, "f")
        ends.append({name: objective.module.state_dict()[name] - tensor for name, tensor in before.items()})
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], atol=1e-9, rtol=1e-4)
    moved = torch.cat([change.flatten() for change in ends[0].values()]).norm().item()
    per_norm = 0.5 * learning_rate(0, 1, OptimizerConfig())
    if clip_norm == 0.01:
        assert moved == pytest.approx(0.01 * per_norm, rel=1e-3)
    else:
        assert moved > 0.1 * per_norm


def test_the_best_weights_are_no_view_of_the_live_ones(run: Callable[..., Outcome]) -> None:
    outcome = run("a", Regression(scores={2: 1.0, 4: 0.0, 5: 0.0}))
    assert outcome.state.best_step == 2
    assert any(not torch.equal(outcome.best[name], outcome.last[name]) for name in outcome.best)
    assert not any(tensor.is_inference() for tensor in outcome.best.values())
