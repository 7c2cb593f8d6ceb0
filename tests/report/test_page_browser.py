"""The page in a real browser: Debian's chromium, on a phone's width, light and dark."""

import re
import shutil
import subprocess

import pytest
from test_report import row, store  # noqa: F401  (a fixture)

from benchmarks.report.answers.answer import answers
from benchmarks.report.answers.questions import entries
from benchmarks.report.page import build_page
from benchmarks.store.gallery import keep_pictures

pytestmark = pytest.mark.browser

PROBE = """<script>
document.title = ["probe", document.documentElement.scrollWidth, innerWidth,
  getComputedStyle(document.body).backgroundColor,
  [...document.images].filter(i => i.complete && i.naturalWidth).length, document.images.length].join("|");
</script></body>"""


def looked_at(path, dark: bool, width: int = 500) -> list[str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser, "these tests need chromium: apt-get install chromium"
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         "--enable-logging=stderr",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=5000", "--dump-dom",
         f"file://{path}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    return re.search(r"<title>probe\|(.*?)</title>", done.stdout).group(1).split("|")


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_overflows_and_every_picture_shows(store, tmp_path, dark) -> None:  # noqa: F811
    from PIL import Image

    keep_pictures(store, "a cell", [("wide", Image.new("RGB", (1600, 80), "navy"))])
    page = tmp_path / "page.html"
    page.write_text(build_page([store], answers(entries([store]))).replace("</body>", PROBE))
    # a frame of a phone's width: browsers refuse windows that narrow
    frame = tmp_path / "frame.html"
    inner = page.read_text().replace("&", "&amp;").replace('"', "&quot;")
    style = "width:390px;height:800px;border:0"
    frame.write_text(f"""<!doctype html><iframe id="f" style="{style}" srcdoc="{inner}"></iframe>
<script>onload = () => {{ document.title = document.getElementById("f").contentDocument.title; }}</script>""")
    scroll, width, ground, shown, images = looked_at(frame, dark)
    assert width == "390" and int(scroll) <= 390
    assert ground == ("rgb(22, 22, 23)" if dark else "rgb(253, 253, 252)")
    assert int(images) == 4  # the last picture may still wait for its turn to be loaded
    assert int(shown) >= 3
