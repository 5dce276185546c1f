r"""Evaluation: from samples and real data to scores that carry their protocol.

What is fixed here, for every metric alike: samples are brought to the numbers of the data and rounded as for a file;
real examples are those of the split that is asked for; the floor of a score is the same metric of as many real examples
that were held out, from the other split where there is one, else by halving the data.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from organza import __version__
from organza.data import Data
from organza.data.synthetic import mixture
from organza.distributed import gather, share, world
from organza.evaluation.reference import Reference, aligned, comparable, opened, reference, some
from organza.metrics.catalogue import KEYS, METRICS, Found, applicable, chosen
from organza.metrics.features import NAMES, Extractor, Features, extract, extractor, kept
from organza.metrics.score import Protocol, Score
from organza.metrics.side import Context, Side, constant
from organza.metrics.weights import Missing
from organza.model import Model
from organza.round import key
from organza.values import Values

__all__ = [
    "LEAST",
    "Evaluation",
    "Reference",
    "aligned",
    "comparable",
    "conditions",
    "draw",
    "evaluate",
    "opened",
    "reference",
    "scorer",
    "some",
    "usual_features",
    "walked",
]

LEAST = 50  # examples on either side, below which nothing is measured
FEW = 1000  # examples, below which every score is flagged
MOST = 50_000  # real examples that are used
CHUNK = 500  # samples drawn at once
_DIGITS = re.compile(r"(digits|mnist)(?=$|\[| from | and )")  # or a part of them; no folder that begins so
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """How samples are judged while training goes on; the best checkpoint by this score is kept.

    They are compared with the training data, so that the choice of a checkpoint does not use up the test data.

    Arguments:
        metric: The key of a score ("frechet", "precision").
        features: The name of an extractor; empty for the one that suits the data.
        n: The samples, and real examples, of each judgement.
        every: Images from one judgement to the next; 0 for at each picture.

    Raises:
        ValueError: If the metric or the extractor is unknown, or a number out of its range.
    """

    metric: str = "frechet"
    features: str = ""
    n: int = 2_000
    every: int = 0

    def __post_init__(self) -> None:
        name = chosen([self.metric])[0]
        if self.features and self.features not in NAMES:
            raise ValueError(f"features {self.features!r}: there are {', '.join(NAMES)}")
        if self.n < LEAST or self.every < 0:
            raise ValueError(f"n={self.n}, every={self.every}: n must be {LEAST} or more, every 0 or more")
        if name in ("memorisation", "parzen", "within-classes", "cas", "label-accuracy"):
            raise ValueError(f"metric {self.metric!r} takes too much while a run trains: evaluate the run afterwards")
        if self.best == "floor":
            raise ValueError(f"metric {self.metric!r} is best near its floor, so that no checkpoint is the best by it")

    @property
    def key(self) -> str:
        """The key of the number by which a checkpoint is the best."""
        if self.metric in KEYS:
            return self.metric
        return next(key for key, best in METRICS[self.metric].keys.items() if best != "floor")

    @property
    def best(self) -> str:
        """Whether the lowest is the best or the highest."""
        return KEYS[self.key][1]


def scorer(
    asked: Evaluation, data: Data, conditional: bool, seed: int, device: torch.device
) -> Callable[[Model], dict[str, float]]:
    """Return the function that judges a model while it is trained: numbers by key.

    Raises:
        ValueError: If the metric cannot be measured on such data.
    """
    name, real = chosen([asked.metric])[0], some(data, asked.n, seed)
    sees = extractor((asked.features or usual_features(data)) if _looks([name]) else "pixels")
    against = Reference(real, "train")
    context = _context(sees, against, real, seed, conditional)
    truth = _side(sees, real, real.values, device, True, None)
    few = _few(truth, sees, device)
    if applicable([asked.metric], few, few, context) and _looks([name]):
        few.look()

    def score(model: Model) -> dict[str, float]:
        y = conditions(against, asked.n, seed) if conditional else None
        drawn = draw(model, asked.n if y is None else len(y), seed, y)
        fake = _side(sees, drawn, real.values, device, False, None)
        return {each.key: each.value for each in METRICS[name].compute(fake, truth, context)}

    return score


def conditions(against: Reference, n: int, seed: int, values: Values | None = None) -> Tensor:
    """Return n labels as they come in the real data, or the images that are the conditions of its first n, in order.

    Of two sets that are joined they are scaled by ``values``, those of the model's data, if given.

    Raises:
        ValueError: If it has none.
    """
    if against.real.y is None:
        raise ValueError(f"the model is conditional and {against.real.name} has no labels: give data that has")
    y = against.real.y.cpu()
    if y.ndim == 4:
        return comparable(against.real, values or against.real.values)[:n] if against.real.spec.joined else y[:n]
    y = y[y >= 0] if not y.is_floating_point() else y  # -1: unlabelled
    if not len(y):
        raise ValueError(f"{against.real.name}: none of the examples has a label")
    return y[torch.randint(len(y), (n,), generator=torch.Generator().manual_seed(seed))]


def walked(against: Reference, n: int, seed: int) -> Reference:
    """Return the reference with at most n examples, so that sample i is made from the image that belongs to example i;
    as it is where conditions are no images."""
    images = against.real.y is not None and against.real.y.ndim == 4
    return replace(against, real=some(against.real, min(n, MOST), seed)) if images else against


def draw(model: Model, n: int, seed: int = 0, y: Tensor | None = None, watch: Watch | None = None) -> Data:
    """Draw samples in the numbers of the data; several processes share the work and all get the whole.

    Raises:
        ValueError: If a sample holds NaN or infinity.
    """
    z = model.prior.draw(n, torch.Generator(model.device).manual_seed(seed))
    mine, parts, bad = share(-(-n // CHUNK)), [], 0
    for chunk in mine:  # the same whatever the number of processes
        here = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        try:
            x = model.generate(z[here], None if y is None else y[here], seed=key(seed, chunk))
        except (IndexError, RuntimeError) as error:  # of an embedding, of one_hot
            if isinstance(error, RuntimeError) and "num_classes" not in str(error):
                raise
            raise ValueError(
                "the model does not know all labels of the real data: give data with the classes it was trained on"
            ) from None
        bad += int((~x.flatten(1).isfinite().all(1)).sum())
        parts.append(model.restore(x.cpu()))  # bytes take a quarter of the memory
        if watch is not None:
            watch("samples", chunk - mine.start + 1, len(mine))
    if not parts:  # more processes than parts: what a sample looks like is learnt from one
        parts = [model.restore(model.generate(z[:1], None if y is None else y[:1])[:0].cpu())]
    bad = sum(int(each) for each in gather(torch.tensor([bad])))
    if bad:
        raise ValueError(f"{bad} of {n} samples hold NaN or infinity: the generator diverged")
    x = torch.cat(gather(torch.cat(parts)) if world() > 1 else parts)
    return Data("samples", x.float() if x.is_floating_point() else x, y)


def usual_features(data: Data) -> str:
    """Return the extractor that suits data where none is named; a ValueError if its weights are here and damaged."""
    if len(data.spec.shape) != 3:
        return "pixels"
    if data.spec.shape == (1, 28, 28) and _DIGITS.match(data.name.lower()):
        return "digits"
    try:
        return extractor("efficientnet-lite0").name if data.spec.shape[0] in (1, 3) else "random"
    except Missing:
        return "random"


def evaluate(
    fake: Data,
    against: Reference,
    metrics: list[str] | None = None,
    features: str | nn.Module | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    conditional: bool = False,
    floors: bool = True,
    watch: Watch | None = None,
) -> list[Score]:
    """Judge samples by all metrics that apply, or by those that are named.

    Arguments:
        fake: The samples, in the numbers of the data.
        against: What they are compared with.
        metrics: Names in ``organza.metrics.METRICS``; by default the usual ones.
        features: The name of an extractor, or a network; by default as :func:`usual_features` says.
        seed: Of all chance.
        device: Where features are extracted.
        conditional: Whether labels were given to the generator.
        floors: Whether to measure the floors too, which takes as long again.
        watch: Called with what is being done, and how much of it is done.

    Raises:
        ValueError: If the two do not fit each other, are too few, or a named metric cannot be measured.
    """
    chosen(metrics)
    real = some(against.real, MOST, seed)
    _check(fake, real)
    sees = extractor(usual_features(real) if features is None else features)

    values = real.values
    context = _context(sees, against, real, seed, conditional)
    judged, truth = (_side(sees, each, values, device, each is real, watch) for each in (fake, real))
    wanted = applicable(metrics, _few(judged, sees, device), _few(truth, sees, device), context)  # told before the work
    flags = _flags(judged, truth, fake, real, _looks(wanted))
    found, failed = _measured(wanted, judged, truth, context, "", watch)
    for name, why in failed.items():
        if metrics:
            raise ValueError(f"{name} cannot be measured here: {why}")
        warnings.warn(f"{name} is left out: {why}", stacklevel=2)
    floor, unknown, floor_of = dict[str, list[Found]](), dict[str, str](), ""
    if floors:
        held, rest = _held(against, real, len(fake), seed)
        other = truth if rest is None else _side(sees, rest, values, device, True, watch)
        held_side = _side(sees, held, values, device, True, watch)
        below = [name for name in found if METRICS[name].floored]
        floor, unknown = _measured(below, held_side, other, context, "floor of ", watch)
        floor_of = f"{len(held):,} of {held.name} ({held.digest[:12]}) against {len(other):,}"
        if len(held) != len(fake) or rest is not None:
            flags += (f"the floor is of {len(held):,} real examples against {len(other):,}, not as many as samples",)
    protocol = Protocol(
        metric="",
        features=sees.name,
        weights=sees.sha256,
        resize=sees.resize,
        rounding="none" if real.x.is_floating_point() else values.dtype,
        real=real.name,
        digest=real.digest,
        split=against.split,
        n_real=len(real),
        n_fake=len(fake),
        seed=seed,
        organza=__version__,
        torch=torch.__version__,
    )
    scores: list[Score] = []
    for name, each in found.items():
        said = (f"without a floor, of real examples as samples: {unknown[name]}",) if name in unknown else ()
        scores += _scores(name, each, floor.get(name, []), floor_of, (*flags, *said), protocol)
    return scores


def _side(
    sees: Extractor, data: Data, values: Values, device: torch.device | str, keep: bool, watch: Watch | None
) -> Side:
    """Examples and how to see them; features are looked for in the cache, and kept there, if the examples are real."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        if watch is not None:
            watch(f"features of {data.name}", done, len(data))

    x = comparable(data, values)

    def see() -> Features:
        if not keep:
            return extract(sees, x, device=device, watch=count)
        return kept(sees, x, data.digest if x.dtype == torch.uint8 else f"{data.digest} {values}", device, count)

    return Side(x, see, x if data.y is data.x else None if data.y is None else data.y.cpu(), data.lossy)


