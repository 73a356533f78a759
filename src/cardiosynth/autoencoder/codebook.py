"""The vector quantizer: every latent becomes the nearest of a few codes (VQ-VAE: van den Oord et al. 2017).

Ours, because the maintained ones change their codes inside the forward pass and draw from global generators: a loss
would be no function of module and batch, and an added example would move all later draws. MONAI's has neither a start
nor a restart of codes. Its update is the reference of a test.
"""

from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cardiosynth.core.config import Settings

SMOOTHING = 1e-5
"""Latents per step that are added to every code's, so that one that stands for none can be divided by them."""
CHUNK = 8192
"""Latents whose distances to all codes are in memory at a time."""


class CodebookSettings(Settings):
    """The codes and how they are learned.

    Attributes:
        codes: how many. Published (FQCDM) 1024.
        learning: ``average`` makes a code the moving average of the latents it stands for (VQ-VAE, appendix A.1);
            with ``gradient`` it descends the codebook loss. Published (FQCDM): "mean squared error", no more.
        decay: of the moving averages, per step. Published (VQ-VAE) 0.99; not stated by FQCDM.
        begin_step: finished steps after which codes are begun, as the k-means of a batch's latents. Until then latents
            pass as they are, and the encoder learns where they shall lie.
        kmeans_rounds: how often centers and their latents are found anew.
        commitment: weight of the squared distance that draws latents to their codes. Published (VQ-VAE) 0.25.
        attraction: weight of that which draws codes to their latents, where they learn by gradient. Published (VQ-VAE,
            FQCDM) 1.
        restart_below: a code that stands for less than this share of the latents of a mean code is put where a latent
            of the batch is; 0 never.
    """

    codes: int = pydantic.Field(default=1024, ge=2)
    learning: Literal["average", "gradient"] = "average"
    decay: float = pydantic.Field(default=0.99, ge=0, lt=1)
    begin_step: int = pydantic.Field(default=100, ge=1)
    kmeans_rounds: int = pydantic.Field(default=10, ge=0)
    commitment: float = pydantic.Field(default=0.25, ge=0)
    attraction: float = pydantic.Field(default=1.0, ge=0)
    restart_below: float = pydantic.Field(default=0.03, ge=0, lt=1)


