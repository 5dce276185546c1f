"""The command that shows a run to TensorBoard: beside the training, which knows nothing of it and waits for nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from organza.cli.shell import Json, Run, app, show

if TYPE_CHECKING:
    from organza.run import Run as Folder

__all__ = ["tensorboard"]

_PAUSE = 2.0  # seconds between two looks


@app.command()
def tensorboard(
    run: Run,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="[default: RUN/tensorboard]")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has its length, or Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show a run to TensorBoard: its log and pictures, which it only reads, so that it neither slows nor stops it."""
    from organza.run import Run as Folder

    folder = Folder(run)
    target = Path(out) if out is not None else folder.path / "tensorboard"
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target}: exists and is no empty folder; remove it, or choose another by --out")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("this needs TensorBoard: pip install 'organza[tensorboard]'") from error
    lines, pictures = 0, set[str]()
    with SummaryWriter(str(target)) as writer:
        while True:
            lines, reached = _lines(writer, folder, lines)
            _pictures(writer, folder, pictures)
            writer.flush()
            if not follow or reached >= _aim(folder.plan):  # which a resume may have moved
                break
            try:
                time.sleep(_PAUSE)
            except KeyboardInterrupt:
                break
    record = {"run": run, "out": str(target), "lines": lines, "pictures": len(pictures)}
    show(record, f"{lines} lines, {len(pictures)} pictures: {target}\nnext    tensorboard --logdir {target}", as_json)


def _aim(plan: Mapping[str, Any]) -> float:
    """The images at whose end there is nothing more to follow; never where they are not known."""
    from organza.report import planned

    return planned(plan) or math.inf


def _lines(writer: Any, folder: Folder, done: int) -> tuple[int, int]:
    """Write the lines of the log beyond so many; return how many there are now, and the images of the last."""
    records = folder.records()
    for record in records[done:]:
        for name, value in record.items():
            if name not in ("images", "steps", "time") and isinstance(value, int | float):
                writer.add_scalar(name, value, record["images"], record.get("time"))
    return max(done, len(records)), int(records[-1]["images"]) if records else 0


def _pictures(writer: Any, folder: Folder, done: set[str]) -> None:
    """Write the pictures that are new."""
    import numpy as np
    from PIL import Image

    for path in sorted((folder.path / "samples").glob("*.png"), key=lambda path: (len(path.stem), path.stem)):
        if path.name not in done and path.stem.isdecimal():
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB"))
            except (OSError, Image.DecompressionBombError):  # damaged, gone since, or too large: the rest is shown
                continue
            writer.add_image("samples", pixels, int(path.stem), dataformats="HWC")
            done.add(path.name)
