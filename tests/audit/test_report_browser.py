"""The report in a real browser: it renders, loads nothing, prints whole on A4, and is read in the dark and on a phone."""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from prune_verify.audit.report import PicturedRecord, ReportData, render_report, write_report
from tests.audit.browser import Browser, chromium
from tests.audit.test_report import DATA, HOSTILE, RECORD, REJECTED, hostile_data
from tests.audit.test_report_json import CURVES, MEASURED

pytestmark = pytest.mark.slow

UNBROKEN = "x" * 1900
TWINS = "caf\u00e9 cafe\u0301"
UNDECIDED = replace(DATA.verdict, word="UNDECIDED", code="E_UNKNOWN")
WHOLE = replace(
    MEASURED,
    records=tuple(replace(RECORD, index=i) for i in range(24)),
    records_total=40,
    learning=CURVES,
)
PAGES = [
    ("whole", WHOLE),
    ("rejected", replace(DATA, verdict=REJECTED)),
    ("undecided", replace(DATA, verdict=UNDECIDED)),
    ("empty", ReportData(REJECTED)),
    *((f"hostile {i}", hostile_data(bad)) for i, bad in enumerate(HOSTILE)),
    ("unbroken", hostile_data(UNBROKEN)),
    ("twins", hostile_data(TWINS)),
]
NAMES = [name for name, _ in PAGES]
A4 = (595, 842)  # points

CONTRAST = """(() => {
  const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const parse = (s) => s.match(/[\\d.]+/g).map(Number);
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const clear = (c) => c.length > 3 && c[3] === 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  let count = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    let under = element;
    while (under && clear(parse(getComputedStyle(under).backgroundColor))) under = under.parentElement;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? (style.fill === 'none' ? style.color : style.fill) : style.color);
    const page = under ? parse(getComputedStyle(under).backgroundColor) : [255, 255, 255];
    const pair = [light(ink), light(page)].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    count += 1;
    if (ratio < 4.5) found.push([walker.currentNode.data.slice(0, 60), ratio.toFixed(2)]);
  }
  return [count, found];
})()"""

WIDE = """[...document.querySelectorAll('body *')].filter((e) => {
  const box = e.getBoundingClientRect();
  const shown = getComputedStyle(e).clipPath === 'none' && !e.closest('thead, .skip');
  return shown && box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((e) => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 60))"""

