"""The report: one page that is whole, safe and the same each time, whatever the run folder holds."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from organza import picture, report
from organza.report import curves, pictures
from organza.run import Run

VOID = {"meta", "link", "img", "br"}
EQUILIBRIUM = {
    "discriminator/objective": 2 * math.log(2),
    "generator/objective": math.log(2),
    "discriminator/real_score": 0.5,
    "discriminator/fake_score": 0.5,
}
PLAN = {
    "generator": {"kind": "DCGANGenerator", "latent": 64, "shape": [1, 16, 16], "norm": True},
    "discriminator": {"kind": "DCGANDiscriminator", "shape": [1, 16, 16]},
    "prior": {"kind": "Normal", "dim": 64},
    "objective": {"kind": "NonSaturating", "smoothing": 1.0},
    "training": {
        "kind": "Training",
        "images": 100_000,
        "batch": 64,
        "moves": {"kind": "Alternating", "k": 1, "fresh_noise": True},
        "generator_optimizer": {
            "kind": "Adam",
            "lr": {"kind": "Linear", "start": 0.001, "end": 0.0001, "images": 100_000},
            "beta1": 0.0,
            "beta2": 0.99,
        },
        "discriminator_optimizer": {"kind": "Adam", "lr": 0.002, "beta1": 0.5, "beta2": 0.999},
        "half_life": 5000.0,
        "seed": 7,
        "log_every": 2000,
    },
    "terms": [{"kind": "R1", "weight": 1.0}, {"kind": "R2", "weight": 0.5}],
    "augment": None,
    "constraints": [],
    "conditional": False,
    "recipe": "quick",
    "data": "digits",
}


class Page(HTMLParser):
    """A parsed page: checks that tags are balanced, and keeps what the tests ask for."""

    def __init__(self, path):
        super().__init__()
        self.html, self.stack, self.tags, self.text, self.style = path.read_text("utf-8"), [], [], "", ""
        self.feed(self.html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "style":
            self.style += data
        else:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def dashes(self):
        return [a["style"] for a in self.all("path") if "stroke-dasharray" in a.get("style", "")]


def record(images, logits=0.0, **more):
    return {
        "images": images,
        "steps": images // 128,
        "time": 1.7e9 + images / 500,
        "discriminator/real_logits": logits + 0.1,
        "discriminator/real_score": 1 / (1 + math.exp(-logits - 0.1)),
        "discriminator/fake_logits": -logits,
        "discriminator/fake_score": 1 / (1 + math.exp(logits)),
        "discriminator/objective": 1.3,
        "generator/objective": 0.8,
        **more,
    }


def make(path, plan=PLAN, records=10, samples=(0, 1000, 2000), side=30):
    run = Run.create(path, plan)
    chance = np.random.default_rng(0)
    if isinstance(records, int):
        records = [record(1000 * i, **{"discriminator/R1": 0.1 / i}) for i in range(1, records + 1)]
    for each in records:
        run.log(each)
    for images in samples:
        picture.save(chance.integers(0, 256, (side, side), dtype=np.uint8), run.path / "samples" / f"{images}.png")
    return run


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run")


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1], validate=True)))


def test_the_page_is_whole_and_asks_for_nothing(run):
    path = report.write(run, EQUILIBRIUM)
    page = Page(path)
    assert path == run.path / "report.html" and page.html.startswith("<!doctype html>")
    assert len(page.all("title")) == len(page.all("h1")) == 1 and not page.all("script")
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page.style and "@import" not in page.style
    assert all(use in {a.get("id") for _, a in page.tags} for use in re.findall(r"url\(#(\w+)\)", page.html))
    assert "http:" not in page.html and "https:" not in page.html
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert not re.search(r"#0\dfe0\d", page.html)  # every colour is one of the page's
    assert set(re.findall(r"var\((--\w+)\)", page.html)) <= set(re.findall(r"(--\w+):", page.style))


def test_the_page_says_what_was_done(run):
    text = Page(report.write(run, EQUILIBRIUM)).text
    for words in [
        "quick on digits", "10,000 of 100,000 images", "trained for 0:00:20", "500 images a second",
        "Losses", "What D says", "chance of being real", "Penalties and other terms", "Speed",
        "DCGANGenerator (latent 64, shape (1, 16, 16), norm yes)", "R1 (weight 1), R2 (weight 0.5)",
        "lr 0.001 → 0.0001 over 100,000 images (linear), beta1 0, beta2 0.99", "Seed", '"log_every": 2000',
        f"organza sample {run.path} -n 64 --seed 1", f"organza resume {run.path}\n", f"organza.load('{run.path}')",
    ]:  # fmt: skip
        assert words in text, words
    assert text.index("quick on") < text.index("Losses") < text.index("Prior of z") < text.index("organza sample")


def test_pictures_are_the_newest_grid_and_the_film(run):
    page = Page(report.write(run))
    still, film = (decoded(image["src"]) for image in page.all("img"))
    with Image.open(run.path / "samples" / "2000.png") as newest:
        assert np.array_equal(np.asarray(still), np.asarray(newest))
    assert film.n_frames == 3 and film.size == (30, 30)
    uri = "data:image/gif;base64," + base64.b64encode((run.path / "progress.gif").read_bytes()).decode()
    assert page.all("img")[1]["src"] == uri
    assert [figure.get("class") for figure in page.all("figure")][:2] == [None, "film"]  # the grid stays without motion
    assert "@media(prefers-reduced-motion:reduce){.film{display:none}}" in page.style
    assert all(int(image["width"]) % 30 == 0 and image["class"] == "small" for image in page.all("img"))


def test_equilibrium_is_dashed_where_it_is_known(run):
    page = Page(report.write(run, EQUILIBRIUM))
    assert len(page.dashes) == 4 and page.text.count("Dashed:") == 2
    assert [any(f"var(--{name})" in style for style in page.dashes) for name in ("d", "g", "ink")] == [True] * 3
    assert "dashed 1.39" in page.text and page.text.count("dashed 0.5") == 2
    page = Page(report.write(run))
    assert page.dashes == [] and "Dashed" not in page.text and " dashed " not in page.text
    page = Page(report.write(run, {"generator/objective": 0.693, "nobody/knows": 3.0}))
    assert len(page.dashes) == 1


def test_scores_that_are_logits_are_not_called_chances(tmp_path):
    inside = record(1000) | {"discriminator/real_logits": 0.4, "discriminator/real_score": 0.4}
    outside = record(1000) | {"discriminator/real_score": 1.4}
    for i, each in enumerate((inside, outside)):
        text = Page(report.write(make(tmp_path / str(i), records=[each]))).text
        assert "logits: more is more real" in text and "chance" not in text


def test_a_measure_has_a_chart_of_its_own_and_a_score_needs_no_clock(tmp_path):
    records = [record(1000), {"images": 1000, "steps": 10, "frechet": 31.5, "note": "text", "flags": [1]}, record(2000)]
    text = Page(report.write(make(tmp_path / "run", records=records))).text
    assert "frechet" in text and "31.5" in text and "flags" not in text
    many = [record(1000, **{f"m{i}": i for i in range(40)})]
    page = Page(report.write(make(tmp_path / "many", records=many)))
    assert "28 more columns are in log.jsonl" in page.text and len(page.all("svg")) == 14


def test_pauses_are_no_training(tmp_path):
    records = [record(1000 * i) for i in range(1, 9)]
    for each in records[4:]:
        each["time"] += 86_400  # stopped for a day
    assert "trained for 0:00:16" in Page(report.write(make(tmp_path / "run", records=records))).text


EVIL = "</script><script>alert('&\"x</title></details></pre>"


def test_everything_is_escaped(tmp_path):
    plan = json.loads(json.dumps(PLAN))
    plan["recipe"] = plan["data"] = plan["generator"]["kind"] = plan["training"]["moves"][EVIL] = EVIL
    plan[EVIL] = {EVIL: [EVIL]}
    records = [record(1000, **{EVIL: 1.0, f"discriminator/{EVIL}": 2.0, f"generator/{EVIL}": 3.0})]
    run = make(tmp_path / "<script>alert('&\"x", plan, records)
    page = Page(report.write(run))
    assert not page.all("script") and len(page.all("title")) == len(page.all("details")) == 1
    assert f"{EVIL} on {EVIL}" in page.text and f"D’s {EVIL}" in page.text and "<script>alert('&\"x" in page.text
    assert json.loads(page.text.split("All of plan.json")[1].split("What next")[0]) == plan


@pytest.mark.parametrize(
    ("lr", "data", "said"),
    [
        (0.001, "digits", "organza resume {run} --images 20000"),
        (
            {"kind": "Linear", "start": 1.0, "end": 0.1, "images": 5000, "hold": 5000},
            "a b",
            "organza train 'a b' --recipe",
        ),
        (
            {"kind": "Linear", "start": 1.0, "end": 0.1, "images": 10_000},
            "array",
            "organza.train(x, 'quick', images=20000)",
        ),
        ({"kind": "Linear", "start": 1.0, "end": 0.0, "images": 5000}, "digits", "organza train digits --recipe quick"),
        ({"kind": "Linear", "start": 1.0, "end": 0.1, "images": 5000}, "digits", "organza resume {run} --images 20000"),
        (
            {"kind": "Linear", "start": 1.0, "end": 0.0, "images": 50_000},
            "digits",
            "organza resume {run} --images 20000",
        ),
        ({"kind": "Exponential", "start": 1.0, "factor": 0.5, "per": 100}, "digits", "organza resume {run} --images"),
    ],
)
def test_what_is_next_after_the_end_depends_on_the_learning_rate(tmp_path, lr, data, said):
    plan = json.loads(json.dumps(PLAN))
    plan["training"]["images"], plan["data"] = 10_000, data
    plan["training"]["generator_optimizer"]["lr"] = lr
    text = Page(report.write(make(tmp_path / "run", plan))).text
    assert said.format(run=tmp_path / "run") in text and text.count("--images") + text.count("images=2") == 1


def test_a_path_with_spaces_is_quoted(tmp_path):
    text = Page(report.write(make(tmp_path / "my run", samples=()))).text
    assert f"organza resume '{tmp_path}/my run'" in text.replace("\\", "/")


@pytest.mark.parametrize(
    "plan",
    [
        {"python": {"game": {"generator": "MyG", "prior": "Normal"}, "training": {"images": "5000"}}, "data": "mine"},
        {"python": {"game": "MyGame"}, "data": ["a", 1]},
        {"python": True, "data": {"kind": "ring", "modes": 8}},
        {},
    ],
)
def test_a_run_of_any_plan(tmp_path, plan):
    run = make(tmp_path / "run", plan, records=2)
    text = Page(report.write(run, EQUILIBRIUM)).text
    assert ("generator=MyGenerator()" in text) == ("organza.fit(game" in text) == ("python" in plan)
    assert ("organza resume" in text) == ("python" not in plan)
    if plan.get("data") == "mine":
        assert "Your own game on mine" in text and "MyG" in text and "2,000 of 5,000 images" in text


def test_a_picture_too_large_to_be_read_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    page = Page(report.write(make(tmp_path / "run", records=2, samples=(0,)), EQUILIBRIUM))
    assert "no pictures" in page.text and not page.all("img")


def test_an_empty_run(tmp_path):
    page = Page(report.write(make(tmp_path / "run", records=0, samples=()), EQUILIBRIUM))
    assert "no curves" in page.text and "no pictures" in page.text and "0 of 100,000 images" in page.text
    assert not page.all("img") and not page.all("svg") and not (tmp_path / "run" / "progress.gif").exists()


def test_one_record_and_one_picture(tmp_path):
    page = Page(report.write(make(tmp_path / "run", records=1, samples=(0,)), EQUILIBRIUM))
    assert len(page.all("img")) == 1 and not (tmp_path / "run" / "progress.gif").exists()
    assert len(page.all("svg")) == 3 and "Speed" not in page.text
    assert len(page.all("use")) >= 5  # single points are dots
    Page(report.write(make(tmp_path / "zero", records=[record(0)]), EQUILIBRIUM))


def test_what_is_not_finite_leaves_a_gap(tmp_path):
    nan = {"generator/objective": math.nan, "discriminator/objective": math.inf, "discriminator/R1": -math.inf}
    records = [record(1000 * i) | (nan if i in (40, 41) else {}) for i in range(1, 60)]
    page = Page(report.write(make(tmp_path / "run", records=records), EQUILIBRIUM))
    assert page.text.count("not finite at 40,000 images") == 2
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page.html.lower())
    gaps = [a["d"].count("M") for a in page.all("path") if "stroke-width: 1.5" in a.get("style", "")]
    assert gaps.count(2) == 2
    records = [record(1000) | {"generator/objective": math.nan, "discriminator/objective": math.nan}]
    assert "Losses" not in Page(report.write(make(tmp_path / "all", records=records))).text


def test_samples_that_are_no_pictures_or_of_another_size(run):
    folder = run.path / "samples"
    (folder / "3000.png").write_bytes(b"half a pic")
    picture.save(np.zeros((9, 9), np.uint8), folder / "500.png")
    picture.save(np.zeros((9, 9), np.uint8), folder / "notes.png")
    page = Page(report.write(run))
    assert "after 2,000 images" in page.text
    assert decoded(page.all("img")[1]["src"]).n_frames == 3


def test_lines_are_thinned_with_every_peak():
    images = np.arange(20_000.0)
    values = np.sin(images)
    values[[7_777, 15_555]] = 50.0, -50.0
    x, y = curves._thin(images, values)
    assert len(x) <= 1000 and x[0] == 0 and x[-1] == 19_999 and (np.diff(x) > 0).all()
    assert {7_777, 15_555} <= set(x) and np.array_equal(values[x.astype(int)], y)
    values[3_000:3_500] = np.nan
    assert np.isnan(curves._thin(images, values)[1]).any()


def test_the_page_stays_small(tmp_path, monkeypatch):
    """Thousands of records leave room for the pictures' budgets, and noise, which nothing compresses, keeps those."""
    lines = [json.dumps(record(100 * i, math.sin(i), **{"discriminator/R1": math.cos(i)})) for i in range(1, 6001)]
    run = make(tmp_path / "run", records=0, samples=())
    (run.path / "log.jsonl").write_text("\n".join(lines) + "\n")
    size = report.write(run, EQUILIBRIUM).stat().st_size
    assert size + 4 / 3 * (pictures.GRID_BYTES + pictures.FILM_BYTES + pictures.NEAREST_BYTES) < 3e6
    run = make(tmp_path / "noise", records=0, samples=range(30), side=90)
    for grid, film, least in ((5_000, 200_000, 12), (3_000, 100_000, 12), (10_000, 400_000, 30)):
        monkeypatch.setattr(pictures, "GRID_BYTES", grid)
        monkeypatch.setattr(pictures, "FILM_BYTES", film)
        images = [base64.b64decode(image["src"].split(",")[1]) for image in Page(report.write(run)).all("img")]
        assert 0.5 * grid < len(images[0]) <= grid or grid == 10_000
        assert len(images[1]) <= film
        with Image.open(io.BytesIO(images[1])) as frames:
            assert frames.n_frames >= least and (frames.width == 90) == (film > 100_000)


