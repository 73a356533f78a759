"""Whether synthetic images are copies of training images: their nearest neighbors beside those of unseen real images.

An image as near to a training image as few real images are that the model never saw has not been made but remembered.
Descriptors are whatever the caller compares: small pictures, or features of a network.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.spatial.distance import cdist

NEAR_PERCENTILE = 5.0
LEVEL = 0.95


def nearest(
    x: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Return the Euclidean distance of every row to its nearest row of ``others``, and which that is."""
    distance = cdist(x, others)
    index = distance.argmin(1)
    return distance[np.arange(len(x)), index], index


@dataclass(frozen=True)
class NearCopies:
    """How near synthetic images come to training images.

    Attributes:
        share: of the synthetic images that are nearer to a training image than ``threshold``, in [0, 1].
        bound: share that is not exceeded in 95 of 100 sets of this size whose images were as unseen as the test images.
        threshold: 5th percentile of the distances of the test images to their nearest training image.
        ratio: median distance of the synthetic images over that of the test images; copies are near 0.
    """

    share: float
    bound: float
    threshold: float
    ratio: float

    @property
    def suspicious(self) -> bool:
        """Whether there are more near copies than chance explains."""
        return self.share > self.bound


def near_copies(synthetic: Float[np.ndarray, "n"], test: Float[np.ndarray, "m"]) -> NearCopies:
    """Return how many synthetic images are near copies.

    Args:
        synthetic: distance of every synthetic image to its nearest training image.
        test: likewise of real images that took no part in training, one at least.
    """
    threshold, median = float(np.percentile(test, NEAR_PERCENTILE)), float(np.median(test))
    return NearCopies(
        share=float((synthetic < threshold).mean()),
        bound=binomial_bound(len(synthetic), NEAR_PERCENTILE / 100),
        threshold=threshold,
        ratio=float(np.median(synthetic)) / median if median else float("nan"),
    )


def binomial_bound(count: int, probability: float, level: float = LEVEL) -> float:
    """Return the share of ``count`` independent draws that chance exceeds in no more than 1 - ``level`` of all sets."""
    return float(stats.binom.ppf(level, count, probability)) / count
