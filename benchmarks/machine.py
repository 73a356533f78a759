"""What a measurement was made on."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from cardiosynth import __version__
from cardiosynth.evaluation.results import environment


def facts() -> dict[str, Any]:
    """Return JSON-like facts: versions, processor, threads, memory, GPU, load and the commit."""
    cuda = torch.cuda.is_available()
    return {
        "cardiosynth": __version__,
        "commit": _commit(),
        **environment(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found[1].strip() if found else "unknown"


def _commit() -> str:
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
