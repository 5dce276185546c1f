"""What all commands share: the options that several have, how results are printed, and how mistakes are told."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from organza.progress import speaker, unread

__all__ = [
    "Device",
    "Images",
    "Json",
    "Minutes",
    "Run",
    "Seed",
    "Trained",
    "aligned",
    "app",
    "experiments",
    "main",
    "recipes",
    "run",
    "show",
]

app = typer.Typer(
    name="organza",
    help="Train, measure, explain and ship generative adversarial networks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run folder.")]
Trained = Annotated[str, typer.Argument(metavar="RUN", help="The run folder, or the folder of a pretrained model.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same samples.")]
Images = Annotated[int | None, typer.Option(min=1, help="Length of the run: images shown to D.")]
Minutes = Annotated[float | None, typer.Option(help="Length in minutes: the speed is measured, then fixes --images.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", autocompletion=lambda: ["auto", "cpu", "cuda", "mps"])
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def show(record: Any, text: str, as_json: bool) -> None:
    """Print a result, as one JSON object or in words."""
    if speaker():
        print(json.dumps(record) if as_json else text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def recipes() -> list[str]:
    """The recipes' names, for the shell to complete."""
    return _keys("recipes", "RECIPES")


def experiments() -> list[str]:
    """The experiments' names, for the shell to complete."""
    return _keys("lab", "NAMES")


def _keys(package: str, table: str) -> list[str]:
    """The names in a registry, read from its source: to import it takes seconds, and the shell waits."""
    source = (Path(__file__).parents[1] / package / "__init__.py").read_text("utf-8")
    literal = re.search(rf"^{table}\b.*?^[)}}]", source, re.MULTILINE | re.DOTALL)
    return re.findall(r'^    "([^"]+)"', literal[0], re.MULTILINE) if literal else []


def main() -> None:
    """Run the command and exit."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed: what is printed to nowhere in particular would go to the other
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a letter that its code lacks is no reason to stop
    warnings.showwarning = lambda message, *_, **__: print(f"organza: warning: {message}", file=sys.stderr)
    sys.exit(run(app))


def run(command: Callable[..., Any]) -> int:
    """Run the command; a user's mistake becomes one line each on standard error."""
    try:
        # Windows leaves patterns to programs, and the parser would take photos[:100] for one.
        code = int(command(prog_name="organza", standalone_mode=False, windows_expand_args=False) or 0)
        sys.stdout.flush()  # or the interpreter tells, as it ends, what could not be written
        return code
    except ValueError as error:
        return _mistake(str(error), type(error).__name__ in _OWN)
    except BrokenPipeError:
        unread()
        return 1
    except OSError as error:
        advice = next((advice for kinds, advice in _ADVICE.items() if error.errno in kinds), None)
        if advice is None:
            raise
        return _mistake(f"{error.filename or 'the disk'}: {error.strerror}: {advice}", True)
    except Exception as error:
        if isinstance(error, MemoryError) or ("torch" in sys.modules and _full(error)):
            return _mistake(
                "out of memory: ask for less at once (fewer samples, smaller images), or --device cpu", True
            )
        if type(error).__name__ == "NoArgsIsHelpError":  # `organza` alone
            print(str(error) or error.format_message())  # type: ignore[attr-defined]
            return 0
        if hasattr(error, "format_message"):  # the parser's own: unknown option, missing argument, bad number
            return _mistake(error.format_message() + _typed(error.format_message()))
        if type(error).__name__ in ("Exit", "Abort"):
            return int(getattr(error, "exit_code", 130))  # Abort is Ctrl-C before anything was begun
        raise


def _typed(message: str) -> str:
    """What was typed for the option that the parser complains of, which it does not say itself."""
    option = re.search(r"value for '(--?[\w-]+)'", message)
    words = sys.argv[1:-1]
    return f", got {sys.argv[words.index(option[1]) + 2]!r}" if option and option[1] in words else ""


_OWN = ("Diverged", "OutOfMemory", "Unwritten")  # what may happen to one process alone
_ADVICE = {
    (errno.ENOSPC, errno.EDQUOT): "make room on the disk; what was saved before is whole",
    (errno.EROFS, errno.EACCES, errno.EPERM): "it may not be read, or its folder not written, by you: change that",
    (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG): "choose another name",
}


def _full(error: Exception) -> bool:
    from organza.device import full

    return full(error)


def _mistake(text: str, own: bool = False) -> int:
    """Tell it, in the first of several processes; what may be another's ``own``, in that too."""
    lines = text.splitlines()
    if not speaker():
        lines = [f"rank {os.environ['RANK']}: {line}" for line in lines if own]
    if lines and "--json" in sys.argv:
        print(json.dumps({"error": lines}))
    for line in lines:
        print(f"organza: {line}", file=sys.stderr)
    return 2
