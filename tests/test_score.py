"""Scores: what they depend on travels with them, and what differs is not ranked."""

import json
import math
from dataclasses import fields, replace

import pytest

from organza.metrics.score import Protocol, Score, differences, ranked

PROTOCOL = Protocol(
    metric="frechet",
    features="digits",
    weights="a" * 64,
    resize="none",
    rounding="uint8",
    real="mnist",
    digest="b" * 64,
    split="test",
    n_real=10_000,
    n_fake=10_000,
    seed=0,
    organza="0.1.0",
    torch="2.13.0",
)


def score(value: float, best: str = "low", **changes) -> Score:
    return Score("frechet", "FLD", value, PROTOCOL, best=best, **changes)


def test_json_and_back() -> None:
    given = score(1.5, error=0.1, error_of="standard error", floor=0.2, flags=("few",), details={"a": [1, 2]}, images=8)
    assert Score.read(json.loads(json.dumps(given.json(), allow_nan=False))) == given
    for odd in (math.inf, -math.inf):
        assert Score.read(json.loads(json.dumps(score(odd).json(), allow_nan=False))).value == odd
    assert math.isnan(Score.read(json.loads(json.dumps(score(math.nan).json(), allow_nan=False))).value)


@pytest.mark.parametrize("damage", ["value", "protocol", "flags"])
def test_a_record_that_is_none(damage: str) -> None:
    record = score(1.0).json()
    del record[damage]
    with pytest.raises(ValueError, match="evaluate again"):
        Score.read(record)


@pytest.mark.parametrize("name", [each.name for each in fields(Protocol)])
def test_each_field_of_the_protocol_alone_forbids_a_ranking(name: str) -> None:
    """Whatever a score depends on, a difference in it is found, and is named."""
    was = getattr(PROTOCOL, name)
    other = replace(PROTOCOL, **{name: was + 1 if isinstance(was, int) else f"{was}x"})
    assert differences(PROTOCOL, PROTOCOL) == []
    assert [each.partition(":")[0] for each in differences(PROTOCOL, other)] == [name]
    with pytest.raises(ValueError, match=rf"FLD cannot be ranked: the protocols differ in {name}: "):
        ranked([score(1.0), score(0.5), replace(score(2.0), protocol=other)])


def test_ranking() -> None:
    assert ranked([score(2), score(1), score(math.nan), score(3)]) == [1, 0, 3, 2]
    assert ranked([score(v, "high") for v in (2, 1, 3)]) == [2, 0, 1]
    assert ranked([score(v, "floor", floor=1.0) for v in (0.7, 1.1, 1.8)]) == [1, 0, 2]
    assert ranked([score(v, "floor", floor=0.0) for v in (0.7, 0.1)]) == [1, 0]


@pytest.mark.parametrize("floors", [(None, None), (1.0, None), (1.0, 2.0), (math.nan, math.nan)])
def test_what_is_best_near_its_floor_needs_one(floors) -> None:
    """Without it, the most collapsed of all would be the best: its spread is nearest to 0."""
    with pytest.raises(ValueError, match="it is best near its floor"):
        ranked([score(0.5, "floor", floor=floor) for floor in floors])


def test_text() -> None:
    assert str(score(7.31234, error=0.1234, floor=0.28)) == "FLD 7.312 ± 0.1234 (floor 0.28)"
    assert str(score(123456.0)) == "FLD 123,456"
