"""The report's scores: every number with its protocol, error, floor and meaning, whatever scores.json holds."""

import base64
import json
import math
import re
import typing
from dataclasses import replace

import numpy as np
import pytest
from test_report import EVIL, Page, decoded, make, record

from organza import picture, report
from organza.metrics.catalogue import KEYS
from organza.metrics.memorisation import Memorisation
from organza.metrics.score import Protocol, Score
from organza.report import pictures, scores

WEIGHTS = "0123456789abcdef" * 4
PROTOCOL = Protocol(*("", "digits", WEIGHTS, "none", "uint8", "digits", "f" * 64, "test"), 1797, 5000, 3, "0.3", "2.13")
COUNTS = {"verdict": "no sign of it", "p_value": 0.43, "median_distance": 5.1, "median_distance_held_out": 4.9}
TEN = {"shares": [0.2, 0.0, *[0.1] * 8], "real_shares": [0.1] * 10, "divergence": 0.123, "divergence_floor": 0.0009}


def score(key, value, settings="", images=10_000, protocol=PROTOCOL, **more):
    best = more.pop("best", KEYS[key][1] if key in KEYS else "low")
    metric = f"{key}, {settings}" if settings else key
    return Score(key, more.pop("name", key), value, replace(protocol, metric=metric), best=best, images=images, **more)


def four(**more):
    """Precision, recall, density and coverage of samples that are good and few."""
    floors = {"precision": 0.81, "recall": 0.79, "density": 1.02, "coverage": 0.95}
    values = {"precision": 0.91, "recall": 0.25, "density": 1.37, "coverage": 0.44}
    errors = {"precision": 0.013, "recall": 0.014, "density": None, "coverage": 0.015}
    return [score(key, values[key], "k = 3", floor=floors[key], error=errors[key], **more) for key in values]


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run", records=[{"images": 10_000}], samples=(1000,))  # no curves, to be fast


def page(run, found):
    text = found if isinstance(found, str) else json.dumps([each.json() for each in found])
    (run.path / "scores.json").write_text(text, encoding="utf-8")
    return Page(report.write(run))


def part(page):
    """The HTML of the section."""
    return page.html.split("<h2>Scores</h2>")[1].split("<h2>Curves</h2>")[0]


def beside(run, size=(64, 64)):
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    picture.save(pixels, run.path / "evaluation" / "nearest.png")
    return pixels


def test_no_file_no_section(run):
    beside(run)
    page = Page(report.write(run))
    assert "<h2>Scores" not in page.html and "Nearest" not in page.text and not page.all("caption")
    assert page.html.index('class="pictures"') < page.html.index("<h2>Curves")


def test_the_section_stands_between_the_pictures_and_the_curves(run):
    html = page(run, [score("frechet", 31.4)]).html
    assert html.index('class="pictures"') < html.index("<h2>Scores") < html.index("<h2>Curves")


def test_a_row_holds_value_error_floor_direction_and_meaning(run):
    of = "standard deviation over 100 subsets"
    found = score("kernel", 0.0123456, "degree 3", name="KD-digits", error=0.000987, error_of=of, floor=-0.0000321)
    text = " ".join(page(run, [found]).text.split())
    assert "KD-digits0.01235 ± 0.00099 −3.21e−05lower is better" in text
    assert f"{scores.MEANINGS['kernel']} ± is the {of}." in text
    assert "higher is better" in page(run, [score("recall", 0.5)]).text
    assert "nearer to the floor is better" in page(run, [score("density", 0.5)]).text


def test_every_number_of_the_catalogue_has_a_meaning_of_one_sentence():
    assert scores.MEANINGS.keys() == KEYS.keys()
    assert all(re.fullmatch(r"[A-Z][^.]*(\d\.\d[^.]*)*\.", words) for words in scores.MEANINGS.values())


def test_the_caption_tells_the_protocol_and_the_details_all_of_it(run):
    html = part(page(run, [score("frechet", 31.4)]))
    caption = re.search("<caption>(.*?)</caption>", html)[1]
    for words in (
        "5,000 samples",
        "1,797 real examples",
        "digits (split: test)",
        "features digits",
        "weights 01234567)",
    ):
        assert words in caption, words
    assert "resize: none, rounding: uint8" in caption and "seed 3, organza 0.3, torch 2.13" in caption
    assert WEIGHTS not in caption and f"weights: {WEIGHTS}" in html and f"digest: {'f' * 64}" in html
    pixels = replace(PROTOCOL, features="pixels", weights="")
    assert (
        "weights" not in re.search("<caption>(.*?)</caption>", part(page(run, [score("cas", 0.5, protocol=pixels)])))[1]
    )


