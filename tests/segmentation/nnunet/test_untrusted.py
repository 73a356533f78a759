"""Labels without any confidence: no way from them to what is learned, from the raw files to the gradient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cardiosynth.core.store import read_json
from cardiosynth.data.dataset import write_dataset
from tests.segmentation.nnunet import tiny
from tests.segmentation.nnunet.test_trainer import parameter_gradient, seed

pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")

from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.dataset import ConfidenceDataset
from cardiosynth.segmentation.nnunet.patches import Place
from cardiosynth.segmentation.nnunet.schedule import Schedule
from cardiosynth.segmentation.nnunet.trainer import configured_trainer

GIVEN, SCRAMBLED = "Dataset001_given", "Dataset002_scrambled"
FIRST = 9
"""Slice from which on there is no confidence; nnU-Net resamples across slices."""


def case(index: int, scrambled: bool) -> Any:
    given = tiny.case(index, confidence=True)
    mask, confidence = given.required_mask().copy(), np.ones(given.grid.shape, np.float32)[None]
    confidence[..., FIRST:] = 0
    if scrambled:
        mask[..., FIRST:] = (mask[..., FIRST:] + 1) % 3
    return given.with_(mask=mask, confidence=confidence)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory):
    """Preprocess the same cases twice, once with scrambled labels where CM = 0."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(root / name))
        patch.setenv("nnUNet_n_proc_DA", "0")
        for name in (GIVEN, SCRAMBLED):
            write_dataset((case(index, name == SCRAMBLED) for index in range(3)), root / "raw" / name, name)
            tiny.preprocess(root / "raw" / name, root / "preprocessed" / name, "3d_fullres")
        yield root / "preprocessed"


def loaded(folder: Path, weights: ConfidenceWeights) -> tuple[Any, Any]:
    """Return a trainer and its loader, which rotates and scales every example."""
    plans = {**read_json(folder / f"{tiny.PLANS_NAME}.json"), "continue_training": False}
    seed()
    kind: Any = configured_trainer(Schedule(), weights)
    trainer = kind(plans, "3d_fullres", 0, read_json(folder / "dataset.json"), torch.device("cpu"))
    trainer.initialize()
    loader = trainer.get_dataloaders()[0]
    spatial = loader.data_loader.transforms.spatial
    spatial.p_rotation = spatial.p_scaling = 1
    return trainer, loader


def gradients(folder: Path, weights: ConfidenceWeights) -> Tensor:
    trainer, loader = loaded(folder, weights)
    seed()
    batches = [next(loader) for _ in range(2)]
    return torch.stack([parameter_gradient(trainer, batch["data"], batch["target"]) for batch in batches])


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_labels_without_confidence_change_no_gradient(folders: Path, floor: float):
    """Not the places of patches, and not through resampling, rotation and scaling; a floor makes them count again."""
    weights = ConfidenceWeights(floor=floor)
    given, scrambled = gradients(folders / GIVEN, weights), gradients(folders / SCRAMBLED, weights)
    assert given.abs().amax(1).min() > 0
    assert torch.equal(given, scrambled) == (floor == 0)


def test_patches_are_centered_on_labels_with_confidence_only(folders: Path):
    where = folders / GIVEN / f"{tiny.PLANS_NAME}_3d_fullres"
    for floor, only in ((0.0, True), (0.5, False)):
        place = Place()
        dataset = ConfidenceDataset(str(where), ["c0"], ConfidenceWeights(floor=floor), place)
        _, segmentation, _, properties = dataset.load_case("c0")
        assert place.map is not None
        trusted, labels = place.map[(slice(None),) * 3][0].numpy() < 128, segmentation[:][0]
        for label, centers in properties["class_locations"].items():
            places = tuple(np.asarray(centers).T[1:])
            assert (labels[places] == label).all()
            assert trusted[places].all() == only
            assert (len(centers) == (trusted & (labels == label)).sum()) == only
