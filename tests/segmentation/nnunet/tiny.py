"""The smallest nnU-Net that trains: hand-written plans, cases preprocessed in this process, no pools."""

from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.labels import label_table
from cardiosynth.core.store import write_json
from cardiosynth.data.dataset import Dataset, write_dataset

SIDE = 20
SPACING_MM = (1.25, 1.0, 1.0)
LABELS = label_table({"wall": 1, "chamber": 2})
PLANS_NAME = "nnUNetPlans"


def plans(dataset: str, configuration: str = "3d_fullres") -> dict[str, Any]:
    """Return plans for patches of 16 voxels and a network of three stages; two give nnU-Net a loss of NaN."""
    axes = 3 if configuration == "3d_fullres" else 2
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    architecture = {
        "n_stages": 3, "features_per_stage": [4, 8, 16], "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [[3] * axes] * 3, "strides": [[1] * axes, [2] * axes, [2] * axes], "n_conv_per_stage": [1] * 3,
        "n_conv_per_stage_decoder": [1] * 2, "conv_bias": True, "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d", "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    chosen = {
        "data_identifier": f"{PLANS_NAME}_{configuration}", "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2, "patch_size": [16] * axes, "median_image_size_in_voxels": [float(SIDE)] * axes,
        "spacing": [1.0] * axes, "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": architecture, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }  # fmt: skip
    orders = {"data": {"order": 3}, "seg": {"order": 1, "is_seg": True}, "probabilities": {"order": 1}}
    for name, changes in orders.items():
        chosen[f"resampling_fn_{name}"] = "resample_data_or_seg_to_shape"
        chosen[f"resampling_fn_{name}_kwargs"] = {**resampling, **changes}
    intensity = {"max": 500.0, "mean": 180.0, "median": 160.0, "min": -50.0, "percentile_00_5": 0.0,
                 "percentile_99_5": 420.0, "std": 85.0}  # fmt: skip
    return {
        "dataset_name": dataset, "plans_name": PLANS_NAME, "original_median_spacing_after_transp": list(SPACING_MM),
        "original_median_shape_after_transp": [SIDE] * 3, "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "configurations": {configuration: chosen},
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensity},
    }  # fmt: skip


def case(index: int, *, confidence: bool, case_id: str = "") -> Case:
    """Return a ball in a shell; where there is a map, the shell has a confidence of 0.2 and all else of 1."""
    rng = np.random.default_rng(index)
    center = rng.uniform(8, 12, (3, 1, 1, 1))
    distance = np.linalg.norm(np.indices((SIDE,) * 3) - center, axis=0)[None]
    mask = ((distance < 7).astype(np.uint8) + (distance < 4)).astype(np.uint8)
    image = (np.array([-50, 150, 350])[mask] + rng.normal(0, 30, mask.shape)).astype(np.int16)
    trusted = np.where(mask == 1, np.float32(0.2), np.float32(1)) if confidence else None
    affine = np.diag([*SPACING_MM[::-1], 1.0])  # nnU-Net reads the axes in reverse
    return Case(
        case_id=case_id or f"c{index}", image=image, mask=mask, confidence=trusted, labels=LABELS, affine=affine
    )


def dataset(root: Path, count: int, *, mapped: int) -> Dataset:
    """Write a dataset of ``count`` cases, the first ``mapped`` of them with a confidence map."""
    return write_dataset((case(i, confidence=i < mapped) for i in range(count)), root, root.name)


def preprocess(raw: Path, preprocessed: Path, configuration: str) -> None:
    """Preprocess every case of a raw dataset by nnU-Net's preprocessor, and leave all that its trainer looks for."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from cardiosynth.core.store import read_json

    about = read_json(raw / "dataset.json")
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").glob("*.nii.gz"))
    write_json(preprocessed / "dataset.json", about)
    write_json(preprocessed / "dataset_fingerprint.json", {})
    write_json(preprocessed / f"{PLANS_NAME}.json", plans(raw.name, configuration))
    write_json(preprocessed / "splits_final.json", [{"train": cases[:-1], "val": cases[-1:]}])
    manager = PlansManager(str(preprocessed / f"{PLANS_NAME}.json"))
    chosen = manager.get_configuration(configuration)
    out = preprocessed / chosen.data_identifier
    out.mkdir()
    for name in cases:
        files = [str(raw / "imagesTr" / f"{name}_0000.nii.gz")], str(raw / "labelsTr" / f"{name}.nii.gz")
        DefaultPreprocessor(verbose=False).run_case_save(str(out / name), *files, manager, chosen, about)
