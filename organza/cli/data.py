"""The command that looks at data before anyone trains on it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from organza.cli.shell import Device, Json, app, show
from organza.cli.training import said

if TYPE_CHECKING:
    from organza.data.check import Check

__all__ = ["data"]


@app.command()
def data(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A folder, an archive, an array file or a name.")],
    sheet: Annotated[str | None, typer.Option(metavar="FILE", help="Write a picture of 64 of them, a PNG.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check a data set and describe it: counts, sizes, duplicates, broken files, and what would be trained on it."""
    import torch

    from organza import api, picture
    from organza.data.check import check

    if sheet is not None and not sheet.lower().endswith(".png"):
        raise ValueError(f"--sheet {sheet}: must end in .png")
    found, opened = check(source)
    decision = api.decide(opened, device=device)
    record: dict[str, Any] = found.record() | {"choices": [asdict(choice) for choice in decision.choices]}
    if sheet is not None:
        some = torch.linspace(0, len(opened) - 1, min(64, len(opened))).long()
        x = opened.gather(some)[0] if opened.x.ndim == 4 else opened.x
        drawn = picture.pairs(*x.chunk(2, 1)) if opened.spec.joined else picture.draw(x, x)
        if drawn is None:
            raise ValueError(f"--sheet {sheet}: there is no picture of data of shape {list(opened.spec.shape)}")
        picture.save(drawn, sheet)
        record["sheet"] = sheet
    show(record, "\n".join([*_lines(found), "", "organza train would choose:", said(decision)]), as_json)


def _lines(found: Check) -> list[str]:
    sizes = [f"{n:,} of {size}" for size, n in found.sizes.items()]
    classes = [f"{name} {n:,}" for name, n in found.classes.items()]
    rows = [
        ("data", found.data),
        ("examples", f"{found.count:,}, each {' x '.join(map(str, found.shape))}, {found.dtype}"),
        ("sizes", _some(sizes, 5) if len(sizes) > 1 else ""),
        ("classes", f"{len(classes)}: {_some(classes, 12)}" if classes else "none"),
        ("unlabelled", f"{found.unlabelled:,}" if found.unlabelled else ""),
        *(("note", note) for note in found.notes),
        *(("left out", reason) for reason in found.left_out[:20]),
        ("left out", f"and {len(found.left_out) - 20:,} more" if len(found.left_out) > 20 else ""),
        *(("same", " = ".join(group)) for group in found.same[:5]),
        ("same", f"and {len(found.same) - 5:,} more groups" if len(found.same) > 5 else ""),
        *(("near", " ~ ".join(pair)) for pair in found.near[:5]),
        ("near", f"and {len(found.near) - 5:,}{' or' * found.cut} more pairs" if len(found.near) > 5 else ""),
        *(("warning", line) for line in found.warnings),
    ]
    return [f"{name:10}  {text}" for name, text in rows if text]


def _some(texts: list[str], most: int) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
