"""The command that performs the theory experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from organza.cli.shell import Json, aligned, app, experiments, show
from organza.progress import measuring

if TYPE_CHECKING:
    from organza.lab import Outcome

__all__ = ["lab"]


@app.command()
def lab(
    name: Annotated[
        list[str] | None, typer.Argument(help="Which experiments. [default: all]", autocompletion=experiments)
    ] = None,
    out: Annotated[str, typer.Option(help="The folder of figures, pages and records.")] = "lab",
    fast: Annotated[bool, typer.Option("--fast", help="Fewer seeds and shorter games, for a first look.")] = False,
    processes: Annotated[int, typer.Option(min=0, help="Processes that share the work; 0: one a core.")] = 0,
    listed: Annotated[bool, typer.Option("--list", help="Only say what experiments there are.")] = False,
    as_json: Json = False,
) -> None:
    """Put theory to the test: predicted against measured, with a figure for each experiment."""
    from organza.lab import NAMES, perform, title

    if listed:
        titles = {each: title(each) for each in NAMES}
        show(titles, "\n".join(f"{each:26} {line}" for each, line in titles.items()), as_json)
        return
    outcomes = []
    with measuring(as_json) as watch:
        for outcome in perform(name or (), out, fast, processes, watch):
            outcomes.append(outcome)
            if not as_json:
                print(_told(outcome), flush=True)
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    seconds = sum(outcome.seconds for outcome in outcomes)
    said = f"{len(outcomes) - len(failed)} of {len(outcomes)} experiments passed in {seconds:.0f} s"
    record = {"passed": not failed, "failed": failed, "experiments": [outcome.json() for outcome in outcomes]}
    show(record, said + (f"; failed: {', '.join(failed)}" if failed else "") + f"; figures and pages in {out}", as_json)
    raise typer.Exit(1 if failed else 0)


def _told(outcome: Outcome) -> str:
    """An outcome in words: title, explanation, table, verdict, figures."""
    import textwrap

    rows = [("", "predicted", "measured", "")]
    for check in outcome.checks:
        what = check.what + (" (planted)" if check.planted else "")
        rows.append((what, check.predicted, check.shown, "pass" if check.passed else "FAIL"))
    head = f"{outcome.name}: {outcome.title}"
    text = [textwrap.fill(paragraph, 100) for paragraph in outcome.words.split("\n\n")]
    state = "passed" if outcome.passed else "FAILED"
    files = ", ".join(str(path) for path in outcome.files)
    end = [f"verdict: {outcome.verdict}", f"{state} in {outcome.seconds:.0f} s; {files}", ""]
    return "\n".join([head, "=" * len(head), "", "\n\n".join(text), "", *aligned(rows), "", *end])
