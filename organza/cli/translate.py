"""The command that makes images from images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from organza.cli.shell import Device, Json, Seed, Trained, app, show

if TYPE_CHECKING:
    from torch import Tensor

    from organza.values import Values

__all__ = ["translate"]


@app.command()
def translate(
    run: Trained,
    given: Annotated[str, typer.Argument(metavar="INPUT", help="An image file, a folder of them, or any other DATA.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="The folder to make, or an empty one.")],
    back: Annotated[bool, typer.Option("--back", help="From B to A, where cyclegan learnt 'A and B'.")] = False,
    noise: Annotated[
        bool, typer.Option("--noise", help="Dropout on and each image's own statistics, as in the paper of pix2pix.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make an image from each given one, of its size and name, by a run that learnt it (pix2pix, cyclegan)."""
    folder = Path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"--out {out}: exists and is no empty folder; choose a new one")
    from organza import api, picture

    model = api.load(run, device=device)
    wanted = (getattr(model.generator, "condition", None) or (0,))[0]
    # Of two sets of floats that were joined both have the scale of the whole; all else has its own.
    shared = hasattr(model.generator, "directions") and model.values is not None and not model.values.most
    images = list(_images(given, model.values if shared else None))
    for image in images:  # all of them, before anything is written
        if wanted and image.channels not in (wanted, wanted - 2):
            raise ValueError(f"{image.name} has {image.channels} channels: this model takes images of {wanted}")
    targets = [folder / Path(image.name).with_suffix(".png") for image in images]
    twice = next((target.stem for target, n in Counter(targets).items() if n > 1), None)
    if twice is not None:
        raise ValueError(f"{given} holds two images named {twice}: both would be written to {twice}.png")
    for image, target in zip(images, targets, strict=True):
        x = image.inside(image.read()[None])  # (1, C, H, W)
        x = x if image.channels == wanted else x[:, [0, 0, *range(image.channels)]]  # gray as colour
        picture.save(picture.grid(model.translate(x, seed, back, noise)), target)
    record = {"out": out, "files": [str(target) for target in targets], "seed": seed}
    show(record, f"{len(images)} image{'s' * (len(images) > 1)}: {out}", as_json)


class _Image(NamedTuple):
    """An image that is given: its name, its channels, how it is read, (C, H, W), and how it comes to lie in [-1, 1]."""

    name: str
    channels: int
    read: Callable[[], Tensor]
    inside: Callable[[Tensor], Tensor]


def _images(given: str, values: Values | None) -> Iterator[_Image]:
    """The images of a file, of a folder, in which sizes may differ, or of a data set, floats by these values if any."""
    from organza.data import folder, images, open_data
    from organza.values import signed

    path = Path(os.path.expanduser(given))
    if path.is_dir() or (path.is_file() and path.suffix.lower() not in (".npy", ".npz", *folder.ARCHIVES)):
        for file in folder.listed(path):
            name = file.relative_to(path if path.is_dir() else path.parent)
            yield _Image(name.as_posix(), images.shape_of(file)[0], partial(images.read_image, file), signed)
        return
    data = open_data(given)
    if data.x.ndim != 4:
        raise ValueError(f"{given} holds vectors of {data.x.shape[1]}: give images")
    values = data.values if values is None or data.values.most else values
    for i, x in enumerate(data.x):
        called = data.files[i] if data.files else f"{i:06d}"
        yield _Image(called, len(x), partial(data.x.__getitem__, i), values.inside)
