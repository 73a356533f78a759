"""The latent cache: written once, whole or absent, exact to float16, and read in parts."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from cardiosynth.autoencoder.codec import Codec, LatentStatistics, raw_statistics
from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.core.store import save_tensors
from cardiosynth.data.dataset import write_dataset
from cardiosynth.diffusion.latents import Latents, encode_dataset, packed
from cardiosynth.training.processes import Processes

from .small import AUTOENCODER, case, dataset

HALF = 2**-11


@pytest.fixture(scope="module")
def codec():
    network = build_autoencoder(AUTOENCODER.network, 0).requires_grad_(False).eval()
    return Codec(network, IntensityScale(), CARDIAC_CT, raw_statistics(2), "0123456789abcdef", {})


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("latents"))


def stored(mean, std, tmp_path, statistics=None) -> Latents:
    save_tensors(packed(mean, std), tmp_path / "one.safetensors")
    return Latents([tmp_path / "one.safetensors"], ["one"], statistics or raw_statistics(len(mean)))


def test_every_case_is_encoded_once(codec, cases, tmp_path, monkeypatch):
    latents = encode_dataset(codec, cases, tmp_path)
    assert [file.name.split(".")[0] for file in latents.files] == list(cases.case_ids)
    for index in range(4):
        mean, std = codec.encode_case(cases[index])
        assert latents.shape(index) == (4, 4, 4)
        apart = (mean - mean.mean((1, 2, 3), keepdim=True)).abs()
        assert ((latents[index][0] - mean).abs() <= HALF * apart + 1e-6).all()
        torch.testing.assert_close(latents[index][1], std, rtol=2 * HALF, atol=1e-6)
    latents.files[2].unlink()  # killed before the third
    calls = []
    monkeypatch.setattr(Codec, "encode_case", lambda self, c, budget_gb: calls.append(c.case_id) or (mean, std))
    encode_dataset(codec, cases, tmp_path)
    assert calls == ["small-2"]


def test_what_is_encoded_is_known_by_image_weights_and_window(codec, cases, tmp_path):
    before = encode_dataset(codec, cases, tmp_path).files
    other = write_dataset([case(0).with_(image=case(1).image), case(1)], tmp_path / "other")
    changed = encode_dataset(codec, other, tmp_path).files
    assert changed[0] != before[0]
    assert changed[1] == before[1]
    for another in (
        dataclasses.replace(codec, fingerprint="fedcba9876543210"),
        dataclasses.replace(codec, scale=IntensityScale(window=Window(low=-1000, high=1000))),
    ):
        assert not set(encode_dataset(another, other, tmp_path).files) & set(before)


@pytest.mark.parametrize("offset", [0.0, -3e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_float16_keeps_latents_wherever_they_lie(offset, scale, tmp_path):
    rng = generator(0, "raw")
    mean = torch.randn(3, 8, 8, 8, generator=rng, dtype=torch.float64) * scale + offset * scale
    std = torch.rand(3, 8, 8, 8, generator=rng, dtype=torch.float64) * scale
    center = mean.flatten(1).mean(1)
    spread = (mean.flatten(1).var(1, correction=0) + std.flatten(1).square().mean(1)).sqrt()
    statistics = LatentStatistics(mean=tuple(center.tolist()), std=tuple(spread.tolist()))
    kept, kept_std = stored(mean, std, tmp_path, statistics)[0]
    columns = (-1, 1, 1, 1)
    wanted = ((mean - center.view(columns)) / spread.view(columns)).float()
    rounding = 1e-6 if offset == 0 else 0.2  # float32 holds the center of 3e6 spreads no better
    assert float((kept - wanted).abs().max()) < 4 * HALF + rounding
    torch.testing.assert_close(kept_std, (std / spread.view(columns)).float(), rtol=2 * HALF, atol=1e-6)


def test_one_voxel_far_away_does_not_overflow(tmp_path):
    mean = torch.zeros(1, 64, 64, 64)
    mean[0, 0, 0, 0] = 1e30
    kept, _ = stored(mean, torch.zeros_like(mean), tmp_path)[0]
    assert float(kept[0, 0, 0, 0]) == pytest.approx(1e30, rel=1e-3)


def test_a_channel_that_says_nothing_stays_what_it_is(tmp_path):
    kept, kept_std = stored(torch.full((1, 4, 4), 7.0), torch.zeros(1, 4, 4), tmp_path)[0]
    assert torch.equal(kept, torch.full((1, 4, 4), 7.0))
    assert torch.equal(kept_std, torch.zeros(1, 4, 4))


def test_a_part_is_the_part_of_the_whole(tmp_path):
    mean, std = (
        torch.randn(2, 6, 7, 8, generator=generator(0, "m")),
        torch.rand(2, 6, 7, 8, generator=generator(0, "s")),
    )
    latents = stored(mean, std, tmp_path, LatentStatistics(mean=(0.1, -0.2), std=(0.5, 2.0)))
    where = (slice(1, 5), slice(0, 7), slice(4, 8))
    for part, whole in zip(latents.block(0, where), latents[0], strict=True):
        assert torch.equal(part, whole[(slice(None), *where)])


def test_latents_that_are_not_finite_name_their_case(codec, cases, tmp_path, monkeypatch):
    def broken(self, c, budget_gb):
        return torch.full((2, 4, 4, 4), math.inf if c.case_id == "small-1" else 0.0), torch.zeros(2, 4, 4, 4)

    monkeypatch.setattr(Codec, "encode_case", broken)
    with pytest.raises(InputError, match="case small-1: its latents are not finite"):
        encode_dataset(codec, cases, tmp_path)
    assert [file.name.split(".")[0] for file in sorted(tmp_path.rglob("*.safetensors"))] == ["small-0"]
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_damaged_file_is_named(codec, cases, tmp_path):
    latents = encode_dataset(codec, cases, tmp_path)
    latents.files[0].write_bytes(latents.files[0].read_bytes()[:100])
    with pytest.raises(InputError, match=r"small-0\..* delete it and run this stage again"):
        latents[0]


class Threads(Processes):
    """Two 'processes' that are threads of this one."""

    barrier = Barrier(2)
    told: list = []  # noqa: RUF012

    def wait(self):
        self.barrier.wait(timeout=30)

    def gathered(self, texts):
        self.told.extend(texts)
        self.wait()
        return sorted(set(self.told))


@pytest.mark.parametrize("fails", [False, True])
def test_processes_share_the_cases_out_and_fail_together(codec, cases, tmp_path, monkeypatch, fails):
    calls, encode = [], Codec.encode_case

    def counted(self, c, budget_gb):
        calls.append(c.case_id)
        if fails and c.case_id == "small-1":
            raise InputError("case small-1 is broken.")
        return encode(self, c, budget_gb)

    monkeypatch.setattr(Codec, "encode_case", counted)
    monkeypatch.setattr(Threads, "told", [])
    with ThreadPoolExecutor(2) as pool:
        two = [pool.submit(encode_dataset, codec, cases, tmp_path, Threads(r, 2, codec.device)) for r in range(2)]
        ended = [future.exception() for future in two]
    if fails:
        assert [str(error) for error in ended] == ["case small-1 is broken."] * 2
    else:
        assert ended == [None, None]
        assert sorted(calls) == list(cases.case_ids)
        assert len(list(tmp_path.rglob("*.safetensors"))) == 4


def test_encoding_keeps_to_its_budget(codec, cases, tmp_path, monkeypatch):
    budgets, encode = [], Codec.encode_case
    monkeypatch.setattr(Codec, "encode_case", lambda self, c, budget_gb: budgets.append(budget_gb) or encode(self, c))
    encode_dataset(codec, cases, tmp_path, budget_gb=2.5)
    assert budgets == [2.5] * 4
