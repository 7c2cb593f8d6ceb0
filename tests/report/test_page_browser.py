"""The page in a real browser: Debian's chromium, on a phone's width and a desk's, light and dark, and clicked on."""

import json
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
setTimeout(async () => {
  const found = {}, find = s => document.querySelector(s), wait = () => new Promise(done => setTimeout(done, 300));
  found.scroll = document.documentElement.scrollWidth; found.width = innerWidth;
  found.ground = getComputedStyle(document.body).backgroundColor;
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  await wait();
  found.images = [...document.images].every(i => i.complete && i.naturalWidth);
  found.captions = [...document.querySelectorAll(".caption, figcaption")].every(c => {
    const box = c.getBoundingClientRect();
    return box.left >= 0 && box.right <= innerWidth && c.scrollWidth <= c.clientWidth + 1;
  });
  found.cues = [...document.querySelectorAll(".wide")].every(w =>
    w.nextElementSibling.hidden === w.scrollWidth <= w.clientWidth + 1);
  const until = async met => { for (let i = 0; i < 60 && !met(); i += 1) await wait(); };
  await until(() => find(".chart .canvas svg") && find(".losses .canvas svg"));
  const canvas = find(".chart .canvas"), ringed = () => document.querySelector("td.best").dataset.point;
  found.drawn = canvas.dataset.drawn; found.chartWidth = canvas.querySelector("svg").clientWidth;
  found.losses = find(".losses .canvas svg") !== null;
  find("#legend input[name=vit_nano_g8]").click();
  await until(() => canvas.dataset.drawn === "3");
  found.without = canvas.dataset.drawn;
  find("#legend button").click();
  find("#against input[value=macs]").click();
  await until(() => canvas.dataset.drawn === "6" && canvas.textContent.includes("GMACs an image"));
  found.again = canvas.dataset.drawn; found.axis = canvas.textContent.includes("GMACs an image");
  found.best = ringed();
  const limit = find("#limit");
  limit.value = 300; limit.dispatchEvent(new Event("input"));
  await wait();
  found.cheaper = ringed(); found.dear = document.querySelectorAll("td.dear").length;
  found.said = find("#said").textContent; found.amount = Number(find("#amount").value);
  const head = find("table.values thead tr").cells[4];
  const names = () => [...find("table.values").tBodies[0].rows].map(r => r.cells[0].textContent);
  head.firstChild.click(); found.up = names();
  head.firstChild.click(); found.down = names(); found.sorted = head.ariaSort;
  find("td[data-point] button").click();
  found.open = find("#source").open; found.source = find("#source").textContent;
  find("#source").close();
  found.unnamed = [...document.querySelectorAll("button, input, select, a, [role=region]")].filter(e =>
     !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length;
  document.title = "probe" + JSON.stringify(found);
}, 800);
</script></body>"""


def looked_at(path, dark: bool, width: int) -> dict:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser, "these tests need chromium: apt-get install chromium"
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},9000",
         "--enable-logging=stderr",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=60000", "--dump-dom",
         f"file://{path}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    text = re.search(r"<title>probe(.*?)</title>", done.stdout).group(1)
    return json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.parametrize(("width", "dark"), [(390, True), (390, False), (1200, True), (1200, False)])
def test_the_page_shows_and_obeys(store, tmp_path, width, dark) -> None:  # noqa: F811
    from PIL import Image

    keep_pictures(store, "a cell", [("wide", Image.new("RGB", (1600, 80), "navy"))])
    told = {"losses": [2.0, 1.5, 1.0], "loss_every": 10}
    store.append([r.changed(training=told) for r in store.rows()])
    inner = PROBE.join(build_page([store], answers(entries([store]))).rsplit("</body>", 1))
    assert len(inner.encode()) < 3_000_000
    # a frame of a phone's width: browsers refuse windows that narrow
    page, text = tmp_path / "page.html", inner.replace("&", "&amp;").replace('"', "&quot;")
    style = f"width:{width}px;height:8900px;border:0"
    page.write_text(f"""<!doctype html><iframe id="f" style="{style}" srcdoc="{text}"></iframe>
<script>setInterval(() => {{ document.title = document.getElementById("f").contentDocument.title; }}, 200)</script>""")
    found = looked_at(page, dark, width + 100)
    assert found["width"] == width and found["scroll"] <= width
    assert found["ground"] == ("rgb(22, 22, 23)" if dark else "rgb(253, 253, 252)")
    assert found["images"] and found["cues"] and found["captions"] and found["losses"] and found["unnamed"] == 0
    assert (found["drawn"], found["without"], found["again"]) == ("6", "3", "6") and found["axis"]
    assert 0 < found["chartWidth"] <= width
    # both models at three grids: flexible 0-2, fixed 3-5, whose best is at grid 4; within 0.0472 GMACs only grid 4 is
    assert found["best"] == found["cheaper"] == "3" and found["dear"] == 4
    assert found["amount"] == pytest.approx(0.02 * (0.35 / 0.02) ** 0.3, rel=1e-3)
    assert "a choice in 1 of 1 tables" in found["said"]
    assert found["up"] == ["vit_nano_g8", "flexivit_nano"] and found["down"] == found["up"][::-1]
    assert found["sorted"] == "descending"
    assert found["open"] and "finetune-v1" in found["source"] and "seed 0" in found["source"]
    assert "revision abc" in found["source"] and "/somewhere" not in found["source"]