@pytest.mark.parametrize(
    "change", [{"n_fake": 300}, {"features": "random"}, {"digest": "e" * 64}, {"seed": 4}, {"torch": "2.14"}]
)
def test_two_protocols_stand_apart_and_one_together(run, change):
    other = replace(PROTOCOL, **change)
    html = part(page(run, [score("frechet", 1), score("recall", 2, "k = 3"), score("frechet", 3, protocol=other)]))
    tables = html.split("</table>")[:-1]
    assert [table.count("<tbody>") for table in tables] == [2, 1] and html.count("<caption>") == 2


def test_flags_stand_below_their_row_or_once_if_all_have_them(run):
    both, mine = "300 samples are few", "class 7 has no sample"
    found = [score("frechet", 1, flags=(both,)), score("class-entropy", 2, flags=(mine, both))]
    html = part(page(run, found))
    assert html.count(both) == html.count(mine) == 1
    assert both in html.split("</caption>")[0] and mine in html.split("</thead>")[1].split("</tbody>")[1]
    alone = part(page(run, found[:1]))
    assert both in alone.split("</thead>")[1] and 'class="flag"' in alone


def test_scores_of_another_time_say_so_and_come_after_the_newest(run):
    found = [score("frechet", 1, images=4000), score("frechet", 2), score("recall", 3, images=None)]
    html = part(page(run, found))
    newest, older, unknown = html.split("<caption>")[1:]
    assert "Measured at 4,000 images; the run has reached 10,000." in older
    assert "<b>2</b>" in newest and "<b>3</b>" in unknown
    assert "Measured" not in newest + unknown and html.count("<table") == 3


def test_few_classes_are_bars_and_many_are_lines(run):
    bars = page(run, [score("class-entropy", 2.1, details=TEN)])
    html = part(bars)
    assert html.count("fill: var(--g)") == html.count("fill: var(--real)") == 10
    assert "9 of 10 classes" in html and "10 of 10 classes" in html and scores.CLASSES in html
    assert "0.123 nats, where chance alone gives 0.0009." in html
    assert re.findall(r">(\d)</text>", html) == [str(k) for k in range(10)]
    shares, wanted = np.random.default_rng(0).dirichlet(np.ones(1000), 2).tolist()
    details = {"shares": shares, "real_shares": wanted}
    html = part(page(run, [score("class-entropy", 2.1, details=details)]))
    assert "fill: var(--g)" not in html and scores.RANKED in html and "nats" not in html
    lines = [d for d in re.findall(r'd="(M[^"]*)"[^>]*stroke: var\(--(?:g|real)\)', html) if d.count("L") > 50]
    assert len(lines) == 2


def test_bars_are_as_high_as_shares(run):
    html = part(page(run, [score("class-entropy", 2.1, details=TEN)]))
    drawn = re.findall(r'<path d="([^"]*)"[^>]*fill: var\(--g\)', html)
    heights = [np.ptp([float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]) for path in drawn]
    assert np.allclose(np.array(heights) / sum(heights), TEN["shares"], atol=1e-4)


def dots(html):
    """Where the dots and the rings of the plane lie, from 0 to 1."""
    drawing = html.split("Fidelity and variety")[1].split("</svg>")[0]
    marks = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="([^"]*)"', drawing)
    side = 72 * 3.4
    left, bottom, width, height = 0.15, 0.14, 0.82, 0.83
    found = {}
    for x, y, style in marks:
        place = (float(x) / side - left) / width, (1 - float(y) / side - bottom) / height
        found.setdefault("ring" if "fill: none" in style or "fill-opacity: 0" in style else "dot", []).append(place)
    return found


