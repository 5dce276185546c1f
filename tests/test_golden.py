"""Runs of earlier versions, kept under tests/golden, are loaded and go on; those of unknown ones are refused.

``unversioned`` is `quick` on digits[:64] in little, from before checkpoints had a format.
"""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import organza as oz
from organza.run import FORMAT, Run

GOLDEN = Path(__file__).parent / "golden"
KNOWN = {"unversioned": -0.0010299385758116841}  # the mean of two samples, as it was then


@pytest.fixture
def run(request, tmp_path):
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "run"))


@pytest.mark.parametrize("run", KNOWN, indirect=True)
def test_an_old_run_is_loaded_and_goes_on(run, request):
    known = KNOWN[request.node.callspec.params["run"]]
    assert float(oz.load(run).sample(2, seed=0).mean()) == pytest.approx(known, abs=1e-5)
    model = oz.resume(run, images=128, device="cpu")
    assert Run(run).checkpoints() == [64, 128] and torch.isfinite(model.sample(2)).all()
    assert [line["images"] for line in Run(run).records()] == [32, 64, 96, 128]


def test_a_run_of_an_unknown_version_is_refused(tmp_path):
    run = Path(shutil.copytree(GOLDEN / "unversioned", tmp_path / "run"))
    folder = run / "checkpoints" / "64"
    state = json.dumps({**json.loads((folder / "state.json").read_text()), "format": FORMAT + 1}).encode()
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["state.json"] = {"size": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    (folder / "state.json").write_bytes(state)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    for read in (oz.load, oz.resume):
        with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, not {FORMAT}: install the ver"):
            read(run)
    assert (folder / "state.json").read_bytes() == state
