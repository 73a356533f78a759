"""Settings: frozen pydantic models, read from YAML and ``a.b=value`` overrides by one strict reader.

Everything becomes JSON and is checked with ``model_validate_json(strict=True)``: lists become tuples, text becomes
Path and Enum, nothing else is guessed.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from cardiosynth.core.errors import InputError, suggest


class Settings(pydantic.BaseModel):
    """A frozen value: unknown keys are errors, equal settings are equal values."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """YAML that reads ``1e-5`` as the number it is."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """Read one YAML value: ``"1e-5"`` is a float, ``"[1, 2]"`` a list, ``"true"`` a bool."""
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML (or JSON) mapping.

    Raises:
        InputError: the file is missing, is not YAML or is not a mapping.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a readable YAML file.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {str(error).splitlines()[0]}; mend that line.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a mapping; write lines of the form 'key: value'.")
    return value


def with_overrides(base: S, overrides: Iterable[str] = (), file: Path | None = None) -> S:
    """Return ``base`` with the values of a YAML ``file`` and then of ``a.b=value`` overrides.

    Raises:
        InputError: an unknown key (with a suggestion) or a value of the wrong type or range, naming its origin.
    """
    values = json.loads(base.model_dump_json())
    if file is not None:
        merge(values, read_yaml(file), str(file))
    for override in overrides:
        merge(values, parse_override(override), f"--set {override}")
    return parse_settings(type(base), values, str(file or "--set"))


def parse_override(override: str) -> dict[str, Any]:
    """Return what ``a.b=value`` says as {"a": {"b": value}}.

    Raises:
        InputError: it is not written so, or the value is not valid YAML.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write it as key=value, e.g. --set diffusion.optimizer.steps=100.")
    try:
        nested: Any = parse_value(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: '{text}' is not valid YAML; mend the brackets or quotes.") from error
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return nested


def parse_settings(cls: type[S], values: Mapping[str, Any], origin: str) -> S:
    """Check ``values`` strictly against ``cls``.

    Raises:
        InputError: naming ``origin``, the key and what is wrong with it.
    """
    try:
        return cls.model_validate_json(json.dumps(values, default=str), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # Values that do not fit each other: the sentence names them; all would be too many.
            raise InputError(f"{origin}: {first['msg'].removeprefix('Value error, ')}.") from error
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{origin}: '{key}' - {first['msg']}; it was given {first['input']!r}.") from error


def merge(values: dict[str, Any], changes: Mapping[str, Any], origin: str) -> None:
    """Put ``changes`` into ``values``, which hold every key that there is.

    Raises:
        InputError: naming ``origin``, a key that there is not, and what may be meant.
    """
    for key, change in changes.items():
        if key not in values:
            raise InputError(f"{origin}: there is no setting '{key}'" + suggest(str(key), sorted(values)))
        if isinstance(change, dict) and isinstance(values[key], dict):
            merge(values[key], change, origin)
        else:
            values[key] = change
