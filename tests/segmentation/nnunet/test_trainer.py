"""What confidence does to nnU-Net's loss and data, and what it must not do."""

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.segmentation.nnunet import tiny

pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")

from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from cardiosynth.core.errors import InputError
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.dataset import ConfidenceDataset
from cardiosynth.segmentation.nnunet.loss import ConfidenceLoss
from cardiosynth.segmentation.nnunet.patches import Place
from cardiosynth.segmentation.nnunet.schedule import Schedule
from cardiosynth.segmentation.nnunet.trainer import ScheduledTrainer, configured_trainer, nnUNetTrainerCAL

MAPPED = "Dataset001_mapped"
UNMAPPED = "Dataset002_unmapped"
SHORT = Schedule(epochs=1, iterations=2, validation_iterations=1)
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Build a trainer: ``make(trainer class, dataset, configuration)``."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(root / name))
        patch.setenv("nnUNet_n_proc_DA", "0")
        for name, mapped in ((MAPPED, 3), (UNMAPPED, 0)):
            tiny.dataset(root / "raw" / name, 3, mapped=mapped)
            tiny.preprocess(root / "raw" / name, root / "preprocessed" / name, "3d_fullres")
        flat = "Dataset003_flat"
        tiny.dataset(root / "raw" / flat, 2, mapped=2)
        tiny.preprocess(root / "raw" / flat, root / "preprocessed" / flat, "2d")

        def trainer(kind: type, dataset: str = MAPPED, configuration: str = "3d_fullres", fold: Any = 0) -> Any:
            from cardiosynth.core.store import read_json

            folder = root / "preprocessed" / dataset
            plans = {**read_json(folder / f"{tiny.PLANS_NAME}.json"), "continue_training": False}
            torch.manual_seed(0)
            made = kind(plans, configuration, fold, read_json(folder / "dataset.json"), torch.device("cpu"))
            made.initialize()
            return made

        yield trainer


def stock_loss(batch_dice: bool, ignore_label: int | None = None) -> DC_and_CE_loss:
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, ignore_label=ignore_label, dice_class=MemoryEfficientSoftDiceLoss)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize(("batch_dice", "ignore_label"), [(False, None), (True, None), (False, 3)])
def test_full_confidence_is_nnunets_own_loss(batch_dice: bool, ignore_label: int | None):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 6, 6, 6), generator=rng).requires_grad_()
    target = torch.randint(0, 3 if ignore_label is None else 4, (2, 1, 6, 6, 6), generator=rng).short()
    stock = stock_loss(batch_dice, ignore_label)
    theirs, ours = stock(logits, target), ConfidenceLoss(stock)(logits, target, torch.ones(2, 1, 6, 6, 6))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(ours, logits), gradient(theirs, logits))


def parameter_gradient(trainer: Any, data: Tensor, target: list[Tensor]) -> Tensor:
    """Return the gradient of all parameters that one training step takes."""
    trainer.optimizer.step = lambda: None
    trainer.train_step({"data": data, "target": target})
    return torch.cat([p.grad.flatten() for p in trainer.network.parameters() if p.grad is not None])


