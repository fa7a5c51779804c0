"""The training loop on a small regression: stopped anywhere and resumed, it equals an unbroken run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebert_core import artifacts
from ebert_core.config import OptimizerConfig
from ebert_core.errors import EbertError
from ebert_core.model.checkpoint import load_weights
from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training import loop, resume, steps
from ebert_core.training.distributed import Ranks
from ebert_core.training.interrupts import Requeue, taken_stops
from ebert_core.training.journal import read_journal
from ebert_core.training.loop import JOURNAL_FILE, LoopConfig, Surroundings, train
from ebert_core.training.resume import LoopState, ResumePoints, resume_points
from ebert_core.training.schedule import learning_rate
from ebert_core.training.steps import StepConfig

Weights = dict[str, Tensor]


class SquaredError(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return (self.module(x) - y).square().sum()[None]


@dataclass
class Regression:
    """y = A x with dropout; `hook` is called with ('loss', step, first example) and ('evaluate', None, None)."""

    hook: Callable[..., None] = lambda *_: None
    scores: dict[int, float] = field(default_factory=dict)
    dropout: float = 0.5
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        torch.manual_seed(1)
        self.module = nn.Sequential(nn.Dropout(self.dropout), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.losses: nn.Module = SquaredError(self.module)
        self.seen: list[tuple[int, int]] = []
        self.modes: list[tuple[str, bool]] = []

    def groups(self) -> list[tuple[nn.Module, float]]:
        return [(self.module, 1.0)]

    def draw(self, step: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        self.hook("loss", step, first)
        self.seen.append((step, first))
        self.modes.append(("train", self.module.training))
        return self.examples(step, first, count)

    def examples(self, step: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(100, 3, generator=torch.Generator().manual_seed(step))[first : first + count]
        return x, x.sum(dim=1, keepdim=True)

    def counts(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return torch.tensor([len(batch[0])], dtype=torch.float64)

    def tensors(self, batch: tuple[Tensor, Tensor]) -> Weights:
        return {"x": batch[0], "y": batch[1]}

    def figures(self, means: list[float]) -> dict[str, float]:
        return {"error": means[0]}

    def evaluate(self, ranks: Ranks) -> dict[str, Any]:
        self.hook("evaluate", None, None)
        self.modes.append(("evaluate", self.module.training))
        x, y = self.examples(10_000, 0, 4)
        score = -float((self.module(x) - y).square().mean())
        return {"score": self.scores.get(self.seen[-1][0] + 1, score) if self.scores else score}


STEP = StepConfig(steps=5, global_batch=8, micro_batch=4, optimizer=OptimizerConfig(learning_rate=0.05), seed=3)
CONFIG = LoopConfig(STEP, evaluate_every=2, checkpoint_every=2)


def changed(**changes: Any) -> LoopConfig:
    """CONFIG with some of its or its step's values changed."""
    of_step = {name: value for name, value in changes.items() if name in vars(STEP)}
    others = {name: value for name, value in changes.items() if name not in of_step}
    return replace(CONFIG, step=replace(STEP, **of_step), **others)


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
    """Train in `tmp_path / name` with the config given."""

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
        state, best = train(objective, config, Surroundings(device, reporter), folder, fingerprint)
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
    other = run("c", config=changed(seed=4))
    assert any(not torch.equal(other.last[name], first.last[name]) for name in first.last)


def test_what_the_loop_asks_for(run: Callable[..., Outcome]) -> None:
    outcome = run("a")
    assert outcome.objective.seen == [(step, first) for step in range(5) for first in (0, 4)]
    assert set(outcome.objective.modes) == {("train", True), ("evaluate", False)}
    assert [(e["event"], e["step"]) for e in outcome.events] == [
        ("train", 1), ("train", 2), ("evaluate", 2), ("train", 3), ("train", 4), ("evaluate", 4), ("train", 5),
        ("evaluate", 5),
    ]  # fmt: skip
    for event in outcome.events:
        if event["event"] == "train":
            assert event["loss"] == event["error"]
            assert event["learning_rate"] == learning_rate(event["step"] - 1, 5, STEP.optimizer)


class Killed(BaseException):
    """Stands for a process that is gone."""


