"""The documents say what the code does: commands, settings, links and the numbers of an equilibrium."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer

from organza import api, cli, energy, objective
from organza.data import Data
from organza.game import Game
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import Objective
from organza.plan import KINDS, written
from organza.prior import Normal
from organza.recipes import RECIPES

ROOT = Path(__file__).parent.parent
GUIDE, TABLE = ROOT / "docs/first-gan.md", ROOT / "docs/recipes.md"
GUIDES = (
    "first-gan",
    "recipes",
    "conditions",
    "metrics",
    "theory",
    "lectures",
    "distributed",
    "reliability",
    "data",
    "json",
    "gpu",
)
NAMES = ("README.md", *(f"docs/{name}.md" for name in GUIDES))
DOCUMENTS = [path for path in map(ROOT.joinpath, NAMES) if path.exists()]
every = pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])

# What a command's data stand for here: nothing is trained, so that only shapes matter.
DIGITS = Data("digits", torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 9]))
COLOUR = Data("array", torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
POINTS = Data("ring", torch.zeros(2, 2))
CHOSEN = ("quick", "r3gan-small", "r3gan")  # by `organza train` where no recipe is named


class Command(NamedTuple):
    """A command as a document gives it, and the line that follows it there."""

    words: tuple[str, ...]
    after: str


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """The code within lines, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


def commands(text: str) -> Iterator[Command]:
    """All commands of organza in blocks of code, tables and lines."""
    lines = [(span, "") for span in spans(text)]
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        if language in ("", "bash"):
            split = block.replace("\\\n", " ").splitlines()
            lines += zip(split, [*split[1:], ""], strict=True)
    for line, after in lines:
        for part in line.removeprefix("$ ").split("&&"):
            if re.match(r"\s*(uv run |python -m |\.venv/bin/)?organza(\s|$)", part):
                words = shlex.split(part, comments=True)
                place = next(i for i, word in enumerate(words) if Path(word).name == "organza")
                yield Command(tuple(words[place + 1 :]), after)


@cache
def program() -> Any:
    """The command line, made once."""
    return typer.main.get_command(cli.app)


def parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """What the command line makes of the words; nothing is run."""
    group = program()
    with group.make_context("organza", list(words)) as context:
        _, command, rest = group.resolve_command(context, list(words))
        with command.make_context(words[0], list(rest), parent=context) as inner:
            return dict(inner.params)


@cache
def check(recipe: str, data: Data, settings: tuple[str, ...]) -> None:
    """Raise what the user would be told if there is no such recipe, or its plan does not take data and settings."""
    if recipe in RECIPES and not settings and data is not POINTS:
        return  # every recipe takes pictures, as its own tests show
    api.prepare(data, recipe, None, cli.training.changes(list(settings)))


def stand_in(name: str) -> Data:
    if " from " in name:
        return Data(name, COLOUR.x, COLOUR.x.clone())
    if " and " in name:
        return Data(name, *[torch.cat([COLOUR.x, COLOUR.x], 1)] * 2)
    name = name.partition("[")[0]
    if name in ("ring", "grid25", "grid100", "spiral", "moons"):
        return POINTS
    return DIGITS if name in ("digits", "mnist") else COLOUR