def test_the_plane_has_a_dot_a_ring_and_errors(run):
    html = part(page(run, four()))
    for words in ("0.25, 0.91", "ring 0.79, 0.81", "0.44, 1.37", "ring 0.95, 1<", scores.UP_AND_RIGHT, scores.RINGS):
        assert words in html, words
    found = dots(html)
    assert np.allclose(sorted(found["dot"]), [(0.25, 0.91), (0.44, 1.0)], atol=1e-3)  # a density above 1 is drawn at 1
    assert np.allclose(sorted(found["ring"]), [(0.79, 0.81), (0.95, 1.0)], atol=1e-3)
    drawing = html.split("Fidelity and variety")[1].split("</svg>")[0]
    bars = re.findall(r'<path d="M (\S+) (\S+) \nL (\S+) (\S+) \n"[^>]*stroke-width: 1.2', drawing)
    sizes = sorted(math.dist((float(a), float(b)), (float(c), float(d))) / 72 / 3.4 / 0.825 / 2 for a, b, c, d in bars)
    assert np.allclose(sizes, [0.013, 0.014, 0.015], rtol=0.02)  # density has no error


def test_the_plane_without_floors_or_partners(run):
    bare = [replace(each, floor=None) for each in four()]
    html = part(page(run, bare))
    assert "ring" not in html.split("Fidelity")[1].split("<svg")[0] and scores.RINGS not in html
    assert "Fidelity" in part(page(run, bare[:2])) and "Fidelity" not in part(page(run, bare[:1]))
    assert "Fidelity" not in part(page(run, [replace(bare[0], value=math.nan), bare[1]]))


def test_the_nearest_training_images_are_shown_with_the_verdict(run):
    pixels = beside(run)
    shown = page(run, [score("memorised", 0.0, details=COUNTS)])
    html = part(shown)
    assert "Verdict: there is no sign that G copies training examples." in html and "probability 0.43" in html
    assert "5.1 for samples and 4.9 for held-out" in html and scores.NEAREST in html
    assert np.array_equal(np.asarray(decoded(shown.all("img")[-1]["src"])), pixels)
    (run.path / "evaluation" / "nearest.png").write_bytes(b"half a pic")
    html = part(page(run, [score("memorised", 0.0, details=COUNTS)]))
    assert "Verdict" in html and "<img" not in html
    beside(run)
    html = part(page(run, [score("frechet", 1)]))
    assert "Verdict" not in html and "<img" in html


def test_every_verdict_has_words():
    verdicts = typing.get_args(typing.get_type_hints(Memorisation)["verdict"])
    assert set(verdicts) == scores.VERDICTS.keys()


def test_a_large_picture_is_made_smaller(run, monkeypatch):
    beside(run, (200, 300))
    monkeypatch.setattr(pictures, "NEAREST_BYTES", 20_000)
    image = page(run, [score("memorised", 0.0)]).all("img")[-1]
    assert 10_000 < len(base64.b64decode(image["src"].split(",")[1])) <= 20_000


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "null", "5", "{}", '"text"', "[]", "[5, null]", "\x00", '[{"key": "frechet"}]',
        json.dumps([score("frechet", 1).json() | {"protocol": {}}]),
        json.dumps([score("frechet", 1).json() | {"details": 3}]),
        json.dumps([score("frechet", 1).json() | {"images": "many"}]),
        json.dumps([score("frechet", 1).json() | {"name": None}]),
        json.dumps([score("frechet", 1).json() | {"best": []}]),
        json.dumps([score("precision", 1, error=-1.0).json(), score("recall", 1, error=-1.0).json()]),
    ],
)  # fmt: skip
def test_a_damaged_file_does_not_prevent_the_report(run, text):
    found = page(run, text)
    assert scores.UNREADABLE in found.text and "The plan" in found.text and not found.all("caption")


def test_bytes_that_are_no_text_do_not_prevent_the_report(run):
    (run.path / "scores.json").write_bytes(b"\xff\xfe\xff")
    assert scores.UNREADABLE in Page(report.write(run)).text


def test_scores_of_other_versions_are_left_out(run):
    old = score("recall", 0.77).json()
    del old["protocol"]["rounding"]
    html = part(page(run, json.dumps([old, score("frechet", 31.4).json()])))
    assert "31.4" in html and "0.77" not in html and html.count("<tbody>") == 1


@pytest.mark.parametrize(
    "details",
    [
        {"shares": [], "real_shares": []}, {"shares": [0.5], "real_shares": [0.5, 0.5]}, {"shares": "abc"},
        {"shares": [[1]], "real_shares": [[1]]}, {"shares": [math.nan], "real_shares": [1]}, {"shares": None}, {},
    ],
)  # fmt: skip
def test_details_that_are_not_as_they_should_be_are_not_drawn(run, details):
    odd = {"verdict": ["x"], "p_value": "small", "median_distance": None, "median_distance_held_out": math.inf}
    html = part(page(run, [score("class-entropy", 2, details=details), score("memorised", 0, details=odd)]))
    assert html.count("<tbody>") == 2 and "<svg" not in html and "probability" not in html and "median" not in html


