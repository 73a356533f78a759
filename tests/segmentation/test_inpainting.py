import numpy as np
import pydantic
import pytest
import torch
from torch import nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors, read_json, read_rows
from cardiosynth.data.loader import CaseCache
from cardiosynth.segmentation.augmentation import NONE
from cardiosynth.segmentation.inpainting import (
    Holes,
    InpaintingStage,
    InpaintingTask,
    inpainting_parts,
    seen_mean,
    segmenter_start,
    train_inpainting,
)
from cardiosynth.segmentation.networks import HEADS, SegmenterSettings, build_network, build_segmenter, target_classes
from cardiosynth.segmentation.swin_unet import SwinUNetSettings
from cardiosynth.segmentation.task import train_segmenter
from cardiosynth.training.loop import TrainingSettings

from .cases import LABELS, SCALE, case, stage

CLASSES = target_classes(LABELS)
UNET = SegmenterSettings(spatial_dims=2, channels=(4, 8), strides=(2,))
SWIN = SegmenterSettings(
    kind="swin_unet", spatial_dims=2,
    swin_unet=SwinUNetSettings(features=8, depths=(1, 1), heads=(1, 2), window=2, patch=2),
)  # fmt: skip
TRAINING = TrainingSettings(steps=3, batch_size=2, learning_rate=1e-2, ema_decay=0.5, log_every=1, precision="fp32")
PAINTING = InpaintingStage(network=UNET, crop=(16, 16), augmentation=NONE, training=TRAINING)


def slices(count: int = 3) -> list:
    return [case(index, (16, 16), mask=None) for index in range(count)]


def test_holes_are_squares_of_the_share_asked_for():
    center = Holes(placement="center", count=1).draw((16, 16), generator(0))
    assert center[0, 4:12, 4:12].all()
    assert center.sum() == 64, "a quarter"
    volume = Holes(placement="center", count=1, share=1 / 8).draw((8, 8, 8), generator(0))
    assert volume.sum() == 64
    drawn = torch.stack([Holes().draw((32, 32), generator(0, i)) for i in range(200)])
    assert drawn.float().mean((1, 2, 3)).max() == 0.25, "four squares that do not overlap"
    assert drawn.float().mean() > 0.18
    assert drawn.any(0)[0, 2:-2, 2:-2].all(), "every place is cut out at times"
    with pytest.raises(pydantic.ValidationError, match="set count to 1"):
        Holes(placement="center", count=2)


def test_the_loss_is_the_squared_error_over_the_hole_alone_and_within_the_case():
    image, painted = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    cut = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    cut[:, :, :2, :2] = True
    inside = torch.ones_like(cut)
    painted[0, :, :2, :2], painted[1, :, :2, :2] = 3.0, 1.0
    painted[0, :, 2:] = 2.0
    parts = inpainting_parts(painted, image, cut, inside)
    assert parts["total"].item() == (9 + 1) / 2
    assert parts["seen"].item() == pytest.approx((8 * 4 / 12) / 2)
    inside[0, :, :, 0] = False
    painted[0, :, :2, 0] = 100.0
    assert inpainting_parts(painted, image, cut, inside)["total"].item() == 5, (
        "what lies beyond the case counts nowhere"
    )
    inside[:] = False
    assert inpainting_parts(painted, image, cut, inside)["total"].item() == 0


