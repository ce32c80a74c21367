"""Telling people: mail over SMTP, and a signed POST to a webhook."""

from __future__ import annotations

import http.client
import smtplib
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from functools import partial

from anomaly.files.table import utc_text
from anomaly.plant.settings import SECURITY, Mail, Plant
from anomaly.station.addresses import host_and_port, secret_in
from anomaly.station.settings import WebhookSink
from anomaly.station.webhook import Webhook

MAX_SUBJECT = 120  # characters
Tell = Callable[[Sequence[str], datetime], None]


def channels(plant: Plant) -> dict[str, Tell]:
    """Returns how to tell sentences, by the name of the channel; OSError where one fails."""
    found: dict[str, Tell] = {}
    if plant.mail is not None:
        found["mail"] = partial(send_mail, plant.mail, plant.page)
    if plant.webhook is not None:
        found["webhook"] = partial(post, plant.webhook, plant.page)
    return found


def send_mail(mail: Mail, page: str, said: Sequence[str], now: datetime) -> None:
    """Sends one message with all sentences; OSError where the server does not take it."""
    host, port = host_and_port(mail.server, SECURITY[mail.security])
    context = ssl.create_default_context(cafile=mail.ca_file and str(mail.ca_file))
    try:
        with (
            smtplib.SMTP_SSL(host, port, timeout=mail.seconds, context=context)
            if mail.security == "tls"
            else smtplib.SMTP(host, port, timeout=mail.seconds)
        ) as server:
            if mail.security == "starttls":
                server.starttls(context=context)
            if mail.user and mail.password_file is not None:
                server.login(mail.user, secret_in(mail.password_file))
            refused = server.send_message(message(mail, page, said, now))
    except smtplib.SMTPException as error:
        raise OSError(f"mail by {mail.server}: {' '.join(str(error).split())[:300]}") from error
    except OSError as error:
        raise OSError(f"mail by {mail.server}: {error}") from error
    if refused:
        raise OSError(f"mail by {mail.server}: {', '.join(refused)} refused")


def message(mail: Mail, page: str, said: Sequence[str], now: datetime) -> EmailMessage:
    """Returns the message: the first sentence is its subject."""
    made = EmailMessage()
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    subject = " ".join(said[0].split())
    made["Subject"] = f"Inspection: {subject[:MAX_SUBJECT]}{more}"
    made["From"], made["To"] = mail.sender, ", ".join(mail.to)
    made["Date"] = format_datetime(now)
    made["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2])
    made["Auto-Submitted"] = "auto-generated"  # no answer of an absent person comes back
    made.set_content("\n\n".join([*said, *([page] if page else [])]) + "\n")
    return made


def post(settings: WebhookSink, page: str, said: Sequence[str], now: datetime) -> None:
    """Posts all sentences as one message; OSError where the receiver does not take it."""
    hook = Webhook(settings)
    try:
        hook.open()
        content = {"at": utc_text(now), "alerts": list(said), "page": page}
        hook.post(f"alert-{utc_text(now)}", content)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"webhook {settings.url}: {error}") from error
    finally:
        hook.close()
