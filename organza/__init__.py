"""Organza trains, measures, explains and ships generative adversarial networks.

    import organza as oz

    game = oz.Game(generator=MyG(), discriminator=MyD(), prior=oz.Normal(64),
                   objective=oz.RelativisticLogistic(), terms=[oz.R1(1.0), oz.R2(1.0)])
    model = oz.fit(game, data="digits", images=500_000, run="runs/mine")
    model.sample(64, seed=0)

Names are resolved when first used: importing the package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from organza.ada import ADA
    from organza.api import compare, evaluate, load, resume, train
    from organza.augment import DiffAugment, Jitter
    from organza.data import open_data
    from organza.game import Game
    from organza.model import Model
    from organza.moves import Alternating, Consensus, Moves, Simultaneous, Unrolled
    from organza.objective import (
        FGAN,
        Hinge,
        LeastSquares,
        Minimax,
        NonSaturating,
        Objective,
        RelativisticLogistic,
        Scaled,
        Wasserstein,
    )
    from organza.optimizer import SGD, Adam, RMSprop
    from organza.penalty import DRAGAN, R1, R2, GradientPenalty
    from organza.prior import Normal, Uniform
    from organza.round import Verdict
    from organza.term import Term
    from organza.training import Training, fit

_HOME = {
    "ada": ("ADA",),
    "api": ("compare", "evaluate", "load", "resume", "train"),
    "augment": ("DiffAugment", "Jitter"),
    "data": ("open_data",),
    "game": ("Game",),
    "model": ("Model",),
    "moves": ("Alternating", "Consensus", "Moves", "Simultaneous", "Unrolled"),
    "objective": (
        "FGAN",
        "Hinge",
        "LeastSquares",
        "Minimax",
        "NonSaturating",
        "Objective",
        "RelativisticLogistic",
        "Scaled",
        "Wasserstein",
    ),
    "optimizer": ("SGD", "Adam", "RMSprop"),
    "penalty": ("DRAGAN", "R1", "R2", "GradientPenalty"),
    "prior": ("Normal", "Uniform"),
    "round": ("Verdict",),
    "term": ("Term",),
    "training": ("Training", "fit"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'organza' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"organza.{_MODULE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
