"""Signatures of detectors: whoever has the public key can tell that a file is the one that was
signed.

Ed25519 (RFC 8032) over the whole file; the 64 bytes lie beside it in ``detector.onnx.sig``. openssl
makes the keys and checks the signature too:

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub
    openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in detector.onnx \\
        -sigfile detector.onnx.sig
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from anomaly.detector.file import find_detector, read_checked
from anomaly.errors import DetectorError, RuntimeMissing
from anomaly.files.atomic import write_atomically
from anomaly.files.regular_files import read_small

MAX_KEY_BYTES = 10_000  # bytes of a key's file
MAX_SIGNATURE_BYTES = 1000  # a signature has 64


def signature_of(detector: Path) -> Path:
    """Returns where a detector's signature lies."""
    return detector.with_name(detector.name + ".sig")


def sign(run: str | os.PathLike[str], key: Path) -> Path:
    """Signs a detector with a private key and returns the signature's file; raises DetectorError,
    RuntimeMissing.
    """
    private = _key(key, "private")
    file = find_detector(run)
    out = signature_of(file)
    write_atomically(out, private.sign(read_checked(file)[0]))
    return out


def sign_bytes(data: bytes, key: Path) -> bytes:
    """Returns the 64 bytes that sign ``data`` with a private key; raises DetectorError,
    RuntimeMissing.
    """
    signature: bytes = _key(key, "private").sign(data)
    return signature


def is_signed(data: bytes, signature: bytes, key: Path) -> bool:
    """Whether ``signature`` is that of ``data`` by the private part of a public key; raises
    DetectorError, RuntimeMissing.
    """
    public = _key(key, "public")
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def check_signature(detector: Path, data: bytes, key: str | os.PathLike[str]) -> None:
    """Raises DetectorError unless ``data``, a detector file's bytes, was signed with the private
    part of ``key``.
    """
    file = signature_of(detector)
    if not os.path.lexists(file):
        raise DetectorError(
            f"{detector}: no signature found ({file.name}), one expected beside it: anomaly sign "
            "makes it"
        )
    found = read_small(file, MAX_SIGNATURE_BYTES, DetectorError)
    if not is_signed(data, found, Path(key)):
        raise DetectorError(
            f"{detector}: not the file that {file.name} signs with the key of {key}: copy both "
            "again from whom you trust"
        )


def _key(file: Path, kind: str) -> Any:
    """The Ed25519 key of a PEM file."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise RuntimeMissing.extra("cryptography", "sign", "a signature") from error
    try:
        text = read_small(file, MAX_KEY_BYTES, DetectorError)
        private = kind == "private"
        key: Any = (
            serialization.load_pem_private_key(text, None)
            if private
            else serialization.load_pem_public_key(text)
        )
    except DetectorError as error:
        raise DetectorError(f"{error}; {_expected(kind)}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DetectorError(
            f"{file}: not a {kind} key, or an encrypted one; {_expected(kind)}"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey):
        raise DetectorError(f"{file}: a {kind} key of another kind found; {_expected(kind)}")
    return key


def _expected(kind: str) -> str:
    make = "openssl genpkey -algorithm ed25519 -out key.pem"
    if kind == "public":
        make = "openssl pkey -in key.pem -pubout -out key.pub"
    return f"a {kind} Ed25519 key in PEM expected, as '{make}' makes it"
