"""The contract between networks and solvers: ``denoiser(x, t, condition) -> x0``.

What a network predicts - noise, data, velocity, flow - is hidden here. Noise arithmetic never leaves float32
(or float64): in half precision 1 - alpha_bar of the first steps vanishes.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.errors import InputError
from cardiosynth.diffusion.process import Process

Prediction = Literal["epsilon", "v", "x0", "flow", "reversed_flow"]

Denoiser = Callable[[Tensor, Tensor, Any], Tensor]
"""``(x, t, condition) -> x0``: x of any shape, t a single time (0-dimensional), x0 like x."""

Network = Callable[[Tensor, Tensor, Any], Tensor]
"""``(x, t, condition) -> prediction``: x (b, ...), one time per example (b,)."""

Clamp = float | Callable[[Tensor], Tensor] | None
"""What keeps a predicted x0 within what is real: a limit of its absolute values, a function, or nothing."""

Data = Float[Tensor, "b *rest"]
Factor = Float[Tensor, "*broadcast"]


def check_precise(x: Data) -> None:
    """Assert that noise arithmetic is done in float32 or float64, whatever a network computes in."""
    assert x.dtype in (torch.float32, torch.float64), f"noise arithmetic in {x.dtype} loses the first steps"


def diffuse(x0: Data, noise: Data, alpha: Factor, sigma: Factor) -> Data:
    """Return x = alpha x0 + sigma noise."""
    check_precise(x0)
    return alpha * x0 + sigma * noise


def target(prediction: Prediction, x0: Data, noise: Data, alpha: Factor, sigma: Factor) -> Data:
    """Return what a network of this kind should predict.

    epsilon: the noise (Eq. 3). x0: the data. v: alpha noise - sigma x0 (Salimans and Ho, 2022).
    flow: noise - x0 (rectified flow's dx/dt). reversed_flow: x0 - noise, as MAISI's rectified-flow networks predict.
    """
    match prediction:
        case "epsilon":
            return noise
        case "x0":
            return x0
        case "v":
            return alpha * noise - sigma * x0
        case "flow":
            return noise - x0
        case "reversed_flow":
            return x0 - noise


def to_x0(prediction: Prediction, output: Data, x: Data, alpha: Factor, sigma: Factor) -> Data:
    """Return the data that a network's ``output`` at ``x`` stands for; the inverse of :func:`target`."""
    match prediction:
        case "epsilon":
            return (x - sigma * output) / alpha
        case "x0":
            return output
        case "v":
            return (alpha * x - sigma * output) / (alpha**2 + sigma**2)
        case "flow":
            return (x - sigma * output) / (alpha + sigma)
        case "reversed_flow":
            return (x + sigma * output) / (alpha + sigma)


def check_prediction(prediction: Prediction, process: Process) -> None:
    """Refuse a prediction that does not determine x0 at every time of the process.

    Raises:
        InputError: epsilon-prediction where alpha(1) = 0: at t = 1 the noise says nothing of the data.
    """
    alpha_end = float(process.alpha(torch.ones((), dtype=torch.float64)))
    if prediction == "epsilon" and alpha_end == 0:
        raise InputError(
            "prediction 'epsilon' cannot start from pure noise: this process has alpha(1) = 0, where the noise does "
            "not determine the image; choose prediction flow, v or x0, or process.kind=variance_preserving."
        )


def clamped(x0: Data, clamp: Clamp) -> Data:
    """Return x0 within its limits, as it is where there are none."""
    if clamp is None:
        return x0
    return x0.clamp(-clamp, clamp) if isinstance(clamp, float | int) else clamp(x0)


class NetworkDenoiser:
    """A network seen as a denoiser.

    Args:
        network: predicts from x (b, ...), t (b,) and a condition; may run in any precision.
        process: gives alpha and sigma.
        prediction: what the network predicts.
        clamp: of x0, see :func:`clamped` (normalized latents have unit variance; 5 cuts nothing real).

    Raises:
        InputError: prediction and process do not fit, see :func:`check_prediction`.
    """

    def __init__(self, network: Network, process: Process, prediction: Prediction, clamp: Clamp = None):
        check_prediction(prediction, process)
        self._network, self._process = network, process
        self._prediction: Prediction = prediction
        self._clamp = clamp

    def __call__(self, x: Data, t: Float[Tensor, ""], condition: Any) -> Data:
        """Return the x0 expected at ``x`` and time ``t``, in the dtype of ``x``."""
        output = self._network(x, t.to(x).expand(len(x)), condition).to(x.dtype)
        x0 = to_x0(self._prediction, output, x, self._process.alpha(t).to(x), self._process.sigma(t).to(x))
        return clamped(x0, self._clamp)
