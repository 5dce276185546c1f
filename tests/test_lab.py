"""organza.lab: checks that can fail, a bench that shares work, the command, and the quick experiments whole."""

import json
import math
from pathlib import Path

import pytest
import torch

from organza import lab
from organza.lab import convergence, divergences, function_space, stability
from organza.lab.experiment import Bench, Outcome, double, least, most, near, number
from organza.objective import Minimax, Wasserstein
from organza.theory import Gaussian, Mixture, js


@pytest.mark.parametrize(
    ("check", "passed", "predicted"),
    [
        (near("a", 1.0, 1.05, 0.1), True, "1 ± 0.1"),
        (near("a", 1.0, 1.15, 0.1), False, "1 ± 0.1"),
        (near("a", 1.0, math.nan, 0.1), False, "1 ± 0.1"),
        (most("a", 0.2, 0.2), True, "≤ 0.2"),
        (most("a", 0.21, 0.2), False, "≤ 0.2"),
        (most("a", -math.inf, 0.2), True, "≤ 0.2"),
        (least("a", 8, 8), True, "≥ 8"),
        (least("a", 7, 8), False, "≥ 8"),
        (least("a", math.nan, 8), False, "≥ 8"),
    ],
)
def test_checks(check, passed, predicted):
    assert (check.passed, check.predicted) == (passed, predicted)
    assert check.json()["passed"] is passed
    json.dumps(check.json(), allow_nan=False)


def test_a_table_shows_enough_digits():
    assert near("a", 1.00124922, 1.0012493, 1e-7).shown == "1.0012493"
    assert number(-1234567.0) == "−1,234,567" and number(0.000969) == "0.000969"


def test_an_outcome_passes_only_with_all_of_its_checks():
    good, bad = most("a", 0, 1), most("b", 2, 1, planted=True)
    assert Outcome("words", [good], "true").passed
    assert not Outcome("words", [good, bad], "true").passed
    assert not Outcome("words", [], "true").passed
    page = Outcome("words", [good, bad], "true", "name", "Title", [Path("out/name.png")]).markdown()
    assert "**FAIL**" in page and "b (planted)" in page and "![Title](name.png)" in page


def halved(x):
    return x / 2, torch.get_num_threads()


def test_a_bench_maps_with_one_thread():
    told = []
    bench = Bench("a", Path("."), tell=lambda *each: told.append(each))
    assert bench.map("halving", halved, [2, 4]) == [(1, 1), (2, 1)]
    assert told == [("halving", 0, 2), ("halving", 1, 2), ("halving", 2, 2)]


def test_double_is_undone():
    with pytest.raises(ValueError, match="x"), double():
        assert torch.zeros(1).dtype == torch.float64
        raise ValueError("x")
    assert torch.zeros(1).dtype == torch.float32


def test_every_experiment_has_a_title_a_claim_and_a_test():
    tests = Path(__file__).parent
    for name in lab.NAMES:
        assert 10 < len(lab.title(name)) < 90
        claim = lab.import_module(f"organza.lab.{name.replace('-', '_')}").__doc__
        assert "It passes if" in claim or "olerances" in claim
        assert (tests / f"test_lab_{name.replace('-', '_')}.py").exists() or name in SMALL


SMALL = ("stability", "divergences", "convergence", "function-space", "optimal-discriminator")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["divergences", "convergence", "function-space", "optimal-discriminator"])
def test_experiments_pass(name, tmp_path):
    (outcome,) = lab.perform([name], tmp_path, fast=True, processes=1)
    assert outcome.passed, [check for check in outcome.checks if not check.passed]
    assert json.loads((tmp_path / f"{name}.json").read_text())["passed"]
    assert outcome.files and all(path.stat().st_size > 10_000 for path in outcome.files)
    assert outcome.title in (tmp_path / f"{name}.md").read_text()


def test_a_wrong_formula_fails_the_stability_experiment(monkeypatch):
    """Without the penalty's half, gamma would count double: the distance to the formula says so."""
    method = stability.methods()[4]
    assert stability.off(method) < 1e-12
    assert stability.off(method._replace(eigenvalues=stability._penalised(0.6))) > 0.1


