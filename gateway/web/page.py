"""The page at `/`: what this is and where its answers are. One file, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape

_STYLE = (
    "body{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;"
    "background:#fff;color:#1b1f24}"
    "a{color:#0b62b8}code{font-size:.95em}li{margin:.3rem 0}"
    "@media(prefers-color-scheme:dark){body{background:#14171a;color:#dfe3e8}a{color:#7ab8ff}}"
)
_LINKS = (
    ("/healthz", "does the process work, does the disk take what it is given"),
    ("/readyz", "may devices connect"),
    ("/metrics", "for Prometheus"),
    ("/api/v1/status", "everything about this moment, as JSON"),
)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
"""Sent with every answer; the hash allows the page's one style and nothing else."""


def render(gateway_id: str, version: str) -> str:
    """The page as HTML."""
    name = escape(gateway_id)
    items = "".join(f'<li><a href="{path}"><code>{path}</code></a> {what}</li>' for path, what in _LINKS)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{_STYLE}</style>"
        f"<h1>{name}</h1><p>Edge event gateway {escape(version)}</p><ul>{items}</ul></html>"
    )
