"""What a run must keep to go on bit for bit: weights, their average, the optimizers' moments. No pickle."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import file_sha256, latest_checkpoint, load_tensors
from cardiosynth.training.optim import MovingAverage, build_optimizer, learning_rate
from cardiosynth.training.plateau import Plateau
from cardiosynth.training.settings import TrainingSettings


class WithOpponent(nn.Module):
    """A network and the one it is trained against: what one uses afterwards is the first alone.

    Args:
        used: its averaged weights, under its own names, are a checkpoint's ``model.safetensors``.
        opponent: kept in ``training.safetensors``, to go on training.
    """

    def __init__(self, used: nn.Module, opponent: nn.Module):
        super().__init__()
        self.used, self.opponent = used, opponent


class TrainingState:
    """Everything that a step changes.

    Args:
        module: the network or networks, on their device.
        players: name -> parameters of each player; all of them belong to ``module``.
        settings: the loop's.
    """

    def __init__(self, module: nn.Module, players: Mapping[str, Sequence[nn.Parameter]], settings: TrainingSettings):
        self.module = module
        self.used = module.used if isinstance(module, WithOpponent) else module
        self.step = 0
        self.average = MovingAverage(self.used, settings.ema_decay)
        self.plateau = None if settings.plateau is None else Plateau(settings.plateau)
        self._settings = settings
        self.optimizers = {name: build_optimizer(parameters, settings) for name, parameters in players.items()}
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
        for name, parameters in players.items():
            assert all(parameter in self._names for parameter in parameters), f"{name} has parameters from elsewhere"

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self._settings, self.step) * (1.0 if self.plateau is None else self.plateau.share)

    def tensors(self) -> dict[str, Tensor]:
        """Return raw weights (``raw.NAME``), moments (``optimizer.PLAYER.NAME.MOMENT``) and ``plateau`` to be saved."""
        # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
        tensors = {f"raw.{name}": value.detach().clone() for name, value in self.module.state_dict().items()}
        for player, optimizer in self.optimizers.items():
            for parameter, moments in optimizer.state.items():
                for moment, value in moments.items():
                    tensors[f"optimizer.{player}.{self._names[parameter]}.{moment}"] = value
        return tensors if self.plateau is None else {**tensors, "plateau": self.plateau.tensor()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in the place of the raw ones, in eval mode, and take them out again afterwards."""
        raw = {name: value.detach().clone() for name, value in self.used.state_dict().items()}
        _fill(self.used, self.average.tensors)
        self.module.eval()
        try:
            yield
        finally:
            _fill(self.used, raw)
            self.module.train()

    def restore(self, checkpoint: Path, step: int) -> None:
        """Go back to what ``checkpoint`` holds.

        Raises:
            InputError: its weights are damaged or belong to another network.
        """
        saved = load_tensors(checkpoint / "training.safetensors")
        load_strictly(self.module, _below(saved, "raw."), checkpoint)
        averaged = load_tensors(checkpoint / "model.safetensors")
        _check_fit(averaged, self.average.tensors, checkpoint)
        for name, value in self.average.tensors.items():
            value.copy_(averaged[name])
        for player, optimizer in self.optimizers.items():
            self._restore_moments(optimizer, _below(saved, f"optimizer.{player}."))
        if self.plateau is not None:
            self.plateau.restore(saved["plateau"])
        self.step = step

    def _restore_moments(self, optimizer: torch.optim.AdamW, saved: Mapping[str, Tensor]) -> None:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            moments = _below(saved, self._names[parameter] + ".")
            if "step" in moments:
                # In the parameter's memory format, as they were: another order of additions would give other bits.
                optimizer.state[parameter] = {
                    name: value if name == "step" else torch.empty_like(parameter).copy_(value)
                    for name, value in moments.items()
                    if "." not in name
                }


@torch.no_grad()
def _fill(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in module.state_dict().items():
        value.copy_(values[name])


def load_weights(module: nn.Module, source: Path) -> str:
    """Load the averaged weights of another run, or a safetensors file, strictly into ``module``.

    Args:
        module: receives the weights, each in its own memory format and on its own device.
        source: a stage's folder, one of its checkpoints, or a ``.safetensors`` file.

    Returns:
        The weights' fingerprint, as in the record of their checkpoint.

    Raises:
        InputError: no checkpoint, a damaged one, or one of another network.
    """
    source = Path(source)
    file = source if source.suffix == ".safetensors" else latest_checkpoint(source) / "model.safetensors"
    load_strictly(module, load_tensors(file), file)
    return file_sha256(file)[:16]


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Load ``tensors`` into ``module``; every name and shape must agree.

    Raises:
        InputError: naming ``origin`` and the first disagreement.
    """
    _check_fit(tensors, module.state_dict(), origin)
    module.load_state_dict(dict(tensors), strict=True)


def _check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], origin: Path) -> None:
    mend = "use the settings it was trained with, or other weights"
    for name in (*wanted, *given):
        if name not in given:
            raise InputError(f"{origin} has no weight '{name}', which this network needs; {mend}.")
        if name not in wanted:
            raise InputError(f"{origin} has a weight '{name}', which this network does not know; {mend}.")
        if given[name].shape != wanted[name].shape:
            shapes = f"{tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            raise InputError(f"{origin}: weight '{name}' has shape {shapes}; {mend}.")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
