"""FQCDM through the command line, at toy size: both stages, the three starts, stopped and resumed."""

from pathlib import Path

import numpy as np
import pytest
from diffusion.small import case

from cardiosynth.cli import main
from cardiosynth.core.store import latest_checkpoint, load_tensors
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.sampling.generator import load_generator

pytestmark = pytest.mark.slow


def cut(index: int):
    """A slice of 32 x 32, as MR that was normalized."""
    whole = case(index, (32, 32, 8))
    image = np.clip(whole.required_image()[..., 4] * 2 + 200, 0, 1000).astype(np.int16)
    return whole.with_(image=image, mask=whole.required_mask()[..., 4], intensity_unit="mr")


def train(stage: str, root: Path, run: str, *words: str) -> None:
    fixed = {"schedule": "constant", "warmup_steps": 0, "checkpoint_every": 100}
    settings = [word for key, value in fixed.items() for word in ("--set", f"{stage}.training.{key}={value}")]
    main(["train", stage, str(root / "data"), str(root / run), "--recipe", "fqcdm/tiny", *settings, *words])


def generate(root: Path, out: str, *words: str) -> Dataset:
    places = ("--templates", str(root / "data"), "--cases", "2")
    main(["generate", str(root / "run"), str(root / out), *places, *words])
    return read_dataset(root / out)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices, and a run with both stages."""
    root = tmp_path_factory.mktemp("fqcdm")
    write_dataset([cut(index) for index in range(4)], root / "data")
    for stage in ("autoencoder", "diffusion"):
        train(stage, root, "run", "--accept-verdict")
    return root


def test_every_start_makes_a_dataset_that_says_how_it_was_made(chain: Path):
    noise = generate(chain, "noise", "--masks", str(chain / "data"))
    image = generate(chain, "image", "--start", "image", "--strength", "0.4")
    kept = generate(chain, "kept", "--start", "reconstruction")
    codec = load_generator(chain / "run").model.codec
    for made, near, same in zip(noise, image, kept, strict=True):
        assert "source_image" not in made.provenance
        assert made.confidence is not None
        assert near.provenance["source_image"] == near.provenance["reference"] == near.provenance["template"]
        assert near.provenance["sampler"]["strength"] == 0.4
        assert same.provenance["source_image"] in same.provenance["parents"]
        assert same.confidence is None
        source = read_dataset(chain / "data").case(same.provenance["source_image"])
        np.testing.assert_allclose(same.required_image(), codec.reconstruct(source), atol=0.51)
        np.testing.assert_array_equal(same.mask, source.labels.only_targets(source.required_mask()))


def test_a_dataset_of_another_start_is_not_continued(chain: Path, capsys: pytest.CaptureFixture[str]):
    generate(chain, "mixed", "--start", "reconstruction")
    with pytest.raises(SystemExit):
        generate(chain, "mixed", "--start", "image", "--cases", "3")
    assert capsys.readouterr().err


def test_a_stage_stopped_and_resumed_ends_with_the_same_bits(chain: Path):
    again = ("--autoencoder", str(chain / "run"), "--accept-verdict")
    train("diffusion", chain, "again", *again, "--set", "diffusion.training.steps=2")
    train("diffusion", chain, "again", *again)
    one, other = (
        load_tensors(latest_checkpoint(chain / run / "diffusion") / "model.safetensors") for run in ("run", "again")
    )
    assert all((one[name] == other[name]).all() for name in one)


def test_a_stage_that_the_recipe_lacks_is_named(chain: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train("control", chain, "run")
    assert "joint" in capsys.readouterr().err
