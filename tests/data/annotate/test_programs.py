import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.annotate.programs import last_line, program_lines

BARE = [sys.executable, "-I", "-S", "-u", "-c"]


def script(text: str) -> list[str]:
    return [*BARE, textwrap.dedent(text)]


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def assert_dies(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.02)


WITH_GRANDCHILD = """
    import subprocess, sys, time
    grandchild = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
    print(grandchild.pid)
    {then}
"""


def test_lines_come_as_they_are_written_and_go_to_the_log(tmp_path: Path):
    words = script("import sys; print('one'); print('two', file=sys.stderr); print('three', end='\\r')")
    assert sorted(program_lines(words, {}, 30, tmp_path / "log.txt")) == ["one", "three", "two"]
    assert sorted((tmp_path / "log.txt").read_text().split()) == ["one", "three", "two"]


def test_variables_are_set_and_unset_for_the_child_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OURS", "ours")
    words = script("import os; print(os.environ.get('OURS'), os.environ.get('THEIRS'))")
    assert last_line(words, {"OURS": None, "THEIRS": "theirs"}, 30) == "None theirs"
    assert os.environ["OURS"] == "ours"
    assert "THEIRS" not in os.environ


def test_a_failure_ends_with_the_last_words(tmp_path: Path):
    words = script("import sys; [print('line', i) for i in range(9)]; sys.exit('no licence')")
    with pytest.raises(InputError, match=r"exit code 1; its last words \(all of them in .*log.txt\): line 5 .* no lic"):
        list(program_lines(words, {}, 30, tmp_path / "log.txt"))


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(InputError, match="/nowhere/python cannot be started"):
        list(program_lines(["/nowhere/python"], {}, 30))


def test_too_long_ends_the_whole_group():
    words = script(WITH_GRANDCHILD.format(then="time.sleep(60)"))
    seen = []
    with pytest.raises(InputError, match=r"took longer than 0.5 s"):
        seen.extend(map(int, program_lines(words, {}, 0.5)))
    assert_dies(seen[0])


def test_a_sign_of_life_begins_the_time_anew():
    words = script("import time\nfor i in range(5): time.sleep(0.25); print('@', i)")
    assert len(list(program_lines(words, {}, 1, sign="@"))) == 5
    with pytest.raises(InputError, match=r"took longer than 0.5 s"):
        list(program_lines(words, {}, 0.5))


def test_whoever_stops_reading_ends_the_program_and_a_dead_parent_holds_nobody_up():
    with closing(program_lines(script(WITH_GRANDCHILD.format(then="time.sleep(60)")), {}, 60)) as lines:
        grandchild = int(next(lines))
    assert_dies(grandchild)
    # The grandchild keeps the pipe open after the program has ended well.
    (line,) = program_lines(script(WITH_GRANDCHILD.format(then="")), {}, 60)
    assert_dies(int(line))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_takes_the_program_along(number: signal.Signals):
    reader = script(
        """
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        sys.path[:0] = {path}
        from cardiosynth.data.annotate.programs import program_lines
        try:
            for line in program_lines({words}, {{}}, 60):
                print(line, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """.format(path=sys.path, words=script(WITH_GRANDCHILD.format(then="time.sleep(60)")))
    )
    process = subprocess.Popen(reader, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.send_signal(number)
    assert process.communicate(timeout=30)[0].strip() == "interrupted"
    assert_dies(grandchild)


def test_a_program_that_watches_its_parent_ends_with_it_though_it_was_killed(tmp_path: Path):
    watching = "from cardiosynth.data.annotate.programs import end_with_parent as end; end(); print('on', flush=True)"
    (tmp_path / "child.py").write_text(f"import os, time; {watching}; print(os.getpid(), flush=True); time.sleep(60)")
    (tmp_path / "parent.py").write_text(
        "import sys; from cardiosynth.data.annotate.programs import program_lines\n"
        f"for line in program_lines([sys.executable, {str(tmp_path / 'child.py')!r}], {{}}, 60):\n"
        "    print(line, flush=True)"
    )
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as lines:
        assert next(lines) == "on\n"
        child = int(next(lines))
        assert is_alive(child)
        parent.kill()
        parent.wait()
        assert_dies(child)
