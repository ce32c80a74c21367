"""Results to a real HTTPS receiver: signed, in order, again until they are taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from anomaly.errors import AnomalyError
from anomaly.station.deliver import Delivery
from anomaly.station.health import Health
from anomaly.station.ledger import Ledger, Noted
from anomaly.station.settings import WebhookSink
from anomaly.station.webhook import Webhook
from tests.support.review_server import free_port
from tests.support.stations import SECONDS, Receiver, example, in_order_once, wait_until

SECRET = "not so secret as a test may be"


def certificate(home: Path) -> tuple[Path, Path]:
    """Returns the files of a certificate for this machine, signed by itself, and of its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = home / "receiver.pem", home / "receiver.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@contextmanager
def delivering(ledger: Ledger, settings: WebhookSink) -> Iterator[Health]:
    health = Health("hook", "webhook", "sink", print)
    delivery = Delivery(Webhook(settings), ledger, health, "image")
    delivery.start()
    yield health
    delivery.finish(SECONDS)


def test_results_come_signed_in_order_again_and_over_https(tmp_path: Path) -> None:
    files, port = certificate(tmp_path), free_port()
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = WebhookSink(
        "hook", f"https://127.0.0.1:{port}/a?b=c", tmp_path / "secret", ca_file=files[0]
    )
    ledger = Ledger(tmp_path, ["hook"])
    for seq in range(1, 6):
        ledger.add([example(seq)], Noted("left"))
    receiver = Receiver(port)
    with delivering(ledger, settings) as health:
        # nobody listens: said, and nothing is lost
        wait_until(lambda: health.state == "gone", "the receiver is not there")
        receiver.answers = [200, 503, 200, 302, 404]
        with receiver.receiving(files):
            wait_until(lambda: ledger.delivered["hook"] == 5, "all results", SECONDS)
            ledger.add([example(6, "flagged", serial="Prüfling 7")], Noted("left"))
            wait_until(lambda: ledger.delivered["hook"] == 6, "the last result", SECONDS)
    assert health.state == "ok"
    assert receiver.answers == []
    assert in_order_once(receiver.results()) == [1, 2, 3, 4, 5, 6]
    for headers, body in receiver.posts:
        signed = f"{headers['X-Anomaly-Time']}.".encode() + body
        signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert headers["X-Anomaly-Signature"] == f"sha256={signature}"
        assert abs(time.time() - int(headers["X-Anomaly-Time"])) < SECONDS
        assert headers["X-Anomaly-Id"] == json.loads(body)["id"]
    last = receiver.results()[-1]
    assert (last["serial"], last["outcome"], last["action"]) == ("Prüfling 7", "flagged", "reject")
    assert "lot" not in last


def test_a_receiver_with_an_unknown_certificate_gets_nothing(tmp_path: Path) -> None:
    files, port = certificate(tmp_path), free_port()
    ledger, receiver = Ledger(tmp_path, ["hook"]), Receiver(port)
    ledger.add([example(1)], Noted("left"))
    settings = WebhookSink("hook", f"https://127.0.0.1:{port}/")
    with receiver.receiving(files), delivering(ledger, settings) as health:
        wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in health.said, "the refusal")
        health.closing.set()
    assert receiver.posts == []


@pytest.mark.parametrize("url", ["ftp://a/b", "https://", "receiver"])
def test_what_is_no_address_of_a_receiver_is_refused(url: str) -> None:
    with pytest.raises(AnomalyError, match="https://HOST/PATH expected"):
        Webhook(WebhookSink("hook", url))
