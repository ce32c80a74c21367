"""Without a network: installed from a wheel with no index, scored and reviewed where no packet
leaves the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Runs inside the namespace: only the loopback device is there, and it is brought up for the
# dashboard.
INSIDE = r'''
import fcntl, re, socket, struct, subprocess, sys, time, urllib.request
from pathlib import Path
import anomaly
site, run, images, home = map(Path, sys.argv[1:])
assert Path(anomaly.__file__).is_relative_to(site), anomaly.__file__
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
try:
    socket.create_connection(("192.0.2.1", 80), 2).close()
    sys.exit("there is a network")
except OSError:
    pass
call = [sys.executable, "-m", "anomaly"]
database, table = str(home / "review.db"), str(home / "t.csv")
score = [*call, "score", str(run), str(images), "--out", table, "--device", "cpu"]
assert subprocess.run([*score, "--review", database], cwd=home).returncode in (0, 3)
assert subprocess.run([*call, "review", "stats", "--db", database], cwd=home).returncode == 0
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
review = [*call, "review", "--db", database, "--detector", str(run), "--port", str(port)]
board = subprocess.Popen(review, cwd=home)
try:
    for attempt in range(600):
        try:
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
            break
        except OSError:
            assert board.poll() is None, "the dashboard ended"
            time.sleep(0.1)
    loads = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert loads and not [place for place in loads if "//" in place], f"the page loads {loads}"
finally:
    board.terminate()
    board.wait(30)
print("scored and reviewed")
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder into which pip has installed the project's wheel without an index; what it
    needs is there already.
    """
    folder = tmp_path_factory.mktemp("offline")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    house, site = folder / "wheelhouse", folder / "site"
    offline = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")} | {
        "PIP_CONFIG_FILE": os.devnull
    }
    wheel = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        house,
        ROOT,
    ]
    subprocess.run(wheel, check=True, capture_output=True, env=offline)
    install = [
        *pip,
        "install",
        "--no-deps",
        "--no-index",
        "--find-links",
        house,
        "--target",
        site,
        "anomaly",
    ]
    subprocess.run(install, check=True, capture_output=True, env=offline)
    return site


def test_scoring_and_review_need_no_network(
    site: Path, run: Path, parts: Path, tmp_path: Path
) -> None:
    alone = ["unshare", "--net", "--map-root-user"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip(
            "this system lets nobody make a network namespace (unshare --net): the network cannot "
            "be cut off"
        )
    script = tmp_path / "inside.py"
    script.write_text(INSIDE)
    words = [*alone, sys.executable, script, site, run, parts / "test" / "good", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path)}
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0 and "scored and reviewed" in done.stdout, done.stdout + done.stderr


def test_the_wheelhouse_is_documented_with_the_same_commands() -> None:
    text = (ROOT / "docs" / "offline.md").read_text(encoding="utf-8")
    assert "pip download" in text and "pip install --no-index --find-links wheelhouse" in text