def _few(side: Side, sees: Extractor, device: torch.device | str) -> Side:
    """The side with the features of two examples, which show what kind of features they are."""
    return replace(side, see=lambda: extract(sees, side.x[:2], device=device))


def _looks(names: list[str]) -> bool:
    """Whether one of these metrics needs the features that are asked for."""
    return any(not METRICS[name].sees for name in names)


def _measured(
    wanted: list[str], fake: Side, real: Side, context: Context, what: str, watch: Watch | None
) -> tuple[dict[str, list[Found]], dict[str, str]]:
    """What each metric found, and why those that these examples are too few or too odd for did not."""
    if _looks(wanted):  # what is wrong with features is no metric's fault
        for side in (fake, real):
            side.look()
    found, failed = {}, {}
    for i, name in enumerate(wanted):
        if watch is not None:
            watch(f"{what}{name}", i, len(wanted))
        try:
            found[name] = METRICS[name].compute(fake, real, context)
        except ValueError as error:
            failed[name] = str(error)
    return found, failed


def _scores(
    name: str, found: list[Found], floors: list[Found], floor_of: str, flags: tuple[str, ...], protocol: Protocol
) -> Iterator[Score]:
    """What a metric found, with its floors and its protocol."""
    below = {each.key: each.value for each in floors}
    if METRICS[name].sees:
        own = extractor(METRICS[name].sees)
        protocol = replace(protocol, features=own.name, weights=own.sha256, resize=own.resize)
    for each in found:
        what = f"{each.key}, {each.settings}" if each.settings else each.key
        odd = () if math.isfinite(each.value) else ("there is no such number for these samples",)
        yield Score(
            key=each.key,
            name=each.name or each.key,
            value=each.value,
            protocol=replace(protocol, metric=what),
            error=each.error,
            error_of=each.error_of,
            floor=below.get(each.key),
            floor_of=floor_of if each.key in below else "",
            best=KEYS[each.key][1],
            flags=(*odd, *each.flags, *flags),
            details=each.details,
        )


