"""The trained networks of a run, loaded together and seen to belong together."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cardiosynth.autoencoder.codec import Codec, load_codec
from cardiosynth.core.config import parse_settings
from cardiosynth.diffusion.process import build_process
from cardiosynth.diffusion.records import load_control, load_diffusion, recorded_statistics
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.sampling.guidance import Guidance


class LatentDiffusionModel:
    """The trained networks of a run and what they expect.

    Args:
        codec: with the latent statistics of the diffusion stages.
        network: the denoiser, frozen; conditional but for generators of anything.
        first: settings of the first diffusion stage (process, prediction).
        record: of the control checkpoint, or of the diffusion checkpoint where that is told of masks.
    """

    def __init__(self, codec: Codec, network: TemplateUNet, first: DiffusionStage, record: Mapping[str, Any]):
        self.codec, self.network, self.first, self.record = codec, network, first, record
        self.process = build_process(first.process)
        self.labels = network.labels
        self.dropout = {name: record["settings"].get(f"drop_{name}", 0.0) for name in Guidance._fields}
        self.multiple = codec.compression * first.denoiser.multiple

    @property
    def control(self) -> ControlStage | None:
        """Settings of the control stage, None where there is none."""
        if "first_stage" not in self.record:
            return None
        return parse_settings(ControlStage, self.record["settings"], "the control stage's record")

    @property
    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the checkpoints, by stage, and of the segmenter that taught the autoencoder."""
        perceptual = self.codec.record.get("perceptual")
        return {
            **({"perceptual": perceptual} if perceptual else {}),
            "autoencoder": self.codec.fingerprint,
            **self._denoisers,
        }

    @property
    def packed_from(self) -> dict[str, str]:
        """Return, by stage, the fingerprints of the weights that packed ones were rounded from."""
        records = {"autoencoder": self.codec.record, self.record["stage"]: self.record}
        return {stage: record["packed"]["fingerprint"] for stage, record in records.items() if "packed" in record}

    @property
    def _denoisers(self) -> dict[str, str]:
        if "first_stage" not in self.record:
            return {"diffusion": self.record["fingerprint"]}
        return {"diffusion": self.record["diffusion"], "control": self.record["fingerprint"]}


def load_model(
    run: Path, device: str = "cpu", autoencoder: Path | None = None, *, untold: bool = False
) -> LatentDiffusionModel:
    """Load the networks of a run: ``autoencoder/`` and ``control/``, or ``diffusion/`` where there is no control.

    Args:
        run: the model's folder.
        device: cpu or cuda.
        autoencoder: run whose autoencoder is used, where not this one.
        untold: whether a diffusion stage that is told of no mask is a whole model, not one that lacks its control.

    Raises:
        InputError: a stage is missing, was trained with another autoencoder, or was told of no mask though it should.
    """
    codec = load_codec(autoencoder or run, device)
    alone = untold or (not (run / "control").is_dir() and (run / "diffusion").is_dir())
    load = partial(load_diffusion, untold=untold) if alone else load_control
    network, first, record = load(run, codec, device)
    return LatentDiffusionModel(codec.with_statistics(recorded_statistics(record, run)), network, first, record)