class Recorder(nn.Module):
    """Keeps what it is shown and paints nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return self.weight * x


def test_the_network_is_shown_the_mean_of_the_rest_where_it_is_asked_to_paint():
    network = Recorder()
    task = InpaintingTask(CaseCache(slices(), SCALE), network, PAINTING)
    batch = task.batch([generator(0, i) for i in range(3)])
    loss = task.players()[0].loss(batch)["total"]
    for seen, image, cut in zip(network.seen, batch["image"], batch["cut"], strict=True):
        mean = image[~cut].mean()
        torch.testing.assert_close(seen[cut], mean.expand(int(cut.sum())))
        assert torch.equal(seen[~cut], image[~cut])
    means = seen_mean(batch["image"], batch["cut"])
    expected = [(m - i)[c].square().mean() for m, i, c in zip(means, batch["image"], batch["cut"], strict=True)]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


@pytest.mark.parametrize("network", [UNET, SWIN], ids=lambda n: n.kind)
def test_a_segmenter_starts_from_all_that_was_learned_but_the_head(network, tmp_path):
    painter = train_inpainting(slices(), tmp_path, PAINTING.model_copy(update={"network": network}), SCALE)
    file = segmenter_start(tmp_path, tmp_path / "start.safetensors", network, CLASSES, SCALE, seed=5)
    start, painted = load_tensors(file), load_tensors(painter / "model.safetensors")
    fresh, head = build_segmenter(network, CLASSES, 5).state_dict(), HEADS[network.kind]
    assert start.keys() == painted.keys() == fresh.keys()
    for name, value in start.items():
        assert torch.equal(value, fresh[name] if name.startswith(head) else painted[name])
    assert sum(not name.startswith(head) for name in start) > len(start) / 2
    again = segmenter_start(tmp_path, tmp_path / "again.safetensors", network, CLASSES, SCALE, seed=5)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("kind", HEADS)
def test_only_the_head_depends_on_the_number_of_channels(kind):
    settings = SWIN if kind == "swin_unet" else SegmenterSettings(kind=kind, spatial_dims=2)
    with torch.device("meta"):
        one, many = (build_network(settings, channels).state_dict() for channels in (1, 4))
    differing = {name for name in one if one[name].shape != many[name].shape}
    assert differing
    assert all(name.startswith(HEADS[kind]) for name in differing)


def test_a_segmenter_is_fine_tuned_from_it_through_the_same_door(tmp_path):
    train_inpainting(slices(), tmp_path / "pre", PAINTING, SCALE)
    file = segmenter_start(tmp_path / "pre", tmp_path / "start.safetensors", UNET, CLASSES, SCALE)
    still = TRAINING.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "steps": 1})
    settings = stage(network=UNET, crop=(16, 16), training=still)
    tuned = train_segmenter([case(i, (16, 16)) for i in range(2)], tmp_path / "run", settings, SCALE, init=file)
    wanted = load_tensors(file)
    for name, value in load_tensors(tuned / "model.safetensors").items():
        torch.testing.assert_close(value, wanted[name])
    assert read_json(tuned / "record.json")["init"]


def test_painting_stops_and_goes_on_with_the_same_command_and_needs_no_masks(tmp_path):
    straight = train_inpainting(slices(), tmp_path / "a", PAINTING, SCALE)
    fewer = PAINTING.model_copy(update={"training": TRAINING.model_copy(update={"steps": 2})})
    train_inpainting(slices(), tmp_path / "b", fewer, SCALE)
    resumed = train_inpainting(slices(), tmp_path / "b", PAINTING, SCALE)
    for name in ("model.safetensors", "training.safetensors", "record.json"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()


def test_painting_is_learned(tmp_path):
    longer = PAINTING.model_copy(update={"training": TRAINING.model_copy(update={"steps": 60, "batch_size": 4})})
    final = train_inpainting(slices(), tmp_path, longer, SCALE)
    losses = [row["inpainting/total"] for row in read_rows(final.parent / "metrics.jsonl")]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_another_network_or_a_segmenter_is_refused(tmp_path):
    train_inpainting(slices(), tmp_path / "pre", PAINTING, SCALE)
    wider = UNET.model_copy(update={"channels": (8, 16)})
    with pytest.raises(InputError, match="is another network than the segmenter"):
        segmenter_start(tmp_path / "pre", tmp_path / "start.safetensors", wider, CLASSES, SCALE)
    with pytest.raises(InputError, match="is of other intensities"):
        segmenter_start(tmp_path / "pre", tmp_path / "start.safetensors", UNET, CLASSES, IntensityScale(unit="mr"))
    with pytest.raises(InputError, match="case box-0 has 3 axes and the segmenter takes 2"):
        train_inpainting([case(0), case(1)], tmp_path / "run", PAINTING, SCALE)
    with pytest.raises(pydantic.ValidationError, match="2 multiples of 2"):
        InpaintingStage(network=UNET, crop=(15, 16))
