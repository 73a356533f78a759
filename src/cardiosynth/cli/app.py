"""What all verbs share: the application they join, the options they spell alike, and how they speak."""

from collections.abc import Callable
from typing import Any

from cyclopts import App, Parameter

from cardiosynth import __version__
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import set_mode

Several = Parameter(consume_multiple=True)
Setting = Parameter(name="--set")
Mapped = Parameter(name="--map")
Json = Parameter(name="--json")

app = App(
    name="cardiosynth",
    version=__version__,
    help="Annotated cardiac images where there are few: synthesis with confidence, and better segmentation from it.",
    default_parameter=Parameter(negative=()),
)


def progress(json: bool) -> None:
    """Show progress as JSON lines, or as suits the terminal."""
    set_mode("json" if json else None)


def output(value: Any, json: bool, in_words: Callable[[Any], str]) -> None:
    """Print a JSON-like value as JSON, or in words."""
    from json import dumps

    print(dumps(value, indent=2, ensure_ascii=False) if json else in_words(value))  # noqa: T201


def grid_shape(shape: list[int]) -> tuple[int, int, int]:
    """Return ``--shape`` as three numbers.

    Raises:
        InputError: it is not.
    """
    if len(shape) != 3 or min(shape) < 8:
        given = " ".join(map(str, shape))
        raise InputError(f"--shape {given}: give three numbers of voxels, each at least 8, e.g. --shape 96 96 96.")
    return shape[0], shape[1], shape[2]


def positive(number: int, option: str) -> None:
    """Refuse an option below 1.

    Raises:
        InputError: naming the option.
    """
    if number < 1:
        raise InputError(f"{option} {number}: give a number of at least 1.")


def shard_of(text: str) -> tuple[int, int]:
    """Return ``--shard i/n`` as numbers.

    Raises:
        InputError: it is not of that form.
    """
    index, _, count = text.partition("/")
    if index.isdigit() and count.isdigit() and int(index) < int(count):
        return int(index), int(count)
    raise InputError(f"--shard {text}: write i/n with i from 0 to n - 1, e.g. --shard 0/4.")
