"""Which metric sees what: real digits, spoilt in one known way each, by every metric.

`python tests/test_sensitivity.py` prints the table of docs/metrics.md; the tests assert its directions, and that the
document shows these very numbers.
"""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from organza.data import Data, open_data
from organza.evaluation import Reference, evaluate

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parent.parent / "docs" / "metrics.md"
N = 1000
METRICS = ["frechet", "kernel", "neighbours", "inception-score", "classes", "diversity"]
METRICS += ["two-sample", "memorisation", "parzen"]
KEYS = ["frechet", "kernel", "precision", "recall", "density", "coverage", "inception-score", "class-entropy"]
KEYS += ["class-balance", "vendi", "spread", "duplicates", "two-sample", "memorised", "parzen"]


def noisy(x: Tensor) -> Tensor:
    """Gaussian noise of standard deviation 40 of 255."""
    noise = 40 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(x: Tensor) -> Tensor:
    """The mean of 3 x 3 pixels."""
    return functional.avg_pool2d(x.float(), 3, stride=1, padding=1).round().to(torch.uint8)


def halves() -> tuple[Data, Data]:
    """Digits that no one was trained on, and those that memorisation takes for the training data."""
    data = open_data("digits")  # of many writers, one after the other: each half has all of them
    return Data("fresh", data.x[::2], data.y[::2]), Data("train", data.x[1::2], data.y[1::2])


@cache
def sides() -> dict[str, Data]:
    """Samples, each spoilt in one way."""
    fresh, train = halves()
    some = torch.randperm(len(fresh), generator=torch.Generator().manual_seed(0))
    whole = fresh.x[some[:N]]
    no_nines = fresh.x[some][fresh.y[some] != 9][:N]
    copied = torch.cat([whole[: N - N // 10], train.x[: N // 10]])
    spoilt = {
        "nothing": whole,
        "noise": noisy(whole),
        "blur": blurred(whole),
        "a class is missing": no_nines,
        "each ten times": whole[: N // 10].repeat(10, 1, 1, 1),
        "a tenth copied": copied,
    }
    return {name: Data("samples", x) for name, x in spoilt.items()}


@cache
def found(name: str) -> dict[str, float]:
    against = Reference(open_data("digits", "test"), "test", halves()[1])
    return {each.key: each.value for each in evaluate(sides()[name], against, METRICS, "digits", floors=False)}


def table() -> list[list[str]]:
    """A row for each metric, a column for each way to spoil."""
    shown = {"parzen": ".0f", "duplicates": ".2f", "memorised": ".3f", "vendi": ".2f", "frechet": ".2f"}
    rows = [["", *sides()], ["---"] * (1 + len(sides()))]
    return rows + [[f"`{key}`", *(f"{found(name)[key]:{shown.get(key, '.3f')}}" for name in sides())] for key in KEYS]


# What each way to spoil does to a score: how far it moves, at least, in its own unit.
MOVES = [
    ("noise", "frechet", 5.0), ("noise", "kernel", 0.1), ("noise", "precision", -0.1), ("noise", "two-sample", 0.1),
    ("noise", "coverage", -0.3), ("blur", "coverage", -0.3), ("blur", "recall", -0.3),
    ("blur", "frechet", 1.0), ("blur", "kernel", 0.01), ("blur", "two-sample", 0.05),
    ("blur", "parzen", 20.0),  # as if blurred digits were better: Theis et al. (2016)
    ("a class is missing", "frechet", 1.0), ("a class is missing", "kernel", 0.01),
    ("a class is missing", "coverage", -0.05), ("a class is missing", "class-balance", -0.7),
    ("a class is missing", "class-entropy", -0.05), ("a class is missing", "recall", -0.02),
    ("each ten times", "duplicates", 0.9), ("each ten times", "coverage", -0.3), ("each ten times", "recall", -0.2),
    ("each ten times", "frechet", 0.5), ("each ten times", "parzen", -20.0),
    ("a tenth copied", "memorised", 0.05),
]  # fmt: skip
# And what it leaves as it is, whatever people hope for.
BLIND = [
    ("a class is missing", "precision", 0.03), ("a class is missing", "memorised", 0.02),
    ("each ten times", "memorised", 0.02), ("each ten times", "class-balance", 0.6),
    ("a tenth copied", "frechet", 0.3), ("a tenth copied", "kernel", 0.01), ("a tenth copied", "precision", 0.03),
    ("a tenth copied", "coverage", 0.05), ("a tenth copied", "two-sample", 0.06),
    ("a tenth copied", "duplicates", 0.01), ("noise", "duplicates", 0.01), ("noise", "memorised", 0.02),
    ("blur", "memorised", 0.02),
]  # fmt: skip


@pytest.mark.parametrize(("spoilt", "key", "least"), MOVES)
def test_it_is_seen(spoilt: str, key: str, least: float) -> None:
    moved = found(spoilt)[key] - found("nothing")[key]
    assert moved >= least if least > 0 else moved <= least


@pytest.mark.parametrize(("spoilt", "key", "most"), BLIND)
def test_it_is_not_seen(spoilt: str, key: str, most: float) -> None:
    assert abs(found(spoilt)[key] - found("nothing")[key]) <= most


def test_the_document_shows_these_numbers() -> None:
    """To 2 %, or the last digit shown: the features' last bits are the machine's."""
    rows = table()
    text = DOCUMENT.read_text(encoding="utf-8")
    for row in rows[2:]:
        line = re.search(rf"^\| {re.escape(row[0])} \| [-\d].*$", text, re.MULTILINE)
        assert line is not None, f"docs/metrics.md has no row {row[0]}"
        shown = [cell.strip() for cell in line[0].strip("|").split("|")][1:]
        for told, name, here in zip(shown, rows[0][1:], row[1:], strict=True):
            assert float(told) == pytest.approx(float(here), rel=0.02, abs=0.006), (row[0], name)


if __name__ == "__main__":
    print("\n".join(f"| {' | '.join(row)} |" for row in table()))
