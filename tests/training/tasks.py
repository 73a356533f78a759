"""Small tasks that have what real ones have: dropout, two players, buffers, channels-last weights."""

import torch
from torch import nn

from cardiosynth.core.random import draw_int, generator
from cardiosynth.training.loop import Batch, Player

IMAGES = torch.randn(16, 1, 4, 4, 4, generator=generator(0, "images"))


def initialized(module: nn.Module) -> nn.Module:
    rng = generator(0, "weights")
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.3, 0.3, generator=rng)
    return module


def names(batch: Batch) -> list[str]:
    return [f"image-{index}" for index in batch["index"].tolist()]


class Denoising:
    """One player; dropout, batch norm (float and integer buffers), channels-last weights."""

    def __init__(self, dropout: float = 0.3, norm: bool = True):
        layers = [nn.Conv3d(1, 4, 3, padding=1), *([nn.BatchNorm3d(4)] if norm else []), nn.SiLU()]
        net = nn.Sequential(*layers, nn.Dropout(dropout), nn.Conv3d(4, 1, 3, padding=1))
        self.module = initialized(net).to(memory_format=torch.channels_last_3d)
        self.unused = nn.Parameter(torch.ones(3))
        self.module.register_parameter("unused", self.unused)

    def batch(self, generators):
        index = torch.tensor([draw_int(16, rng) for rng in generators])
        noise = torch.stack([torch.randn(1, 4, 4, 4, generator=rng) for rng in generators])
        return {"clean": IMAGES[index], "noisy": IMAGES[index] + noise, "index": index}

    def case_names(self, batch: Batch):
        return names(batch)

    def loss(self, batch: Batch):
        return {"total": ((self.module(batch["noisy"]).float() - batch["clean"]) ** 2).mean()}

    def players(self):
        return [Player("denoiser", list(self.module.parameters()), self.loss)]


class Adversarial:
    """Two players whose losses call each other's parts; the judge joins after a warm-up."""

    WARMUP = 3

    def __init__(self):
        self.maker, self.judge = nn.Conv3d(1, 1, 3, padding=1), nn.Conv3d(1, 1, 3)
        self.module = initialized(nn.ModuleDict({"maker": self.maker, "judge": self.judge}))

    def batch(self, generators):
        index = torch.tensor([draw_int(16, rng) for rng in generators])
        return {"image": IMAGES[index], "index": index}

    def case_names(self, batch: Batch):
        return names(batch)

    def make(self, batch: Batch):
        made = self.maker(batch["image"])
        l1, fooling = (made - batch["image"]).abs().mean(), -self.judge(made).mean()
        weight = 0.1 * float(batch["step"] >= self.WARMUP)
        return {"total": l1 + weight * fooling, "l1": l1, "fooling": fooling}

    def tell(self, batch: Batch):
        real, made = self.judge(batch["image"]), self.judge(self.maker(batch["image"]).detach())
        return {"total": (1 - real).relu().mean() + (1 + made).relu().mean()}

    def players(self):
        return [
            Player("maker", list(self.maker.parameters()), self.make),
            Player("judge", list(self.judge.parameters()), self.tell, self.WARMUP),
        ]


class Following:
    """One player, and a buffer that follows the whole batch without a gradient; the loss depends on it."""

    def __init__(self):
        self.module = initialized(nn.Conv3d(1, 1, 3, padding=1))
        self.module.register_buffer("seen", torch.zeros(()))

    def batch(self, generators):
        index = torch.tensor([draw_int(16, rng) for rng in generators])
        return {"image": IMAGES[index], "index": index}

    def case_names(self, batch: Batch):
        return names(batch)

    def loss(self, batch: Batch):
        return {"total": (self.module(batch["image"]) - self.module.seen).square().mean()}

    def follow(self, batch: Batch, processes):
        means = processes.whole_batch(batch["image"].mean((1, 2, 3, 4)))
        # Each example counts otherwise, so that their order matters.
        self.module.seen.lerp_((means * torch.arange(1.0, len(means) + 1)).sum(), 0.5)

    def players(self):
        return [Player("follower", list(self.module.parameters()), self.loss, follow=self.follow)]
