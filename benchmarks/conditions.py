"""Conditions, measured: labels, codes, a few labels, images from images.

    python benchmarks/conditions.py WHAT [--seeds 0 1 2] [--minutes M | --images N] [--recipe NAME] [--out DIR]

with WHAT one of

    labels             recipe conditional on MNIST: label accuracy, coverage of the worst class, CAS of 60,000 samples,
                       and how well the style of a z survives a change of label
    codes              recipe infogan: agreement of the categorical code with the digits (best matching), of generated
                       and of real images; what of the real is covered; and the rank correlation of the continuous
                       codes with slant and width
    few-labels         recipe semi-supervised with 100 labels: test accuracy, beside the same D on these labels alone
    joint              recipe joint: how often the label that G emits is what a classifier sees
    pairs              pix2pix-perceptual (or --recipe) on emoji, google -> twitter, held out by code points, beside the
                       same G with L1 alone and the input
    unpaired           cyclegan-small on the same with the correspondence hidden

Each run is kept in DIR and not trained again if it is there.  MNIST and emoji are looked for in $ORGANZA_DATA.  Prints
one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import organza as oz
from organza import api
from organza.data import Data, open_data
from organza.metrics import lpips
from organza.metrics.classifier import classification_accuracy
from organza.metrics.features import extractor
from organza.metrics.neighbours import density_coverage
from organza.metrics.pairs import high_frequency, l1, matched_pairs, ssim
from organza.metrics.style import slant, spearman, width
from organza.picture import grid, save, to_uint8
from organza.run import Run

DIGITS = 10


def trained(out: Path, name: str, data: str, recipe: str, length: dict[str, Any], **changes: Any) -> tuple[Path, float]:
    """Train a run unless it is there; return it and the seconds that it took (0 if it was there)."""
    folder, begin = out / name, time.monotonic()
    if not (folder / "report.html").exists():
        seed = changes.pop("seed", 0)
        oz.train(data, recipe, run=folder, device="cpu", seed=seed, changes=changes, **length)
        return folder, round(time.monotonic() - begin, 1)
    return folder, 0.0


def sees(x: Tensor) -> tuple[Tensor, Tensor]:
    """The digits classifier's features and logits."""
    found = [extractor("digits").see(part) for part in x.split(1000)]
    return torch.cat([f for f, _ in found]), torch.cat([logits for _, logits in found if logits is not None])


