from types import SimpleNamespace

import pytest

from cardiosynth.sampling.model import LatentDiffusionModel


@pytest.mark.parametrize("perceptual", [None, "feed"])
def test_synthetic_cases_can_tell_who_taught_the_autoencoder(perceptual):
    model = object.__new__(LatentDiffusionModel)
    model.codec = SimpleNamespace(fingerprint="a", record={"perceptual": perceptual})
    model.record = {"diffusion": "d", "fingerprint": "c", "first_stage": {}}
    taught = {} if perceptual is None else {"perceptual": "feed"}
    assert model.fingerprints == {**taught, "autoencoder": "a", "diffusion": "d", "control": "c"}