class Codebook(nn.Module):
    """Codes, and what their moving averages need. All of it is in the state dict.

    Attributes:
        codes: (k, c); zero before they are begun. A parameter where they learn by gradient.
        sizes: (k,), latents per step that each code stands for, averaged; all zero before codes are begun.
        sums: (k, c), sum per step of these latents, averaged.
    """

    codes: Tensor
    sizes: Tensor
    sums: Tensor

    def __init__(self, settings: CodebookSettings, channels: int):
        super().__init__()
        self.settings = settings
        codes = torch.zeros(settings.codes, channels)
        if settings.learning == "gradient":
            self.codes = nn.Parameter(codes)
        else:
            self.register_buffer("codes", codes)
        self.register_buffer("sizes", torch.zeros(settings.codes))
        self.register_buffer("sums", torch.zeros(settings.codes, channels))

    def nearest(self, z: Float[Tensor, "b c *latent"]) -> Int[Tensor, "b *latent"]:
        """Return the index of the code nearest to each latent, the first of several."""
        return _nearest(_rows(z), self.codes.detach()).reshape(len(z), *z.shape[2:])

    def quantize(self, z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b c *latent"]:
        """Return the code nearest to each latent; the latents themselves before codes are begun.

        Gradients reach codes that are parameters, and no latents.
        """
        codes = self.codes[self.nearest(z)].movedim(-1, 1)
        return torch.where(self.sizes.sum() > 0, codes, z.detach().float())

    @torch.no_grad()
    def follow(self, z: Float[Tensor, "b c *latent"], step: int, rng: torch.Generator) -> None:
        """Let the codes follow the latents of a step: begin them, average them, restart those that stand for nothing.

        Args:
            z: latents of the whole batch, of all processes, as they were quantized.
            step: finished steps, this one included.
            rng: draws the latents where codes begin, on the CPU.
        """
        latents = _rows(z)
        if bool(self.sizes.sum() > 0):
            self._average(latents)
            self._restart(latents, rng)
        elif step >= self.settings.begin_step:
            self._begin(latents, rng)

    def _begin(self, latents: Float[Tensor, "n c"], rng: torch.Generator) -> None:
        count = self.settings.codes
        draws = [torch.randperm(len(latents), generator=rng) for _ in range(-(-count // len(latents)))]
        centers, sizes = latents[torch.cat(draws)[:count].to(latents.device)], self.sizes
        for _ in range(self.settings.kmeans_rounds + 1):
            sizes, sums = _members(latents, centers)
            centers = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1), centers)
        self.codes.copy_(centers)
        self.sizes.copy_(sizes)
        self.sums.copy_(centers * sizes[:, None])

    def _average(self, latents: Float[Tensor, "n c"]) -> None:
        """Take in one step (VQ-VAE, Eq. 6 to 8), smoothed as in its authors' implementation."""
        sizes, sums = _members(latents, self.codes)
        self.sizes.lerp_(sizes, 1 - self.settings.decay)
        self.sums.lerp_(sums, 1 - self.settings.decay)
        if self.settings.learning == "average":
            total = self.sizes.sum()
            smooth = (self.sizes + SMOOTHING) / (total + len(self.sizes) * SMOOTHING) * total
            self.codes.copy_(self.sums / smooth[:, None])

    def _restart(self, latents: Float[Tensor, "n c"], rng: torch.Generator) -> None:
        mean = self.sizes.mean()
        dead = (self.sizes < self.settings.restart_below * mean).nonzero()[:, 0][: len(latents)]
        drawn = latents[torch.randperm(len(latents), generator=rng)[: len(dead)].to(latents.device)]
        # Moved together with its averages, a code stays where it was put until it is met.
        self.codes[dead], self.sizes[dead], self.sums[dead] = drawn, mean, mean * drawn


def straight_through(
    z: Float[Tensor, "b c *latent"], quantized: Float[Tensor, "b c *latent"]
) -> Float[Tensor, "b c *latent"]:
    """Return ``quantized``; gradients pass to ``z`` as if nothing had been done to it."""
    return z + (quantized - z).detach()


def codebook_losses(
    z: Float[Tensor, "b c *latent"], quantized: Float[Tensor, "b c *latent"]
) -> dict[str, Float[Tensor, ""]]:
    """Return ``commitment``, what draws latents to their codes, and ``attraction``, what draws codes to their latents.

    Both are the mean squared distance (VQ-VAE, Eq. 3); they differ in what the gradient reaches. The second is left out
    where the codes have none.
    """
    losses = {"commitment": F.mse_loss(z, quantized.detach())}
    return losses | {"attraction": F.mse_loss(quantized, z.detach())} if quantized.requires_grad else losses


def code_usage(index: Int[Tensor, "*any"], count: int) -> dict[str, Float[Tensor, ""]]:
    """Return ``codes_met``, the share of ``count`` codes that ``index`` names, and their ``perplexity``.

    The perplexity, the exponential of the entropy in nats, is the number of codes that, all met alike, would be as
    hard to guess.
    """
    index = index.flatten()
    share = torch.zeros(count, device=index.device).scatter_add(0, index, torch.ones_like(index, dtype=torch.float32))
    share = share / len(index)
    entropy = -torch.xlogy(share, share).sum()
    return {"codes_met": (share > 0).float().mean(), "perplexity": entropy.exp()}


def _rows(z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "n c"]:
    return z.detach().float().movedim(1, -1).reshape(-1, z.shape[1])


def _nearest(latents: Float[Tensor, "n c"], codes: Float[Tensor, "k c"]) -> Int[Tensor, " n"]:
    squares = codes.square().sum(1)
    with torch.autocast(latents.device.type, enabled=False):
        found = [(squares - 2 * part @ codes.T).argmin(1) for part in latents.split(CHUNK)]
    return torch.cat(found)


def _members(
    latents: Float[Tensor, "n c"], codes: Float[Tensor, "k c"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k c"]]:
    """Return how many latents each code is nearest to, and their sum; a product of matrices repeats itself on GPUs."""
    sizes, sums = codes.new_zeros(len(codes)), torch.zeros_like(codes)
    for part in latents.split(CHUNK):
        member = part.new_zeros(len(part), len(codes)).scatter(1, _nearest(part, codes)[:, None], 1.0)
        sizes, sums = sizes + member.sum(0), sums + member.T @ part
    return sizes, sums
