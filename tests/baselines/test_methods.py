"""What every method must show, FCaS and FQCDM among them: they learn, follow masks, repeat themselves, go on, tell."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.baselines.method import Terms
from cardiosynth.baselines.registry import PEERS
from cardiosynth.baselines.slicewise import slice_at
from cardiosynth.core.case import Case
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.recipes.methods import OWN, find_method
from cardiosynth.training import loop

METHODS = (*OWN, *PEERS)
WITHOUT_NOISE = {"spade", "pix2pix-3d", "cyclegan"}
"""They draw nothing: an image is a function of its mask."""
FEW = 6
"""Steps after which all but quality can be seen."""
MANY = 200
LEARNING = ("dcgan", "spade", "pix2pix-3d", "vqvae", "vqgan")
"""Methods that MANY steps have been seen to be enough for."""
SCALE = IntensityScale()


def hearts(spatial_dims: int) -> list[Case]:
    """Two phantoms of one protocol at 32^3, or a slice of 64^2 of each."""
    if spatial_dims == 3:
        return [phantom(index, (32, 32, 32), None, 0, 0) for index in range(2)]
    return [slice_at(phantom(index, (64, 64, 16), None, 0, 0), 8) for index in range(2)]


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[int, Dataset]:
    root = tmp_path_factory.mktemp("hearts")
    return {dims: write_dataset(hearts(dims), root / str(dims)) for dims in (2, 3)}


def build(name: str, cases: Dataset, steps: int, seed: int = 0):
    return find_method(name).build("tiny", Terms(cases[0].grid.shape, SCALE, steps, seed))


def fitted(name: str, cases: Dataset, run: Path, steps: int):
    generator = build(name, cases, steps)
    generator.fit(cases, run)
    return generator


@pytest.fixture(scope="module", params=METHODS)
def trained(request, cases, tmp_path_factory):
    """Name, cases, run and generator of a method after a few steps."""
    of = cases[find_method(request.param).spatial_dims]
    run = tmp_path_factory.mktemp(request.param)
    return request.param, of, run, fitted(request.param, of, run, FEW)


def images(generator, cases: Dataset, seed: int = 0) -> list[np.ndarray]:
    return [generator.generate(cases[i], cases[1 - i], seed).required_image().astype(float) for i in (0, 1)]


@pytest.mark.slow
def test_what_it_makes_says_that_it_is_synthetic_and_where_it_comes_from(trained):
    name, cases, _, generator = trained
    made, method = generator.generate(cases[0], cases[1], 7), find_method(name)
    assert made.origin == "synthetic"
    assert made.grid.same_as(cases[0].grid)
    assert made.required_image().dtype == np.int16
    assert np.ptp(made.required_image()) > 0
    facts = made.provenance
    assert facts["seed"] == 7
    assert facts["template"] == cases.case_ids[1]
    assert all(len(print_) >= 16 for print_ in facts["checkpoints"].values())
    assert facts["checkpoints"]
    assert "licence" in facts
    assert "sampler" in facts
    if method.conditional:
        np.testing.assert_array_equal(made.required_mask(), made.labels.only_targets(cases[0].required_mask()))
        assert list(facts["parents"]) == [cases.case_ids[0]]
        assert facts["reference"] == cases.case_ids[0]
    else:
        assert made.mask is None
        assert facts["parents"] == []
        assert facts["conditional"] is False
        assert "reference" not in facts


@pytest.mark.slow
def test_a_seed_gives_the_same_bits_again_also_when_loaded_and_another_seed_others(trained):
    name, cases, run, generator = trained
    first = images(generator, cases)
    for again in (images(generator, cases), images(fitted(name, cases, run, FEW), cases)):
        np.testing.assert_array_equal(first, again)
    assert (np.array(images(generator, cases, seed=1)) != np.array(first)).any() == (name not in WITHOUT_NOISE)


@pytest.mark.slow
def test_a_fit_that_was_stopped_goes_on_and_equals_an_unbroken_one(trained, tmp_path, monkeypatch):
    name, cases, _, generator = trained
    step, taken = loop.take_step, []

    def interrupted(*arguments):
        taken.append(None)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", interrupted)
        with pytest.raises(SystemExit):
            fitted(name, cases, tmp_path, FEW)
    assert len(taken) == 2
    np.testing.assert_array_equal(images(fitted(name, cases, tmp_path, FEW), cases), images(generator, cases))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_it_learns_two_phantoms_and_follows_a_mask_that_changes(name, cases, tmp_path):
    method = find_method(name)
    of = cases[method.spatial_dims]
    begun, learned = fitted(name, of, tmp_path / "begun", FEW), fitted(name, of, tmp_path / "run", MANY)
    before, after = images(begun, of), images(learned, of)
    targets = [case.required_image().astype(float) for case in of]
    if not method.conditional:
        assert nearest(after, targets) < 0.7 * nearest(before, targets)
        return
    error = [np.mean([rmse(*pair) for pair in zip(made, targets, strict=True)]) for made in (before, after)]
    assert error[1] < 0.7 * error[0]
    changed = of[0].required_mask() != of[1].required_mask()
    swapped = learned.generate(of[1].with_(case_id=of.case_ids[0]), of[1], 0).required_image().astype(float)
    difference = np.abs(swapped - after[0])
    assert difference[changed].mean() > 1.5 * difference[~changed].mean()


def rmse(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))


def nearest(made: list[np.ndarray], targets: list[np.ndarray]) -> float:
    """Mean distance of images from the target that each is nearest to."""
    return float(np.mean([min(rmse(image, target) for target in targets) for image in made]))
