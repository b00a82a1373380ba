"""The most memory that this process held since a moment, as Linux counts it."""

from __future__ import annotations

import gc
from pathlib import Path

import torch


class PeakMemory:
    """Counts from when it is made: on a CPU what the process has resident, the data included; on a GPU what torch has
    allocated there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        self._counts = True
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        except OSError:
            self._counts = False

    def bytes(self) -> int | None:
        """None where the system does not tell."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if not self._counts:
            return None
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
