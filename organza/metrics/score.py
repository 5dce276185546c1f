r"""A score: a number with all that it depends on, so that two can be compared, or are known not to be.

A metric is a function of two finite samples, and its value depends on more than their laws: on the features, on how
images were resized and rounded, on how many there were, on the split.  All of these are the :class:`Protocol`; two
scores may be ranked if and only if their protocols are equal.  Beside the value stand its error, where the metric has
one, and its floor: the same metric, by the same protocol, of real examples that were held out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

__all__ = ["BETTER", "Protocol", "Score", "differences", "ranked", "short"]

Best = Literal["low", "high", "floor"]
BETTER: dict[Best, str] = {
    "low": "lower is better",
    "high": "higher is better",
    "floor": "nearer to the floor is better",
}


@dataclass(frozen=True)
class Protocol:
    """All that a score depends on, besides the samples that it judges.

    Arguments:
        metric: The metric's name and settings ("precision, k = 3").
        features: What the metric sees of an example: the name of an extractor, or "pixels".
        weights: The SHA-256 of the extractor's weights; empty where it has none.
        resize: How images were brought to the extractor's size.
        rounding: How values became what was measured.
        real: The name of the real data.
        digest: The SHA-256 of the real examples that were used.
        split: The part of the data they are from.
        n_real: How many they are.
        n_fake: How many samples were judged.
        seed: Of the samples and of all chance in the metric.
        organza: The version of the package.
        torch: The version of PyTorch.
    """

    metric: str
    features: str
    weights: str
    resize: str
    rounding: str
    real: str
    digest: str
    split: str
    n_real: int
    n_fake: int
    seed: int
    organza: str
    torch: str


@dataclass(frozen=True)
class Score:
    """What a metric found.

    Arguments:
        key: The metric's name in a command or a plan ("frechet").
        name: Its name with its features ("FLD"), as it may be quoted.
        value: The number.
        protocol: All that it depends on.
        error: Its error, or None where the metric has none.
        error_of: What the error is ("standard deviation over 100 subsets").
        floor: The same of held-out real examples, or None.
        best: Whether a low or a high value is better, or one near the floor.
        flags: What makes the number doubtful, a line each.
        details: What else was found, as JSON.
        images: Images shown to D by the run that was judged, or None.
        floor_of: Which examples gave the floor, and how many they were compared with.
    """

    key: str
    name: str
    value: float
    protocol: Protocol
    error: float | None = None
    error_of: str = ""
    floor: float | None = None
    best: Best = "low"
    flags: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    floor_of: str = ""

    def json(self) -> dict[str, Any]:
        """Return the score as JSON; a number that is not finite becomes its name."""
        record: dict[str, Any] = _finite(asdict(self))
        return record

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Score:
        """Return the score that :meth:`json` wrote.

        Raises:
            ValueError: If it is no such record.
        """
        try:
            known = {each.name: record[each.name] for each in fields(cls)}
            protocol = {each.name: record["protocol"][each.name] for each in fields(Protocol)}
            numbers = {name: None if known[name] is None else float(known[name]) for name in ("error", "floor")}
            given = {**known, **numbers, "value": float(known["value"]), "flags": tuple(known["flags"])}
            score = cls(**{**given, "protocol": Protocol(**protocol)})
            score._check()
            return score
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no score of this version ({type(error).__name__}: {error}); evaluate again") from None

    def _check(self) -> None:
        """Raise a TypeError if something is of another type than it should be: anyone may have edited the file."""
        typed = [(getattr(self.protocol, name), kind) for name, kind in get_type_hints(Protocol).items()]
        typed += [(text, str) for text in (self.key, self.name, self.error_of, self.floor_of, *self.flags)]
        typed += [(self.details, Mapping), (self.images or 0, int)]
        for value, kind in typed:
            if not isinstance(value, kind):
                raise TypeError(f"{value!r} is no {kind.__name__}")
        if self.best not in get_args(Best) or (self.error or 0) < 0:
            raise TypeError(f"best={self.best!r}, error={self.error}")

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {short(self.error)}"
        floor = "" if self.floor is None else f" (floor {short(self.floor)})"
        return f"{self.name} {short(self.value)}{error}{floor}"


def differences(a: Protocol, b: Protocol) -> list[str]:
    """Return what differs, a line for each field; of equal protocols, nothing."""
    pairs = [(each.name, getattr(a, each.name), getattr(b, each.name)) for each in fields(Protocol)]
    return [f"{name}: {_clip(this)} against {_clip(that)}" for name, this, that in pairs if this != that]


def ranked(scores: Sequence[Score]) -> list[int]:
    """Return the places of the scores, the best first; a value that is no number comes last.

    Raises:
        ValueError: If their protocols differ; it says in which fields.  Or if it is best to be near a floor, and the
            floors are not known, or are not the same.
    """
    first = scores[0]
    for other in scores[1:]:
        found = differences(first.protocol, other.protocol)
        if found:
            raise ValueError(f"{first.name} cannot be ranked: the protocols differ in {'; '.join(found)}")
    floors = {score.floor for score in scores}
    known = first.floor is not None and math.isfinite(first.floor)
    if first.best == "floor" and len(scores) > 1 and (len(floors) > 1 or not known):
        why = "differ" if len(floors) > 1 else "were not measured"
        raise ValueError(f"{first.name} cannot be ranked: it is best near its floor, and the floors {why}")
    return sorted(range(len(scores)), key=lambda place: _distance(scores[place]))


def _distance(score: Score) -> float:
    """How far from the best: smaller is better."""
    if math.isnan(score.value):
        return math.inf
    if score.best == "floor":
        return abs(score.value - (score.floor or 0.0))
    return score.value if score.best == "low" else -score.value


def _finite(value: Any) -> Any:
    """The same in JSON, which has no NaN and no infinities: they become their names."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def short(value: float) -> str:
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.4g}"


def _clip(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text or "none"
