"""The laws of the house: who may import whom, who may print, how long a file may be.

Each law is a pure function from source texts, {path: text}, to the list of its violations. The package must
have none, and each law is also shown planted violations, so that none can pass by seeing nothing.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]

PUBLIC = [
    "Game", "fit", "open_data", "train", "load", "Model", "Training", "Normal", "Uniform",
    "Minimax", "NonSaturating", "LeastSquares", "Hinge", "Wasserstein", "RelativisticLogistic", "FGAN",
    "Scaled", "Objective", "Term", "R1", "R2", "GradientPenalty", "DRAGAN", "Verdict",
    "Alternating", "Simultaneous", "Unrolled", "Consensus", "Moves", "Adam", "SGD", "RMSprop", "resume", "DiffAugment",
    "Jitter", "ADA", "evaluate", "compare",
]  # fmt: skip

# A module's place: its layer, and the modules of ours that it may import. A new module must be placed here.
L0 = {"round", "device", "prior", "schedule", "objective", "energy", "penalty", "term", "augment", "ema", "optimizer"}
L0 |= {"mixture", "replay", "values", "joint", "nn", "ada", "distributed", "lock", "cache", "weighing"}
L1 = {"game", "moves", "data", "run", "picture", "metrics", "theory", "model", "pretrained", "scores", "nearest"}
L1 |= {"perceptual"}
L2 = {"training", "diagnose", "export", "report", "evaluation", "baselines"}
L3 = {"part", "plan", "recipes", "lab", "auto", "decision", "api"}
BELOW_2, BELOW_3, BELOW_4 = L0 | L1, L0 | L1 | L2, L0 | L1 | L2 | L3
LAYERS = {
    **dict.fromkeys(L0, (0, {"round"})),
    **dict.fromkeys(("round", "device", "values", "joint", "distributed", "lock", "cache"), (0, set())),
    "nn": (0, {"round", "joint"}),
    **dict.fromkeys(("penalty", "weighing"), (0, {"round", "term"})),
    "replay": (0, {"round", "distributed"}),
    **{"energy": (0, {"objective"}), "mixture": (0, {"prior"})},
    **dict.fromkeys(("optimizer", "ada"), (0, {"round", "schedule"})),
    "game": (1, L0),
    "moves": (1, L0 | {"game"}),
    "theory": (1, L0 | {"game", "moves"}),
    "model": (1, L0 | {"picture", "run", "pretrained", "nearest"}),
    "pretrained": (1, L0 | {"run"}),
    "picture": (1, {"run", "values"}),
    "scores": (1, {"run", "picture", "metrics", "lock"}),
    "data": (1, {"values", "joint", "lock", "cache", "device"}),
    "metrics": (1, {"distributed", "cache"}),
    "perceptual": (1, {"round", "term", "metrics"}),
    "run": (1, {"distributed"}),
    "nearest": (1, {"values"}),
    **dict.fromkeys(L2, (2, BELOW_2)),
    "training": (2, BELOW_2 - {"metrics"}),  # it evaluates through a function given to it
    "part": (3, BELOW_3),
    "plan": (3, BELOW_3 | {"part"}),
    "recipes": (3, BELOW_3 | {"plan"}),
    **dict.fromkeys(("lab", "auto"), (3, BELOW_3 | {"plan", "recipes"})),
    "decision": (3, BELOW_3 | {"plan", "recipes", "auto"}),
    "api": (3, BELOW_3 | {"plan", "recipes", "auto", "decision"}),
    **dict.fromkeys(("server", "progress", "__init__"), (4, BELOW_4)),  # the last lazily: test_importing_is_light
    "cli": (4, BELOW_4 | {"server", "progress"}),
    "__main__": (4, {"cli"}),
}
NN_SIBLINGS = {"layers", "condition", "bilinear", "mask"}

# Imports from outside that may stand at the top of a module, by layer; others go where they are needed.
TOP_LEVEL = {0: {"torch"}, 1: {"torch", "numpy", "safetensors"}, 2: {"torch", "numpy", "safetensors"}}
TOP_LEVEL |= {3: TOP_LEVEL[2], 4: {"torch", "numpy", "fastapi", "starlette"}}
TOP_LEVEL_OF = {
    "data": TOP_LEVEL[1] | {"PIL"},
    "__init__": set(),
    "__main__": set(),
    "part": TOP_LEVEL[3] | {"pydantic"},
    "cli": {"typer"},
    "progress": {"rich"},
}
# Imports that only some modules may make, at any depth.
READERS = {"data", "metrics", "model"}
ONLY_IN = {"pydantic": {"part"}, "typer": {"cli"}, "rich": {"progress"}, "huggingface_hub": READERS | {"export"}}
ONLY_IN |= dict.fromkeys(("urllib.request", "requests", "torch.hub"), READERS)
UNSAFE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE, LOADER = UNSAFE | {"torch.load", "torch.save"}, "organza/metrics/weights.py"
LAST = {name.rpartition(".")[2] for name in UNSAFE} | {"allow_pickle"}
SPEAKERS, SPEECH = {"cli", "progress", "server", "run", "report", "lab"}, {"print", "sys.stdout", "sys.stderr"}
FORBIDDEN_NAMES = {"utils", "util", "core", "base", "common", "helpers", "helper", "manager", "managers"}
MAX_LINES = 400
BUDGETS = {  # lines of code of each definition of this kind and name
    "organza/training/__init__.py": (ast.FunctionDef, "fit", 60),
    "organza/moves.py": (ast.ClassDef, ".*", 24),
}
FAMILIES = {"Objective", "Term", "Moves", "Prior"}
HOOKS = {"adapt", "check", "discriminator", "generator", "forward", "optimum", "divergence", "score"}
HOOKS |= {"__init__", "__call__", "extra_repr", "truncate", "project", "traverse", "measures"}


def place(path):
    """The name under which a file is placed: organza/nn/dcgan.py -> nn, organza/cli.py -> cli."""
    return PurePosixPath(path).with_suffix("").parts[1]


@cache
def walked(source):
    return [*ast.walk(ast.parse(source))]


@cache
def imports(path, source):
    """All imports of a file: (absolute dotted name with what is imported, local name, runs on import?)."""
    package, found = PurePosixPath(path).parts[:-1], []
    functions = [n for n in walked(source) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    types = [n for n in walked(source) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    later = {inner for block in functions + types for inner in ast.walk(block)}
    for node in walked(source):
        module = ""
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, node.module or "")).strip(".") + "."
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            local = alias.asname or alias.name.partition(".")[0]
            found.append((module + alias.name, local, node not in later))
    return found


def code_lines(node, source):
    """The number of lines of code under a node: no docstrings, comments or blank lines."""
    lines = set()
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in blank:
            lines.update(range(token.start[0], token.end[0] + 1))
    for inner in ast.walk(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner) is not None:
            lines -= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    return len(lines & set(range(node.lineno, node.end_lineno + 1)))


def every_module_is_placed(sources):
    return [f"{path}: not in LAYERS" for path in sources if place(path) not in LAYERS]


def imports_go_down(sources):
    """A module imports only what its place allows of ours; L0 nothing else but torch and the stdlib."""
    found = []
    for path, source in sources.items():
        here = place(path)
        level, allowed = LAYERS.get(here, (0, set()))
        for name, *_ in imports(path, source):
            root, _, rest = name.partition(".")
            if root != "organza":
                if level == 0 and root != "torch" and root not in sys.stdlib_module_names:
                    found.append(f"{path}: L0 imports {root}")
                continue
            there = rest.partition(".")[0]
            if there in allowed or (there == "__version__" and level > 0):
                continue
            if there != here or here == "__main__":
                found.append(f"{path}: {here} may not import {name}")
            elif here == "nn" and path != "organza/nn/__init__.py" and not NN_SIBLINGS & {*rest.split(".")[1:2]}:
                found.append(f"{path}: a network may not import {name}")
    return found


def outside_imports_are_lazy(sources):
    found = []
    for path, source in sources.items():
        here = place(path)
        allowed = TOP_LEVEL_OF.get(here, TOP_LEVEL[LAYERS.get(here, (0,))[0]])
        for name, _, runs in imports(path, source):
            root = name.partition(".")[0]
            if runs and root not in allowed | {"organza"} | sys.stdlib_module_names:
                found.append(f"{path}: imports {root} at the top level")
            others = [m for m in ONLY_IN if f"{name}.".startswith(f"{m}.") and here not in ONLY_IN[m]]
            found += [f"{path}: only {sorted(ONLY_IN[module])} may import {module}" for module in others]
    return found


def nodes(sources):
    return [(path, node) for path, source in sources.items() for node in walked(source)]


def only_speakers_print(sources):
    silent = {path: source for path, source in sources.items() if place(path) not in SPEAKERS}
    last = {word.rpartition(".")[2] for word in SPEECH}  # others need not be written out
    names = [(path, node) for path, node in nodes(silent) if getattr(node, "id", getattr(node, "attr", "")) in last]
    return [f"{path}:{node.lineno}: prints" for path, node in names if ast.unparse(node) in SPEECH]


def nothing_is_pickled(sources):
    """But weights are published as .pth alone: LOADER, which checks their hash, builds only tensors: weights_only."""
    names = [(path, name) for path, source in sources.items() for name, *_ in imports(path, source)]
    found = [f"{path}: {name}" for path, name in names if UNSAFE & {name, name.partition(".")[0]}]
    every, unsafe = nodes(sources), {ast.Attribute: UNSAFE, ast.keyword: {"allow_pickle=True"}}
    calls = [n for path, n in every if path == LOADER and ast.unparse(n).startswith("torch.load(")]
    allowed = [n.func for n in calls if "weights_only=True" in map(ast.unparse, getattr(n, "keywords", ()))]
    every = [(path, n) for path, n in every if type(n) in unsafe and n not in allowed]
    every = [(path, n) for path, n in every if getattr(n, "attr", n) in LAST or getattr(n, "arg", n) in LAST]
    return found + [f"{path}:{n.lineno}: {ast.unparse(n)}" for path, n in every if ast.unparse(n) in unsafe[type(n)]]


def files_are_short(sources):
    lengths = {path: len(source.splitlines()) for path, source in sources.items()}
    return [f"{path}: {n} lines, more than {MAX_LINES}" for path, n in lengths.items() if n > MAX_LINES]


def algorithms_fit_a_page(sources):
    """`fit`, and each class of moves, stay short enough to read beside their paper."""
    found = []
    for path in BUDGETS.keys() & sources.keys():
        source, (kind, pattern, limit) = sources[path], BUDGETS[path]
        body = [node for node in ast.parse(source).body if isinstance(node, kind)]
        lengths = {n.name: code_lines(n, source) for n in body if re.fullmatch(pattern, n.name)}
        if not lengths:
            found.append(f"{path}: nothing to measure; did fit or the moves go elsewhere?")
        found += [f"{path}: {k} has {n} lines, more than {limit}" for k, n in lengths.items() if n > limit]
    return found


def names_are_nouns(sources):
    parts = {path: PurePosixPath(path).with_suffix("").parts for path in sources}
    return [f"{path}: a forbidden name" for path in sources if FORBIDDEN_NAMES.intersection(parts[path])]


def classes(sources):
    """{dotted class: (its bases that are classes of the package, its node)}."""
    found, aliases = {}, {}
    for path, source in sources.items():
        module = ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")
        aliases[module] = {local: name for name, local, _ in imports(path, source)}
        for node in walked(source):
            if isinstance(node, ast.ClassDef):
                found[f"{module}.{node.name}"] = (module, node)

    def resolve(module, base):
        head, *tail = ast.unparse(base.value if isinstance(base, ast.Subscript) else base).split(".")
        name = ".".join((aliases[module].get(head, f"{module}.{head}"), *tail))
        package, _, last = name.rpartition(".")
        reexported = (n for n in found if n.startswith(f"{package}.") and n.endswith(f".{last}"))
        return name if name in found else next(reexported, None)

    return {
        name: ([b for b in (resolve(module, base) for base in node.bases) if b], node)
        for name, (module, node) in found.items()
    }


def inheritance_is_shallow(sources):
    """Every class is abstract or final: within the package, no class has a grandparent."""
    tree = classes(sources)
    return [f"{name}: has a grandparent" for name in tree if any(tree[base][0] for base in tree[name][0])]


def methods(node):
    """{name: abstract?} of a class's own methods."""
    own = (f for f in node.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef))
    return {f.name: any("abstractmethod" in ast.unparse(d) for d in f.decorator_list) for f in own}


