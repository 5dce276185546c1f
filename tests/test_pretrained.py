"""organza.pretrained: a generator that was passed on is the same to the last bit, and a damaged one says so."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from organza import api, pretrained
from organza.mixture import Mixture
from organza.model import Model
from organza.nn import DCGANGenerator, MLPGenerator
from organza.prior import Normal, Prior, Uniform
from organza.replay import ImagePool

FACTS = {
    "recipe": "quick",
    "data": "digits",
    "objective": {"kind": "Scaled", "objective": {"kind": "NonSaturating", "smoothing": 1.0}, "d": 0.5},
    "terms": [{"kind": "Lazy", "term": {"kind": "R1", "weight": 0.5}, "every": 8}],
    "images": 90240,
    "seed": 7,
    "references": ["A Paper (Author, 2016)"],
}
MLP = {"kind": "MLPGenerator", "latent": 3, "shape": [2], "widths": [8], "output": "linear"}
DCGAN = {"kind": "DCGANGenerator", "latent": 3, "shape": [1, 8, 8], "width": 4}


def made(part=DCGAN, prior=("Normal", 3), **facts):
    """A model of these parts, with statistics of batch norm that are not the first ones."""
    kinds = {"DCGANGenerator": DCGANGenerator, "MLPGenerator": MLPGenerator, "Normal": Normal, "Uniform": Uniform}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = kinds[part["kind"]](**{k: v for k, v in part.items() if k != "kind"})
        for _ in range(2):
            generator(torch.randn(5, 3))
    config = {"generator": part, "prior": {"kind": prior[0], "dim": prior[1]}, **FACTS, **facts}
    return Model(generator, kinds[prior[0]](prior[1]), config=config)


@pytest.fixture
def folder(tmp_path):
    return made().save_pretrained(tmp_path / "model")


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) and value.dtype == other[name].dtype for name, value in one.items()
    )


@pytest.mark.parametrize(("part", "prior"), [(DCGAN, ("Normal", 3)), (MLP, ("Uniform", 3))], ids=["dcgan", "mlp"])
def test_a_round_trip_changes_no_bit(tmp_path, part, prior):
    model = made(part, prior)
    assert model.save_pretrained(tmp_path / "a/b") == tmp_path / "a/b"
    before = torch.get_rng_state()
    loaded = Model.from_pretrained(tmp_path / "a/b", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert type(loaded.prior) is type(model.prior) and not loaded.generator.training
    assert same(loaded.generator, model.generator)
    assert torch.equal(loaded.sample(10, seed=3), model.sample(10, seed=3))
    assert {k: v for k, v in loaded.config.items() if k not in ("conditional", "parameters")} == model.config
    again = loaded.save_pretrained(tmp_path / "a/c/b")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (again / name).read_bytes() == (tmp_path / "a/b" / name).read_bytes()
    assert sorted(path.name for path in again.iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers(tmp_path, dtype):
    model = made(MLP)
    model.generator.to(dtype)
    loaded = Model.from_pretrained(model.save_pretrained(tmp_path / "m"), device="cpu")
    assert same(loaded.generator, model.generator)
    assert all(p.requires_grad for p in loaded.generator.parameters())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.three = nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)

    def forward(self, z):
        return self.two(self.one(z).tanh())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("mnist[:50000]", "mnist[:50000]"),
        ("/home/me/photos", "photos"),
        ("/home/me/photos[fold%10!=0] from ../old/edges[fold%10!=0]", "photos[fold%10!=0] from edges[fold%10!=0]"),
        ("/home/me/horses and /data/zebras", "horses and zebras"),
    ],
)
def test_where_the_data_lay_is_not_told(data, said):
    assert pretrained.brief(data) == said


def test_a_programs_own_generator(tmp_path):
    model = Model(Tied(), Normal(3))
    folder = model.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    assert config["generator"] is None and config["prior"] is None
    assert "generator=MyGenerator()" in (folder / "README.md").read_text()
    for given, missing in (({}, "generator"), ({"generator": Tied()}, "prior")):
        with pytest.raises(ValueError, match=f"the {missing} was a program's own: give from_pretrained"):
            Model.from_pretrained(folder, **given)
    for load in (Model.from_pretrained, api.load):
        loaded = load(folder, generator=Tied(), prior=Normal(3), device="cpu")
        assert same(loaded.generator, model.generator) and torch.equal(loaded.sample(5), model.sample(5))


def test_a_program_may_bring_its_own_parts_to_a_known_config(folder):
    class Twice(Prior):
        def draw(self, n, generator):
            return 2 * Normal(3).draw(n, generator)

    assert type(Model.from_pretrained(folder, prior=Twice()).prior) is Twice
    with pytest.raises(ValueError, match="the weights do not fit Linear: weight is missing") as error:
        Model.from_pretrained(folder, generator=nn.Linear(3, 2))
    assert "\n" not in str(error.value)


def test_conditions_are_remembered(tmp_path):
    model = made(conditional=False)
    model.conditional = True  # the model is right, not the config
    folder = model.save_pretrained(tmp_path / "m")
    assert Model.from_pretrained(folder).conditional
    card = (folder / "README.md").read_text()
    assert "model.sample(64, seed=0, y=labels)" in card and "pipeline_tag" not in card


def test_only_such_a_folder_is_replaced(tmp_path, folder):
    (folder / "model.safetensors").unlink()  # as after a kill
    made(MLP).save_pretrained(folder)
    assert Model.from_pretrained(folder).sample(2).shape == (2, 2)
    (tmp_path / "empty").mkdir()
    made().save_pretrained(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    contents = {"run": "plan.json", "mine": "thesis.txt", "other": "config.json", "torn": "config.json"}
    for name, file in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{" if name == "torn" else '{"model_type": "bert"}')
    for name in ("file", *contents):
        with pytest.raises(ValueError, match="holds something else than a pretrained model") as error:
            made().save_pretrained(tmp_path / name)
        assert "\n" not in str(error.value)
        assert name == "file" or [p.name for p in (tmp_path / name).iterdir()] == [contents[name]]
    with pytest.raises(ValueError, match="cannot make"):
        made().save_pretrained(tmp_path / "file" / "below")


def test_a_config_that_is_no_json_writes_nothing(tmp_path):
    for wrong in (float("nan"), {1, 2}):
        with pytest.raises(ValueError, match="config is not JSON"):
            made(seed=wrong).save_pretrained(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def rewrite(**changes):
    def spoil(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def shorten(name, to):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to])


def unhashed(spoil):
    """The same with no SHA-256 to be noticed by."""
    return lambda folder: (spoil(folder), forget(folder))


def forget(folder):
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))


def flip(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


SPOILT = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "torn config": (shorten("config.json", 40), "config.json is not JSON"),
    "empty config": (shorten("config.json", 0), "config.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "does not describe a generator of organza"),
    "another's": (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "does not describe a generator"),
    "newer": (rewrite(format=2), "has format 2, this version reads 1"),
    "torn weights": (shorten("model.safetensors", -9), "does not match the SHA-256"),
    "flipped bit": (flip, "does not match the SHA-256"),
    "torn, no hash": (unhashed(shorten("model.safetensors", -9)), "model.safetensors is damaged"),
    "empty, no hash": (unhashed(shorten("model.safetensors", 0)), "model.safetensors is damaged"),
    "unknown kind": (rewrite(generator={**DCGAN, "kind": "Diffusion"}), "generator 'Diffusion' is unknown"),
    "no kind": (rewrite(generator={"latent": 3}), "generator None is unknown"),
    "not a part": (rewrite(generator="DCGANGenerator"), "generator 'DCGANGenerator' is unknown"),
    "kind no text": (rewrite(generator={"kind": ["MLPGenerator"]}), "is unknown"),
    "a private name": (rewrite(generator={"kind": "__import__"}), "is unknown"),
    "unknown prior": (rewrite(prior={"kind": "Cauchy", "dim": 3}), "prior 'Cauchy' is unknown"),
    "abstract prior": (rewrite(prior={"kind": "Prior"}), "prior 'Prior' is unknown"),
    "unknown argument": (rewrite(generator={**DCGAN, "colour": 3}), "DCGANGenerator cannot be made: .*colour"),
    "missing argument": (rewrite(prior={"kind": "Normal"}), "Normal cannot be made: .*dim"),
    "wrong argument": (rewrite(generator={**DCGAN, "shape": [1, 2, 2]}), "DCGANGenerator cannot be made: shape"),
    "wrong type": (rewrite(generator={**DCGAN, "width": "wide"}), "DCGANGenerator cannot be made"),
    "other weights": (rewrite(generator={**DCGAN, "width": 8}), "the weights do not fit"),
    "other network": (rewrite(generator=MLP), "the weights do not fit"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_folder_is_one_clear_line(folder, name):
    spoil, said = SPOILT[name]
    spoil(folder)
    with pytest.raises(ValueError, match=said) as error:
        Model.from_pretrained(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_changed_weights_with_no_hash_are_taken(folder):
    unhashed(flip)(folder)
    assert not same(Model.from_pretrained(folder).generator, made().generator)


def test_there_is_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no pretrained model at .*no config\.json"):
        Model.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="device='quantum'"):
        Model.from_pretrained(tmp_path / "nowhere", device="quantum")


def test_nothing_of_where_a_file_lay_is_passed_on(tmp_path):
    folder = made(data="/home/someone/secret/faces.npz").save_pretrained(tmp_path / "m")
    for name in ("config.json", "README.md"):
        text = (folder / name).read_text()
        assert "faces.npz" in text and "secret" not in text and str(tmp_path) not in text


def test_the_card(tmp_path):
    folder = made().save_pretrained(tmp_path / "my model")
    card = (folder / "README.md").read_text()
    front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.S).groups()
    keys = [line.split(":")[0] for line in front.splitlines() if not line.startswith("- ")]
    assert keys == ["library_name", "license", "tags", "pipeline_tag"]
    assert "library_name: organza\nlicense: other #" in front and "unconditional-image-generation" in front
    count = sum(p.numel() for p in made().generator.parameters())
    for said in (
        f"| parameters | {count:,} |",
        "| images shown to D | 90,240 |",
        "| objective | Scaled(NonSaturating) + Lazy(R1) |",
        "| prior of z | Normal(dim=3) |",
        "| recipe | quick |",
        "| data | digits |",
        "| seed | 7 |",
        "| makes | 1 x 8 x 8 (channels, height, width) |",
        "- A Paper (Author, 2016)",
        "## Intended use and limits",
        "organza sample 'my model'",
    ):
        assert said in body, said
    points = made(MLP, references=[], data="a|b").save_pretrained(tmp_path / "points") / "README.md"
    text = points.read_text()
    assert "pipeline_tag" not in text and "References" not in text and "| data | a\\|b |" in text


def test_the_code_in_the_card_runs(tmp_path, monkeypatch):
    folder = made().save_pretrained(tmp_path / "model")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert tuple(names["x"].shape) == (64, 1, 8, 8) and "# (64, 1, 8, 8), values in [-1, 1]" in code


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on points, and the model as it came out of it."""
    changes = {"generator.widths": [8], "discriminator.widths": [8], "training.batch": 32}
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, api.train("ring", "quick", run=path, images=64, seed=3, device="cpu", changes=changes)