STOPS = [("loss", 0, 0), ("loss", 0, 4), ("loss", 1, 4), ("loss", 2, 0), ("loss", 3, 4), ("loss", 4, 4)]


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
    """A trace function that sends SIGINT before the `number`-th line executed in loop.py and steps.py."""
    left = [number]
    files = {loop.__file__, steps.__file__}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
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
    short = changed(steps=3)
    whole = run("whole", config=short)
    stopped, number = 0, -2
    while True:
        number += 3  # the steps' lines come again, one or two places further
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
    assert stopped > 60


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
            patch.setattr(resume, "save_weights", counted(resume.save_weights))
            patch.setattr(resume.shutil, "rmtree", counted(resume.shutil.rmtree))
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
    save_weights, calls = resume.save_weights, []

    def full(tensors: Weights, path: Path) -> None:
        calls.append(path)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        save_weights(tensors, path)

    monkeypatch.setattr(resume, "save_weights", full)
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
    config = changed(steps=4)
    first = run("a", config=config)
    again = run("a", config=config)
    assert again.objective.seen == []
    assert_same(again, first)


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_its_batch(
    run: Callable[..., Outcome], tmp_path: Path, fault: float
) -> None:
    class Sick(Regression):
        def examples(self, step: int, first: int, count: int) -> tuple[Tensor, Tensor]:
            x, y = super().examples(step, first, count)
            return x, y * (fault if (step, first) == (3, 4) else 1)

    sick = Sick()
    with pytest.raises(EbertError, match=r"not finite at step 4 \(loss (nan|inf), examples 4 to 7\)") as caught:
        run("a", sick)
    assert "learning_rate" in caught.value.hint
    (path,) = (tmp_path / "a").glob("not-finite-*")
    assert str(path) in caught.value.message
    saved = load_weights(path)
    x, y = sick.examples(3, 4, 4)
    assert torch.equal(saved["x"], x)
    assert torch.equal(saved["y"].isfinite(), y.isfinite())
    assert (int(saved["step"]), int(saved["first_example"])) == (4, 4)
    assert [path.name for path in resume_points(tmp_path / "a")] == ["resume-step-00000002"]
    assert_same(run("a"), run("whole"))


def test_a_finite_loss_with_an_infinite_gradient_stops_the_run(run: Callable[..., Outcome], tmp_path: Path) -> None:
    class Cusp(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, batch: Any) -> Tensor:
            parameter = self.module[1].weight
            return (parameter - parameter.detach()).abs().sqrt().sum()[None]

    steep = Regression()
    steep.losses = Cusp(steep.module)
    with pytest.raises(EbertError, match="not finite"):
        run("a", steep)
    (path,) = (tmp_path / "a").glob("not-finite-*")
    assert len(load_weights(path)["x"]) == STEP.global_batch, "no piece is to blame, so it is the whole batch"


def scored(run: Callable[..., Outcome], scores: list[float], patience: int | None, every: int = 1) -> Outcome:
    config = changed(steps=len(scores) * every, evaluate_every=every, patience=patience)
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
    shorter = run("shorter", rising, changed(steps=len(scores) * every, evaluate_every=1))
    assert all(torch.equal(outcome.best[name], shorter.best[name]) for name in shorter.best)


@pytest.mark.parametrize(("until", "steps"), [(0, 3), (1, 3), (4, 6), (6, 8), (99, 8)])
def test_patience_begins_to_count_when_told(run: Callable[..., Outcome], until: int, steps: int) -> None:
    """The best step stays the best, however early it was."""
    objective = Regression(scores=dict(enumerate([5.0, 4, 3, 2, 1, 0, 0, 0], start=1)))
    config = changed(steps=8, evaluate_every=1, patience=2, patient_until=until)
    outcome = run("patient", objective, config)
    assert (outcome.state.step, outcome.state.best_step) == (steps, 1)


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
    for seed in (0, 1, 2**32 - 1):
        objective = Regression()
        objective.losses.register_forward_pre_hook(lambda *_: noise.append(torch.rand(()).item()))
        run(f"seed{seed}", objective, changed(seed=seed))
    assert len(noise) == len(set(noise)) == 3 * STEP.steps * 2


def test_patience_survives_a_stop(run: Callable[..., Outcome]) -> None:
    scores = dict(enumerate([5.0, 1, 1, 6, 1, 1, 1, 9], start=1))
    config = changed(steps=8, evaluate_every=1, patience=3)
    whole = run("whole", Regression(scores=scores), config)

    def hook(*place: object) -> None:
        if place == ("loss", 5, 0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", Regression(hook, scores=scores), config)
    assert_same(run("broken", Regression(scores=scores), config), whole)


@pytest.mark.parametrize("clip_norm", [0.01, 1e9])
@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_micro_batches_add_up_to_the_global_batch(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch, clip_norm: float, micro_batch: int
) -> None:
    """The gradient of the mean over the whole batch, computed at once; then it is clipped, then it is scaled."""
    share = 0.5

    def plain(groups: Any, config: OptimizerConfig) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": list(m.parameters()), "share": share} for m, _ in groups], lr=9.0)

    monkeypatch.setattr(steps, "build_optimizer", plain)
    objective = Regression(dropout=0.0)
    before = {name: tensor.clone() for name, tensor in objective.module.state_dict().items()}
    x, y = objective.examples(0, 0, 8)
    (objective.module(x) - y).square().mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in objective.module.named_parameters()}
    norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm().item()
    config = changed(steps=1, micro_batch=micro_batch, optimizer=OptimizerConfig(learning_rate=1, clip_norm=clip_norm))
    train(objective, config, Surroundings(device), tmp_path, "f")
    rate = share * min(1.0, clip_norm / norm)
    for name, tensor in objective.module.state_dict().items():
        torch.testing.assert_close(tensor - before[name], -rate * gradients[name], atol=1e-7, rtol=1e-4)