def nothing_concrete_is_overridden(sources):
    """In the families a user extends, a subclass fills in abstract methods and hooks, and nothing else."""
    tree = classes(sources)
    found = []
    for name, (bases, node) in tree.items():
        for parent in (base for base in bases if base.rpartition(".")[2] in FAMILIES):
            concrete = {method for method, abstract in methods(tree[parent][1]).items() if not abstract}
            clash = (concrete & set(methods(node))) - HOOKS
            found += [f"{name} overrides {parent}.{method}" for method in sorted(clash)]
    return found


def read(*folders):
    files = (file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


LONG = "\n".join(f"    a{i} = {i}" for i in range(70))
FAMILY = """
class Term:
    def weigh(self): return 1
    @abstractmethod
    def name(self): ...
    def adapt(self): pass
"""
# Each law, and violations that it must catch: (a file, sources that it may not have).
PLANTS = {
    every_module_is_placed: [("loss.py", ""), ("zoo/__init__.py", "")],
    imports_go_down: [
        ("objective.py", "import numpy", "def f():\n    from organza.game import Game"),
        ("term.py", "from . import penalty"),
        ("prior.py", "from organza import Game", "from organza import __version__"),
        ("nn/dcgan.py", "from .resnet import A", "from organza.nn import B", "from ..objective import Hinge"),
        ("game.py", "import organza.moves", "import organza"),
        ("metrics/frechet.py", "from ..data import open_data"),
        ("training.py", "from organza.metrics import frechet", "from .diagnose import judge"),
        ("plan.py", "from .recipes import dcgan"),
        ("lab/optimum.py", "from organza.cli import main", "from .. import server"),
        ("server/app.py", "from ..cli import main"),
    ],
    outside_imports_are_lazy: [
        ("lab/optimum.py", "import matplotlib.pyplot as plt", "try:\n    import PIL\nexcept OSError: ..."),
        ("cli.py", "import torch"),
        ("training.py", "def f():\n    import pydantic", "def f():\n    from rich.progress import track"),
        ("plan.py", "def f():\n    import urllib.request", "def f():\n    from torch.hub import load"),
    ],
    only_speakers_print: [("training.py", "def f():\n    print('step')", "sys.stdout.write('')", "p = print")],
    nothing_is_pickled: [
        ("run.py", "import pickle", "from torch import load", "torch.save({}, f)", "torch.load(f, weights_only=True)"),
        ("data/arrays.py", "np.load(f, allow_pickle=True)"),
        ("metrics/weights.py", "torch.load(f)", "torch.load(f, weights_only=0)", "torch.save(f, weights_only=True)"),
    ],
    files_are_short: [("game.py", "x = 1\n" * 401)],
    algorithms_fit_a_page: [
        ("moves.py", "class Alternating:\n" + LONG),
        ("training/__init__.py", "def fit():\n" + LONG, "def loop(): ..."),
    ],
    names_are_nouns: [("data/utils.py", ""), ("core/game.py", "")],
    inheritance_is_shallow: [("term.py", "class A: ...\nclass B(A): ...\nclass C(B): ...")],
    nothing_concrete_is_overridden: [("term.py", FAMILY + "class A(Term):\n    def weigh(self): ...")],
}
ALLOWED = {
    "penalty.py": "import math\nimport torch\nfrom .round import Round\nfrom .term import Term",
    "nn/dcgan.py": "from torch import nn\nfrom .layers import Conv\nimport organza.nn.condition",
    "nn/__init__.py": "from .dcgan import Generator",
    "data/folder.py": "from .order import Order\nfrom PIL import Image\nimport numpy as np",
    "data/arrays.py": "np.load(f, allow_pickle=False)",
    "metrics/weights.py": "torch.load(f, map_location='cpu', weights_only=True)",
    "run.py": "from organza import __version__\nfrom .distributed import gather\nprint(gather)",
    "report.py": "def page():\n    import matplotlib.pyplot as plt",
    "part.py": "import pydantic\nfrom .game import Game",
    "server/app.py": "from fastapi import FastAPI\nfrom ..model import Model",
    "cli.py": "import typer\ndef serve():\n    from .server import serve",
    "__main__.py": "from organza.cli import main",
    "__init__.py": "if TYPE_CHECKING:\n    import torch\n    from .game import Game",
    "term.py": FAMILY + "class A(Term):\n    def name(self): ...\n    def adapt(self): ...",
}


@pytest.mark.parametrize("law", PLANTS, ids=lambda law: law.__name__)
def test_law_holds(law):
    sources = read("organza")
    assert sources, "no source found"
    assert law(sources) == []


@pytest.mark.parametrize("law", PLANTS, ids=lambda law: law.__name__)
def test_law_can_fail_and_can_hold(law):
    for path, *sources in PLANTS[law]:
        for source in sources:
            assert law({f"organza/{path}": source}) != [], (path, source)
    assert law({f"organza/{path}": source for path, source in ALLOWED.items()}) == []


@pytest.fixture(scope="module", autouse=True)
def trees():
    yield
    walked.cache_clear(), imports.cache_clear()


def test_tests_are_short():
    assert files_are_short(read("tests", "benchmarks", "examples")) == []


def test_families_are_followed_across_files():
    for text in ("from .term import Term as T\nclass R1(T):", "from . import term\nclass R1(term.Term):"):
        sources = {"organza/term.py": FAMILY, "organza/penalty.py": text + "\n    def weigh(self): ..."}
        assert nothing_concrete_is_overridden(sources) != []
    sources = {
        "organza/nn/layers.py": "class A: ...\nclass Net(A): ...",
        "organza/nn/__init__.py": "from .layers import Net",
        "organza/training.py": "from organza.nn import Net\nclass Mine(Net): ...",
    }
    assert inheritance_is_shallow(sources) != []


def test_code_lines_leave_prose_out():
    source = "def fit():\n  '''A.\n\n  B.'''\n\n  # why\n  x = (\n    1,\n  )\n  return x\n"
    assert code_lines(ast.parse(source).body[0], source) == 5


def python(code):
    """Run code in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["organza", "organza.cli"])
def test_importing_is_light(module):
    python(f"import sys, {module}; assert not {{'torch', 'numpy', 'PIL'}} & set(sys.modules)")


def test_public_names_are_frozen():
    """And stay callable: `organza.train` is a function, and no submodule of its name may take its place once loaded."""
    import organza

    assert sorted(organza.__all__) == sorted(PUBLIC) and {*PUBLIC} <= {*dir(organza)}
    assert not {*PUBLIC} & {path.stem for path in (ROOT / "organza").iterdir()}
    assert all(callable(getattr(organza, name)) for name in PUBLIC)