def test_runs_know_what_they_are_made_of(run, tmp_path):
    path, model = run
    assert model.config["generator"]["kind"] == "MLPGenerator" and model.config["generator"]["widths"] == [8]
    assert (model.config["images"], model.config["seed"], model.config["recipe"]) == (64, 3, "quick")
    assert "(Mescheder, Geiger, Nowozin, 2018)" in model.config["references"][-1]
    assert api.load(path).config == model.config
    folder = api.load(path, device="cpu").save_pretrained(tmp_path / "m")
    loaded = api.load(folder, device="cpu")
    assert torch.equal(loaded.sample(9, seed=1), model.sample(9, seed=1)) and loaded.run is None
    assert loaded.config["objective"]["kind"] == "RelativisticLogistic"
    assert "| objective | RelativisticLogistic + R1 + R2 |" in (folder / "README.md").read_text()


def test_what_the_prior_has_learnt_goes_with_the_model(tmp_path):
    """From the run and passed on, the same components are drawn as often."""
    changes = {"prior.half_life": 50.0, "prior.after": 0, "generator.width": 4, "discriminator.width": 4}
    model = api.train("digits", "quick", run=tmp_path / "run", images=64, device="cpu", changes=changes)
    assert len(model.prior.weights) == 64 and max(len(str(weight)) for weight in model.prior.weights) <= 15
    assert api.load(tmp_path / "run", device="cpu").prior.weights == model.prior.weights
    assert api.game(tmp_path / "run", device="cpu").prior.weights == model.prior.weights
    folder = api.load(tmp_path / "run", device="cpu").save_pretrained(tmp_path / "model")
    loaded = api.load(folder, device="cpu")
    assert loaded.prior.weights == model.prior.weights
    assert torch.equal(loaded.sample(9, seed=1), model.sample(9, seed=1))
    assert "weights=..." in (folder / "README.md").read_text()
    assert re.search(r'\n    "weights": \[([\d.e-]+, ){63}[\d.e-]+\]', (folder / "config.json").read_text())