def test_the_pull_of_minimax_is_the_slope_of_twice_jsd():
    with double():
        told = divergences.slope(lambda d: 2 * js(divergences.law(0), divergences.law(d), 1e-12).value, 0.7)
        assert divergences.pull(Minimax(), 0.7) == pytest.approx(told, abs=1e-8)
        assert divergences.pull(Wasserstein(), 0.7) == pytest.approx(1.0, abs=1e-6)
        assert divergences.pull(Minimax(), 0.7) != pytest.approx(told / 2, abs=1e-3)


def test_a_fit_finds_a_gaussian():
    mean, sigma = divergences.fitted(lambda q: (q.mean.item() - 1.0) ** 2 + (q.sigma - 0.5) ** 2)
    assert (mean, sigma) == (pytest.approx(1.0, abs=1e-3), pytest.approx(0.5, abs=1e-3))


def test_which_divergences_take_one_hump():
    """Of two humps at -1 and 1, one Gaussian under JSD covers both, and under the non-saturating loss takes one; of
    humps at -2 and 2 it takes one under JSD too."""
    fits = {
        name: divergences.fitted(score)
        for name, score in divergences.FITS.items()
        if "non-sat" in name or "Jen" in name
    }
    (covering, taking) = fits["Jensen–Shannon (minimax)"], fits["KL(q ‖ p) − 2 JSD (non-saturating)"]
    assert abs(covering[0]) < 0.05 and covering[1] > 0.8
    assert abs(abs(taking[0]) - 1) < 0.05 and taking[1] < 0.3
    wide = Mixture([Gaussian(-2, 0.25), Gaussian(2, 0.25)])
    far = divergences.fitted(lambda q: js(wide, q, 1e-9).value, 2.0)
    assert abs(abs(far[0]) - 2) < 0.05 and far[1] < 0.3


def test_small_steps_descend_and_large_ones_do_not():
    p, q = function_space.laws()
    for eta in (0.1, 0.5, 1.0):
        costs, path = function_space.descent(p, q, eta, 50)
        assert function_space._rise(costs) < 1e-12
        assert path[-1].sum().item() == pytest.approx(1)
    assert function_space._rise(function_space.descent(p, q, 2.5, 14)[0]) > 1e-2


def test_sliced_noise_misses_no_slice():
    z = convergence.Sliced().draw(100, torch.Generator().manual_seed(0))
    assert Gaussian().cdf(z.double()).mul(100).floor().tolist() == list(range(100))
    assert convergence.shown(Gaussian(), 4)[:, 0].tolist() == pytest.approx(
        [-1.15035, -0.31864, 0.31864, 1.15035], abs=1e-5
    )


@pytest.mark.slow  # .ci/run performs all experiments but one
def test_the_command(organza):
    """A quick experiment whole."""
    code, out, _ = organza("lab", "stability", "--processes", "1", "--out", "here")
    assert code == 0
    assert "Which games settle" in out and "(planted)" in out and "1 of 1 experiments passed" in out
    assert {path.name for path in Path("here").iterdir()} == {"stability.png", "stability.json", "stability.md"}
    assert Path("here/stability.png").stat().st_size > 10_000
    assert json.loads(Path("here/stability.json").read_text())["passed"]


def test_the_command_for_machines(organza, monkeypatch):
    """A failed experiment is an exit code of 1, and JSON says which."""
    outcome = Outcome("words", [most("a", 1.0, 1e-9)], "true")
    monkeypatch.setattr(stability, "run", lambda bench: outcome)
    code, out, _ = organza("lab", "stability", "--processes", "1", "--json")
    record = json.loads(out)
    assert code == 1 and record["passed"] is False and record["failed"] == ["stability"]
    assert record["experiments"][0]["checks"][0]["measured"] == 1.0


def test_the_list(organza):
    code, out, _ = organza("lab", "--list", "--json")
    assert code == 0 and list(json.loads(out)) == list(lab.NAMES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stabilty",), "experiment 'stabilty' is unknown; did you mean stability?"),
        (("xyz",), "known are optimal-discriminator"),
        (("stability", "--out", "file"), "--out file: is a file; give a folder"),
        (("stability", "--out", "file/below"), "--out file/below: cannot be made a folder"),
    ],
)
def test_mistakes(organza, words, said, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = organza("lab", *words)
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_processes_give_the_same_numbers(tmp_path):
    """What an experiment measures does not depend on how many processes share the work."""
    found = [next(iter(lab.perform(["optimal-discriminator"], tmp_path, True, n))) for n in (1, 2)]
    assert [check.measured for check in found[0].checks] == [check.measured for check in found[1].checks]
