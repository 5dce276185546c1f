"""organza.metrics.inception: the numbers of torch-fidelity, and one line for each thing that is missing."""

import hashlib
import importlib
import sys

import pytest
import torch

from organza.metrics import inception

MODULE = "torch_fidelity.feature_extractor_inceptionv3"
FEATURES = ["2048", "logits_unbiased"]


@pytest.fixture(scope="module")
def theirs():
    """torch-fidelity's module of the network."""
    from fidelity import torch_fidelity  # noqa: F401

    return importlib.import_module(MODULE)


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    """Random weights, the published ones being too large for tests, under the name that pytorch-fid gives them."""
    path = tmp_path_factory.mktemp("weights") / inception.FILES[1]
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        patch.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *args: None)
        w = theirs.FeatureExtractorInceptionV3("random", FEATURES, verbose=False).state_dict()
    for name in w:
        if name.endswith("conv.weight"):  # from variance 1 / (3 n) to 2 / n, with which the signal keeps its size
            w[name] *= 6**0.5
    torch.save(w, path)
    return path


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The one place where weights may lie, empty."""
    for name in ("ORGANZA_WEIGHTS", "ORGANZA_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def refusal():
    with pytest.raises(ValueError) as error:
        inception.network()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_features_are_torch_fidelitys(theirs, file, shop, monkeypatch):
    """Of images smaller and larger than 299, one or several; and nothing is drawn on the way."""
    monkeypatch.setenv("ORGANZA_WEIGHTS", str(file.parent))
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    chance = torch.get_rng_state()
    mine = inception.network()
    assert torch.equal(torch.get_rng_state(), chance)
    assert not mine.training and not any(p.requires_grad for p in mine.parameters())
    reference = theirs.FeatureExtractorInceptionV3("reference", FEATURES, feature_extractor_weights_path=str(file))
    for shape in ((2, 3, 32, 40), (1, 3, 310, 300)):
        x = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        features, logits = mine(x)
        assert features.shape == (shape[0], 2048) and logits.shape == (shape[0], 1008)
        assert features.std() > 1e-3
        for made, expected in zip((features, logits), reference(x), strict=True):
            torch.testing.assert_close(made, expected, rtol=0, atol=0)
        torch.testing.assert_close(logits, features @ reference.fc.weight.T)  # without the bias


def test_a_missing_file_is_asked_for(theirs, shop):
    assert refusal() == (
        f"{' or '.join(inception.FILES)} (SHA-256 {inception.SHA256}) is not on this machine: put it into {shop}; "
        f"it is published at {inception.URL}"
    )


def test_another_file_is_refused_before_it_is_read(theirs, file, shop, monkeypatch):
    monkeypatch.setenv("ORGANZA_WEIGHTS", str(file.parent))
    monkeypatch.setattr(torch, "load", None)
    assert inception.SHA256 in refusal() and "is not the published file" in refusal()


def test_a_missing_package_is_asked_for(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)
    assert "pip install 'organza[inception]'" in refusal()


def test_a_torchvision_that_does_not_fit_is_told(shop, monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torch_fidelity":
                raise RuntimeError("operator torchvision::nms\ndoes not exist")

    for name in [each for each in sys.modules if each.partition(".")[0] == "torch_fidelity"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert "(operator torchvision::nms does not exist)" in refusal()
