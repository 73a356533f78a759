from pathlib import Path

import pydantic
import pytest
import yaml

from cardiosynth.core.config import Settings, parse_settings, parse_value, read_yaml, with_overrides
from cardiosynth.core.errors import InputError


class Optimizer(Settings):
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


class Stage(Settings):
    steps: int = 10
    name: str = "a"
    folder: Path | None = None
    optimizer: Optimizer = Optimizer()


def test_yaml_numbers_are_numbers():
    assert parse_value("1e-5") == 1e-5
    assert parse_value("5") == 5
    assert isinstance(parse_value("5"), int)
    assert parse_value("[1, 2.5]") == [1, 2.5]
    assert parse_value("true") is True
    assert yaml.safe_load("1e-5") == "1e-5", "other readers of YAML are left as they are"


def test_a_file_and_then_overrides_change_the_base(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 20\noptimizer: {learning_rate: 1e-4}\n")
    found = with_overrides(Stage(), ["optimizer.betas=[0.5, 0.9]", "steps=30", "folder=x/y"], file)
    assert found == Stage(steps=30, folder=Path("x/y"), optimizer=Optimizer(learning_rate=1e-4, betas=(0.5, 0.9)))
    assert with_overrides(Stage()) == Stage()


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("stps=3", "did you mean 'steps'"),
        ("optimizer.learning_rat=3", "did you mean 'learning_rate'"),
        ("steps", "key=value"),
        ("steps=3.5", "'steps'"),
        ("steps=three", "three"),
        ("steps=true", "'steps'"),
        ("name=2020-01-01x: [", "not valid YAML"),
        ("optimizer=3", "'optimizer'"),
        ("optimizer.betas=[1]", "optimizer.betas"),
    ],
)
def test_a_wrong_override_is_named(override: str, part: str):
    with pytest.raises(InputError) as caught:
        with_overrides(Stage(), [override])
    assert part in str(caught.value)


def test_a_value_that_looks_like_a_date_is_text():
    assert with_overrides(Stage(), ["name=2020-01-01"]).name == "2020-01-01"


@pytest.mark.parametrize(("content", "part"), [("a: [", "not valid YAML"), ("- 1", "mapping"), ("", "mapping")])
def test_a_broken_file_is_named(tmp_path: Path, content: str, part: str):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(InputError, match=part) as caught:
        read_yaml(tmp_path / "mine.yaml")
    assert "mine.yaml" in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_settings_are_frozen_and_refuse_unknown_keys():
    with pytest.raises(InputError, match="from the file: 'more'"):
        parse_settings(Stage, {"more": 1}, "from the file")
    with pytest.raises(Exception, match="frozen"):
        Stage().steps = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_values_that_do_not_fit_each_other_are_named_by_the_sentence_alone():
    class Both(Settings):
        low: int = 0
        high: int = 1

        @pydantic.model_validator(mode="after")
        def _ordered(self) -> "Both":
            if self.low > self.high:
                raise ValueError("low must not be above high")
            return self

    with pytest.raises(InputError) as caught:
        parse_settings(Both, {"low": 2}, "the plan")
    assert str(caught.value) == "the plan: low must not be above high."