def test_a_run_that_was_stopped_goes_on_to_learn_the_same(tmp_path):
    changes = {"prior.half_life": 50.0, "prior.after": 32, "generator.width": 4, "discriminator.width": 4}
    whole = api.train("digits", "quick", run=tmp_path / "a", images=128, device="cpu", changes=changes)
    api.train(
        *("digits", "quick"),
        run=tmp_path / "b",
        images=128,
        device="cpu",
        changes=changes,
        watch=lambda state: state.images >= 64,
    )
    assert api.load(tmp_path / "b", device="cpu").prior.weights != whole.prior.weights
    assert api.resume(tmp_path / "b", device="cpu").prior.weights == whole.prior.weights


def test_what_a_prior_of_a_program_has_learnt_is_passed_on(tmp_path):
    model = made(prior=("Normal", 3))
    prior = Mixture(2, 1, weights=(0.25, 0.75))
    own = Model(model.generator, prior)
    folder = own.save_pretrained(tmp_path / "m")
    loaded = Model.from_pretrained(folder, made().generator, Mixture(2, 1), device="cpu")
    assert loaded.prior.weights == prior.weights and torch.equal(loaded.sample(9), own.sample(9))


def test_a_resumed_run_counts_on(run):
    path, _ = run
    assert api.resume(path, images=128, device="cpu").config["images"] == 128