def test_what_is_not_finite_is_said(run):
    found = four()
    found[0] = replace(found[0], value=math.nan, error=math.inf, floor=-math.inf)
    html = part(page(run, [*found, score("frechet", math.inf)]))
    assert html.count("not finite") == 4
    assert "nan" not in html.lower()


def test_everything_is_escaped(run):
    strings = {name: EVIL for name, kind in Protocol.__annotations__.items() if kind == "str"}
    bad = replace(PROTOCOL, **strings)
    details = TEN | {"verdict": EVIL}
    found = [
        Score(key, EVIL, 1, bad, 1, EVIL, 1, "low", (EVIL,), details) for key in (EVIL, "class-entropy", "memorised")
    ]
    shown = page(run, [*found, *[replace(each, name=EVIL, protocol=bad) for each in four()]])
    assert not shown.all("script") and len(shown.all("title")) == 1
    assert shown.text.count(EVIL) > 50 and f"Verdict: {EVIL}." in shown.text
    assert len(shown.all("details")) == 1 + len(found) + 4


def test_the_page_stays_whole_and_the_same_with_scores(tmp_path):
    run = make(tmp_path / "run")
    beside(run)
    found = [*four(), score("class-entropy", 2, details=TEN), score("memorised", 0, details=COUNTS)]
    found += [replace(each, protocol=replace(each.protocol, n_fake=300)) for each in found]
    shown = page(run, found)
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and len(shown.all("svg")) == 4 + 4
    uses = [attributes["xlink:href"] for attributes in shown.all("use")]
    assert {use[1:] for use in uses} <= set(ids)
    assert not re.search(r"#0\dfe0\d|https?:", shown.html)
    assert set(re.findall(r"var\((--\w+)\)", shown.html)) <= set(re.findall(r"(--\w+):", shown.style))
    assert report.write(run).read_text("utf-8") == shown.html


def test_many_scores_stay_below_the_budget(run):
    beside(run, (900, 900))
    rng = np.random.default_rng(0)
    found = []
    for seed in range(30):
        details = {
            "shares": rng.dirichlet(np.ones(1000)).tolist(),
            "real_shares": rng.dirichlet(np.ones(1000)).tolist(),
        }
        protocol = replace(PROTOCOL, seed=seed)
        found += [*four(protocol=protocol), score("class-entropy", 2, protocol=protocol, details=details)]
    shown = page(run, found)
    html = part(shown)
    assert html.count("<table") == scores.GROUPS and f"{5 * (30 - scores.GROUPS)} older scores" in html
    assert "seed 29" in html and "seed 3," not in html
    assert len(html) < 4 / 3 * pictures.NEAREST_BYTES + 3e5


def test_nothing_is_wider_than_a_phone(run):
    """Tables scroll in their own box, drawings and pictures shrink, and no width is a number of pixels."""
    beside(run)
    found = [*four(), score("class-entropy", 2, details=TEN), score("memorised", 0, details=COUNTS)]
    shown = page(run, found)
    html = part(shown)
    assert html.count('<div class="scroll"><table') == html.count("<table")
    assert ".scroll{overflow-x:auto" in shown.style and "img{display:block;max-width:100%" in shown.style
    assert not re.search(r"<(?!img|path|use|rect|g|text|defs)\w+[^>]*\bwidth=", html) and "min-width:0" in shown.style
    assert not re.search(r"(?<!max-)(?<!min-)width:\s*[\d.]+(px|rem|em)", re.sub(r"\.keys i{[^}]*}", "", shown.style))
    assert "white-space:nowrap" not in shown.style


def test_scores_by_the_way_say_which_way_is_better(tmp_path):
    records = [record(1000), {"images": 1000, "frechet": 31.5, "recall": 0.5, "mine": 2.0}, record(2000)]
    html = report.write(make(tmp_path / "run", records=records)).read_text("utf-8")
    charts = {text.split(" <small>")[0]: text for text in html.split("<h3>")}
    assert (
        "measured on the way: lower is better" in charts["frechet"] and scores.MEANINGS["frechet"] in charts["frechet"]
    )
    assert "measured on the way: higher is better" in charts["recall"]
    assert "measured on the way<" in charts["mine"]
