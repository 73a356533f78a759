"""Predict cases with a trained nnU-Net. Run as a script, by the Python that has nnU-Net, which may lack cardiosynth.

``python nnunet_child.py REQUEST.json`` reads ``{"model", "folds", "checkpoint", "device", "mirroring", "cases":
{name: [image, mask]}}``, loads the model once and writes the mask of each case, whole or not at all. What it has to
tell stands in lines of JSON behind `SIGN`: ``{"begun": name}``, then ``{"done": name}`` or
``{"failed": name, "why": text}``.
A checkpoint of nnU-Net is a pickle, which can run any code: predict with models of people you trust only.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

SIGN = "@cardiosynth "


def main(request: Path) -> None:
    """Predict what ``request`` asks for."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    predictor = _predictor(asked)
    for name, (image, mask) in asked["cases"].items():
        _tell(begun=name)
        try:
            _predict(predictor, image, Path(mask))
        except Exception as error:
            _tell(failed=name, why=f"{type(error).__name__}: {error}")
        else:
            _tell(done=name)


def _tell(**facts: str) -> None:
    print(SIGN + json.dumps(facts), flush=True)  # noqa: T201


def _predictor(asked):
    import torch

    _declare_torchvision_operators()
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # pyright: ignore[reportMissingImports]

    device = asked["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = nnUNetPredictor(use_mirroring=asked["mirroring"], device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(asked["model"], asked["folds"], asked["checkpoint"])
    return predictor


def _predict(predictor, image: str, mask: Path) -> None:
    files = predictor.plans_manager.image_reader_writer_class()
    voxels, properties = files.read_images([image])
    segmentation = predictor.predict_single_npy_array(voxels, properties)
    partial = mask.with_name(f".partial-{os.getpid()}-{mask.name}")
    try:
        files.write_seg(segmentation, str(partial), properties)
        partial.replace(mask)
    finally:
        partial.unlink(missing_ok=True)


def _declare_torchvision_operators() -> None:
    # nnU-Net looks a trainer up by importing all of them, and one imports torchvision.
    file = Path(__file__).resolve().parents[2] / "core" / "torchvision_operators.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.declare_torchvision_operators()


if __name__ == "__main__":
    # The folder of this file stands first on the path; its neighbors must not be taken for installed packages.
    sys.path.pop(0)
    main(Path(sys.argv[1]))
