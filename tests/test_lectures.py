"""docs/lectures.md and docs/theory.md: every claim has a verdict, a command, a figure and a test; code runs."""

import ast
import re
from pathlib import Path

import pytest
import torch
from test_docs import Command, refused, table

from organza import lab
from organza.model import Model
from organza.nn import MLPGenerator
from organza.prior import Normal

ROOT = Path(__file__).parent.parent
LECTURES, THEORY = ROOT / "docs/lectures.md", ROOT / "docs/theory.md"
ROWS = table(LECTURES.read_text(encoding="utf-8"), "claim")


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_a_claim_has_what_it_needs(row):
    claim, verdict, command, figure, test = row
    assert re.match(r"(true|only if|half true|false)\b", verdict), claim
    words = command.strip("`").split()
    assert words[0] == "organza" and not refused(Command(tuple(words[1:]), ""))
    if words[1] == "lab":
        assert words[2] in lab.NAMES
    for path in re.findall(r"\(([^)]+\.png)\)", figure):
        assert (LECTURES.parent / path).exists(), path
    file, _, name = test.strip("`").partition("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    assert not name or name in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def test_every_experiment_is_told_of():
    for path in (LECTURES, THEORY):
        text = path.read_text(encoding="utf-8")
        assert all(f"organza lab {name}" in text or f"theory/{name}.png" in text for name in lab.NAMES), path


def test_the_code_of_the_theory_page_runs():
    """The comments beside it say what comes out."""
    for block in re.findall(r"```python\n(.*?)```", THEORY.read_text(encoding="utf-8"), re.DOTALL):
        names = {}
        *body, last = ast.parse(block).body
        exec(compile(ast.Module(body, []), "theory.md", "exec"), names)  # our own document
        value = eval(compile(ast.Expression(last.value), "theory.md", "eval"), names)
        if "js(" in block:
            assert f"{value.value:.2f}" in block
        else:
            assert value.real.max() < 0
            circling = names["theory"].eigenvalues(names["theory"].dirac(names["Jeffreys"]()))
            torch.testing.assert_close(circling.imag.abs(), torch.full((2,), 2**0.5, dtype=torch.float64))


def test_samples_are_uncorrelated():
    """The correlation of a sample with those drawn before it is that of chance: below 4 / sqrt(n)."""
    torch.manual_seed(0)
    n = 4_000
    x = Model(MLPGenerator(8, (3,), (16,), output="linear").eval(), Normal(8)).sample(n, seed=1)
    x = (x - x.mean(0)) / x.std(0)
    for lag in (1, 2, 10):
        assert ((x[:-lag] * x[lag:]).mean(0).abs() < 4 / n**0.5).all()