def test_large_pictures_are_scaled_smoothly(tmp_path):
    page = Page(report.write(make(tmp_path / "run", records=0, side=600)))
    still, film = page.all("img")
    assert still["class"] == "" and decoded(still["src"]).size == (600, 600)  # pixels would be lost on a phone
    assert decoded(film["src"]).size == (512, 512)


def test_pictures_never_grow_and_frames_are_few(tmp_path):
    run = make(tmp_path / "run", samples=range(100), side=20)
    film = decoded(Page(report.write(run)).all("img")[1]["src"])
    assert film.size == (20, 20) and film.n_frames == 40


def test_the_same_folder_gives_the_same_bytes(run):
    import matplotlib

    first, film = report.write(run, EQUILIBRIUM).read_bytes(), (run.path / "progress.gif").read_bytes()
    with matplotlib.rc_context({"figure.facecolor": "red", "axes.grid": True, "font.size": 30, "svg.hashsalt": None}):
        assert report.write(run, EQUILIBRIUM).read_bytes() == first
        assert matplotlib.rcParams["font.size"] == 30
    assert (run.path / "progress.gif").read_bytes() == film


def test_a_write_that_fails_leaves_the_old_page(run, monkeypatch):
    old = report.write(run).read_bytes()
    run.log(record(11_000))

    def fail(*args):
        raise OSError("full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        report.write(run)
    assert (run.path / "report.html").read_bytes() == old


def test_verdicts_and_gradients_have_charts_of_their_own(tmp_path):
    more = {"discriminator/real_accuracy": 0.8, "discriminator/fake_accuracy": 0.7}
    more |= {"discriminator/gradient": 2.0, "generator/gradient": 0.3}
    make(tmp_path, records=0)
    for images in (1000, 2000):
        Run(tmp_path).log(record(images, **more))
    page = report.write(Run(tmp_path)).read_text(encoding="utf-8")
    right, slopes = page.split("<h3>D is right")[1].split("<h3>")[:2]
    assert "<b>0.8</b> <small>dashed 0.5" in right and "<b>0.7</b>" in right
    assert slopes.startswith("Gradients") and "<b>2</b>" in slopes and "<b>0.3</b>" in slopes
    assert "accuracy" not in page.split("<h2>The plan")[0] and "G’s gradient</" not in page
