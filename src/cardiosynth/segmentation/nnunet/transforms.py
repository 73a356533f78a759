"""Confidence through nnU-Net's augmentation: moved with the image, untouched by what changes intensities."""

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform  # pyright: ignore[reportMissingImports]
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform  # pyright: ignore[reportMissingImports]
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms  # pyright: ignore[reportMissingImports]

from cardiosynth.segmentation.nnunet.patches import Place, sampled

MAP = "regression_target"
"""Under this name nnU-Net's transforms move and mirror what no change of intensities touches (its authors' advice,
batchgeneratorsv2 pull request 10)."""


class Carrying(BasicTransform):
    """Applies nnU-Net's transforms, and takes the map of cases that have one along as the last channel of the image.

    Image and labels stay nnU-Net's, bit for bit. Cases without a map get a channel of zeros.

    Args:
        stock: nnU-Net's transforms.
        place: of the patch that is augmented.
    """

    def __init__(self, stock: ComposeTransforms, place: Place):
        super().__init__()
        found = [i for i, each in enumerate(stock.transforms) if isinstance(each, SpatialTransform)]
        first, last = (found[0], found[0] + 1) if found else (0, 0)
        self.stock, self.place = stock, place
        self.before, self.after = stock.transforms[:first], stock.transforms[last:]
        self.spatial = stock.transforms[first] if found else None

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Return the transformed sample, with 1 - weight as the last channel."""
        found = self.place.map
        moved = self.stock(**data_dict) if found is None else self._carried(data_dict)
        image = moved["image"]
        channels = image.new_empty((len(image) + 1, *image.shape[1:]))
        channels[:-1] = image
        if found is None:
            channels[-1] = 0
        else:
            found.fall_short(moved.pop(MAP), out=channels[-1:])
        return {**moved, "image": channels}

    def _carried(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return the transformed sample with its map."""
        levels: Any = self.place.patch(sample["image"].shape[1:])
        if self.before or self.spatial is None:
            sample[MAP] = levels[(slice(None),) * levels.ndim]
        for transform in self.before:
            sample = transform(**sample)
        if self.spatial is not None:
            sample = self._moved(sample, sample.pop(MAP, levels))
        for transform in self.after:
            sample = transform(**sample)
        return sample

    def _moved(self, sample: dict[str, Any], levels: Any) -> dict[str, Any]:
        """Return the sample after nnU-Net's crop, rotation and scaling; each voxel has the level nearest to it."""
        spatial: Any = self.spatial
        params = spatial.get_parameters(**sample)
        sample, grid = spatial.apply(sample, **params), params["grid"]
        if grid is None:
            sample[MAP] = spatial._apply_to_image(levels, **params)
        else:
            assert self.place.map is not None, "the case has a map"
            whole, bent = levels[(slice(None),) * levels.ndim], params["elastic_offsets"] is not None
            sample[MAP] = sampled(whole, grid, self.place.map.keeps_out, bent)
        return sample
