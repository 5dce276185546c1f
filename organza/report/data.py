"""The section of the report on the data: what they are, and what was unusual about their files."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["section"]


def section(run: Path) -> str:
    """The section, from data.json in the run folder; empty for runs from before there was one, or if it is damaged."""
    try:
        told: dict[str, Any] = json.loads((run / "data.json").read_text("utf-8"))
        return f"<h2>The data</h2>\n{_table(told)}{_left_out(told)}\n"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _table(told: dict[str, Any]) -> str:
    classes, most = told["classes"], max(told["classes"].values(), default=1) or 1
    bars = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><i style="width:{100 * n / most:.1f}%"></i></td>'
        f"<td>{n:,}</td></tr>"
        for name, n in classes.items()
    )
    rows = [
        ("Source", told["name"]),
        ("Examples", f"{told['count']:,} of {' × '.join(map(str, told['shape']))}, {told['dtype']}"),
        ("Conditions", " × ".join(map(str, told["condition"]))),
        ("Without a label", f"{told['unlabelled']:,}" if told["unlabelled"] else ""),
        ("Compressed with loss", "yes: a score against them also measures the traces of that" if told["lossy"] else ""),
        *(("Unusual", note) for note in told["notes"]),
        ("SHA-256", told["digest"][:16]),
    ]
    text = "".join(f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>\n' for name, value in rows if value)
    found = f"<table>{text}</table>"
    if classes:
        found += f"<details{' open' * (len(classes) <= 12)}><summary>{len(classes)} classes</summary>"
        found += f'<table class="bars">{bars}</table></details>'
    return found


def _left_out(told: dict[str, Any]) -> str:
    count = told["left_out_count"]
    if not count:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in told["left_out"])
    more = f"<li>and {count - len(told['left_out']):,} more</li>" if count > len(told["left_out"]) else ""
    return f"<details><summary>{count:,} files were left out</summary><ul>{lines}{more}</ul></details>"
