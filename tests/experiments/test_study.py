import threading
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.experiments.study import Study, command_line


def test_a_step_is_done_once_and_an_interrupted_one_again(tmp_path: Path):
    done = []

    def breaks() -> None:
        done.append("half")
        raise KeyboardInterrupt

    study = Study(tmp_path / "study", {"seed": 0}, {"first": 1, "second": 1})
    study.step("first", "one", lambda: done.append("first"))
    with pytest.raises(KeyboardInterrupt):
        study.step("second", "two", breaks)

    again = Study(tmp_path / "study", {"seed": 0}, {"first": 1, "second": 1})
    again.step("first", "one", lambda: done.append("first"))
    again.step("second", "two", lambda: done.append("second"))
    assert done == ["first", "half", "second"]
    assert [(name, command) for name, _, command in again.times()] == [("first", "one"), ("second", "two")]


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    Study(tmp_path / "study", {"seed": 0}, {})
    with pytest.raises(InputError, match="other settings"):
        Study(tmp_path / "study", {"seed": 1}, {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    with pytest.raises(InputError, match="not empty"):
        Study(tmp_path / "mine", {"seed": 0}, {})


def test_the_time_left_follows_the_pace_of_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("cardiosynth.experiments.study.time.monotonic", lambda: clock[0])
    study = Study(tmp_path / "study", {}, {"first": 60.0, "second": 600.0})

    def twice_as_slow() -> None:
        clock[0] += 120

    study.step("first", "", twice_as_slow)
    study.step("second", "", lambda: None)
    said = capsys.readouterr().err
    assert "[1/2] first (about 11 minutes to the end)" in said
    assert "[2/2] second (about 20 minutes to the end)" in said


def test_commands_are_quoted_for_a_shell():
    assert command_line("phantom", Path("my data"), "--cases", 2) == "cardiosynth phantom 'my data' --cases 2"


def test_a_step_that_another_process_is_at_is_waited_for(tmp_path: Path):
    """A lock belongs to an open file, so that a second study of one process stands for another process."""
    done = []
    studies = [Study(tmp_path / "study", {}, {"only": 1}) for _ in range(2)]

    def slow() -> None:
        other.start()
        other.join(0.2)
        assert other.is_alive(), "the other waits"
        done.append("once")

    other = threading.Thread(target=lambda: studies[1].step("only", "", lambda: done.append("twice")))
    studies[0].step("only", "", slow)
    other.join()
    assert done == ["once"]
