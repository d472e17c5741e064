"""`router-ml keys`: make, list and revoke the API keys of tenants."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from router_ml.cli.output import emit, table
from router_ml.config import load_config
from router_ml.errors import UsageError
from router_ml_serving.keys import KeyRecord, issue_key, read_keys, revoke_key
from router_ml_serving.settings import serving_settings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and print it, once")
    create.add_argument("--tenant", required=True, help="whom the key stands for")
    create.add_argument("--name", default="", help="what it is for, such as ci")
    listed = actions.add_parser("list", help="show every key's id, tenant and name, revoked ones too")
    revoke = actions.add_parser("revoke", help="make a key useless, within seconds and without a restart")
    revoke.add_argument("id", help="the key's id, the part between the two underscores")
    for action in (create, listed, revoke):
        action.add_argument("--file", type=Path, help="the keys file (default: serving.keys_file)")
        # The host's options, also where people write them: behind the action.
        action.add_argument("--config", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Do it.

    Raises:
        UsageError: When no keys file is named, or it cannot be written.
        ConfigError: When the file is missing or broken.
        UnknownName: When a key to revoke is not in the file.
    """
    path = args.file or _configured(args.config)
    now = datetime.now(UTC)
    if args.action == "create":
        record, key = issue_key(path, tenant=args.tenant, name=args.name, now=now)
        emit(args, {**_shown(record), "key": key}, f"{key}\nShown once and kept nowhere; only its hash is in {path}.")
    elif args.action == "revoke":
        record = revoke_key(path, args.id, now=now)
        emit(args, _shown(record), f"revoked {record.id} of {record.tenant}; running services refuse it in seconds")
    else:
        keys = [_shown(one) for one in read_keys(path).values()]
        rows = [list(one.values()) for one in keys]
        emit(args, {"keys": keys}, table(["id", "tenant", "name", "created", "revoked"], rows))
    return 0


def _configured(config: Path | None) -> Path:
    path = serving_settings(load_config(config, os.environ)).keys_file
    if path is None:
        raise UsageError('no keys file is named; set keys_file = "keys.jsonl" in [serving], or pass --file')
    return path


def _shown(record: KeyRecord) -> dict[str, str | None]:
    # Not the digest: nobody needs it, and it would end up in tickets.
    revoked = None if record.revoked is None else record.revoked.isoformat(timespec="seconds")
    created = record.created.isoformat(timespec="seconds")
    return {"id": record.id, "tenant": record.tenant, "name": record.name, "created": created, "revoked": revoked}
