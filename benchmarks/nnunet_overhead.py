"""What confidence costs in nnU-Net: the stock trainer and ours, side by side, for a training step and for a batch.

Both trainers get the same plans, which nnU-Net's planner makes for images of the patch's size, the same cases and
weights. They take turns, A B A B, so that what else the machine does falls on both alike, and before each pair of turns
the same random state, so that both draw the same crops and augmentations. Once all cases have a confidence map, as
synthetic ones do, once none has, as real ones. What is stated is the median of the pairs' ratios, less 1, with the
interval that a bootstrap over the pairs gives.

    python benchmarks/nnunet_overhead.py                                    # patches of 64 voxels, CPU
    python benchmarks/nnunet_overhead.py --patch 128 --device cuda --steps 100
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts

from cardiosynth.core.case import Case
from cardiosynth.core.labels import label_table
from cardiosynth.core.store import write_json
from cardiosynth.data.dataset import write_dataset

GOAL = 0.05
NAMES = {"synthetic": "Dataset001_synthetic", "real": "Dataset002_real"}
PLANS = "nnUNetPlans"
CONFIGURATION = "3d_fullres"
CLOCKS = ("wall_s", "cpu_s")
DRAWS = 2000
Turns = dict[str, list[dict[str, float]]]


def main() -> None:
    """Measure both, and write medians and overheads."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{kind}"] = str(Path(folder) / kind)
        with Path(os.devnull).open("w") as silence, redirect_stdout(silence):
            turns = {}
            for origin, name in NAMES.items():
                os.environ.pop("nnUNet_n_proc_DA", None)  # planning fails with 0
                _prepare(Path(folder), name, options)
                os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112
                stock, ours = (_trainer(kind, Path(folder), name, options) for kind in ("stock", "ours"))
                turns[f"batch, {origin}"] = _batches(stock, ours, options)
                turns[f"step, {origin}"] = _steps(stock, ours, options)
    overhead = {name: {clock: _overhead(taken, clock) for clock in CLOCKS} for name, taken in turns.items()}
    median = {name: {way: _median(each) for way, each in taken.items()} for name, taken in turns.items()}
    found = {"machine": facts(), **_asked(options), "median": median, "overhead": overhead, "goal": GOAL}
    write_json(options.out, found)
    print(json.dumps({"median": median, "overhead": overhead}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--features", type=int, default=32, help="of the first stage, as nnU-Net plans them")
    parser.add_argument("--labels", type=int, default=7)
    parser.add_argument("--batches", type=int, default=100, help="pairs of turns")
    parser.add_argument("--steps", type=int, default=15, help="likewise")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--toy", action="store_true", help="16 voxels, 4 features, to test the benchmark itself")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nnunet_overhead.json")
    options = parser.parse_args()
    if options.toy:
        options.patch, options.features, options.batches, options.steps = 16, 4, 3, 2
    return options


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(options).items() if key not in ("out", "toy")}


def _prepare(folder: Path, name: str, options: argparse.Namespace) -> None:
    """Write four cases, half as large again as a patch; let nnU-Net plan and preprocess them."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, made = folder / "raw" / name, folder / "preprocessed" / name
    write_dataset((_case(index, name == NAMES["synthetic"], options) for index in range(4)), raw, name)
    about = json.loads((raw / "dataset.json").read_text())
    _plan(name, made, options)
    manager = PlansManager(str(made / f"{PLANS}.json"))
    chosen = manager.get_configuration(CONFIGURATION)
    (made / chosen.data_identifier).mkdir()
    for image in sorted((raw / "imagesTr").iterdir()):
        case_id = image.name.removesuffix("_0000.nii.gz")
        out, mask = str(made / chosen.data_identifier / case_id), str(raw / "labelsTr" / f"{case_id}.nii.gz")
        DefaultPreprocessor(verbose=False).run_case_save(out, [str(image)], mask, manager, chosen, about)


def _plan(name: str, made: Path, options: argparse.Namespace) -> None:
    """Let nnU-Net's planner plan for images of the patch's size, from a fingerprint that says so."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    intensity = {"max": 600.0, "mean": 200.0, "median": 200.0, "min": -50.0, "percentile_00_5": 0.0,
                 "percentile_99_5": 500.0, "std": 90.0}  # fmt: skip
    fingerprint = {
        "spacings": [[1.0] * 3] * 4, "shapes_after_crop": [[options.patch] * 3] * 4,
        "foreground_intensity_properties_per_channel": {"0": intensity}, "median_relative_size_after_cropping": 1.0,
    }  # fmt: skip
    write_json(made / "dataset_fingerprint.json", fingerprint)
    planner = ExperimentPlanner(name, gpu_memory_target_in_gb=1000, plans_name=PLANS)
    planner.UNet_base_num_features = options.features
    planner.plan_experiment()


