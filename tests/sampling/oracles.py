"""Data whose best denoiser, whose flow and whose chain are known in closed form."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch


class Mixture(NamedTuple):
    """A mixture of Gaussians in one dimension."""

    weights: torch.Tensor
    means: torch.Tensor
    stds: torch.Tensor

    def marginal(self, process, t):
        """Means and standard deviations of the components of x at time t."""
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha * self.means, (alpha**2 * self.stds**2 + sigma**2).sqrt()

    def denoiser(self, process):
        """E[x0 | x, t]."""

        def denoised(x, t, condition):
            alpha, sigma = process.alpha(t), process.sigma(t)
            means, stds = self.marginal(process, t)
            share = torch.softmax(self.weights.log() - stds.log() - 0.5 * ((x[..., None] - means) / stds) ** 2, -1)
            return (share * (alpha * self.stds**2 * x[..., None] + sigma**2 * self.means) / stds**2).sum(-1)

        return denoised

    def quantile(self, process, t, x):
        """The share of x at time t that lies below ``x``."""
        means, stds = self.marginal(process, t)
        return (self.weights * 0.5 * torch.erfc(-(x[..., None] - means) / stds / math.sqrt(2))).sum(-1)

    def at_quantile(self, process, t, wanted):
        """The point below which ``wanted`` of x lies at time t, by bisection."""
        low, high = torch.full_like(wanted, -20), torch.full_like(wanted, 20)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.quantile(process, t, middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def flowed(self, process, start, end, x):
        """The flow's solution in one dimension: the point with the same quantile at ``end`` as ``x`` at ``start``."""
        return self.at_quantile(process, end, self.quantile(process, start, x))

    def mean_and_std(self):
        """Of the data."""
        mean = float((self.weights * self.means).sum())
        return mean, math.sqrt(float((self.weights * (self.stds**2 + self.means**2)).sum()) - mean**2)


def mixture(*components):
    """A mixture of (weight, mean, std)."""
    return Mixture(*torch.tensor(components, dtype=torch.float64).T)


def gaussian(mean, std):
    """Gaussian data."""
    return mixture((1.0, mean, std))


def levels(process, points):
    """(alpha, sigma, next alpha, next sigma) of every step, as numbers."""
    pairs = zip(process.alpha(points).tolist(), process.sigma(points).tolist(), strict=True)
    return [(*before, *after) for before, after in pairwise(pairs)]


def gaussian_chain(process, points, mean, std):
    """Mean and variance that the ancestral chain has for N(mean, std^2) data, from N(0, 1), by Bayes' rule.

    The posterior of x_s is the product of the prior N(alpha_s D, sigma_s^2) with the likelihood of x_t.
    """
    m, v = 0.0, 1.0
    for alpha_t, sigma_t, alpha_s, sigma_s in levels(process, points):
        gain = alpha_t * std**2 / (alpha_t**2 * std**2 + sigma_t**2)
        ratio = alpha_t / alpha_s
        added = sigma_t**2 - ratio**2 * sigma_s**2
        if sigma_s == 0:
            factor, offset, variance = gain, mean * (1 - gain * alpha_t), 0.0
        else:
            variance = 1 / (1 / sigma_s**2 + ratio**2 / added)
            prior = alpha_s / sigma_s**2 * variance
            factor = ratio / added * variance + prior * gain
            offset = prior * mean * (1 - gain * alpha_t)
        m, v = factor * m + offset, factor**2 * v + variance
    return m, v
