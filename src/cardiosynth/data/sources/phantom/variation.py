"""How patients differ: bounded draws around what is normal, each group of draws from its own named generator."""

from dataclasses import dataclass

import numpy as np

from cardiosynth.core.random import numpy_generator

LIMIT_SD = 2.0
"""Draws further out are brought back: no patient is an anomaly by accident."""


@dataclass(frozen=True)
class Variation:
    """Draws of one patient. The same seed and patient give the same draws, whatever is drawn elsewhere.

    Attributes:
        seed: the run's seed.
        patient: the patient's index.
    """

    seed: int
    patient: int

    def draws(self, part: str) -> "Draws":
        """Return the draws that belong to one part of the anatomy."""
        return Draws(numpy_generator(self.seed, "phantom", self.patient, part))


@dataclass(frozen=True)
class Draws:
    """A generator with the two distributions that anatomy needs."""

    rng: np.random.Generator

    def normal(self, sd: float) -> float:
        """Return a normal draw around 0, held within two standard deviations."""
        return float(np.clip(self.rng.normal(0.0, sd), -LIMIT_SD * sd, LIMIT_SD * sd))

    def uniform(self, low: float, high: float) -> float:
        """Return a uniform draw."""
        return float(self.rng.uniform(low, high))

    def near(self, point: tuple[float, ...], sd: float) -> np.ndarray:
        """Return ``point`` with each coordinate moved by a normal draw."""
        return np.array([value + self.normal(sd) for value in point])

    def direction(self) -> np.ndarray:
        """Return a unit vector (3,), uniform over the sphere."""
        vector = self.rng.normal(size=3)
        return vector / np.linalg.norm(vector)