def _case(index: int, mapped: bool, options: argparse.Namespace) -> Case:
    rng, side = np.random.default_rng(index), options.patch * 3 // 2
    distance = np.linalg.norm(np.indices((side,) * 3) - rng.uniform(0.4, 0.6, (3, 1, 1, 1)) * side, axis=0)[None]
    mask = np.clip(options.labels - distance / (0.45 * side) * options.labels, 0, options.labels).astype(np.uint8)
    image = (60 * mask + rng.normal(0, 40, mask.shape)).astype(np.int16)
    unsure = np.exp(-(((distance / side - 0.3) * 20) ** 2)).astype(np.float32)
    confidence = 1 - unsure if mapped else None
    labels = label_table({f"part{code}": code for code in range(1, options.labels + 1)})
    return Case(case_id=f"c{index}", image=image, mask=mask, confidence=confidence, labels=labels, affine=np.eye(4))


def _trainer(kind: str, folder: Path, name: str, options: argparse.Namespace) -> Any:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from cardiosynth.segmentation.nnunet.trainer import nnUNetTrainerCAL

    made = folder / "preprocessed" / name
    about, plans = (json.loads((made / file).read_text()) for file in ("dataset.json", f"{PLANS}.json"))
    _seed(0)
    chosen: Any = nnUNetTrainer if kind == "stock" else nnUNetTrainerCAL
    trainer = chosen({**plans, "continue_training": False}, CONFIGURATION, "all", about, torch.device(options.device))
    trainer.initialize()
    return trainer


def _batches(stock: Any, ours: Any, options: argparse.Namespace) -> Turns:
    loaders = {name: trainer.get_dataloaders()[0] for name, trainer in (("stock", stock), ("ours", ours))}
    return _in_turns({name: lambda loader=loader: next(loader) for name, loader in loaders.items()}, options.batches)


def _steps(stock: Any, ours: Any, options: argparse.Namespace) -> Turns:
    batch = next(ours.get_dataloaders()[0])
    plain = {**batch, "data": batch["data"][:, :1].contiguous()}

    def step(trainer: Any, batch: dict[str, Any]) -> None:
        trainer.train_step(batch)
        if options.device == "cuda":
            torch.cuda.synchronize()

    return _in_turns({"stock": lambda: step(stock, plain), "ours": lambda: step(ours, batch)}, options.steps)


def _in_turns(ways: dict[str, Callable[[], Any]], count: int) -> Turns:
    """Return wall and CPU seconds of each way and turn, after one turn that does not count."""
    taken: Turns = {name: [] for name in ways}
    for turn in range(count + 1):
        for name, way in ways.items():
            _seed(turn)
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            if turn:
                spent = (time.perf_counter() - wall, time.process_time() - cpu)
                taken[name].append(dict(zip(CLOCKS, spent, strict=True)))
    return taken


def _median(turns: list[dict[str, float]]) -> dict[str, float]:
    return {clock: statistics.median(turn[clock] for turn in turns) for clock in CLOCKS}


def _overhead(taken: Turns, clock: str) -> dict[str, float]:
    """Return the median of the pairs' ratios, less 1, and its 95 % bootstrap interval."""
    pairs = zip(taken["ours"], taken["stock"], strict=True)
    ratios = np.array([ours[clock] / stock[clock] for ours, stock in pairs])
    drawn = np.random.default_rng(0).integers(len(ratios), size=(DRAWS, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), (2.5, 97.5)) - 1
    return {"median": float(np.median(ratios)) - 1, "low": float(low), "high": float(high)}


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nnU-Net draws from the global generators
    torch.manual_seed(seed)


if __name__ == "__main__":
    main()
