"""What a Linux machine can tell of Windows: no call that is not there, no name that it reserves.
`make types` asks mypy too.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from anomaly.files.table import portable
from anomaly.inputs.source import File
from anomaly.scoring.pictures import _name

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "anomaly").rglob("*.py"))
MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog"}
CALLS = {
    "os": {
        "fork",
        "forkpty",
        "kill",
        "killpg",
        "getuid",
        "geteuid",
        "getgid",
        "setsid",
        "mkfifo",
        "sysconf",
        "chown",
        "statvfs",
    }
    | {
        "sched_getaffinity",
        "O_NONBLOCK",
        "pread",
        "wait",
        "WNOHANG",
        "setpgid",
        "nice",
        "getpgid",
        "uname",
    },
    "signal": {
        "SIGKILL",
        "SIGHUP",
        "SIGALRM",
        "SIGCHLD",
        "SIGUSR1",
        "SIGUSR2",
        "SIGQUIT",
        "alarm",
        "pause",
        "setitimer",
    },
    "time": {"tzset", "clock_gettime"},
}


def posix_only(path: Path) -> list[str]:
    """Returns the lines that use what Windows has not, but for the branches that it does
    not reach.
    """
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    allowed = {id(node) for block in guarded(tree) for top in block for node in ast.walk(top)}
    for node in ast.walk(tree):
        if id(node) in allowed:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module in MODULES else []
            names += [
                alias.name for alias in node.names if alias.name in CALLS.get(node.module or "", ())
            ]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [node.attr] if node.attr in CALLS.get(node.value.id, ()) else []
        found += [f"{path.name}:{node.lineno} {name}" for name in names]
    return found


def guarded(tree: ast.AST) -> list[list[ast.stmt]]:
    """Returns the statements that Windows does not reach: the else branch of
    ``if sys.platform == "win32"``.
    """
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    return [node.orelse for node in tests if ast.unparse(node.test) == "sys.platform == 'win32'"]


def test_nothing_in_anomaly_calls_what_windows_has_not() -> None:
    assert [line for path in SOURCES for line in posix_only(path)] == []


def test_the_search_finds_such_calls(tmp_path: Path) -> None:
    lines = [
        "import os, fcntl",
        "os.fork()",
        "if sys.platform == 'win32':",
        " pass",
        "else:",
        " os.kill(1, 2)",
    ]
    path = tmp_path / "x.py"
    path.write_text("\n".join([*lines, "from signal import SIGKILL"]))
    assert sorted(line.split(":")[1] for line in posix_only(path)) == [
        "1 fcntl",
        "2 fork",
        "7 SIGKILL",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "con",
        "AUX",
        "nul.x",
        "com1",
        "LPT9.tar",
        "prn",
        "a. ",
        "...",
        'a:b*c?"<>|',
        "a/b\\c",
        "",
        "ä 1",
    ],
)
def test_names_of_written_files_are_none_that_windows_reserves(name: str) -> None:
    made = portable(name)
    assert (
        made
        and not set(made) & set('<>:"/\\|?*')
        and made == made.rstrip(". ")
        and all(ord(char) >= 32 for char in made)
    )
    assert made.partition(".")[0].lower() not in {"con", "aux", "nul", "prn", "com1", "lpt9"}
    assert portable(made) == made


def test_ordinary_names_stay_as_they_are() -> None:
    assert [
        portable(name) for name in ("scratch", "Kratzer groß", "a.b-c_d", "console", "nullify")
    ] == [
        "scratch",
        "Kratzer groß",
        "a.b-c_d",
        "console",
        "nullify",
    ]


def test_pictures_of_odd_names_can_be_written_on_windows() -> None:
    for odd in ("con.png", "a:b?.png", "trailing. .png", "x" * 300 + ".png"):
        name = _name(3, File(os.path.join("in", odd)), ".jpg")
        assert (
            name.startswith("00000003-") and not set(name) & set('<>:"/\\|?*') and len(name) < 100
        )
