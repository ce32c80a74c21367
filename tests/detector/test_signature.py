"""Signatures: what was signed is accepted, and nothing else; openssl agrees."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from anomaly.commands.main import main
from anomaly.detector.signature import sign, signature_of
from anomaly.errors import DetectorError
from anomaly.scorer import Scorer

PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


def write_keys(
    folder: Path, name: str, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN))
    public.write_bytes(
        key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "key", ed25519.Ed25519PrivateKey.generate())


@pytest.fixture
def detector(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(run / "detector.onnx", tmp_path / "detector.onnx"))


def test_what_was_signed_is_loaded_and_nothing_else(
    detector: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    with pytest.raises(DetectorError, match=r"no signature found \(detector\.onnx\.sig"):
        Scorer(detector, key=public)
    assert sign(detector, private) == signature_of(detector)
    assert Scorer(detector, key=public, device="cpu").card.name == "run"
    _, other = write_keys(tmp_path, "other", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(
        DetectorError,
        match=r"not the file that detector\.onnx\.sig signs with the key of .*other\.pub",
    ):
        Scorer(detector, key=other)
    whole = bytearray(detector.read_bytes())
    whole[len(whole) // 2] ^= 1  # a bit of a weight: the file still loads
    detector.write_bytes(whole)
    assert Scorer(detector, device="cpu").card.name == "run"
    with pytest.raises(DetectorError, match="copy both again from whom you trust"):
        Scorer(detector, key=public)
    signature_of(detector).write_bytes(b"too short")
    with pytest.raises(DetectorError, match="not the file"):
        Scorer(detector, key=public)


def test_the_commands_say_it(
    detector: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = map(str, keys)
    assert main(["verify", str(detector), "--key", public]) == 1
    assert main(["sign", str(detector), "--key", private]) == 0
    assert main(["verify", str(detector), "--key", public]) == 0
    out, err = capsys.readouterr()
    assert "signature               right: this very file was signed with the key of" in out
    assert err.startswith("anomaly: ") and err.count("\n") == 1


def test_openssl_makes_the_keys_and_checks_the_signature(detector: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt install openssl")

    def openssl(*arguments: str | Path) -> str:
        return subprocess.run(
            ["openssl", *arguments], check=True, capture_output=True, text=True
        ).stdout

    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    found = sign(detector, private)
    checked = openssl(
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        public,
        "-rawin",
        "-in",
        detector,
        "-sigfile",
        found,
    )
    assert "Verified Successfully" in checked
    Scorer(detector, key=public, device="cpu")


def test_a_key_that_is_none_is_said_with_the_command_that_makes_one(
    detector: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    (tmp_path / "text").write_text("no key")
    elliptic, _ = write_keys(tmp_path, "ec", ec.generate_private_key(ec.SECP256R1()))
    for given in (tmp_path / "none", tmp_path / "text", public, elliptic):
        with pytest.raises(
            DetectorError, match="a private Ed25519 key in PEM expected, as 'openssl genpkey"
        ):
            sign(detector, given)
    sign(detector, private)
    with pytest.raises(
        DetectorError, match="a public Ed25519 key in PEM expected, as 'openssl pkey"
    ):
        Scorer(detector, key=private)


def test_score_takes_a_signed_detector_only(
    detector: Path,
    keys: tuple[Path, Path],
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As serve does: for a run, a project and a watched folder nothing is scored before the
    signature was looked at.
    """
    private, public = map(str, keys)
    out, images = tmp_path / "t.csv", str(parts / "test" / "good")
    (tmp_path / "p.toml").write_text(f"[[product]]\npattern = ''\ndetector = '{detector}'\n")
    commands = (
        ["score", str(detector), images],
        ["score", "--project", str(tmp_path / "p.toml"), images],
    )
    for command in (*commands, ["score", str(detector), str(tmp_path), "--watch"]):
        assert main([*command, "--out", str(out), "--key", public]) == 1
        assert "no signature found" in capsys.readouterr().err and not out.exists()
    assert main(["sign", str(detector), "--key", private]) == 0
    for command in commands:
        assert main([*command, "--out", str(out), "--key", public, "--force"]) in (0, 3)
    _, other = write_keys(tmp_path, "other", ed25519.Ed25519PrivateKey.generate())
    assert main([*commands[0], "--out", str(tmp_path / "u.csv"), "--key", str(other)]) == 1
    assert "not the file that" in capsys.readouterr().err
