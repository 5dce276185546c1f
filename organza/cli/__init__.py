"""The command line: a thin shell around ``organza.api``.

Exit codes: 0 done; 2 the user's mistake, one clear line each, nothing written; 1 our mistake, with a traceback;
130 or 143 stopped by Ctrl-C or SIGTERM, with everything saved.
"""

# isort: off  (the order of the help)
from organza.cli import data, recipes, sampling, scores, tensorboard, training, translate

# isort: split
from organza.cli import lab

# isort: on
from organza.cli.shell import app, main, run

__all__ = ["app", "data", "lab", "main", "recipes", "run", "sampling", "scores", "tensorboard", "training", "translate"]
