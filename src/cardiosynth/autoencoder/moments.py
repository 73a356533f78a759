"""Mean and variance of a volume that is seen slab by slab, exact enough for group normalization."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

CHUNK = {"cpu": 2**18, "cuda": 2**24}
"""Values that are converted and summed at a time: what fits into a core's cache, or keeps a GPU busy."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Per image and channel: how many voxels, their mean and their summed squared deviations, float64.

    Parts are joined by Chan, Golub & LeVeque (1979), equations 2.1: no difference of large numbers.
    """

    count: int
    mean: Float[Tensor, "b c"]
    deviations: Float[Tensor, "b c"]

    def joined(self, other: "Moments") -> "Moments":
        """Return the moments of both parts together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.deviations + other.deviations + delta**2 * (self.count * other.count / count),
        )

    def affine(self, norm: nn.GroupNorm) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
        """Return scale and shift, float32, such that x * scale + shift is ``norm`` of the volume."""
        b, c = self.mean.shape
        mean = self.mean.reshape(b, norm.num_groups, -1)
        center = mean.mean(-1, keepdim=True)
        variance = self.deviations.reshape_as(mean).mean(-1, keepdim=True) / self.count
        variance = variance + (mean - center).square().mean(-1, keepdim=True)
        scale = ((variance + norm.eps).rsqrt()).expand_as(mean).reshape(b, c)
        shift = (-center * (variance + norm.eps).rsqrt()).expand_as(mean).reshape(b, c)
        if norm.affine:
            shift = shift * norm.weight.double() + norm.bias.double()
            scale = scale * norm.weight.double()
        return scale.float(), shift.float()


def measure_moments(x: Float[Tensor, "b c *grid"]) -> Moments:
    """Return the moments of ``x``, summed in float32 over small chunks and in float64 over these."""
    planes = max(1, CHUNK.get(x.device.type, CHUNK["cpu"]) // max(1, x[:, :, :1].numel()))
    found: Moments | None = None
    for chunk in x.split(planes, dim=2):
        values = chunk.movedim(1, -1).flatten(1, -2).float()
        mean = values.mean(1, keepdim=True)
        deviations = (values - mean).square_().sum(1)
        part = Moments(values.shape[1], mean[:, 0].double(), deviations.double())
        found = part if found is None else found.joined(part)
    assert found is not None, "an empty volume"
    return found
