"""Run as a script: leave a trained-looking nnU-Net with random weights, and predict one image with it, both by nnU-Net.

``python random_nnunet.py ROOT IMAGE MASK``: the model goes to ``ROOT/Dataset901_Toy/nnUNetTrainer__plans__3d_fullres``.
"""

import json
import os
import sys
from pathlib import Path

LABELS = {"background": 0, "LV": 1, "left atrium": 2, "vessel": 3}
ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
RESAMPLING = {"force_separate_z": None, "order_z": 0}
CONFIGURATION = {
    "data_identifier": "plans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 16, 16],
    "median_image_size_in_voxels": [24.0, 24.0, 24.0],
    "spacing": [2.0, 2.0, 2.0],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **RESAMPLING},
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **RESAMPLING},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **RESAMPLING},
    "architecture": ARCHITECTURE,
    "batch_dice": False,
}
INTENSITY = {"max": 800.0, "mean": 0.0, "median": 0.0, "min": -1000.0, "percentile_00_5": -1000.0,
             "percentile_99_5": 800.0, "std": 300.0}  # fmt: skip
PLANS = {
    "dataset_name": "Dataset901_Toy",
    "plans_name": "plans",
    "original_median_spacing_after_transp": [2.0, 2.0, 2.0],
    "original_median_shape_after_transp": [24, 24, 24],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {"3d_fullres": CONFIGURATION},
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": INTENSITY},
}
DATASET = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz"}


def main(root: Path, image: str, mask: str) -> None:
    os.environ |= {f"nnUNet_{name}": str(root) for name in ("raw", "preprocessed", "results")}
    data = root / PLANS["dataset_name"] / CONFIGURATION["data_identifier"]
    data.mkdir(parents=True)
    (data / "toy.b2nd").touch()  # the trainer looks what kind of files it will read
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(5)
    trainer = nnUNetTrainer({**PLANS, "continue_training": False}, "3d_fullres", 0, DATASET, torch.device("cpu"))
    trainer.enable_deep_supervision = False
    trainer.initialize()
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    (fold.parent / "plans.json").write_text(json.dumps(PLANS))
    (fold.parent / "dataset.json").write_text(json.dumps(DATASET))

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, [trainer.network.state_dict()], DATASET,
        "nnUNetTrainer", trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    predictor.predict_from_files_sequential([[image]], [mask.removesuffix(".nii.gz")], False, True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
