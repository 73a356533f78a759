"""A preparation from the first command to the last: recorded, carried along, compared."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from diffusion.small import AUTOENCODER, CONTROL, DIFFUSION, case

from cardiosynth.anatomy.masks import MaskSettings
from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.store import latest_checkpoint, read_json
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.data.preparation import Preparation, preparation_of, read_preparation
from cardiosynth.data.prepare.run import prepare
from cardiosynth.data.prepare.settings import PrepareSettings
from cardiosynth.data.stream import CaseStream
from cardiosynth.diffusion.stages import train_control, train_diffusion
from cardiosynth.recipes import stages
from cardiosynth.recipes.fcas import TINY
from cardiosynth.recipes.registry import keep_recipe
from cardiosynth.recipes.stages import Synthesis, generate_cases, preview, write_masks
from cardiosynth.synthesis.run import synthesize

WINDOW = IntensityScale().window


def prepared(out: Path, shape: tuple[int, ...] = (16, 16, 16), window: Window | None = WINDOW) -> Dataset:
    """Four small cases on this grid."""
    source = CaseStream({f"small-{i}": partial(case, i) for i in range(4)})
    return prepare(source, out, PrepareSettings(shape=shape, window=window))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """A prepared dataset, and a run trained on it."""
    root = tmp_path_factory.mktemp("prepared")
    cases, run = prepared(root / "data"), root / "run"
    train_autoencoder(cases, run, AUTOENCODER, IntensityScale())
    train_diffusion(cases, run, DIFFUSION)
    return cases, run


def test_checkpoints_carry_the_preparation_of_their_data(trained: tuple[Dataset, Path]):
    cases, run = trained
    wanted = preparation_of(cases)
    assert wanted is not None
    assert (wanted.shape, wanted.window) == ((16, 16, 16), WINDOW)
    for stage in ("autoencoder", "diffusion"):
        assert read_preparation(read_json(latest_checkpoint(run / stage) / "record.json")) == wanted


def test_a_stage_on_another_preparation_than_the_autoencoders_is_refused(trained: tuple[Dataset, Path], tmp_path: Path):
    _, run = trained
    larger = prepared(tmp_path / "larger", (16, 16, 32))
    with pytest.raises(InputError, match="shape is 16 x 16 x 32, not 16 x 16 x 16; run `cardiosynth prepare nnunet"):
        train_diffusion(larger, tmp_path / "run", DIFFUSION, autoencoder=run)
    with pytest.raises(InputError, match="shape is 16 x 16 x 32"):
        train_control(larger, tmp_path / "run", CONTROL, autoencoder=run, diffusion=run)
    plain = write_dataset(larger, tmp_path / "plain")
    assert preparation_of(plain) is None
    train_diffusion(plain, tmp_path / "run", DIFFUSION, autoencoder=run)


def test_an_autoencoder_that_sees_another_window_than_prepared_for_is_refused(tmp_path: Path):
    narrow = prepared(tmp_path / "data", window=Window(low=-200, high=800))
    with pytest.raises(InputError, match="a window of -200 to 800 HU"):
        train_autoencoder(narrow, tmp_path / "run", AUTOENCODER, IntensityScale())


class Copier:
    """A generator that shows the template, whatever the mask."""

    def fit(self, cases: Dataset, run: Path) -> None:
        """Learn nothing."""

    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        """Return the template."""
        return template.with_(case_id="made", mask=mask.mask, confidence=None, origin="synthetic")


def test_new_masks_and_synthetic_cases_inherit_the_preparation(trained: tuple[Dataset, Path], tmp_path: Path):
    cases, _ = trained
    masks = write_masks(cases.root, tmp_path / "masks", 1, 0, MaskSettings())
    assert preparation_of(masks) == preparation_of(cases)
    assert preparation_of(synthesize(Copier(), masks, cases, tmp_path / "made", 1, 0)) == preparation_of(cases)


@pytest.mark.parametrize("unlike", ["templates", "masks"])
def test_generation_refuses_templates_and_masks_that_were_prepared_otherwise(
    trained: tuple[Dataset, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlike: str
):
    cases, run = trained
    keep_recipe(tmp_path / "run", TINY)
    record = read_json(latest_checkpoint(run / "diffusion") / "record.json")
    generator = SimpleNamespace(model=SimpleNamespace(record=record))
    monkeypatch.setattr(stages, "load_generator", lambda *_: generator)
    monkeypatch.setattr(stages, "synthesize", lambda generator, masks, templates, *_: templates)
    folders = dict.fromkeys(("templates", "masks"), cases.root)
    assert len(generate_cases(Synthesis(tmp_path / "run", **folders, count=1, seed=0), tmp_path / "out")) == 4
    folders[unlike] = prepared(tmp_path / "larger", (16, 16, 32)).root
    for request in (generate_cases, preview):
        with pytest.raises(InputError, match="run/diffusion was trained on: shape is 16 x 16 x 32"):
            request(Synthesis(tmp_path / "run", **folders, count=1, seed=0), tmp_path / "out")


def test_structures_of_other_tables_are_matched_by_name_and_masks_have_no_intensity(
    trained: tuple[Dataset, Path], tmp_path: Path
):
    cases, _ = trained
    wanted = preparation_of(cases)
    assert wanted is not None
    unlike = {"labels": {"heart": 1}, "intensity_unit": "mr", "window": None}
    other = Preparation.model_validate({**wanted.model_dump(), **unlike}).recorded()
    record = {"stage": "control", "preparation": other}
    request = Synthesis(tmp_path / "run", cases.root, cases.root, 1, 0)
    with pytest.raises(InputError, match="intensity_unit is hu, not mr"):
        stages._check_prepared(request, record, read_dataset(cases.root), None)
    same = Preparation.model_validate({**wanted.model_dump(), "labels": {"heart": 1}}).recorded()
    stages._check_prepared(request, {**record, "preparation": same}, read_dataset(cases.root), read_dataset(cases.root))
