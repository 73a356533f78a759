"""Acquisition protocols: contrast phase and level, reconstruction kernel and noise, shared by many patients."""

from dataclasses import dataclass
from typing import Any, Literal

from cardiosynth.core.random import numpy_generator
from cardiosynth.data.sources.phantom.variation import Draws

Phase = Literal["left heart", "biphasic", "whole heart"]

RIGHT_SHARE: dict[Phase, tuple[float, float]] = {
    "left heart": (0.35, 0.50),
    "biphasic": (0.50, 0.85),
    "whole heart": (0.85, 1.10),
}
"""Right ventricle's attenuation against the left's: saline chaser, diluted contrast, contrast throughout."""

KERNELS: dict[str, tuple[float, float]] = {"smooth": (0.95, 0.95), "medium": (0.75, 0.65), "sharp": (0.55, 0.40)}
"""Kernel -> width of an edge (mm) and grain of the noise (mm, standard deviation)."""


@dataclass(frozen=True)
class Protocol:
    """How a scanner is run.

    Attributes:
        name: ``"protocol-03"``; the same name means the same settings.
        phase: which chambers the contrast has reached.
        left_hu: attenuation of the left ventricle's blood.
        right_share: right ventricle's attenuation over the left's.
        tube_kv: tube voltage.
        kernel: ``"smooth"``, ``"medium"`` or ``"sharp"``.
        edge_mm: width of an edge in the image, beyond the voxel's.
        grain_mm: how far noise is correlated.
        noise_hu: standard deviation of the noise on voxels of 1 mm.
    """

    name: str
    phase: Phase
    left_hu: float
    right_share: float
    tube_kv: int
    kernel: str
    edge_mm: float
    grain_mm: float
    noise_hu: float

    def facts(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {
            "phase": self.phase,
            "left_ventricle_hu": round(self.left_hu),
            "right_over_left": round(self.right_share, 2),
            "tube_kv": self.tube_kv,
            "kernel": self.kernel,
            "noise_hu": round(self.noise_hu, 1),
        }


def draw_protocol(index: int, seed: int) -> Protocol:
    """Return protocol ``index`` of a seed. Phases and kernels take turns, so that few protocols differ much."""
    draws = Draws(numpy_generator(seed, "phantom", "protocol", index))
    phases, kernels = tuple(RIGHT_SHARE), tuple(KERNELS)
    phase = phases[(index + int(draws.rng.integers(2))) % len(phases)]
    kernel = kernels[(index // 2 + int(draws.rng.integers(2))) % len(kernels)]
    tube_kv = (80, 100, 120)[int(draws.rng.integers(3))]
    edge, grain = KERNELS[kernel]
    # Iodine attenuates more at lower voltage; photons are fewer there and the noise is higher.
    level = {80: (400, 490), 100: (350, 450), 120: (300, 390)}[tube_kv]
    return Protocol(
        name=f"protocol-{index:02d}",
        phase=phase,
        left_hu=draws.uniform(*level),
        right_share=draws.uniform(*RIGHT_SHARE[phase]),
        tube_kv=tube_kv,
        kernel=kernel,
        edge_mm=edge,
        grain_mm=grain,
        noise_hu=draws.uniform(12, 22) * {"smooth": 0.8, "medium": 1.0, "sharp": 1.3}[kernel],
    )


@dataclass(frozen=True)
class Attenuation:
    """What each tissue of one patient measures under one protocol, in HU."""

    left_ventricle: float
    left_atrium: float
    aorta: float
    right_ventricle: float
    right_atrium: float
    pulmonary: float
    superior_cava: float
    inferior_cava: float
    coronary: float
    myocardium: float
    fat: float
    lung: float
    muscle: float
    liver: float
    marrow: float
    cortex: float


def draw_attenuation(protocol: Protocol, draws: Draws) -> Attenuation:
    """Draw a patient's attenuations: blood follows the protocol within some per cent, tissue is the patient's."""

    def about(hu: float) -> float:
        return hu * draws.uniform(0.97, 1.03)

    left = about(protocol.left_hu)
    right = about(protocol.right_share * left)
    return Attenuation(
        left_ventricle=left,
        left_atrium=about(1.01 * left),
        aorta=about(0.99 * left),
        right_ventricle=right,
        right_atrium=about(right),
        pulmonary=about(0.5 * (left + right)) if protocol.phase == "left heart" else about(1.05 * right),
        superior_cava=about(1.25 * right),
        inferior_cava=draws.uniform(90, 150),
        coronary=about(0.95 * left),
        myocardium=draws.uniform(90, 125),
        fat=draws.uniform(-112, -92),
        lung=draws.uniform(-880, -820),
        muscle=draws.uniform(45, 62),
        liver=draws.uniform(65, 110),
        marrow=draws.uniform(150, 240),
        cortex=draws.uniform(480, 720),
    )
