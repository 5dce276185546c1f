r"""Metrics: how far a finite sample of p_g is from one of p_data.

Each is a pure function of two matrices of features, or of the values themselves; what it depends on besides is kept
with the number.  `features` are extracted once; `frechet` and `kernel` compare laws; `neighbours` tells quality from
variety; `classes`, `modes` and `diversity` count what is there; `likelihood` is the estimate of 2014;
`memorisation` and `classifier` test; `catalogue` names them all, and `score` is what they return.
"""

from .catalogue import KEYS, METRICS
from .features import NAMES, Extractor, Features, extract, extractor
from .score import Protocol, Score, differences, ranked

__all__ = [
    "KEYS",
    "METRICS",
    "NAMES",
    "Extractor",
    "Features",
    "Protocol",
    "Score",
    "differences",
    "extract",
    "extractor",
    "ranked",
]
