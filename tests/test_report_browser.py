"""The report in a real browser: no error on its console, nothing asked of others, nothing wider than a phone.

Skipped where there is no Chromium.
"""

import re
import shutil
import subprocess
from html import escape

import pytest

import organza as oz
from organza import api

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
CSP = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
# A window is at least 500 pixels wide; a frame may be narrower.
FRAME = """<iframe style="width:{width}px;border:0" srcdoc="{page}" onload="
document.documentElement.dataset.w{width} = this.contentDocument.documentElement.scrollWidth"></iframe>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a run on labelled images, with scores, whose class names try to be more than names."""
    folder = tmp_path_factory.mktemp("browser")
    changes = {"generator.width": 2, "discriminator.width": 2, "training.threads": 1, "training.sample_every": 64}
    oz.train("digits[:200]", "quick", run=folder / "run", images=256, device="cpu", changes=changes)
    api.evaluate(folder / "run", metrics=["frechet", "memorisation"], n=100, features="random")
    told = (folder / "run" / "data.json").read_text()
    (folder / "run" / "data.json").write_text(told.replace('"7"', '"<img src=x onerror=alert(1)>"'))
    return api.report.write(api.Run(folder / "run"))


def opened(path, width):
    done = subprocess.run(
        [BROWSER, *OPTIONS, f"--window-size={width},900", path.as_uri()], capture_output=True, text=True, timeout=60
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


def test_it_opens_without_an_error(report):
    page, console = opened(report, 1200)
    assert console == [] and "<h2>Curves</h2>" in page and "<h2>The data</h2>" in page and "onerror=" in page
    assert "&lt;img src=x" in page  # a name, no picture
    allowed = CSP.search(page)[1].replace("&#39;", "'")
    assert allowed == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # so nothing can be asked for


def test_a_page_that_asks_for_more_is_found_out(report, tmp_path):
    """What the test above looks for would be seen."""
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(report.read_text().replace("</main>", '<img src="https://example.org/x.png"></main>'))
    assert any("Content Security Policy" in line for line in opened(spoilt, 1200)[1])


def test_nothing_is_wider_than_the_screen(report, tmp_path):
    page, shown, widths = tmp_path / "page.html", escape(CSP.sub("", report.read_text())), {360, 412, 1100}
    page.write_text("".join(FRAME.format(width=width, page=shown) for width in sorted(widths)))
    found = {int(width): int(wide) for width, wide in re.findall(r'data-w(\d+)="(\d+)"', opened(page, 1200)[0])}
    assert found.keys() == widths and all(wide <= width for width, wide in found.items()), found
