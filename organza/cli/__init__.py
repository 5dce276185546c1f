"""The command line: a thin shell around ``organza.api``.

Exit codes: see docs/json.md.
"""

# isort: off  (the order of the help)
from organza.cli import data, recipes, sampling, scores, tensorboard, training, translate

# isort: split
from organza.cli import lab

# isort: on
from organza.cli.shell import app, main, run

__all__ = ["app", "data", "lab", "main", "recipes", "run", "sampling", "scores", "tensorboard", "training", "translate"]
