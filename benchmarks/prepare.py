"""Scans brought to one grid: cases per minute, and memory of each process beside the largest volume in float32.

ACDC's 140 volumes (where they are) and phantoms drawn at 512 x 512 x 256, which are drawn first and not timed. Every
way runs in a fresh process, which measures CPU and wall time and the peak memory of the process, or of its workers,
beyond what imports take.

    python benchmarks/prepare.py                           # 140 volumes of ACDC, twenty phantoms, 1 and 2 workers
    python benchmarks/prepare.py --phantoms 3 --workers 1
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts

from cardiosynth.core.store import write_json
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.prepare.run import prepare
from cardiosynth.data.prepare.settings import PrepareSettings
from cardiosynth.data.sources.acdc import acdc
from cardiosynth.data.sources.nnunet import nnunet
from cardiosynth.data.stream import CaseStream
from cardiosynth.recipes.phantoms import Population, write_phantoms

HERE = Path(__file__).parent
SOURCES: dict[str, Callable[[Path], CaseStream]] = {"acdc": acdc, "phantoms": nnunet}


def main() -> None:
    """Measure every set with every number of workers and write the table."""
    options = _options()
    if options.measure:
        _measure(options)
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        phantoms = Path(folder) / "phantoms"
        write_phantoms(Population(options.phantoms, tuple(options.shape), tuple(options.drawn_mm)), phantoms)
        sources = {"acdc": options.acdc, "phantoms": phantoms}
        for name, source in sources.items():
            if not source.is_dir():
                continue
            for workers in options.workers:
                rows.append(_in_fresh_process(options, name, source, Path(folder) / f"{name}-{workers}", workers))
                print(json.dumps(rows[-1]), flush=True)
    missing = [] if options.acdc.is_dir() else ["acdc"]
    write_json(options.out, {"machine": facts(), "not_there": missing, "rows": rows})
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--acdc", type=Path, default=HERE.parents[1] / "shared" / "real" / "acdc")
    parser.add_argument("--phantoms", type=int, default=20)
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 256], help="of phantoms, before and after")
    parser.add_argument("--drawn-mm", type=float, nargs=3, default=[0.35, 0.35, 0.45])
    parser.add_argument("--prepared-mm", type=float, nargs=3, default=[0.4, 0.4, 0.5])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--most", type=int, default=1000, help="cases of each set")
    parser.add_argument("--toy", action="store_true", help="four small cases, to test the benchmark itself")
    parser.add_argument("--scratch", type=Path, help="where phantoms and prepared sets lie meanwhile, 6 GB")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "prepare.json")
    parser.add_argument("--measure", choices=tuple(SOURCES), help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.toy:
        options.phantoms, options.most, options.shape = 4, 4, [48, 48, 48]
        options.drawn_mm, options.prepared_mm = [2.4] * 3, [2.7] * 3
    return options


def _in_fresh_process(options: argparse.Namespace, name: str, source: Path, into: Path, workers: int) -> dict[str, Any]:
    words: list[object] = [sys.executable, __file__, "--measure", name, "--source", source, "--into", into]
    words += ["--workers", workers, "--most", options.most, "--shape", *options.shape]
    words += ["--prepared-mm", *options.prepared_mm]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, words)), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {"set": name, "workers": workers, **json.loads(done.stdout.splitlines()[-1])}


def _measure(options: argparse.Namespace) -> None:
    """Prepare one set here and print what it took as JSON."""
    (workers,) = options.workers
    listed = SOURCES[options.measure](options.source)
    source = CaseStream({name: listed.reader(name) for name in listed.case_ids[: options.most]})
    Path("/proc/self/clear_refs").write_text("5")
    before, watch, wall = _memory_mb("self", "VmRSS"), _Workers(), time.perf_counter()
    load = os.getloadavg()[0]
    made = prepare(source, options.into, _settings(options), workers=workers)
    wall_s = time.perf_counter() - wall
    peak = watch.stop() if workers > 1 else _memory_mb("self", "VmHWM")
    largest_mb = _largest_mb(made)
    taken = {
        "cases": len(made),
        "wall_s": round(wall_s, 1),
        "cpu_s": round(
            sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)), 1
        ),
        "cases_per_minute": round(60 * len(made) / wall_s, 1),
        "load_before": round(load, 1),
        "largest_float32_mb": round(largest_mb, 1),
        "peak_beyond_imports_mb": round(peak - before, 1),
        "times_the_largest": round((peak - before) / largest_mb, 2),
    }
    print(json.dumps(taken))


def _settings(options: argparse.Namespace) -> PrepareSettings:
    if options.measure == "acdc":
        return PrepareSettings(shape=(128, 128, 8), spacing_mm=(1.5, 1.5, 10.0))
    return PrepareSettings(shape=tuple(options.shape), spacing_mm=tuple(options.prepared_mm))


def _largest_mb(made: Dataset) -> float:
    """Return the size of the largest volume, before or after, in float32."""
    shapes = [row["provenance"]["prepared_from"]["shape"] for row in made.rows.values()]
    return max(float(np.prod(shape)) for shape in [*shapes, made[0].grid.shape]) * 4 / 1e6


class _Workers:
    """Watches the peak memory of this process's children, ten times a second."""

    def __init__(self):
        self._peak, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            for task in Path("/proc/self/task").iterdir():
                for child in (task / "children").read_text().split():
                    self._peak = max(self._peak, _memory_mb(child, "VmHWM"))

    def stop(self) -> float:
        """Return the peak of all of them so far."""
        self._ended.set()
        self._thread.join()
        return self._peak


def _memory_mb(process: str, key: str) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(f"{key}:")), 0.0)


if __name__ == "__main__":
    main()
