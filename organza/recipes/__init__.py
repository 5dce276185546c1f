"""Recipes: complete plans as functions of the data, one file per paper or program.

Each is ``name(data: Spec, images: int = ...) -> Plan``; the default length is the recipe's own, and schedules that
span the run stretch with it.  The first line of the docstring is what ``organza recipes`` prints.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from organza.data import Spec
from organza.plan import Part, Plan, hint
from organza.recipes.began import began
from organza.recipes.cgan import acgan, cgan2014, conditional
from organza.recipes.codes import infogan, joint, semi_supervised
from organza.recipes.dcgan import dcgan, lsgan
from organza.recipes.goodfellow2014 import (
    algorithm1,
    goodfellow2014,
    goodfellow2014_cifar10,
    goodfellow2014_cifar10_conv,
    goodfellow2014_tfd,
)
from organza.recipes.mlp import mlp, mlp_literal, tiny
from organza.recipes.modes import modes
from organza.recipes.pix2pix import cyclegan, cyclegan_small, pix2pix, pix2pix_perceptual, pix2pix_small
from organza.recipes.quick import quick
from organza.recipes.r3gan import r3gan, r3gan_small, r3gan_tiny
from organza.recipes.sngan import sngan
from organza.recipes.stacked import stacked_mnist
from organza.recipes.wgan import wgan, wgan_gp

__all__ = ["MINUTES", "RECIPES", "example", "recipe", "reduced", "references"]

RECIPES: dict[str, Callable[..., Plan]] = {
    "quick": quick,
    "modes": modes,
    "goodfellow2014": goodfellow2014,
    "algorithm1": algorithm1,
    "goodfellow2014-tfd": goodfellow2014_tfd,
    "goodfellow2014-cifar10": goodfellow2014_cifar10,
    "goodfellow2014-cifar10-conv": goodfellow2014_cifar10_conv,
    "tiny": tiny,
    "mlp": mlp,
    "mlp-literal": mlp_literal,
    "dcgan": dcgan,
    "lsgan": lsgan,
    "wgan": wgan,
    "wgan-gp": wgan_gp,
    "sngan": sngan,
    "began": began,
    "stacked-mnist": stacked_mnist,
    "r3gan-tiny": r3gan_tiny,
    "r3gan-small": r3gan_small,
    "r3gan": r3gan,
    "cgan2014": cgan2014,
    "conditional": conditional,
    "acgan": acgan,
    "infogan": infogan,
    "semi-supervised": semi_supervised,
    "joint": joint,
    "pix2pix": pix2pix,
    "pix2pix-small": pix2pix_small,
    "pix2pix-perceptual": pix2pix_perceptual,
    "cyclegan": cyclegan,
    "cyclegan-small": cyclegan_small,
}

# Recipes whose own length is a time: as many images as fit into it on the machine at hand.
MINUTES = {"quick": 2.1}

# The images that a recipe's paper or code is about, where they are not MNIST's.
_SHAPES = {
    "goodfellow2014-tfd": (1, 48, 48),
    "goodfellow2014-cifar10": (3, 32, 32),
    "goodfellow2014-cifar10-conv": (3, 32, 32),
    **dict.fromkeys(("dcgan", "lsgan", "wgan", "wgan-gp", "began"), (3, 64, 64)),
    "sngan": (3, 32, 32),
    "stacked-mnist": (3, 28, 28),
    "modes": (2,),
    "r3gan": (3, 256, 256),
    "joint": (1, 32, 28),  # mnist[joint]
}
_CONDITIONED = {
    **dict.fromkeys(("cgan2014", "conditional", "acgan", "semi-supervised"), Spec((1, 28, 28), 60_000, classes=10)),
    "pix2pix": Spec((3, 256, 256), 400, condition=(3, 256, 256)),  # facades
    **dict.fromkeys(("pix2pix-small", "pix2pix-perceptual"), Spec((3, 64, 64), 1700, condition=(3, 64, 64))),
    "cyclegan": Spec((6, 256, 256), 1334, condition=(6, 256, 256), joined=True),  # horses and zebras
    "cyclegan-small": Spec((6, 64, 64), 1700, condition=(6, 64, 64), joined=True),
}


def recipe(name: str) -> Callable[..., Plan]:
    """Return the recipe of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown{hint(name, list(RECIPES))}")
    return RECIPES[name]


def example(name: str) -> Spec:
    """Return the data that a recipe is about: what ``organza recipes NAME`` shows."""
    return _CONDITIONED.get(name) or Spec(_SHAPES.get(name, (1, 28, 28)), 60_000)


def references(name: str) -> list[str]:
    """Return the references that a recipe's docstring gives, a line each; none if there is no such recipe."""
    given = inspect.getdoc(RECIPES[name]) if name in RECIPES else None
    section = (given or "").partition("References:\n")[2].partition("\n\n")[0]
    lines = " ".join(section.split())  # one of several lines ends, as each does, with its year
    return [each.strip() for each in re.findall(r".+?\d{4}\)", lines)]


def reduced(plan: Plan, most: int = 16) -> Plan:
    """Return the same plan with small networks, batches and bursts: every part of the recipe in little, for tests.

    Arguments:
        plan: A recipe's plan.
        most: The largest width left in a network; those of R3GAN stay multiples of its groups.
    """

    def narrow(network: Part) -> Part:
        sizes = ("width", "widths", "units", "filters", "dense", "channels", "hidden")
        return {name: _at_most(value, most) if name in sizes else value for name, value in network.items()}

    training = {**plan.training, "batch": min(plan.training["batch"], 8), "log_every": 16}
    training["generator_batch"] = min(training["generator_batch"], 16)
    k = training["moves"].get("k")
    if isinstance(k, dict) and "burst" in k:
        training["moves"] = {**training["moves"], "k": {**k, "burst": k["k"] + 1}}
    parts = {"generator": narrow(plan.generator), "discriminator": narrow(plan.discriminator), "training": training}
    return Plan.read({**plan.json(), **parts})


def _at_most(value: Any, most: int) -> Any:
    """A number, or each number of a list; names are left."""
    if isinstance(value, list | tuple):
        return [_at_most(item, most) for item in value]
    return min(value, most) if isinstance(value, int) else value