def test_labels_that_nobody_trusts_change_no_gradient_of_the_network(make: Make):
    trainer = make(nnUNetTrainerCAL)
    batch = next(trainer.get_dataloaders()[0])
    data, target = batch["data"].clone(), batch["target"]
    scrambled = copy.deepcopy(target)
    for labels in scrambled:
        half = labels.shape[-1] // 2
        labels[..., half:] = (labels[..., half:] + 1) % 3
    for distrust, same in ((1.0, True), (0.0, False)):
        data[:, 1], data[:, 1, ..., data.shape[-1] // 2 :] = 0, distrust
        before, after = parameter_gradient(trainer, data, target), parameter_gradient(trainer, data, scrambled)
        assert torch.equal(before, after) == same


def test_a_case_of_full_confidence_takes_nnunets_step(make: Make):
    ours, theirs = make(nnUNetTrainerCAL), make(nnUNetTrainer)
    batch = next(ours.get_dataloaders()[0])
    image, target = batch["data"][:, :1].contiguous(), batch["target"]
    trusted = torch.cat((image, torch.zeros_like(image)), 1)
    assert torch.equal(parameter_gradient(ours, trusted, target), parameter_gradient(theirs, image, target))
    nearly = torch.cat((image, torch.full_like(image, 1e-7)), 1)  # goes through the weighted loss
    torch.testing.assert_close(parameter_gradient(ours, nearly, target), parameter_gradient(theirs, image, target))


def seed() -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - nnU-Net draws from the global generators
    torch.manual_seed(3)


@pytest.mark.parametrize("dataset", [MAPPED, UNMAPPED])
def test_images_and_labels_are_those_of_nnunet_bit_for_bit(make: Make, dataset: str):
    batches = []
    for kind in (nnUNetTrainer, nnUNetTrainerCAL):
        loaders = make(kind, dataset).get_dataloaders()
        seed()
        batches.append([next(loader) for loader in loaders for _ in range(3)])
    for theirs, ours in zip(*batches, strict=True):
        assert torch.equal(ours["data"][:, :1], theirs["data"])
        assert ours["data"][:, 1].any() == (dataset == MAPPED)
        assert list(ours["keys"]) == list(theirs["keys"])
        assert all(torch.equal(a, b) for a, b in zip(ours["target"], theirs["target"], strict=True))


@pytest.mark.parametrize(
    ("configuration", "moved"), [("3d_fullres", None), ("3d_fullres", 1), ("2d", 0), ("2d", 1), ("dummy 2d", 1)]
)
def test_confidence_stays_with_its_labels_through_crop_resampling_and_augmentation(
    make: Make, configuration: str, moved: int | None, monkeypatch: pytest.MonkeyPatch
):
    """In the mapped cases, the shell (label 1) is distrusted, by 0.8, and nothing else.

    ``moved`` is the probability of rotation and of scaling, None for nnU-Net's. Between half of the distrust and more,
    and half of it and less, is the boundary of the shell, which interpolation places within a voxel.
    """
    trainer = make(nnUNetTrainerCAL, *(["Dataset003_flat", configuration] if configuration == "2d" else []))
    if configuration == "dummy 2d":
        _, _, size, axes = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
        facts = ((-np.pi, np.pi), True, np.array([16, *size[1:]]), axes)
        monkeypatch.setattr(trainer, "configure_rotation_dummyDA_mirroring_and_inital_patch_size", lambda: facts)
    loader = trainer.get_dataloaders()[0]
    spatial = loader.data_loader.transforms.spatial
    if moved is not None:
        spatial.p_rotation = spatial.p_scaling = moved
    seed()
    for _ in range(3):
        batch = next(loader)
        distrust, shell = batch["data"][:, 1:], batch["target"][0] == 1
        inner, outer = uniform(shell), uniform(~shell)
        assert ((distrust > 0.4) == shell).float().mean() > 0.9
        assert (inner | outer).float().mean() > 0.3
        assert (distrust[inner] > 0.35).float().mean() > 0.98
        assert (distrust[outer] < 0.45).float().mean() > 0.98
        assert -1e-5 < distrust.min() <= distrust.max() < 0.8 + 1e-5


def uniform(found: Tensor) -> Tensor:
    """Return the voxels all of whose neighbors are found too."""
    least = F.max_pool3d if found.ndim == 5 else F.max_pool2d
    return -least(-found.float(), 3, stride=1, padding=1) > 0.5


def test_weights_have_their_floor_and_their_mean(make: Make):
    folder = make(nnUNetTrainerCAL).preprocessed_dataset_folder

    def weights(**settings: Any) -> np.ndarray:
        place = Place()
        ConfidenceDataset(folder, ["c0"], ConfidenceWeights(**settings), place).load_case("c0")
        assert place.map is not None
        levels = place.map[(slice(None),) * 3]
        short = torch.empty(levels.shape)
        place.map.fall_short(levels, short)
        return 1 - short.numpy()

    raw, floored = weights(), weights(floor=0.3)
    assert raw.min() == pytest.approx(0.2, abs=1e-6)
    assert raw.max() == 1
    np.testing.assert_allclose(floored, raw.clip(0.3), atol=1e-6)
    np.testing.assert_allclose(weights(floor=0.3, relative=True), floored / floored.mean(), rtol=1e-4)


def test_a_map_on_another_grid_is_refused(make: Make, tmp_path: Path):
    import shutil

    source = Path(make(nnUNetTrainerCAL).preprocessed_dataset_folder)
    for name in (source.name, f"{source.name}_confidence"):
        shutil.copytree(source.with_name(name), tmp_path / name)
    for file in (tmp_path / source.name).glob("c1*"):
        shutil.copy(source.parents[1] / "Dataset003_flat" / f"{tiny.PLANS_NAME}_2d" / file.name, file)
    with pytest.raises(InputError, match=r"does not lie on its image's grid"):
        ConfidenceDataset(str(tmp_path / source.name), ["c1"], ConfidenceWeights(), Place()).load_case("c1")


def test_regions_are_refused(make: Make):
    trainer = make(nnUNetTrainerCAL)
    trainer.is_cascaded = True
    with pytest.raises(InputError, match="does not train a cascade"):
        trainer._build_loss()


def test_a_schedule_is_followed_and_the_checkpoint_names_nnunets_trainer(make: Make, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[int, float, float]] = []
    kind = configured_trainer(SHORT, ConfidenceWeights(), lambda *facts: told.append(facts))
    trainer = make(kind)
    monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda folder: None)
    trainer.run_training()
    assert kind.__name__ == "nnUNetTrainerCAL_1epochs"
    assert configured_trainer(Schedule()).__name__ == "nnUNetTrainer"
    assert [epoch for epoch, *_ in told] == [1]
    assert all(np.isfinite(facts).all() for facts in told)
    saved = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
    assert saved["trainer_name"] == "nnUNetTrainer"
    assert saved["current_epoch"] == 1
    assert issubclass(kind, ScheduledTrainer)
    assert not list(Path(trainer.output_folder).glob(".partial-*"))


@pytest.mark.slow
def test_nnunets_own_lookup_finds_the_trainer_in_our_folder(monkeypatch: pytest.MonkeyPatch):
    import subprocess
    import sys

    from cardiosynth.segmentation.nnunet.commands import TRAINERS

    script = (
        "from cardiosynth.core.torchvision_operators import declare_torchvision_operators as declare; declare(); "
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find; "
        "print(find('nnUNetTrainerCAL').__module__, find('nnUNetTrainer_200epochs').schedule.epochs)"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "cardiosynth.segmentation.nnunet.trainer 200"