def test_a_run_that_holds_such_files_is_still_a_run(run):
    path, model = run
    assert not pretrained.is_pretrained(path)
    model.save_pretrained(Path(path) / "model")
    assert pretrained.is_pretrained(path / "model") and not pretrained.is_pretrained(path)
    assert api.load(path).run == path and api.load(path / "model").run is None


def test_a_config_that_asks_for_too_much_allocates_nothing(tmp_path):
    """A stranger's widths of a million: refused by the weights' shapes, before any memory is taken."""

    folder = tmp_path / "model"
    part = {"kind": "MLPGenerator", "latent": 4, "shape": [2], "widths": [8], "output": "linear"}
    made = Model(
        MLPGenerator(4, (2,), (8,), output="linear"),
        Normal(4),
        config={"generator": part, "prior": {"kind": "Normal", "dim": 4}},
    )
    made.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["generator"]["widths"] = [1_000_000, 1_000_000]  # 4 TB of weights
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the weights do not fit"):
        Model.from_pretrained(folder)


def test_weights_that_do_not_fit_are_named():
    given, wanted = nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 4), *(nn.Linear(1, 1) for _ in range(3)))
    with pytest.raises(ValueError) as caught:
        pretrained.fill(wanted, {f"0.{n}": w for n, w in given.state_dict().items()} | {"a": torch.zeros(1)}, "RUN")
    assert str(caught.value) == (
        "RUN: the weights do not fit Sequential: 0.weight is (3, 2), not (4, 2), 0.bias is (3,), not (4,), "
        "1.weight is missing, 1.bias is missing, 2.weight is missing, a is unknown, and 3 more"
    )


def test_a_buffer_that_takes_any_shape_is_not_named():
    game = nn.ModuleDict({"G": nn.Linear(1, 1), "pool": ImagePool(2)})
    given = game.state_dict() | {"pool.fakes": torch.zeros(2, 3), "G.bias": torch.zeros(2)}
    with pytest.raises(ValueError) as caught:
        pretrained.fill(game, given, "RUN")
    assert str(caught.value) == "RUN: the weights do not fit ModuleDict: G.bias is (2,), not (1,)"


def test_weights_that_fit_are_copied_or_kept():
    given, one, other = (nn.Linear(2, 3) for _ in range(3))
    pretrained.fill(one, given.state_dict(), "RUN")
    pretrained.fill(other, given.state_dict(), "RUN", assign=True)
    assert torch.equal(one.weight, given.weight) and one.weight.data_ptr() != given.weight.data_ptr()
    assert other.weight.data_ptr() == given.weight.data_ptr()
