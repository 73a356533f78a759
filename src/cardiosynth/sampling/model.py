"""The trained networks of a run, loaded together and seen to belong together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cardiosynth.autoencoder.codec import Codec, load_codec
from cardiosynth.diffusion.process import build_process
from cardiosynth.diffusion.stages import DiffusionStage, load_control, recorded_statistics
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.sampling.guidance import Guidance


class StructDiffModel:
    """The trained networks of a run and what they expect.

    Args:
        codec: with the latent statistics of the diffusion stages.
        network: the conditional denoiser, frozen.
        first: settings of the first diffusion stage (process, prediction).
        record: of the control checkpoint.
    """

    def __init__(self, codec: Codec, network: TemplateUNet, first: DiffusionStage, record: Mapping[str, Any]):
        self.codec, self.network, self.first, self.record = codec, network, first, record
        self.process = build_process(first.process)
        self.labels = network.labels
        self.dropout = {name: record["settings"].get(f"drop_{name}", 0.0) for name in Guidance._fields}
        self.multiple = codec.compression * first.denoiser.multiple

    @property
    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the checkpoints, by stage."""
        return {
            "autoencoder": self.codec.fingerprint,
            "diffusion": self.record["diffusion"],
            "control": self.record["fingerprint"],
        }


def load_model(run: Path, device: str = "cpu", autoencoder: Path | None = None) -> StructDiffModel:
    """Load the networks of a run: ``run/autoencoder`` and ``run/control``.

    Args:
        run: the model's folder.
        device: cpu or cuda.
        autoencoder: run whose autoencoder is used, where not this one.

    Raises:
        InputError: a stage is missing, or was trained with another autoencoder.
    """
    codec = load_codec(autoencoder or run, device)
    network, first, record = load_control(run, codec, device)
    return StructDiffModel(codec.with_statistics(recorded_statistics(record, run)), network, first, record)
