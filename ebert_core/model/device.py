"""Where and in which precision a run computes; the first line of every run says it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from typing import Final, Literal

import torch

from ebert_core.errors import EbertError

Precision = Literal["auto", "bf16", "fp32"]
# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3


@dataclass(frozen=True)
class Device:
    """A device and the precision of matrix products on it."""

    device: torch.device
    bf16: bool

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context in which the forward pass runs."""
        # Each weight is used once per context, so a cache of cast weights saves nothing; and where an interrupt cuts a
        # context's exit, the cache would stay, and a later run of the same process would read stale weights.
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16, cache_enabled=False)

    def describe(self) -> str:
        """For example `cpu (2 threads), bf16`."""
        if self.device.type == "cuda":
            place = f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        else:
            place = f"cpu ({torch.get_num_threads()} threads)"
        return f"{place}, {'bf16' if self.bf16 else 'fp32'}"


def choose_device(name: str = "auto", precision: Precision = "auto") -> Device:
    """The asked device; `auto` takes a GPU where there is one.

    On a CPU in fp32, the process's matrix products go to the faster library from here on.

    Raises:
        EbertError: a GPU was asked for and there is none. A run never falls back to the CPU unasked.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EbertError(f"unknown device {name!r}", "use auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EbertError("no GPU is available to PyTorch", "install a CUDA build of torch, or pass --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise EbertError(f"device {name!r} is not supported", "use auto, cpu, cuda or cuda:0")
    chosen = Device(device, _bf16_is_fast(device) if precision == "auto" else precision == "bf16")
    if device.type == "cpu" and not chosen.bf16 and "amx_bf16" not in _cpu_flags():
        # "medium" lets PyTorch ask oneDNN instead of MKL, which on CPUs of another maker runs at half the rate. The
        # products stay fp32 to rounding (tests/model/test_device.py); with AMX they would be rounded to bf16.
        torch.set_float32_matmul_precision("medium")
    return chosen


def _bf16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without these instructions bf16 on a CPU is emulated and slower than fp32.
    return any(flag in _cpu_flags() for flag in ("avx512_bf16", "amx_bf16"))


def _cpu_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as handle:
            line = next((line for line in handle if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(line.partition(":")[2].split())


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors instead of giving each back to the kernel and faulting it in again.

    Training frees and takes blocks of a few MB all the time. Tensors over 32 MB, glibc's bound, are not affected; other
    C libraries have no such call and are left alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TOP_PAD, 64 << 20)


def set_threads(threads: int | None) -> None:
    """Use so many CPU threads; default all cores that the process may run on."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
