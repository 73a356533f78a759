import json
import time

import pytest

from cardiosynth.core import progress
from cardiosynth.core.progress import Progress, say, set_mode, track


@pytest.fixture(autouse=True)
def _default_mode():
    yield
    set_mode(None)


def test_without_a_terminal_progress_is_plain():
    assert progress.mode() == "plain"


def test_plain_progress_ends_with_one_line(capsys):
    with Progress("train", 3) as bar:
        for _ in range(3):
            bar.update(loss=0.5)
    assert capsys.readouterr().err.startswith("train: 3/3 done in ")


def test_plain_progress_tells_what_is_left_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    with Progress("train", 4, done=1) as bar:
        bar.update(loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("train: 2/4, loss 0.25, about ")
    assert lines[0].endswith("s left")


def test_json_lines_carry_the_numbers(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    set_mode("json")
    with Progress("train", 2) as bar:
        bar.update(loss=0.25)
    say("written", path="a.json")
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert (rows[0]["label"], rows[0]["done"], rows[0]["total"], rows[0]["loss"]) == ("train", 1, 2, 0.25)
    assert rows[-1] == {"message": "written", "path": "a.json"}
    assert captured.err == ""


def test_quiet_is_quiet(capsys):
    set_mode("quiet")
    for _ in track([1, 2], "read", 2):
        say("something")
    assert capsys.readouterr() == ("", "")


def test_rich_draws_a_bar_on_standard_error(capsys):
    set_mode("rich")
    assert list(track("abc", "read", 3)) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert "read" in captured.err
    assert "3/3" in captured.err
    assert captured.out == ""


def test_nothing_done_says_nothing(capsys):
    with Progress("train", 5, done=5):
        pass
    assert capsys.readouterr().err == ""


def test_time_left_is_extrapolated_from_this_run(capsys, monkeypatch):
    clock = iter([0.0, 40.0, 40.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    bar = Progress("train", 100, done=50)
    bar.update(10)
    assert "train: 60/100, about 160 s left" in capsys.readouterr().err
