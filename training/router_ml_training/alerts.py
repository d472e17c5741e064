"""Telling people: one line in the log for each alert, and one request to a webhook for all that are due.

An alert that was sent is not sent again before a pause is over, so that a job that looks every hour does not repeat
itself. What is sent holds names of features and tiers and figures, never text of a request. A webhook that cannot be
reached is a warning: the finding stands in the log, in the exit code and in the metrics, and is sent at the next look.
"""

from __future__ import annotations

import http.client
import json
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from router_ml import __version__
from router_ml.errors import ConfigError
from router_ml_training.settings import AlertSettings

__all__ = ["Alert", "raise_alerts", "webhook_of"]

log = logging.getLogger(__name__)

_TRIES = 2
_BETWEEN_S = 1.0


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing people should know: `kind` and `name` say what it is about, `text` says it in a sentence."""

    kind: str
    name: str
    text: str

    @property
    def key(self) -> str:
        """What makes two alerts the same."""
        return f"{self.kind}: {self.name}"


def webhook_of(settings: AlertSettings, environ: Mapping[str, str]) -> str | None:
    """Return the URL that alerts are sent to; None where none is configured.

    Args:
        settings: `[alerts]`.
        environ: Holds the URL, which is a secret for most services.

    Raises:
        ConfigError: When the variable is not set, or is no http(s) URL.
    """
    name = settings.webhook_env
    if name is None:
        return None
    url = environ.get(name, "").strip()
    if not url:
        raise ConfigError(f"[alerts] webhook_env: the environment variable {name} is not set; set it, or drop the key")
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(char.isspace() for char in url):
        # Not the value: whoever knows it can write to the channel.
        raise ConfigError(f"[alerts] webhook_env: {name} holds no URL that begins with http:// or https://")
    return url


def raise_alerts(
    alerts: Sequence[Alert],
    settings: AlertSettings,
    *,
    bundle: str,
    sent: Mapping[str, datetime],
    now: datetime,
    webhook: str | None,
) -> dict[str, datetime]:
    """Log alerts, and send those that are due.

    Args:
        alerts: What was found.
        settings: `[alerts]`.
        bundle: Version of the bundle they are about.
        sent: When each was last sent, by key.
        now: Time of the look.
        webhook: Where they are sent, see `webhook_of`.

    Returns:
        `sent` after this, without alerts that are over.
    """
    for alert in alerts:
        log.warning("alert: %s", alert.text, extra={"kind": alert.kind, "about": alert.name, "bundle": bundle})
    pause = timedelta(seconds=settings.pause_s)
    known = {alert.key: sent[alert.key] for alert in alerts if alert.key in sent}
    due = [alert for alert in alerts if alert.key not in known or now - known[alert.key] >= pause]
    if not due or webhook is None:
        return known
    failure = _post(webhook, _payload(due, bundle, now), settings.timeout_s)
    if failure is not None:
        log.warning("alert_not_sent: %s; it is tried again at the next look", failure, extra={"alerts": len(due)})
        return known
    return {**known, **{alert.key: now for alert in due}}


def _payload(alerts: Sequence[Alert], bundle: str, now: datetime) -> dict[str, Any]:
    # `text` is what chat services show; the rest is for programs.
    return {
        "text": "\n".join((f"router-ml, bundle {bundle}:", *(alert.text for alert in alerts))),
        "source": "router-ml",
        "bundle": bundle,
        "checked": now.isoformat(),
        "alerts": [asdict(alert) for alert in alerts],
    }


def _post(url: str, payload: Mapping[str, Any], timeout_s: float) -> str | None:
    """Send JSON; return why it was not taken, None when it was."""
    request = urllib.request.Request(  # noqa: S310  `webhook_of` lets http and https pass only
        url,
        json.dumps(payload).encode(),
        {"content-type": "application/json", "user-agent": f"router-ml/{__version__}"},
        method="POST",
    )
    failure: str | None = None
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_BETWEEN_S)
        try:
            with _OPENER.open(request, timeout=timeout_s):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            failure = f"the webhook answered {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Not the message of every error: some quote the URL.
            reason = getattr(error, "reason", error)
            failure = f"the webhook cannot be reached ({type(reason).__name__})"
    return failure


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    # An alert goes where it was configured to go, and nowhere else.
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)
