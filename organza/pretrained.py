r"""The folder in which a trained generator is passed on, in the layout that model hubs expect.

    FOLDER/config.json          the parts G and p_z are made of, facts of the run, the weights' SHA-256
    FOLDER/model.safetensors    G's weights and buffers, to the last bit
    FOLDER/README.md            the model card: what it is, what it can and cannot do

A config names kinds of ``organza.nn`` and ``organza.prior`` and their arguments, and nothing else: a folder that
comes from a stranger can hold wrong numbers, but cannot make a reader execute anything.

:func:`fill` puts weights from such a folder, or from a checkpoint, into a network.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor
from torch import nn as torch_nn

from organza import __version__, mixture
from organza import nn as networks
from organza import prior as priors
from organza.prior import Prior
from organza.run import to_safetensors, write_bytes, write_text

__all__ = ["brief", "classes", "fill", "generator", "is_pretrained", "prior", "read", "translates", "use", "write"]

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_OURS = ("format", "organza", "sha256", "card")  # what is not the model's own config
_FEW = 16  # numbers of a list, which a card shows whole
_NUMBERS = re.compile(r'\[\n[^]["{]*\]')  # a list of numbers, as JSON writes it line by line
_OWN = "was a program's own: give from_pretrained(folder, generator=..., prior=...)"


def write(folder: str | os.PathLike[str], config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Path:
    """Write the folder, replacing one of this kind, and return its path.

    Each file is written at once.  The config names the weights' SHA-256, so that a mix left by a kill is noticed, and
    comes first, so that another attempt knows the folder as its own.  It knows the card too: one that was edited
    since, as for a license, stays as it is.

    Arguments:
        folder: Where to; made if missing.
        config: The parts ``generator`` and ``prior`` (None if a program's own), ``conditional``, and facts: ``recipe``,
            ``references``, ``data``, ``objective``, ``terms``, ``images`` (shown to D), ``seed``, ``parameters``.
        weights: G's state_dict.

    Raises:
        ValueError: If something else is at ``folder``, or the config is not JSON.
    """
    path = Path(folder)
    if path.exists() and not _is_ours(path) and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} exists and holds something else than a pretrained model; choose another folder")
    data = to_safetensors(weights, {"format": "pt"})  # the metadata that other readers of such files ask for
    facts = {**config, **({"data": brief(config["data"])} if config.get("data") else {})}
    card, before, written = _card(path.resolve().name, facts).encode(), *_cards(path)
    edited = bool(before and written and before not in written)
    after = hashlib.sha256(card).hexdigest()
    # A kill may leave the card of before beside the new config.
    hashes = {"sha256": hashlib.sha256(data).hexdigest(), "card": [after] if edited or not before else [before, after]}
    described = {"format": FORMAT, "organza": __version__, **facts, **hashes}
    try:
        text = json.dumps(described, indent=2, allow_nan=False) + "\n"
        text = _NUMBERS.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the model's config is not JSON ({error})") from None
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make {path} ({error.strerror}); choose another folder") from error
    write_text(path / CONFIG, text)
    write_bytes(path / WEIGHTS, data)
    if not edited:
        write_bytes(path / CARD, card)
    return path


def _cards(path: Path) -> tuple[str, list[str]]:
    """The SHA-256 of the folder's card, and those that its config knows; empty where there are none."""
    try:
        found = hashlib.sha256((path / CARD).read_bytes()).hexdigest()
        return found, list(json.loads((path / CONFIG).read_text("utf-8")).get("card", []))
    except (OSError, ValueError, AttributeError):
        return "", []


def brief(data: str) -> str:
    """Data without the folders that they lie in, which are nobody else's business: "faces from edges".

    Of a path only the last part; of two sources ("X from Y", "A and B": see :mod:`organza.data.pairs`) that of each.
    """
    sides = [data] if os.path.exists(data) else re.split(r"(\s(?:from|and)\s)", data)
    return "".join(side if i % 2 else PurePath(side).name for i, side in enumerate(sides))


def fill(module: torch_nn.Module, weights: Mapping[str, Tensor], whose: str, assign: bool = False) -> None:
    """Load weights and buffers into a module, or say in a line by which of them the two differ.

    Arguments:
        module: What they are for.
        weights: A state_dict.
        whose: Where they are from, as the error begins.
        assign: Keep the tensors themselves, in their own type, rather than copy them.

    Raises:
        ValueError: If names or shapes differ.
    """
    try:
        module.load_state_dict(weights, assign=assign)
    except RuntimeError as error:
        differ = _differences(module, weights, str(error)) or " ".join(str(error).split())
        raise ValueError(f"{whose}: the weights do not fit {type(module).__name__}: {differ}") from None


def _differences(module: torch_nn.Module, weights: Mapping[str, Tensor], error: str) -> str:
    """By which names and shapes the two differ, at most three of each kind.

    Only shapes that PyTorch's error names count: a buffer may take any, as that of a pool of fakes does.
    """
    has = {name: tuple(w.shape) for name, w in module.state_dict().items()}
    given = {name: tuple(w.shape) for name, w in weights.items()}
    kinds = (
        [f"{n} is {given[n]}, not {has[n]}" for n in has if f"size mismatch for {n}:" in error],
        [f"{n} is missing" for n in has if n not in given],
        [f"{n} is unknown" for n in given if n not in has],
    )
    said = [each for kind in kinds for each in kind[:3]]
    more = sum(map(len, kinds)) - len(said)
    return ", ".join(said) + f", and {more} more" * bool(more)


def use(path: object, about: Mapping[str, Any], n: int = 100) -> str:
    """The command that shows what a generator makes, by its plan or config: n samples, or 8 of each label."""
    generator, folder = about.get("generator"), shlex.quote(str(path))
    if translates(generator):
        return f"organza translate {folder} INPUT --out DIR"
    count = classes(about)
    label = f" --label {','.join('0' * count)}" if count and not about.get("labels") else ""
    return f"organza sample {folder} -n {8 if count else n}{label} --seed 1"


def classes(about: Mapping[str, Any]) -> int:
    """How many classes, or numbers, are the condition of a generator, by its plan or config; 0 if it has none such."""
    generator = about.get("generator")
    return int(generator.get("classes", 0)) if about.get("conditional") and isinstance(generator, Mapping) else 0


def translates(generator: Any) -> bool:
    """Whether G, as the part of a plan, makes images from images."""
    if not isinstance(generator, Mapping):
        return False
    shape = generator.get("condition")  # of networks that take labels it is a word: where the label goes
    return isinstance(shape, list | tuple) or hasattr(getattr(networks, str(generator.get("kind")), None), "directions")


def is_pretrained(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder is laid out like this one, sound or not, and is no run."""
    path = Path(folder)
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file() and not (path / "plan.json").exists()


def _is_ours(path: Path) -> bool:
    """Whether there is a config that `write` wrote."""
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"format", "organza"} <= config.keys()


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the weights.

    Raises:
        ValueError: If a file is missing or damaged, or of a format that this version does not know.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise ValueError(f"no pretrained model at {path} (no {name}); organza export RUN --pretrained makes one")
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path / CONFIG} is not JSON ({error}); fetch or export it again") from None
    if not _is_ours(path):
        raise ValueError(f"{path / CONFIG} does not describe a generator of organza")
    if config.get("format") != FORMAT:
        was, advice = config.get("format"), "install the version of organza that wrote it"
        raise ValueError(f"{path / CONFIG} has format {was!r}, this version reads {FORMAT}; {advice}")
    data = (path / WEIGHTS).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if config.get("sha256", digest) != digest:  # who changed the weights on purpose leaves it out
        raise ValueError(f"{path / WEIGHTS} does not match the SHA-256 in {CONFIG}; fetch or export it again")
    labels = config.get("labels")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(each, str) for each in labels)):
        raise ValueError(f"{path / CONFIG}: labels must be a list of texts")
    try:
        weights = load(data)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path / WEIGHTS} is damaged ({error}); fetch or export it again") from None
    return {name: value for name, value in config.items() if name not in _OURS}, weights


def generator(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> torch_nn.Module:
    """Make the generator that the config names, without its weights (on the meta device).

    Raises:
        ValueError: If it names none, or one that cannot be made here.
    """
    return cast(torch_nn.Module, _made(folder, "generator", config, (networks,), torch_nn.Module))


def prior(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> Prior:
    """Make the prior that the config names.

    Raises:
        ValueError: If it names none, or one that cannot be made here.
    """
    return cast(Prior, _made(folder, "prior", config, (priors, mixture), Prior))


def agree(folder: str | os.PathLike[str], generator: torch_nn.Module, prior: Prior) -> None:
    """Check that G, on the meta device, takes the prior's z; nothing is computed.

    Raises:
        ValueError: If it does not.
    """
    asks, weights = int(getattr(prior, "dim", 0)), sum(weight.numel() for weight in generator.parameters())
    if asks > weights:  # and memory for it may not be there
        raise ValueError(f"{folder}: the prior's z has {asks:,} numbers, the generator only {weights:,} weights")
    try:
        generator.eval()(prior.draw(1, torch.Generator()).to("meta"))
    except Exception as error:  # whatever a wrong number or shape leads to
        what = f"the prior {type(prior).__name__} does not fit the generator"
        raise ValueError(f"{folder}: {what}: {' '.join(str(error).split())}") from None


def _made(
    folder: str | os.PathLike[str], noun: str, config: Mapping[str, Any], modules: Sequence[ModuleType], base: type
) -> object:
    part = config.get(noun)
    if part is None:
        raise ValueError(f"{folder}: the {noun} {_OWN}")
    found = {name: getattr(module, name) for module in modules for name in module.__all__}
    kinds = {k: c for k, c in found.items() if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)}
    kind = part.get("kind") if isinstance(part, Mapping) else part
    if not isinstance(part, Mapping) or not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{folder}: the {noun} {kind!r} is unknown to this version; known are {', '.join(kinds)}")
    try:
        with torch.device("meta") if base is torch_nn.Module else nullcontext():  # whatever size it asks for
            return kinds[kind](**{name: value for name, value in part.items() if name != "kind"})
    except Exception as error:  # whatever wrong arguments lead to in a constructor
        raise ValueError(f"{folder}: the {noun} {kind} cannot be made: {' '.join(str(error).split())}") from None


def _card(name: str, config: Mapping[str, Any]) -> str:
    """The model card: YAML for machines, then plain words."""
    part = config.get("generator")
    shape = tuple(part.get("shape", ())) if isinstance(part, Mapping) else ()
    images = len(shape) == 3
    task = "\npipeline_tag: unconditional-image-generation" if images and not config.get("conditional") else ""
    task = "\npipeline_tag: image-to-image" if translates(part) else task
    rows = {
        "generator": _kinds(part) or "a program’s own module",
        "parameters": _count(config.get("parameters")),
        "prior of z": _call(config.get("prior")),
        "makes": " x ".join(map(str, shape)) + " (channels, height, width)" * images,
        "conditional": "yes, on images: `translate(y)`"
        if translates(part)
        else "yes: `sample(n, y=...)` takes a label for each"
        if config.get("conditional")
        else "no",
        "data": config.get("data"),
        "recipe": config.get("recipe"),
        "objective": " + ".join(_kinds(each) for each in (config.get("objective"), *config.get("terms", ())) if each),
        "images shown to D": _count(config.get("images")),
        "seed": config.get("seed"),
    }
    table = "\n".join(f"| {row} | {_cell(value)} |" for row, value in rows.items() if value not in (None, ""))
    own = "" if part else ", generator=MyGenerator(), prior=oz.Normal(64)"
    y = ", y=labels" if config.get("conditional") else ""
    shaped = f"  # (64, {', '.join(map(str, shape))})" + ", values in [-1, 1]" * images if shape else ""
    values = config.get("values")
    own_numbers = f"\nx = model.restore(x)  # as the data: {values.get('dtype')}" if isinstance(values, Mapping) else ""
    use = f"x = model.sample(64, seed=0{y}){shaped}"
    command = f"organza sample {shlex.quote(name)} -n 100 --out {'grid.png' if images else 'samples.npz'}"
    if translates(part):
        use = "x = model.translate(y)  # of images (n, C, H, W), bytes or in [-1, 1]"
        command, y = f"organza translate {shlex.quote(name)} INPUT --out DIR", ""
    command = f"\nOn the command line: `{command}`.\n" if part and not y else ""
    references = "".join(f"- {line}\n" for line in config.get("references", ()))
    return f"""---
library_name: organza
license: other # choose one before you publish: no one else can choose it for you
tags:
- gan
- generative-adversarial-network
- pytorch{task}
---

# {_cell(name)}

A generator G(z) trained as one player of a generative adversarial network with organza {__version__}.

| | |
|---|---|
{table}

## Use

```python
import organza as oz

model = oz.Model.from_pretrained({json.dumps(name, ensure_ascii=False)}{own})  # the path of this folder
{use}{own_numbers}
```
{command}
The same seed gives the same samples on the same machine and version of PyTorch.

## Intended use and limits

For study, teaching, and as a start for experiments. G knows only the data it was trained on: it makes nothing else, it
shares that data's gaps and biases, and it may leave out rare kinds of it. Samples may come close to single training
examples, and then their rights and privacy concern them too: look before you publish
(`organza sample RUN --nearest` shows each sample beside its nearest example). A sample is no evidence of anything
real. This card states no score, since none was measured when it was written.

## License

Not chosen yet. Whoever publishes this folder chooses one that the training data allows, and names it at the top.
{chr(10) + "## References" + chr(10) * 2 + references if references else ""}"""


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _kinds(part: Any) -> str:
    """A part by the names of its kinds alone: Scaled(NonSaturating)."""
    if not isinstance(part, Mapping):
        return ""
    inner = ", ".join(filter(None, map(_kinds, part.values())))
    return f"{part.get('kind')}({inner})" if inner else str(part.get("kind"))


def _call(part: Any) -> str:
    """A part with its arguments: Normal(dim=64)."""
    if not isinstance(part, Mapping):
        return ""
    short = {name: "..." if isinstance(value, list) and len(value) > _FEW else value for name, value in part.items()}
    arguments = ", ".join(f"{name}={value}" for name, value in short.items() if name != "kind")
    return f"{part.get('kind')}({arguments})"