def _context(sees: Extractor, against: Reference, real: Data, seed: int, conditional: bool) -> Context:
    train = against.train
    seen = None if train is None else comparable(train, real.values)
    valid = None if seen is None else seen[_validation(len(seen)).start :]
    known = "" if train is None else f"{train.name} ({train.digest[:12]})"
    return Context(sees, seed, seen, known, valid, mixture(real.name), conditional)


def _validation(n: int) -> range:
    """The last sixth of the training data, 10,000 examples at most: of MNIST the 10,000 of the 2014 code."""
    return range(n - min(10_000, n // 6), n)


def _held(against: Reference, real: Data, n: int, seed: int) -> tuple[Data, Data | None]:
    """As many held-out real examples as there are samples; and what to compare them with, if not ``real``."""
    if against.held is None:
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
        half = len(real) // 2
        return real.rows(order[: min(n, half)]), real.rows(order[half:])
    held = against.held
    # Those by which a metric chooses its settings are not judged by it.
    return some(held, n, seed, _validation(len(held)).start if held is against.train else None), None


def _check(fake: Data, real: Data) -> None:
    if fake.spec.shape != real.spec.shape:
        made, given = (" x ".join(map(str, data.spec.shape)) for data in (fake, real))
        raise ValueError(f"the samples are {made}, the real examples of {real.name} {given}: they must be alike")
    if fake.x.dtype != real.x.dtype:
        wanted = "bytes (uint8)" if real.x.dtype == torch.uint8 else str(real.x.dtype).removeprefix("torch.")
        raise ValueError(f"the samples are {fake.x.dtype}, the real examples {real.x.dtype}: give both as {wanted}")
    for data, what in ((fake, "samples"), (real, "real examples")):
        if len(data) < LEAST:
            raise ValueError(f"{len(data)} {what}: too few to measure anything; at least {LEAST} are needed")


def _flags(fake: Side, real: Side, given: Data, data: Data, looks: bool) -> tuple[str, ...]:
    flags = []
    if fake.lossy:
        flags.append("the samples are lossy files (JPEG), which changes every score: save them as PNG")
    if real.lossy and not fake.lossy:
        flags.append("the real examples are lossy files (JPEG) and the samples are not")
    for side, what in ((fake, "samples"), (real, "real examples")):
        if constant(side.embeddings if looks else side.x):  # features are not made for this alone
            flags.append(f"all {what} are the same{' to these features' if looks else ''}: no number says much")
    if len(fake) < FEW:
        flags.append(f"{len(fake)} samples are few: at least {FEW:,} are usual")
    if len(real) < FEW:
        flags.append(f"{len(real)} real examples are few: at least {FEW:,} are usual")
    if torch.equal(given.x, data.x):  # whatever labels are beside
        flags.append("the samples are the real examples themselves")
    return tuple(flags)