def test_the_best_weights_are_no_view_of_the_live_ones(run: Callable[..., Outcome]) -> None:
    outcome = run("a", Regression(scores={2: 1.0, 4: 0.0, 5: 0.0}))
    assert outcome.state.best_step == 2
    assert any(not torch.equal(outcome.best[name], outcome.last[name]) for name in outcome.best)
    assert not any(tensor.is_inference() for tensor in outcome.best.values())


# --- stops that ask to be started again, resume points by the clock, and a running average


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM])
def test_a_stop_by_the_batch_system_saves_and_asks_to_be_started_again(
    run: Callable[..., Outcome], number: signal.Signals
) -> None:
    def hook(*place: object) -> None:
        if place == ("loss", 3, 4):
            signal.raise_signal(number)

    with taken_stops(), pytest.raises(Requeue) as caught:
        run("broken", Regression(hook))
    assert caught.value.saved_step == 3
    assert_same(run("broken"), run("whole"))


def test_a_stop_while_an_evaluation_is_left_keeps_gradients(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes in the exit of `no_grad`, before it turns gradients on again."""
    leave = torch.no_grad.__exit__
    left = [0]

    def stopped(self: torch.no_grad, *error: Any) -> None:
        left[0] += 1
        if sys._getframe(1).f_code.co_name == "_evaluate" and left[0] > 2:
            raise KeyboardInterrupt
        leave(self, *error)

    with monkeypatch.context() as patched:
        patched.setattr(torch.no_grad, "__exit__", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("broken")
    assert torch.is_grad_enabled()
    assert_same(run("broken"), run("whole"))


def test_a_second_stop_waits_for_what_the_first_one_saves(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []
    write = ResumePoints._write

    def hook(*place: object) -> None:
        if place == ("loss", 3, 4):
            stopped.append(place)
            signal.raise_signal(signal.SIGTERM)

    def written(*arguments: Any) -> None:
        if stopped:
            signal.raise_signal(signal.SIGUSR1)
        write(*arguments)

    monkeypatch.setattr(ResumePoints, "_write", written)
    with taken_stops(), pytest.raises(Requeue):
        run("broken", Regression(hook))
    assert resume_points(tmp_path / "broken")[-1].name == "resume-step-00000003"
    stopped.clear()
    assert_same(run("broken"), run("whole"))


def test_started_again_and_again_equals_unbroken(run: Callable[..., Outcome]) -> None:
    """The time is over after every second piece or so, wherever that is."""
    rounds = 0
    while True:
        rounds += 1
        drawn = [0]

        def hook(*_: object, drawn: list[int] = drawn, last: int = 3 + rounds % 2) -> None:
            drawn[0] += 1
            if drawn[0] == last:
                signal.raise_signal(signal.SIGALRM)

        with taken_stops():
            try:
                found = run("again", Regression(hook))
                break
            except Requeue:
                continue
    assert rounds > 3
    assert_same(found, run("whole"))


def test_resume_points_by_the_clock(run: Callable[..., Outcome], tmp_path: Path, monkeypatch: Any) -> None:
    """A minute a step: a point every two minutes is one every other step; the last three stay."""
    saved: list[int] = []
    objective = Regression()
    monkeypatch.setattr(loop.time, "monotonic", lambda: 60.0 * len({step for step, _ in objective.seen}))
    save = resume.ResumePoints.save

    def spy(self: Any, state: LoopState, trained: Any) -> None:
        saved.append(state.step)
        save(self, state, trained)

    monkeypatch.setattr(resume.ResumePoints, "save", spy)
    config = changed(steps=9, checkpoint_every=0, checkpoint_minutes=2.0, checkpoints_kept=3)
    run("a", objective, config)
    assert saved == [2, 4, 6, 8, 9]
    assert [int(path.name[-2:]) for path in resume_points(tmp_path / "a")] == [6, 8, 9]


def test_a_damaged_point_names_the_one_before(run: Callable[..., Outcome], tmp_path: Path) -> None:
    config = changed(checkpoints_kept=2)
    run("a", config=config)
    (tmp_path / "a" / "resume-step-00000005" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(EbertError) as caught:
        run("a", config=config)
    assert "remove" in caught.value.hint
    assert "resume-step-00000004" in caught.value.hint
    shutil.rmtree(tmp_path / "a" / "resume-step-00000005")
    assert_same(run("a", config=config), run("whole", config=config))


def test_the_running_average_is_evaluated_published_and_resumed(run: Callable[..., Outcome]) -> None:
    optimizer = OptimizerConfig(learning_rate=0.05, ema_decay=0.5)
    config = changed(optimizer=optimizer)
    whole = run("whole", config=config)
    plain = run("plain")
    assert all(torch.equal(whole.last[name], plain.last[name]) for name in plain.last), "training goes on without it"
    assert any(not torch.equal(whole.best[name], plain.best[name]) for name in plain.best)

    def hook(*place: object) -> None:
        if place == ("loss", 3, 0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", Regression(hook), config)
    assert_same(run("broken", config=config), whole)
