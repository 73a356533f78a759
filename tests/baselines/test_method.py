import numpy as np
import pytest

from cardiosynth.baselines.cases import synthetic
from cardiosynth.baselines.method import Method, Terms
from cardiosynth.baselines.slicewise import SLICES, SliceWise, slice_at
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.training.settings import TrainingSettings

SCALE = IntensityScale()
GRID = (6, 5, 4)


def volume(number: int) -> Case:
    """Every axial slice has an intensity of its own, and its own structure."""
    mask = np.zeros((1, *GRID), np.uint8)
    mask[0, 1:4, 1:4] = np.arange(1, 5, dtype=np.uint8)
    image = np.broadcast_to(100 * number + np.arange(4, dtype=np.int16), (1, *GRID)).astype(np.int16)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    return Case(case_id=f"heart-{number}", image=image, mask=mask, affine=affine, provenance={"licence": "CC0"})


class Repeats:
    """A method of slices: returns the template's slice, brighter by the mask, and remembers what it was given."""

    def __init__(self, terms: Terms):
        self.terms, self.learned, self.asked = terms, [], []

    def fit(self, cases, run):
        self.learned = list(cases)

    def generate(self, mask, template, seed):
        self.asked.append(mask.case_id)
        image = template.required_image() + 10 * mask.required_mask()
        facts = {"checkpoints": {"own": "f00d"}, "sampler": None}
        return synthetic(image, mask, template, seed, facts, licences=["CC BY; unknown"])


def method(dims: int, build=Repeats) -> Method:
    return Method("repeats", "Repeats", "nobody", dims, True, "nothing differs", {"tiny": build})


def test_a_method_of_slices_makes_volumes_slice_by_slice(tmp_path):
    made = method(2).build("tiny", Terms(GRID, SCALE))
    assert isinstance(made, SliceWise)
    assert made.method.terms.shape == GRID[:2]
    cases = write_dataset([volume(0), volume(1)], tmp_path / "data")
    for _ in range(2):
        made.fit(cases, tmp_path / "run")
    assert len(made.method.learned) == 8
    assert made.method.learned[5].required_image().shape == (1, 6, 5)
    again = made.generate(volume(0), volume(1), 3)
    expected = volume(1).required_image() + 10 * volume(0).required_mask()
    np.testing.assert_array_equal(again.required_image(), expected)
    assert again.required_image().dtype == np.int16
    assert again.provenance["parents"] == ["heart-0"]
    assert again.provenance["checkpoints"] == {"own": "f00d"}
    assert again.provenance["slice_wise"] is True
    assert again.provenance["licence"] == "CC BY; CC0"  # that of the training data, too
    assert made.method.asked == [f"heart-0_slice{index:03d}" for index in range(4)]


def test_slices_lie_where_the_volume_has_them(tmp_path):
    cases = write_dataset([volume(0)], tmp_path / "data")
    SliceWise(Repeats(Terms(GRID[:2], SCALE))).fit(cases, tmp_path / "run")
    stored = read_dataset(tmp_path / "run" / SLICES).case("heart-0_slice002")
    assert stored.affine[2, 3] == pytest.approx(6.0)
    assert stored.provenance["volume"] == "heart-0"
    np.testing.assert_array_equal(stored.required_mask(), volume(0).required_mask()[..., 2])
    assert slice_at(volume(0), 2).grid.same_as(stored.grid)


def test_slices_without_a_mask_make_a_volume_without_one():
    class Untold(Repeats):
        def generate(self, mask, template, seed):
            facts = {"checkpoints": {}, "sampler": None}
            return synthetic(template.required_image(), mask, template, seed, facts, shows_mask=False)

    made = SliceWise(Untold(Terms(GRID[:2], SCALE))).generate(volume(0), volume(1), 0)
    assert made.mask is None
    assert made.provenance["parents"] == []
    assert made.provenance["conditional"] is False
    assert made.origin == "synthetic"
    assert "reference" not in made.provenance


def test_what_a_method_cannot_make_is_refused():
    with pytest.raises(InputError, match="makes volumes, not slices"):
        method(3).build("tiny", Terms((32, 32), SCALE))
    with pytest.raises(InputError, match="no size 'tny'; did you mean 'tiny'"):
        method(3).build("tny", Terms(GRID, SCALE))


def test_stages_share_the_steps_and_have_the_seed():
    own = TrainingSettings(steps=1000, warmup_steps=50)
    terms = Terms(GRID, SCALE, steps=90, seed=7)
    first, second = terms.training(own, 1 / 3), terms.training(own, 2 / 3)
    assert (first.steps, second.steps) == (30, 60)
    assert first.warmup_steps == 7
    assert {first.seed, second.seed} == {7}
    assert Terms(GRID, SCALE).training(own, 1 / 3).steps == 1000


def test_a_case_tells_its_terms_and_shows_targets_only():
    case = volume(0)
    spine = CARDIAC_CT.named("spine").code
    mask = case.required_mask().copy()
    mask[0, 0] = spine
    made = synthetic(case.required_image() + 0.4, case.with_(mask=mask), case, 0, {"checkpoints": {}, "sampler": None})
    assert made.provenance["licence"] == "CC0"
    assert not (made.required_mask() == spine).any()
    np.testing.assert_array_equal(made.required_image(), case.required_image())