def median(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def labels(out: Path, seed: int, length: dict[str, Any]) -> dict[str, Any]:
    run, seconds = trained(out, f"labels-{seed}", "mnist", "conditional", length, seed=seed)
    model, test = oz.load(run, device="cpu"), open_data("mnist", "test")
    x = to_uint8(model.across(torch.arange(DIGITS), 6000, seed=1)).flatten(0, 1)  # 6,000 of each label
    y = torch.arange(DIGITS).repeat_interleave(6000)
    some = torch.arange(60_000).view(DIGITS, 6000)[:, :1000].flatten()  # 10,000 of them
    features, logits = sees(x[some])
    assert test.y is not None
    real, _ = sees(test.x)
    coverage = []
    for k in range(DIGITS):
        known = real[test.y == k]
        coverage.append(density_coverage(features[y[some] == k][: len(known)], known[:1000]).coverage)
    return {
        "seconds": seconds,
        "images": model.config["images"] if model.config else None,
        "label_accuracy": round(float((logits.argmax(1) == y[some]).float().mean()), 4),
        "class_coverage": [round(c, 3) for c in coverage],
        "cas_60000": round(float(classification_accuracy(x, y, test.x, test.y, seed=0, steps=2000).value), 4),
        **style(x.unflatten(0, (DIGITS, 6000))[:, :1000]),
    }


def style(x: Tensor) -> dict[str, Any]:
    """The median over pairs of labels of the rank correlation of slant and of width, the same z against shuffled z."""
    shuffled = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {}
    for name, measure in (("slant", slant), ("width", width)):
        of = torch.stack([measure(each) for each in x])  # (10, n)
        pairs = list(itertools.combinations(range(len(of)), 2))
        for who, order in (("same_z", torch.arange(x.shape[1])), ("shuffled_z", shuffled)):
            found[f"{name}_{who}"] = median([float(spearman(of[a], of[b][order])) for a, b in pairs])
    return found


def matching(code: Tensor, digit: Tensor) -> tuple[float, list[int]]:
    """How often codes and digits agree when each code stands for one digit, at best, and the digit of each code."""
    from scipy.optimize import linear_sum_assignment

    table = torch.zeros(DIGITS, DIGITS).index_put_((code, digit), torch.ones(len(code)), accumulate=True)
    rows, columns = linear_sum_assignment(-table.numpy())
    return round(float(table[rows, columns].sum()) / len(code), 4), columns.tolist()


def codes(out: Path, seed: int, length: dict[str, Any]) -> dict[str, Any]:
    run, seconds = trained(out, f"codes-{seed}", "mnist", "infogan", length, seed=seed)
    model = oz.load(run, device="cpu")
    z = model.prior.draw(10_000, torch.Generator().manual_seed(1))
    x = to_uint8(model.generate(z))
    features, logits = sees(x)
    seen = logits.argmax(1)
    agreement, columns = matching(z[:, :DIGITS].argmax(1), seen)
    test = open_data("mnist", "test")
    assert test.y is not None
    with torch.no_grad():
        D, index = api.game(run, device="cpu").discriminator, torch.arange(len(test))
        read = torch.cat([D(test.gather(i)[0]).heads["codes"][:, :DIGITS].argmax(1) for i in index.split(1000)])
    best: dict[str, float] = {}
    for name, measure in (("slant", slant), ("width", width)):
        value = measure(x)
        # Within a digit, as digits have slants and widths of their own; and over all.
        for j in range(2):
            c = z[:, DIGITS + j]
            within = statistics.mean(float(spearman(c[seen == k], value[seen == k])) for k in seen.unique())
            best[f"{name}_c{j + 1}"] = round(float(spearman(c, value)), 3)
            best[f"{name}_c{j + 1}_within_digits"] = round(within, 3)
    shares = torch.bincount(seen, minlength=DIGITS) / len(seen)
    return {
        "seconds": seconds,
        "agreement": agreement,
        "agreement_on_real": matching(read, test.y)[0],
        # A generator of one picture a code would agree wholly, so what is covered stands beside it.
        "coverage": round(density_coverage(features[:3000], sees(test.x[:3000])[0]).coverage, 3),
        "digit_of_code": columns,
        "shares": [round(float(share), 3) for share in shares],
        **best,
    }


def few_labels(out: Path, seed: int, length: dict[str, Any]) -> dict[str, Any]:
    data = f"mnist[labels=100{f',seed={seed}' if seed else ''}]"
    run, seconds = trained(out, f"few-labels-{seed}", data, "semi-supervised", length, seed=seed)
    alone: dict[str, Any] = {"objective.d": 0.0, "terms": [{"kind": "Classification", "fakes": False}], "seed": seed}
    single, _ = trained(out, f"few-labels-alone-{seed}", data, "semi-supervised", length, **alone)
    return {"seconds": seconds, "accuracy": accuracy(run), "accuracy_of_labels_alone": accuracy(single)}


@torch.no_grad()
def accuracy(run: Path) -> float:
    """How often D names the class of MNIST's test images."""
    D, test, right = api.game(run, device="cpu").discriminator, open_data("mnist", "test"), 0
    for index in torch.arange(len(test)).split(500):
        x, y = test.gather(index)
        right += int((D(x).heads["classes"].argmax(1) == y).sum())
    return right / len(test)


def joint(out: Path, seed: int, length: dict[str, Any]) -> dict[str, Any]:
    from organza.joint import split

    run, seconds = trained(out, f"joint-{seed}", "mnist[joint]", "joint", length, seed=seed)
    x, y = split(to_uint8(oz.load(run, device="cpu").sample(10_000, 1)), DIGITS)
    seen = sees(x.contiguous())[1].argmax(1)
    shares = torch.bincount(y, minlength=DIGITS) / len(y)
    return {
        "seconds": seconds,
        "label_accuracy": round(float((seen == y).float().mean()), 4),
        "shares": [round(float(share), 3) for share in shares],
    }


L1_ALONE: dict[str, Any] = {
    "objective.g": 0.0,
    "terms": [{"kind": "Reconstruction"}],
    "augment": None,
    "generator.sharpen": 1.0,  # by which it would leave its least L1
}


def emoji(part: str, word: str = "from") -> str:
    folder = Path(os.environ["ORGANZA_DATA"]) / "emoji"
    target, source = (f"{folder / name}.zip[background=white][{part}]" for name in ("twitter", "google"))
    return f"{target} from {source}" if word == "from" else f"{source} and {target}"


def pairs(out: Path, seed: int, length: dict[str, Any], recipe: str = "pix2pix-perceptual") -> dict[str, Any]:
    data, held = emoji("fold%10!=0"), open_data(emoji("fold%10=0"))
    run, seconds = trained(out, f"{recipe}-{seed}", data, recipe, length, seed=seed)
    alone, _ = trained(out, f"{recipe}-l1-{seed}", data, recipe, length, **L1_ALONE, seed=seed)
    assert held.y is not None
    made = {"gan": translated(run, held), "l1": translated(alone, held), "input": held.y}
    sharpen = Run(run).plan["generator"]["sharpen"]
    if sharpen != 1:
        made |= {"gan_unsharpened": translated(run, held, 1.0), "l1_sharpened": translated(alone, held, sharpen)}
    show(out / f"{recipe}-{seed}.png", held, made)
    x, y = held.gather(torch.arange(len(held)))
    share, error = matched_pairs(api.game(run, device="cpu").discriminator, x, y if y is not None else x)
    scores = {name: judged(each, held) for name, each in made.items()}
    return {"seconds": seconds, "pairs": len(held), **scores, "matched": [round(share, 3), round(error, 3)]}


def unpaired(out: Path, seed: int, length: dict[str, Any]) -> dict[str, Any]:
    held = open_data(emoji("fold%10=0"))
    data = emoji("fold%10!=0", "and")
    run, seconds = trained(out, f"unpaired-{seed}", data, "cyclegan-small", length, seed=seed)
    assert held.y is not None
    made = {"gan": translated(run, held), "input": held.y}
    show(out / f"unpaired-{seed}.png", held, made)
    return {"seconds": seconds, "pairs": len(held), **{name: judged(each, held) for name, each in made.items()}}


def translated(run: Path, held: Data, sharpen: float | None = None) -> Tensor:
    """What a run makes of the held-out conditions, as bytes, as sharp as it is or as is asked."""
    assert held.y is not None
    model = oz.load(run, device="cpu")
    if sharpen is not None:
        model.generator.drawing.sharpen = sharpen
    return to_uint8(model.translate(held.y))


def judged(x: Tensor, held: Data) -> dict[str, Any]:
    """Scores of images against what they should be; flags are apart, since they are alike in both drawings."""
    flag = torch.tensor(["flags/" in file.lower() for file in held.files])
    found = {"flags": {"l1": round(float(l1(x[flag], held.x[flag]).mean()), 4)}} if bool(flag.any()) else {}
    if not lpips.missing(held.spec.shape):
        found["lpips"] = round(float(lpips.distances(x, held.x).mean()), 4)

    def frechet(features: str) -> float:
        return round(
            api.evaluate(fake=x, data=held.x, metrics=["frechet"], features=features, floors=False)[0].value, 4
        )

    return {
        "l1": round(float(l1(x, held.x).mean()), 4),
        "ssim": round(float(ssim(x, held.x).mean()), 4),
        "high_frequency": round(float(high_frequency(x, held.x)), 4),
        "frechet": frechet("efficientnet-lite0"),
        "frechet_random": frechet("random"),
        **found,
    }


def show(path: Path, held: Data, made: dict[str, Tensor], rows: int = 12) -> None:
    """Input, what was made of it, truth: a row for each of some held-out images."""
    index = torch.randperm(len(held), generator=torch.Generator().manual_seed(3))[:rows]
    order = ["input", "gan", *(["l1"] if "l1" in made else [])]
    columns = [made[name][index] for name in order] + [held.x[index]]
    save(grid(torch.stack(columns, 1).flatten(0, 1), columns=len(columns)), path)


def main() -> None:
    ways: dict[str, Callable[..., dict[str, Any]]] = {
        "labels": labels,
        "codes": codes,
        "few-labels": few_labels,
        "joint": joint,
        "pairs": pairs,
        "unpaired": unpaired,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=ways)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--images", type=int)
    parser.add_argument("--recipe", help="of pairs")
    parser.add_argument("--out", type=Path, default=Path("conditions"))
    asked = parser.parse_args()
    if asked.recipe:
        if asked.what != "pairs":
            parser.error("--recipe is for pairs")
        ways["pairs"] = partial(pairs, recipe=asked.recipe)
    length = {name: value for name, value in (("minutes", asked.minutes), ("images", asked.images)) if value}
    print(json.dumps({asked.what: {seed: ways[asked.what](asked.out, seed, length) for seed in asked.seeds}}, indent=1))


if __name__ == "__main__":
    main()
