"""What confidence costs in nnU-Net: the stock trainer and ours, side by side, for a training step and for a batch.

Both trainers get the same plans, cases and weights. They take turns, A B A B, so that what else the machine does falls
on both alike, and before each pair of turns the same random state, so that both draw the same crops and augmentations.
Half of the cases, or all of them with ``--mapped``, have a confidence map.

    python benchmarks/nnunet_overhead.py                                    # patches of 64 voxels, CPU, minutes
    python benchmarks/nnunet_overhead.py --patch 128 --device cuda --repeats 50
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
NAME = "Dataset001_balls"
PLANS = "nnUNetPlans"
CONFIGURATION = "3d_fullres"
CLOCKS = ("wall_s", "cpu_s")
Median = dict[str, dict[str, float]]


def main() -> None:
    """Measure both, and write medians and overheads."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{kind}"] = str(Path(folder) / kind)
        os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112
        with Path(os.devnull).open("w") as silence, redirect_stdout(silence):
            _prepare(Path(folder), options)
            stock, ours = (_trainer(kind, Path(folder), options) for kind in ("stock", "ours"))
            measured = {"batch": _batches(stock, ours, options), "step": _steps(stock, ours, options)}
    overhead = {
        name: {clock: row["ours"][clock] / row["stock"][clock] - 1 for clock in CLOCKS}
        for name, row in measured.items()
    }
    found = {"machine": facts(), **_asked(options), "median": measured, "overhead": overhead, "goal": GOAL}
    write_json(options.out, found)
    print(json.dumps({"median": measured, "overhead": overhead}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--features", type=int, default=32, help="of the first stage, as nnU-Net plans them")
    parser.add_argument("--labels", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--mapped", action="store_true", help="every case has a confidence map, not every other")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--toy", action="store_true", help="16 voxels, 4 features, to test the benchmark itself")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nnunet_overhead.json")
    options = parser.parse_args()
    if options.toy:
        options.patch, options.features, options.repeats = 16, 4, 2
    return options


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(options).items() if key not in ("out", "toy")}


def _prepare(folder: Path, options: argparse.Namespace) -> None:
    """Write four cases, half as large again as a patch, and preprocess them by nnU-Net."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, made = folder / "raw" / NAME, folder / "preprocessed" / NAME
    write_dataset((_case(index, options) for index in range(4)), raw, NAME)
    about = json.loads((raw / "dataset.json").read_text())
    write_json(made / f"{PLANS}.json", _plans(options))
    manager = PlansManager(str(made / f"{PLANS}.json"))
    chosen = manager.get_configuration(CONFIGURATION)
    (made / chosen.data_identifier).mkdir()
    for image in sorted((raw / "imagesTr").iterdir()):
        name = image.name.removesuffix("_0000.nii.gz")
        out, mask = str(made / chosen.data_identifier / name), str(raw / "labelsTr" / f"{name}.nii.gz")
        DefaultPreprocessor(verbose=False).run_case_save(out, [str(image)], mask, manager, chosen, about)


def _case(index: int, options: argparse.Namespace) -> Case:
    rng, side = np.random.default_rng(index), options.patch * 3 // 2
    distance = np.linalg.norm(np.indices((side,) * 3) - rng.uniform(0.4, 0.6, (3, 1, 1, 1)) * side, axis=0)[None]
    mask = np.clip(options.labels - distance / (0.45 * side) * options.labels, 0, options.labels).astype(np.uint8)
    image = (60 * mask + rng.normal(0, 40, mask.shape)).astype(np.int16)
    unsure = np.exp(-(((distance / side - 0.3) * 20) ** 2)).astype(np.float32)
    confidence = 1 - unsure if options.mapped or index % 2 else None
    labels = label_table({f"part{code}": code for code in range(1, options.labels + 1)})
    return Case(case_id=f"c{index}", image=image, mask=mask, confidence=confidence, labels=labels, affine=np.eye(4))


def _plans(options: argparse.Namespace) -> dict[str, Any]:
    """Return plans as nnU-Net makes them for such patches: stages until four voxels are left."""
    stages = max(3, int(np.log2(options.patch)) - 1)
    orders = {"data": (False, 3), "seg": (True, 1), "probabilities": (False, 1)}
    resampling: dict[str, Any] = {}
    for name, (is_seg, order) in orders.items():
        resampling[f"resampling_fn_{name}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{name}_kwargs"] = {
            "is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None
        }  # fmt: skip
    network = {
        "n_stages": stages, "features_per_stage": [min(options.features * 2**i, 320) for i in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1), "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [options.patch] * 3, "median_image_size_in_voxels": [options.patch * 1.5] * 3,
        "spacing": [1.0] * 3, "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "batch_dice": False, **resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    intensity = {"max": 600.0, "mean": 200.0, "median": 200.0, "min": -50.0, "percentile_00_5": 0.0,
                 "percentile_99_5": 500.0, "std": 90.0}  # fmt: skip
    return {
        "dataset_name": NAME, "plans_name": PLANS, "original_median_spacing_after_transp": [1.0] * 3,
        "original_median_shape_after_transp": [options.patch * 3 // 2] * 3, "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration}, "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager", "foreground_intensity_properties_per_channel": {"0": intensity},
    }  # fmt: skip


def _trainer(kind: str, folder: Path, options: argparse.Namespace) -> Any:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from cardiosynth.segmentation.nnunet.trainer import nnUNetTrainerCAL

    about = json.loads((folder / "raw" / NAME / "dataset.json").read_text())
    plans = {**_plans(options), "continue_training": False}
    _seed(0)
    made = (nnUNetTrainer if kind == "stock" else nnUNetTrainerCAL)(
        plans, CONFIGURATION, "all", about, torch.device(options.device)
    )
    made.initialize()
    return made


def _batches(stock: Any, ours: Any, options: argparse.Namespace) -> Median:
    loaders = {name: trainer.get_dataloaders()[0] for name, trainer in (("stock", stock), ("ours", ours))}
    return _in_turns({name: lambda loader=loader: next(loader) for name, loader in loaders.items()}, options)


def _steps(stock: Any, ours: Any, options: argparse.Namespace) -> Median:
    batch = next(ours.get_dataloaders()[0])
    if not batch["data"][:, 1].any():
        batch["data"][0, 1] = 0.5
    plain = {**batch, "data": batch["data"][:, :1].contiguous()}

    def step(trainer: Any, batch: dict[str, Any]) -> None:
        trainer.train_step(batch)
        if options.device == "cuda":
            torch.cuda.synchronize()

    return _in_turns({"stock": lambda: step(stock, plain), "ours": lambda: step(ours, batch)}, options)


def _in_turns(ways: dict[str, Callable[[], Any]], options: argparse.Namespace) -> Median:
    """Return the median wall and CPU seconds of each way, after one turn that does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(options.repeats + 1):
        for name, way in ways.items():
            _seed(turn)
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            if turn:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: dict(zip(CLOCKS, map(statistics.median, zip(*values, strict=True)), strict=True))
        for name, values in taken.items()
    }


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nnU-Net draws from the global generators
    torch.manual_seed(seed)


if __name__ == "__main__":
    main()
