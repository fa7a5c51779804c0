"""How fast a run goes: tokens per second, and the share of what the device can do (MFU).

MFU is the work that the model's matrix products and convolutions ask for (forward and backward; nothing for what is
computed again) divided by what the device does in the same time in one large matrix product, measured once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training.steps import is_out_of_memory

# A run shorter than this does not spend its time on measuring the device.
_SETTLED_SECONDS: Final = 20.0
_PEAK_SECONDS: Final = 0.5
# Rows and columns of the product: large enough for the device's full rate, small enough to be left alone meanwhile.
_CPU_SIZE, _GPU_SIZE = 768, 8_192


def training_flops(make: Callable[[], nn.Module], call: Callable[[Any], torch.Tensor]) -> float:
    """Floating-point operations of `call(make())` and its backward pass, counted on tensors without content."""
    with torch.device("meta"):
        module = make()
    with FlopCounterMode(display=False) as counter:
        call(module).sum().backward()
    return float(counter.get_total_flops())


def no_content(*shape: int) -> torch.Tensor:
    """Whole numbers of a shape and nothing else, to count the work on."""
    return torch.empty(shape, dtype=torch.int64, device="meta")


def measured_peak(device: Device) -> float:
    """FLOP/s of a large square matrix product in the device's precision: the best within half a second."""
    size = _GPU_SIZE if device.device.type == "cuda" else _CPU_SIZE
    dtype = torch.bfloat16 if device.bf16 else torch.float32
    with torch.no_grad():
        a = torch.ones(size, size, dtype=dtype, device=device.device)
        product = a @ a
        best, begin = float("inf"), time.perf_counter()
        while time.perf_counter() - begin < _PEAK_SECONDS:
            synchronise(device)
            started = time.perf_counter()
            torch.mm(a, a, out=product)
            synchronise(device)
            best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def synchronise(device: Device) -> None:
    """Wait until the device has done what it was given."""
    if device.device.type == "cuda":
        torch.cuda.synchronize(device.device)


class Meter:
    """Measures a run.

    Args:
        tokens_per_step: of the global batch.
        flops_per_step: counts the work of a step; asked once. None tells no MFU, where steps differ in their work.
        device: whose peak is measured once, `_SETTLED_SECONDS` into the run.
        num_devices: how many of it the run has.
        reporter: told of the peak.
    """

    def __init__(
        self,
        tokens_per_step: int,
        flops_per_step: Callable[[], float] | None,
        device: Device,
        num_devices: int = 1,
        reporter: Reporter = SILENT,
    ) -> None:
        self._tokens, self._flops = tokens_per_step, flops_per_step
        self._device, self._num_devices, self._reporter = device, num_devices, reporter
        self._began = time.monotonic()
        self._steps = self._all_steps = 0
        self._seconds = self._all_seconds = 0.0
        self._full_speed: float | None = None
        self._latest: dict[str, float] = {}

    def add(self, seconds: float) -> None:
        """Count a step."""
        self._steps, self._all_steps = self._steps + 1, self._all_steps + 1
        self._seconds, self._all_seconds = self._seconds + seconds, self._all_seconds + seconds

    def read(self, steps_left: int) -> dict[str, float]:
        """Speed since it was last read: `tokens_per_second`, `mfu` once the peak is known, `seconds_left` in all."""
        if not self._steps:
            return self._latest
        per_step = self._seconds / self._steps
        found = {"tokens_per_second": round(self._tokens / per_step, 1)}
        if self._flops and self._full_speed is None and self._all_seconds > _SETTLED_SECONDS:
            self._full_speed = self._measure()
        if self._full_speed:
            if per_step * self._full_speed < 1:
                # The device was busy with something else when it was measured.
                self._full_speed = max(self._full_speed, self._measure())
            found["mfu"] = round(1 / (per_step * self._full_speed), 4)
        wall = (time.monotonic() - self._began) / self._all_steps
        found["seconds_left"] = round(wall * steps_left, 1)
        self._steps, self._seconds, self._latest = 0, 0.0, found
        return found

    def note(self) -> str:
        """The latest reading for a progress line."""
        words = []
        if "tokens_per_second" in self._latest:
            words.append(f"{self._latest['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in self._latest:
            words.append(f"MFU {self._latest['mfu']:.0%}")
        return ", ".join(words)

    def _measure(self) -> float:
        """Steps per second at the device's peak; 0 where the run leaves no memory to measure it."""
        assert self._flops is not None
        try:
            peak = measured_peak(self._device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return 0.0
        precision = "bf16" if self._device.bf16 else "fp32"
        many = f", {self._num_devices} devices" if self._num_devices > 1 else ""
        self._reporter.log(f"MFU is the share of {peak / 1e12:.2f} TFLOP/s, this device's {precision} product{many}")
        return peak * self._num_devices / self._flops()
