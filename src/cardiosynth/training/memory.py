"""The most memory that a piece of work took."""

import os
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures from its making on: of a GPU what tensors take, else what the whole process holds, on Linux.

    Args:
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str):
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif os.access(RESET, os.W_OK):
            RESET.write_text("5")  # the kernel's word for "forget the peak"

    @property
    def gb(self) -> float | None:
        """The peak so far in GB of 10^9 bytes; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        if not STATUS.exists():
            return None
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e9
