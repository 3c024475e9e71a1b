"""How a browser shows the report: headless Chromium, two widths, light and dark."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.report_folder import PLOTS, SCRIPT, make_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Debian's chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, made: Path) -> Iterator[Callable[..., Any]]:
    """Open the report; at the end there must have been no error and no request but for the file itself."""
    told, requests, contexts = [], [], []

    def open_(width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: told.append(message.text))
        shown.on("pageerror", lambda error: told.append(str(error)))
        shown.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        shown.on("request", lambda request: requests.append(request.url))
        shown.goto((made / "report.html").as_uri())
        return shown

    yield open_
    for context in contexts:
        context.close()
    assert told == []
    assert set(requests) - {"data:,"} == {(made / "report.html").as_uri()}


LAYOUTS = [(1280, "light"), (390, "light"), (1280, "dark"), (390, "dark")]


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), LAYOUTS)
def test_it_fits_and_all_is_drawn(opened: Callable, width: int, scheme: str) -> None:
    shown = opened(width, scheme)
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = [picture.bounding_box() for picture in shown.locator("svg").all()]
    assert len(boxes) == 2 * len(PLOTS)
    assert all(box["width"] > 250 and box["height"] > 50 for box in boxes)
    drawn = shown.evaluate("[...document.querySelectorAll('svg')].map(s => s.getBBox().width)")
    assert all(width > 250 for width in drawn)
    assert shown.locator("td.message").first.inner_text().startswith(SCRIPT)
    levels = shown.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert shown.evaluate("document.documentElement.lang") == "en"
    for picture in shown.get_by_role("img").all():
        assert picture.get_attribute("aria-label")


def _column(table: Any, number: int) -> list[str]:
    return table.evaluate("(t, n) => [...t.tBodies[0].rows].map(r => r.cells[n].textContent)", number)


@pytest.mark.long
def test_a_column_sorts_by_click_and_by_keyboard(opened: Callable) -> None:
    table = opened().locator("table", has_text="trained").first
    titles = table.locator("thead th").all_inner_texts()
    number = next(n for n, title in enumerate(titles) if title.startswith("trained"))
    head = table.locator("thead th").nth(number)
    counts = [cell for cell in _column(table, number) if cell != "-"]
    ordered = sorted(counts, key=lambda text: int(text.replace(",", "")))
    assert ordered != sorted(counts), "as texts they stand in another order"

    def sorted_now() -> list[str]:
        cells = _column(table, number)
        assert cells[len(ordered) :] == ["-"] * (len(cells) - len(ordered)), "what was not measured stands last"
        return cells[: len(ordered)]

    head.locator("button").click()
    assert (head.get_attribute("aria-sort"), sorted_now()) == ("descending", ordered[::-1])
    head.locator("button").press("Enter")
    assert (head.get_attribute("aria-sort"), sorted_now()) == ("ascending", ordered)
    name = table.locator("thead th").first
    name.locator("button").press("Space")
    assert name.get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") is None
    assert _column(table, 0) == sorted(_column(table, 0))


CONTRASTS = """() => {
  const parsed = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element), isPlot = element.closest("svg");
    const [a, b] = [parsed(isPlot ? style.fill : style.color), behind(element)].map(light);
    const what = isPlot ? "svg" : `${element.tagName}.${element.className}`;
    texts.push([what, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return texts;
}"""


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(opened: Callable, scheme: str) -> None:
    found = opened(scheme=scheme).evaluate(CONTRASTS)
    kinds = {what.lower().partition(" ")[0] for what, _ in found}
    assert {"h1.", "h2.", "td.", "td.best", "td.text", "li.", "a.", "figcaption.", "svg", "strong.failed"} <= kinds
    assert not [(what, ratio) for what, ratio in found if ratio < 4.5]