ACCESSIBLE = """(() => {
  const wrong = [];
  for (const name of ['banner', 'main', 'navigation', 'contentinfo']) {
    const tags = {banner: 'body > header', main: 'body > main', navigation: 'nav', contentinfo: 'body > footer'};
    if (document.querySelectorAll(tags[name]).length !== 1) wrong.push('landmark ' + name);
  }
  if (document.documentElement.lang !== 'en' || !document.title) wrong.push('lang or title');
  let level = 0;
  for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
    const next = Number(h.tagName[1]);
    if (next > level + 1 || !h.textContent.trim()) wrong.push('heading ' + h.textContent);
    level = next;
  }
  for (const table of document.querySelectorAll('table')) {
    if (!table.caption || !table.caption.textContent.trim()) wrong.push('a table without a caption');
    for (const row of table.rows) if (row.cells.length !== table.rows[0].cells.length) wrong.push('a ragged table');
  }
  for (const th of document.querySelectorAll('th')) if (!['row', 'col'].includes(th.scope)) wrong.push('th without scope');
  for (const svg of document.querySelectorAll('svg')) {
    const named = svg.getAttribute('role') === 'img' && svg.getAttribute('aria-label');
    if (!named && svg.getAttribute('aria-hidden') !== 'true') wrong.push('a picture without words');
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  if (new Set(ids).size !== ids.length) wrong.push('an id twice');
  for (const e of document.querySelectorAll('[aria-labelledby]'))
    if (!document.getElementById(e.getAttribute('aria-labelledby'))) wrong.push('a label that is nowhere');
  for (const a of document.querySelectorAll('a')) if (!document.querySelector(a.getAttribute('href'))) wrong.push('a link to nowhere');
  return wrong;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with chromium(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name, data in PAGES:
        made[name] = folder / f"{name}.html"
        write_report(made[name], data)
    return made


def words(text: str) -> str:
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))  # ligatures are letters


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_rendered_and_nothing_is_asked_for(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.show(pages[name])
    assert browser.complaints() == []
    own, *others = browser.requested()
    assert own == pages[name].as_uri()
    assert all(address.startswith("data:image/png;base64,") for address in others)
    text = render_report(dict(PAGES)[name])
    for tag in ("table", "h2", "section", "svg", "tr", "li", "a"):
        assert browser.value(f"document.querySelectorAll('{tag}').length") == len(re.findall(rf"<{tag}[ >]", text))
    assert (
        browser.value(
            "document.querySelectorAll('script, iframe, object, embed, form, base, [onload], [onerror]').length"
        )
        == 0
    )
    assert (
        browser.value("[...document.images].length + document.querySelectorAll('image:not([href^=\"data:\"])').length")
        == 0
    )
    assert browser.value(ACCESSIBLE) == []


def test_the_browser_would_complain_about_a_script_and_about_a_picture_from_outside(
    browser: Browser, tmp_path: Path
) -> None:
    """The two tests above can fail."""
    text = render_report(DATA)
    for more in ("<script>document.title='x'</script>", "<img src='https://evil.example/x.png'>"):
        page = tmp_path / "report.html"
        page.write_text(text.replace("</main>", f"{more}</main>"))
        browser.show(page)
        assert any("Content Security Policy" in line for line in browser.complaints()), more
        assert "evil" not in "".join(browser.requested()) or browser.blocked() == ["csp"]
        assert browser.value("document.title").startswith("VERIFIED")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["whole", "rejected", "undecided", "hostile 5"])
def test_all_text_has_contrast(browser: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    browser.show(pages[name], scheme=scheme)
    page = browser.value("getComputedStyle(document.body).backgroundColor")
    assert page == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    count, found = browser.value(CONTRAST)
    assert count > 100
    assert found == []


def test_the_test_of_contrast_sees_pale_text(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(render_report(DATA).replace("--muted: #525a65", "--muted: #a0a8b0"))
    browser.show(tmp_path / "a.html")
    assert browser.value(CONTRAST)[1]


@pytest.mark.parametrize("width", [360, 700, 1024])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wider_than_the_window(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    browser.show(pages[name], width=width)
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value(WIDE) == []


@pytest.mark.parametrize("media", ["", "print"])
def test_usual_words_stand_on_one_line(browser: Browser, pages: dict[str, Path], media: str) -> None:
    browser.show(pages["whole"], width=688 if media else 1024, media=media)
    high = "[...document.querySelectorAll('.chip')].filter((e) => e.getClientRects().length && e.offsetHeight > 36)"
    assert browser.value(f"{high}.map((e) => e.textContent)") == []
    broken = "[...document.querySelectorAll('thead th')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
    assert browser.value(f"{broken}.map((e) => e.textContent)") == []


def test_cells_say_their_column_on_a_phone(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["whole"], width=360)
    assert browser.value("getComputedStyle(document.querySelector('.claims td.n'), '::before').content") == '"Total: "'
    assert browser.value("getComputedStyle(document.querySelector('.claims tr')).display") == "block"
    browser.show(pages["whole"], width=1024)
    assert browser.value("getComputedStyle(document.querySelector('.claims td.n'), '::before').content") == "none"


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_whole_on_a4(browser: Browser, pages: dict[str, Path], name: str) -> None:
    pypdf = pytest.importorskip("pypdf")
    browser.show(pages[name], width=688, media="print")  # what A4 leaves between its margins
    assert browser.value(WIDE) == []
    shown = browser.value("document.body.innerText").replace("What\tValue\n", "")  # heads that only a reader hears
    browser.show(pages[name])
    document = pypdf.PdfReader(io.BytesIO(browser.pdf()))
    assert len(document.pages) >= 2
    assert {tuple(round(float(n)) for n in page.mediabox[2:]) for page in document.pages} == {A4}
    line = dict(PAGES)[name].verdict.line()
    printed = []
    for number, page in enumerate(document.pages, 1):
        text = page.extract_text()
        assert words(f"{number} / {len(document.pages)}") in words(text)
        if name in {"whole", "rejected"}:  # other codes are made printable first
            assert words(line) in words(text)
        printed.append(text)
    if not name.startswith(("hostile", "twins")):  # letters for which the fonts here have no glyph
        whole = words("".join(printed))
        missing = [part for part in re.split(r"[\n\t]", shown) if part.strip() and words(part)[:24] not in whole]
        assert missing == []


def test_a_hostile_code_stays_out_of_the_style_sheet() -> None:
    bad = '"; } body { display: none } /* \u202e </style><script>'
    style = re.findall(
        r"<style>(.*?)</style>", render_report(replace(DATA, verdict=replace(UNDECIDED, code=bad))), re.DOTALL
    )
    assert len(style) == 1
    assert '@bottom-left { content: "VERDICT: UNDECIDED code=?:' not in style[0]
    added = style[0][style[0].rindex("@page") :]
    assert re.fullmatch(r'@page \{ @bottom-left \{ content: "[A-Za-z0-9_=:. ?-]*"; \} \}\n', added)


def test_pictures_of_many_sizes_stay_in_their_frames(browser: Browser, tmp_path: Path) -> None:
    import numpy as np

    rows = tuple(PicturedRecord(i, np.zeros(28 * 28, dtype=np.float32), 1, 1, 2, RECORD.intervals) for i in range(3))
    write_report(tmp_path / "a.html", replace(DATA, records=rows, picture_shape=(28, 28)))
    browser.show(tmp_path / "a.html", width=360)
    assert browser.value(WIDE) == []
    assert browser.value("document.querySelectorAll('.picture .mark').length") == 9
