r"""The catalogue: every metric by the name that a command gives it, as a function of two sides.

A metric compares the side that is judged with the side of real examples.  Its floor is the very same function, with
real examples that were held out in the place of the judged ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from . import classes, classifier, diversity, frechet, kernel, likelihood, lpips, memorisation, modes, neighbours, pairs
from .features import extractor
from .score import Best
from .side import Context, Side, unit

__all__ = ["KEYS", "METRICS", "Found", "Metric", "applicable", "chosen"]

_PARZEN_DIMS = 4096  # numbers in an example, beyond which the 2014 protocol says nothing and takes hours


@dataclass(frozen=True)
class Found:
    """A number that a metric found; see :class:`~organza.metrics.score.Score`."""

    key: str
    value: float
    error: float | None = None
    error_of: str = ""
    settings: str = ""
    flags: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


Compute = Callable[[Side, Side, Context], list[Found]]
Lacks = Callable[[Side, Side, Context], str]


@dataclass(frozen=True)
class Metric:
    """A metric.

    Arguments:
        compute: (fake, real, context) -> what it found, a number for each key.
        keys: The keys of its numbers, each with what is best: a low value, a high one, or one near the floor.
        lacks: (fake, real, context) -> why it cannot be computed; empty if it can.
        floored: Whether held-out real examples in the place of fakes give its floor.
        usual: Whether it is computed where no metric is named.
        sees: What it looks at whatever features are asked for, so that none are made for it: "pixels", the values
            themselves, or the name of an extractor; empty if it takes those that are asked for.
    """

    compute: Compute
    keys: Mapping[str, Best]
    lacks: Lacks = lambda fake, real, context: ""
    floored: bool = True
    usual: bool = True
    sees: str = ""


def _frechet(fake: Side, real: Side, context: Context) -> list[Found]:
    value = frechet.frechet_distance(fake.gaussian, real.gaussian)
    error = frechet.frechet_error(fake.embeddings, fake.gaussian, real.gaussian)
    d = fake.embeddings.shape[1]
    flags = tuple(
        f"{n:,} {who} for {d:,} features: the covariance is singular, the distance biased upwards"
        for n, who in ((len(fake), "samples"), (len(real), "real examples"))
        if n <= d
    )
    of = "standard error (delta method, first order)"
    return [Found("frechet", value, error, of, flags=flags, name=context.extractor.short)]


def _kernel(fake: Side, real: Side, context: Context) -> list[Found]:
    size = min(1000, len(fake), len(real))
    found = kernel.kernel_distance(fake.embeddings, real.embeddings, size=size, seed=context.seed % 2**32)
    flags = () if size == 1000 else (f"subsets of {size}, not of the usual 1,000: too few examples",)
    error: float | None = found.error
    if 2 * size > min(len(fake), len(real)):
        error, flags = None, (*flags, f"no error: subsets of {size} are most of the sample, and too much alike")
    of = "standard deviation over 100 subsets" if error is not None else ""
    settings = f"degree 3, 100 subsets of {size}"
    return [Found("kernel", found.value, error, of, settings, flags, name=context.extractor.kernel)]


def _neighbours(fake: Side, real: Side, context: Context) -> list[Found]:
    a, b = _even(fake, real, context.seed)
    found = neighbours.prdc(a, b)
    of = "binomial standard error, the other sample fixed"

    def binomial(p: float, n: int) -> float:
        return math.sqrt(p * (1 - p) / n)

    three, five = (f"k = {k}, {len(a)} against {len(b)}" for k in (3, 5))
    return [
        Found("precision", found.precision, binomial(found.precision, len(a)), of, three),
        Found("recall", found.recall, binomial(found.recall, len(b)), of, three),
        Found("density", found.density, settings=five),
        Found("coverage", found.coverage, settings=five),
    ]


def _inception_score(fake: Side, real: Side, context: Context) -> list[Found]:
    assert fake.features.logits is not None
    found = classes.inception_score(fake.features.logits)
    name = "IS" if context.extractor.short == "FID" else f"IS-{context.extractor.name}"
    of = "standard deviation over 10 splits"
    return [Found("inception-score", found.value, found.error, of, "10 splits", name=name)]


def _classes(fake: Side, real: Side, context: Context) -> list[Found]:
    assert fake.features.logits is not None
    count = fake.features.logits.shape[1]
    shares, wanted = (classes.class_shares(side.labels, count) for side in (fake, real))
    expected = wanted * len(fake) >= 5  # a class of which chance alone may leave no sample says nothing
    ratio = shares[expected] / wanted[expected]
    details = {
        "shares": [round(float(p), 6) for p in shares],
        "real_shares": [round(float(p), 6) for p in wanted],
        "divergence": classes.class_divergence(shares, wanted),
        "divergence_floor": (int((wanted > 0).sum()) - 1) / 2 * (1 / len(fake) + 1 / len(real)),
    }
    confidence = fake.features.logits.softmax(1).amax(1)
    details["median_confidence"] = float(confidence.median())
    details["below_0.9"] = float((confidence < 0.9).float().mean())
    missing = [str(int(k)) for k in (expected & (shares == 0)).nonzero()]
    flags = (f"no samples of classes {', '.join(missing[:10])}{' ...' * (len(missing) > 10)}",) if missing else ()
    return [
        Found("class-entropy", classes.class_entropy(shares), details=details, flags=flags),
        Found(
            "class-balance", float(ratio.min()) if len(ratio) else math.nan, settings="least share over the real share"
        ),
    ]


def _diversity(fake: Side, real: Side, context: Context) -> list[Found]:
    spread, wanted = (diversity.mean_distance(side.gaussian) for side in (fake, real))
    return [
        Found("vendi", diversity.vendi(fake.embeddings), settings="cosine kernel"),
        Found("spread", spread / wanted if wanted else math.nan, settings="of features, over the real one's"),
        Found("duplicates", diversity.duplicates(fake.x.flatten(1)), settings="share with an equal sample"),
    ]


def _two_sample(fake: Side, real: Side, context: Context) -> list[Found]:
    a, b = _even(fake, real, context.seed)
    found = classifier.two_sample(a, b, seed=context.seed)
    details = {"p_value": found.p_value}
    return [Found("two-sample", found.accuracy, found.error, "binomial standard error", "MLP", details=details)]


def _parzen(fake: Side, real: Side, context: Context) -> list[Found]:
    assert context.valid is not None
    valid = unit(context.valid)
    found = likelihood.parzen(unit(fake.x), valid, unit(real.x))
    flags: tuple[str, ...] = ("misleading by nature: k-means centroids beat true samples (Theis et al., 2016)",)
    if found.edge:
        flags += (f"sigma {found.sigma:g} is at an end of the grid",)
    settings = f"sigma from logspace(-1, 0, 10) by {min(len(valid), 1000)} examples of {context.train_name}"
    details = {"sigma": float(found.sigma), "unit": "nats", "published": "225 ± 2 (2014), MNIST"}
    of = "standard error over test examples"
    return [Found("parzen", found.value, found.error, of, settings, flags, details)]


def _memorisation(fake: Side, real: Side, context: Context) -> list[Found]:
    assert context.train is not None
    found = memorisation.memorisation(fake.x, context.train, real.x, seed=context.seed)
    flags: tuple[str, ...] = ()
    if found.verdict == "memorised":
        flags = ("samples lie closer to training images than held-out images do",)
    elif found.verdict == "too few to tell":
        flags = ("too few examples to tell copies",)
    details = {
        "verdict": found.verdict,
        "p_value": found.p_value,
        "median_distance": found.fake_distance,
        "median_distance_held_out": found.held_out_distance,
        "notes": list(found.notes),
        "suspects": [[int(i), int(j)] for i, j in zip(found.suspects, found.twins, strict=True)],
    }
    settings = f"{found.n_fake} samples, {found.n_held_out} held-out, {found.n_train} examples of {context.train_name}"
    return [Found("memorised", found.share, settings=settings, flags=flags, details=details)]


def _modes(fake: Side, real: Side, context: Context) -> list[Found]:
    assert context.mixture is not None
    centres, sigma, weights = context.mixture
    found = modes.mode_coverage(fake.x, centres, sigma, weights=weights)
    error = math.sqrt(found.quality * (1 - found.quality) / len(fake))
    details: dict[str, Any] = {"total": found.total, "ceiling": found.ceiling, "kl_floor": found.kl_floor}
    details["counts"] = [int(count) for count in found.counts]
    return [
        Found("modes", float(found.captured), settings=f"of {found.total}, 3 sigma", details=details),
        Found("quality", found.quality, error, "binomial standard error", "share within 3 sigma"),
        Found(
            "reverse-kl",
            found.reverse_kl,
            settings=f"nats, to the {'uniform' if weights is None else 'true'} law over modes",
        ),
        Found("width", found.width, settings="standard deviation within modes, over the true one"),
    ]


def _stacked(fake: Side, real: Side, context: Context) -> list[Found]:
    digits = extractor("digits")
    labels = torch.cat([digits.see(part.flatten(0, 1).unsqueeze(1))[1].argmax(1) for part in fake.x.split(500)])  # type: ignore[union-attr]
    found = modes.stacked_modes(labels.unflatten(0, (-1, 3)))
    details = {"kl_floor": found.floor}
    return [
        Found("stacked-modes", float(found.modes), settings="of 1,000", details=details),
        Found("stacked-kl", found.kl, settings=f"nats; floor of a uniform sampler {found.floor:.4f}"),
    ]


def _label_accuracy(fake: Side, real: Side, context: Context) -> list[Found]:
    assert fake.y is not None and fake.features.logits is not None
    found = classes.label_accuracy(fake.features.logits, fake.y)
    return [Found("label-accuracy", found.value, found.error, "binomial standard error")]


def _within_classes(fake: Side, real: Side, context: Context) -> list[Found]:
    assert fake.y is not None and real.y is not None
    within, each = classes.intra_class_frechet(fake.embeddings, fake.y, real.embeddings, real.y)

    def coverage(a: Tensor, b: Tensor) -> float:
        return neighbours.density_coverage(a, b).coverage

    covered = classes.per_class(coverage, fake.embeddings, fake.y, real.embeddings, real.y)
    apart, least = ({"classes": {str(k): value for k, value in found.items()}} for found in (each, covered))
    return [
        Found("intra-frechet", within, details=apart, name=f"intra-{context.extractor.short}"),
        Found("class-coverage", min(covered.values()), settings="the worst class, k = 5", details=least),
    ]


def _cas(fake: Side, real: Side, context: Context) -> list[Found]:
    assert fake.y is not None and real.y is not None
    found = classifier.classification_accuracy(fake.x, fake.y, real.x, real.y, seed=context.seed)
    return [
        Found("cas", found.value, found.error, "binomial standard error", "trained on the samples alone", name="CAS")
    ]


def _pairs(fake: Side, real: Side, context: Context) -> list[Found]:
    measured = {"l1": pairs.l1, "psnr": pairs.psnr, "ssim": pairs.ssim}
    x, t = (side.x if side.x.dtype == torch.uint8 else (side.x + 1) / 2 for side in (fake, real))  # in [0, 1]
    values = {key: measure(x, t) for key, measure in measured.items()}
    of, settings = "standard error of the mean over pairs", {"psnr": "dB", "ssim": "11 x 11, sigma 1.5"}
    found = [
        Found(key, float(v.mean()), float(v.std() / math.sqrt(len(v))), of, settings.get(key, "of values in [0, 1]"))
        for key, v in values.items()
    ]
    sharp = pairs.high_frequency(x, t)
    return [*found, Found("high-frequency", sharp, settings="|log ratio| of energy beyond half of Nyquist's frequency")]


def _lpips(fake: Side, real: Side, context: Context) -> list[Found]:
    values = lpips.distances(fake.x, real.x)
    error = float(values.std() / math.sqrt(len(values)))
    return [Found("lpips", float(values.mean()), error, "standard error of the mean over pairs", "AlexNet, 0.1")]


def _even(fake: Side, real: Side, seed: int) -> tuple[Tensor, Tensor]:
    """The features of as many real examples as fakes, where there are more."""
    if len(real) <= len(fake):
        return fake.embeddings, real.embeddings
    rows = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[: len(fake)]
    return fake.embeddings, real.embeddings[rows]


def _needs_classes(fake: Side, real: Side, context: Context) -> str:
    if fake.features.logits is not None and real.features.logits is not None:
        return ""
    return f"features {context.extractor.name} know no classes; digits, efficientnet-lite0 and inception do"


def _needs_labels(fake: Side, real: Side, context: Context) -> str:
    if not context.conditional or fake.y is None:
        return "the samples have no labels: the model is not conditional"
    if real.y is None:
        return "the real data has no labels"
    if real.y.ndim > 1:
        return "the conditions are no labels"
    return "some of the real examples have no label" if int(real.y.min()) < 0 else ""


def _needs_pairs(fake: Side, real: Side, context: Context) -> str:
    if not context.conditional or fake.y is None or real.y is None or real.y.ndim != 4:
        return "the samples are not made from images"
    if len(fake) != len(real) or not torch.equal(fake.y, real.y):
        return "the samples are not made from the conditions of the real examples"
    if torch.equal(real.x, real.y):
        return "the data are unpaired: what a sample should be is not known"
    return f"images below {pairs.WINDOW} x {pairs.WINDOW} pixels" if min(fake.x.shape[2:]) < pairs.WINDOW else ""


def _needs_lpips(fake: Side, real: Side, context: Context) -> str:
    return _needs_pairs(fake, real, context) or lpips.missing(tuple(fake.x.shape[1:]))


def _needs_judged_labels(fake: Side, real: Side, context: Context) -> str:
    missing = _needs_labels(fake, real, context) or _needs_classes(fake, real, context)
    if not missing and context.extractor.name != "digits":
        return f"the classes of {context.extractor.name} are not those of the data"
    return missing


def _needs_valid(fake: Side, real: Side, context: Context) -> str:
    if fake.x[0].numel() > _PARZEN_DIMS:
        return f"{fake.x[0].numel():,} numbers an example; the protocol of 2014 is for {_PARZEN_DIMS:,} at most"
    return "" if context.valid is not None else "there is no training data to choose sigma by"


def _needs_train(fake: Side, real: Side, context: Context) -> str:
    return "" if context.train is not None else "it needs the training data, and real examples held out from it"


def _needs_mixture(fake: Side, real: Side, context: Context) -> str:
    return "" if context.mixture is not None else "the law is no known mixture (ring, grid25, grid100)"


def _needs_stack(fake: Side, real: Side, context: Context) -> str:
    return "" if tuple(fake.x.shape[1:]) == (3, 28, 28) else "examples are not three stacked digits, 3 x 28 x 28"


METRICS: dict[str, Metric] = {
    "frechet": Metric(_frechet, {"frechet": "low"}),
    "kernel": Metric(_kernel, {"kernel": "low"}),
    "neighbours": Metric(_neighbours, {"precision": "high", "recall": "high", "density": "floor", "coverage": "high"}),
    "inception-score": Metric(_inception_score, {"inception-score": "high"}, _needs_classes),
    "classes": Metric(_classes, {"class-entropy": "floor", "class-balance": "high"}, _needs_classes),
    "diversity": Metric(_diversity, {"vendi": "floor", "spread": "floor", "duplicates": "low"}),
    "two-sample": Metric(_two_sample, {"two-sample": "low"}),
    "memorisation": Metric(_memorisation, {"memorised": "low"}, _needs_train, floored=False, sees="pixels"),
    "parzen": Metric(_parzen, {"parzen": "high"}, _needs_valid, sees="pixels"),
    "modes": Metric(
        _modes,
        {"modes": "high", "quality": "high", "reverse-kl": "low", "width": "floor"},
        _needs_mixture,
        sees="pixels",
    ),
    "stacked-modes": Metric(
        _stacked, {"stacked-modes": "high", "stacked-kl": "low"}, _needs_stack, usual=False, sees="digits"
    ),
    "label-accuracy": Metric(_label_accuracy, {"label-accuracy": "high"}, _needs_judged_labels),
    "within-classes": Metric(_within_classes, {"intra-frechet": "low", "class-coverage": "high"}, _needs_labels),
    "pairs": Metric(
        _pairs,
        {"l1": "low", "psnr": "high", "ssim": "high", "high-frequency": "low"},
        _needs_pairs,
        floored=False,
        sees="pixels",
    ),
    "lpips": Metric(_lpips, {"lpips": "low"}, _needs_lpips, floored=False, sees="pixels"),
    "cas": Metric(_cas, {"cas": "high"}, _needs_labels, sees="pixels"),
}
# Which metric computes a number, and what is best: a number may be asked for by its own key ("recall").
KEYS: dict[str, tuple[str, Best]] = {
    key: (name, best) for name, metric in METRICS.items() for key, best in metric.keys.items()
}


def chosen(names: list[str] | None) -> list[str]:
    """Return the metrics of these names, or that compute numbers of these keys; the usual ones if none is named.

    Raises:
        ValueError: If one is unknown.
    """
    if not names:
        return [name for name, metric in METRICS.items() if metric.usual]
    found = []
    for name in names:
        metric = name if name in METRICS else KEYS[name][0] if name in KEYS else None
        if metric is None:
            close = get_close_matches(name, [*METRICS, *KEYS], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"metric {name!r}: there are {', '.join(METRICS)}{hint}")
        if metric not in found:
            found.append(metric)
    return found


def applicable(names: list[str] | None, fake: Side, real: Side, context: Context) -> list[str]:
    """Return the metrics that can be computed; one that was asked for by name must.

    Raises:
        ValueError: If a metric that was named cannot be computed; it says why.
    """
    lacking = {name: METRICS[name].lacks(fake, real, context) for name in chosen(names)}
    for name, why in lacking.items():
        if names and why:
            raise ValueError(f"{name} cannot be measured here: {why}")
    return [name for name, why in lacking.items() if not why]