def refused(command: Command) -> str:
    """What is wrong with a command, in one line; empty if nothing is."""
    if not command.words or not command.words[0].islower():  # the program's name alone
        return ""
    try:
        given = parsed(command.words)
        if command.words[0] == "train":
            data, settings = stand_in(given["data"]), tuple(given["set_"] or ())
            chosen = CHOSEN[: 1 if data is POINTS else 3 if settings else 0]
            for recipe in [given["recipe"]] if given["recipe"] else chosen:
                check(recipe, data, settings)
        elif command.words[0] == "recipes" and given["name"] and not given["name"].isupper():
            check(given["name"], DIGITS, ())
    except ValueError as error:
        return str(error)
    except Exception as error:
        if not hasattr(error, "format_message"):  # the parser's own
            raise
        return str(error.format_message())
    return ""


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose first column has this name."""
    rows = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)", text, re.MULTILINE)
    assert rows is not None, f"no table begins with a column {first!r}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]


def test_commands_are_found() -> None:
    text = "Type `organza resume\nRUN`, not `organ`.\n"
    text += "```bash\na && .venv/bin/organza train --set 'a=[1, 2]' \\\n  -n 3  # x\n"
    text += "```\n```\n$ organza sample r\norganza: no run\n```\n```python\norganza sample\n```\n"
    assert list(commands(text)) == [
        (("resume", "RUN"), ""),
        (("train", "--set", "a=[1, 2]", "-n", "3"), ""),
        (("sample", "r"), "organza: no run"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", "trian"),
        ("train --bogus", "--bogus"),
        ("train --images none", "--images"),
        ("train --recipe mpl", "did you mean mlp"),
        ("train --recipe mlp --set training.bath=1", "did you mean batch"),
        ("train --set terms.0.term.weight=1", "terms.0.term.weight"),  # not on a GPU, where r3gan-small is chosen
        ("recipes mpl", "did you mean mlp"),
        ("train ring --set terms.0.weight=1", ""),
        ("recipes NAME", ""),
    ],
)
def test_a_wrong_command_is_refused(line: str, said: str) -> None:
    found = refused(Command(tuple(line.split()), ""))
    assert said in found and bool(said) == bool(found)


@every
def test_every_command_works(path: Path) -> None:
    """It parses, its recipe exists, and its settings fit; one that is shown with its mistake makes just that."""
    found = list(commands(path.read_text(encoding="utf-8")))
    assert found or path == TABLE
    wrong = []
    for command in found:
        shown = command.after.removeprefix("organza: ") if command.after.startswith("organza: ") else ""
        if (said := refused(command)) != shown:
            wrong.append(f"organza {shlex.join(command.words)}: {said or 'works'}")
    assert not wrong, "\n".join(wrong)


def options(text: str) -> Iterator[tuple[Path, set[str]]]:
    """The programs of this repository that are run in blocks of code and lines, and their options."""
    lines = spans(text)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        if found := re.search(r"python ((?:benchmarks|scripts)/\w+\.py)(.*)", line):
            yield ROOT / found[1], set(re.findall(r"(?<= )--[\w-]+", found[2]))


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_every_benchmark_has_its_options(path: Path) -> None:
    for program, given in options(path.read_text(encoding="utf-8")):
        source = program.read_text(encoding="utf-8")
        assert not [option for option in given if f'"{option}"' not in source], program.name


def test_options_are_found() -> None:
    text = "Run `python\nbenchmarks/a.py X --one 1\n--two` or\n```bash\npython scripts/b.py \\\n  --three-4\n```\n"
    assert [(path.name, given) for path, given in options(text)] == [
        ("a.py", {"--one", "--two"}),
        ("b.py", {"--three-4"}),
    ]


@every
def test_every_setting_alone_fits_some_recipe(path: Path) -> None:
    """Settings without a command: `--set training.batch=128`."""
    for span in spans(path.read_text(encoding="utf-8")):
        words = shlex.split(span) if span.startswith("--set ") else []
        settings = tuple(word for flag, word in pairwise(words) if flag == "--set" and "=" in word)
        if not settings or "KEY=VALUE" in settings:
            continue
        for name, recipe in product(("digits", "photos from maps"), RECIPES):
            try:
                check(recipe, stand_in(name), settings)
                break
            except ValueError:
                continue
        else:
            pytest.fail(f"no recipe takes {span}")


@every
def test_every_link_leads_somewhere(path: Path) -> None:
    text = prose(path.read_text(encoding="utf-8"))
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name} links to {link}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(target.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in map(slug, headings), f"{path.name} links to {link}, and there is no such heading"


class Row(NamedTuple):
    """A row of the table of equilibria."""

    objective: Objective
    recipes: list[str]
    numbers: list[str]
    because: str


@pytest.fixture(scope="module")
def guide() -> str:
    return GUIDE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(guide: str) -> list[Row]:
    names = {name: getattr(module, name) for module in (objective, energy) for name in module.__all__}
    found = []
    for kind, recipes, *numbers, because in table(guide, "objective \\| recipes"):
        made = eval(kind.strip("`"), {"__builtins__": {}}, names)  # our own document
        found.append(Row(made, re.findall(r"`([^`]+)`", recipes), numbers, because))
    return found


COLUMNS = ("discriminator/objective", "generator/objective", "discriminator/real_score", "discriminator/fake_score")


def equilibrium(objective: Objective) -> list[str]:
    """What the screen shows in brackets, "-" where it shows none."""
    generator = MLPGenerator(latent=1, shape=(2,), widths=(1,), output="linear")
    game = Game(generator, MLPDiscriminator(shape=(2,), widths=(1,)), Normal(1), objective)
    known = game.equilibrium()
    return [f"{known[name] + 0.0:.3f}" if name in known else "-" for name in COLUMNS]  # + 0.0: no "-0.000"


def test_the_table_of_equilibria_is_what_the_code_computes(rows: list[Row]) -> None:
    for row in rows:
        assert row.numbers == equilibrium(row.objective), row
        assert set(re.findall(r"-?\d\.\d{3}", row.because)) <= set(row.numbers), row


def test_every_objective_has_its_row(rows: list[Row]) -> None:
    assert {type(row.objective).__name__ for row in rows} == set(KINDS[Objective])
    assert {row.objective.name for row in rows if isinstance(row.objective, objective.FGAN)} == {*objective.DIVERGENCES}


def test_every_recipe_named_in_a_row_plays_its_objective(rows: list[Row]) -> None:
    for row in rows:
        for name in row.recipes:
            plans = [RECIPES[name](DIGITS.spec)] + ([RECIPES[name](POINTS.spec)] if name == "quick" else [])
            assert written(row.objective) in [plan.objective for plan in plans], (name, row)


def test_the_line_of_the_screen_has_its_brackets(guide: str) -> None:
    """The one that is explained is of `quick`, by its names and its values at equilibrium."""
    line = re.search(r"^6,400/6,400 images .*", guide, re.MULTILINE)
    assert line is not None
    found = re.findall(r"(\S+) -?\d+\.\d{3} \((-?\d+\.\d{3})\)", line[0])
    game = RECIPES["quick"](DIGITS.spec).game()
    assert found == list(zip(("D", "G", "D(x)", "D(G(z))"), equilibrium(game.objective), strict=True))


def test_mlp_literal_with_two_settings_is_mlp(guide: str) -> None:
    """As section 4.1 says."""
    (cure,) = (c.words for c in commands(guide) if "mlp-literal" in c.words and "--set" in c.words)
    cured = api.prepare(DIGITS, "mlp-literal", None, cli.training.changes(parsed(cure)["set_"])).json()
    assert {**cured, "recipe": "mlp"} == api.prepare(DIGITS, "mlp").json()


def test_every_recipe_is_told_of(guide: str) -> None:
    assert TABLE.exists(), "docs/recipes.md, the measured row of every recipe, is missing"
    told = {word for span in spans(guide + TABLE.read_text(encoding="utf-8")) for word in span.split()}
    assert set(RECIPES) <= told, f"not told of: {', '.join(sorted(set(RECIPES) - told))}"
