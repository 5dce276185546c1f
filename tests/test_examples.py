"""The examples run, and what they keep survives a resume."""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import organza as oz

FOLDER = Path(__file__).parent.parent / "examples"
MEASURED = ("signals", "vectors")  # which return what they measured, not a model
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.stem not in MEASURED)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example_runs_and_resumes_exactly(path: Path, tmp_path: Path) -> None:
    example = load(path)
    torch.manual_seed(0)
    whole = example.main(str(tmp_path / "whole"), images=1280)
    torch.manual_seed(0)
    example.main(str(tmp_path / "cut"), images=640)
    torch.manual_seed(1)  # other first weights: all must come from the checkpoint
    resumed = example.main(str(tmp_path / "cut"), images=1280)
    assert torch.equal(whole.sample(16, seed=3), resumed.sample(16, seed=3))
    assert whole.sample(16).isfinite().all()


@pytest.mark.parametrize("name", MEASURED)
def test_measured_example_runs(name: str, tmp_path: Path) -> None:
    found = load(FOLDER / f"{name}.py").main(str(tmp_path / "run"), images=1280)
    assert 0.5 < found.accuracy <= 1 and found.n_test == 5_000


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_samples_are_hardly_told_from_data(name: str, tmp_path: Path) -> None:
    assert load(FOLDER / f"{name}.py").main(str(tmp_path / "run")).accuracy <= 0.60


def test_own_parts_fit_in_fifteen_lines() -> None:
    example = load(next(path for path in EXAMPLES if path.stem == "own_parts"))
    source = inspect.getsource(example.Exponential) + inspect.getsource(example.main)
    assert len([line for line in source.splitlines() if line.strip()]) <= 15


def test_began_balances() -> None:
    example = load(next(path for path in EXAMPLES if path.stem == "began"))
    objective = example.Equilibrium(gamma=0.5, rate=0.1)
    for _ in range(10):  # D reconstructs fakes (energy 0.1) much better than half of the real ones (0.5 * 1.0)
        objective.adapt(
            {"discriminator/real_logits": torch.tensor(-1.0), "discriminator/fake_logits": -torch.tensor(0.1)}
        )
    assert objective.k == pytest.approx(0.4)
    assert "k" in objective.state_dict()


def test_user_run_is_refused_by_the_command_in_one_line(tmp_path: Path) -> None:
    example = load(next(path for path in EXAMPLES if path.stem == "own_parts"))
    model = example.main(str(tmp_path / "run"), images=640)
    with pytest.raises(ValueError, match="a program's own modules") as caught:
        oz.resume(tmp_path / "run")
    assert "\n" not in str(caught.value)
    generator = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    loaded = oz.load(tmp_path / "run", generator=generator, prior=oz.Normal(2))
    assert torch.equal(loaded.sample(8, seed=1), model.sample(8, seed=1))
