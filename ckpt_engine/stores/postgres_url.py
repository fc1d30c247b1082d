"""What a PostgreSQL URL says; no driver is needed to read it."""

from __future__ import annotations

import re

from sqlalchemy import URL, exc, make_url

from ..errors import InvalidRequest

__all__ = ["parse_url", "shown"]


def parse_url(url: str) -> tuple[URL, str]:
    """Return what to connect to, and the name of the schema (``?schema=``, else ``ckpt``).

    Raises:
        InvalidRequest: It is no PostgreSQL URL.
    """
    example = "give postgresql://user:password@host:port/database"
    try:
        target = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise InvalidRequest(
            f"the URL of the PostgreSQL database cannot be read: {example}"
        ) from None
    if target.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise InvalidRequest(f"{target.drivername}:// is not supported: {example}")
    schema = target.query.get("schema", "ckpt")
    if not isinstance(schema, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
        raise InvalidRequest(
            "schema= names one schema: small letters, digits and underscores, such as ckpt"
        )
    target = target.set(drivername="postgresql+psycopg").difference_update_query(["schema"])
    return target, schema


def shown(target: URL, schema: str) -> str:
    """Return the URL without a password."""
    plain = target.set(drivername="postgresql").difference_update_query(["password"])
    if schema != "ckpt":
        plain = plain.update_query_dict({"schema": schema})
    return plain.render_as_string(hide_password=True)
