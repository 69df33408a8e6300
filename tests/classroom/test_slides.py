"""Slides: the fields, errors that name deck and line, and every committed deck from a run to a page."""

import base64
import re
import shutil
import zlib
from pathlib import Path

import nbformat
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.classroom import slides
from melanoma_lib.classroom.lesson import find_lessons
from melanoma_lib.classroom.slides import build, digest, fill, find_decks, run_values
from melanoma_lib.errors import LessonError
from melanoma_lib.runs import Run
from tests.command_line import command_names
from tests.notebooks.mini import mini_lesson

ROOT = Path(__file__).parents[2]
DECKS = find_decks(folder=ROOT / "slides")
REFERENCE = ROOT / "data" / "reference" / "ham10000"
NOTE = "Educational, not for diagnosis"
RATE = {"value": 0.12345, "low": 0.1, "high": 0.2}
VALUES = {
    "rate": RATE, "unknown": RATE | {"value": None}, "count": 12345, "word": "highest threshold", "nothing": None,
}  # fmt: skip
PNG = b"a picture"


def illustrated(folder):
    """A lesson 07 whose cell tagged figure:line holds a picture."""
    path = mini_lesson(folder)
    notebook = nbformat.read(path, as_version=4)
    data = {"image/png": base64.b64encode(PNG).decode()}
    shown = nbformat.v4.new_output("display_data", data, metadata={"image/png": {"alt": 'A line from "0" to 1, <blur>.'}})
    notebook.cells.append(nbformat.v4.new_code_cell("plot()", outputs=[shown], metadata={"tags": ["figure:line"]}))
    nbformat.write(notebook, path)
    return path.parent


def filled(field, folder):
    (deck := folder / "00_made_up.md").write_text(f"## First\n\n{field}\n", encoding="utf-8")
    return fill(deck, {"m": VALUES}, folder, illustrated(folder)).removeprefix("## First\n\n").removesuffix("\n")


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("{{ percent(m.rate.value) }}", "12.3%"),
        ("{{ interval(m.rate) }}", "0.123 [0.100, 0.200]"),
        ("{{ interval(m.rate, digits=0, percent=true) }}", "12% [10%, 20%]"),
        ("{{ m.count }}", "12,345"),
        ('{{ number(m.nothing, undefined="nobody is flagged") }}', "nobody is flagged"),
        ('{{ interval(m.unknown, undefined="–") }}', "–"),
    ],
)
def test_a_field_writes_what_the_run_says(field, written, tmp_path):
    assert filled(field, tmp_path) == written


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("{{ m.rat }}", "has no attribute 'rat'"),
        ("{{ interval(m.count) }}", "'int' object is not subscriptable"),
        ("{{ interval(m.unknown) }}", "leaves the number undefined"),
        ('{{ figure("07", "rock") }}', "no cell of 07_mini is tagged figure:rock and holds a picture"),
        ("{{ m.count m.count }}", "expected token"),
    ],
)
def test_a_field_that_cannot_be_filled_is_named_with_its_line(field, said, tmp_path):
    with pytest.raises(LessonError, match=r"deck 00_made_up, line 5: ") as error:
        filled(f"Text.\n\n{field}", tmp_path)
    assert said in str(error.value)


def test_a_figure_is_the_lessons_picture_with_its_description(tmp_path):
    text = filled('{{ figure("07", "line") }}', tmp_path)
    assert 'alt="A line from &quot;0&quot; to 1, &lt;blur&gt;."' in text
    assert (tmp_path / re.search(r'src="(.+?)"', text)[1]).read_bytes() == PNG


def test_decks_are_found_by_name_and_number():
    lessons = [lesson.name for lesson in find_lessons(folder=ROOT / "notebooks")]
    assert [one.stem for one in DECKS] == sorted(["00_overview", *lessons])
    assert [one.stem for one in find_decks(["03", "00_overview"], ROOT / "slides")] == ["03_training", "00_overview"]


def bare(code):
    """Code without comments and white space, which a slide may lay out anew."""
    return re.sub(r",(?=[)\]}])|\s", "", re.sub(r"(?m)  # .*$", "", code))


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_a_deck_says_what_it_is_its_notes_fill_its_minutes_and_its_code_is_the_lessons(deck):
    text = deck.read_text(encoding="utf-8")
    assert f'footer: "{NOTE}"' in text and "marp: true" in text
    assert sum(map(float, re.findall(r"<!-- ([\d.]+) min: ", text))) == float(re.search(r"^minutes: (.+)$", text, re.M)[1])
    assert "![" not in text and "<img" not in text, "pictures come from figure(...), which brings their description along"
    assert set(re.findall(r"python -m melanoma_lib (\w+)", text)) <= set(command_names())
    pages, lessons = text.split("\n---\n"), find_lessons((), ROOT / "notebooks")
    assert "## You will be able to" in pages[2] and "## References" in pages[-1] and pages[-1].count("doi:") >= 2
    assert "## Takeaways" in text and "## Bug hunt" in text
    shown = [lesson for lesson in lessons if lesson.name == deck.stem] or lessons
    source = bare("\n".join(cell.source for lesson in shown for cell in lesson.notebook.cells))
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) >= 3 and max(block.count("\n") for block in blocks) <= 14
    for piece in re.split(r"\.\.\.|\n\n", "\n\n".join(blocks)):  # these stand for what is left out
        assert bare(piece) in source, piece
    cells = [(one.name[:2], cell.source) for one in lessons for cell in one.notebook.cells]
    sections = {f"{lesson} §{n}" for lesson, source in cells for n in re.findall(r"^## (\d+) ·", source, re.M)}
    assert set(re.findall(r"\d\d §\d+", text)) <= sections


def keywords(pdf):
    """The keywords of a PDF, which stand in a compressed stream."""
    streams = [one for one in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S) if one.startswith(b"x")]
    text = b"".join(zlib.decompressobj().decompress(one) for one in streams)
    return bytes.fromhex(re.search(rb"/Keywords <FEFF(\w+)>", text)[1].decode()).decode("utf-16-be")


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_the_committed_pdf_shows_todays_deck_lessons_and_reference_run(deck, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    pdf, (filled,) = deck.with_suffix(".pdf").read_bytes(), build([deck], run_values(Run(REFERENCE)), tmp_path, ())
    assert keywords(pdf) == digest(filled), "run make slides, and commit the PDFs"
    assert len(pdf) < 2_000_000


@pytest.fixture(scope="module")
def built(tiny_run, tmp_path_factory):
    """All committed decks, filled from the tiny run."""
    out = tmp_path_factory.mktemp("slides")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        build(DECKS, run_values(tiny_run), out, ())
    return out


@pytest.mark.slow
def test_every_field_of_every_deck_is_filled_from_a_run(built, tiny_run):
    test, overview = tiny_run.predictions("test"), (built / "00_overview.md").read_text(encoding="utf-8")
    assert f"AUROC **{roc_auc_score(test['target'], test['probability']):.3f} [" in overview


def test_the_command_writes_markdown_and_explains_what_is_wrong(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = ["slides", "build", "00_start_here", "06", "--markdown", "--run-dir", str(tiny_run.path), "--out", str(tmp_path)]
    assert main(words) == 0
    assert str(tmp_path / "00_start_here.md") in capsys.readouterr().out
    assert main([*words[:-1], "slides"]) == 1 and "where the decks lie" in capsys.readouterr().err
    monkeypatch.setattr(slides, "MARP", Path("nowhere"))
    monkeypatch.setenv("PATH", "")
    assert main([word for word in words if word != "--markdown"]) == 1
    assert "make slides installs" in capsys.readouterr().err


MARP = shutil.which("marp") or (ROOT / slides.MARP if (ROOT / slides.MARP).is_file() else None)
MEASURE = """() => [...document.querySelectorAll('section')].map(section => {
  const page = section.getBoundingClientRect(), scale = page.width / 1280;
  const foot = section.querySelector('footer').getBoundingClientRect().top;
  const below = [...section.querySelectorAll(':scope > :not(footer)')];
  const texts = [...section.querySelectorAll('pre, table, p, li, mjx-container, .columns > div')];
  const images = [...section.querySelectorAll('img')];
  const size = one => parseFloat(getComputedStyle(one).fontSize);
  return {
    name: section.querySelector('h1, h2').textContent,
    down: Math.max(...below.map(child => child.getBoundingClientRect().bottom)) - foot,
    across: Math.max(0, ...texts.map(one => (one.getBoundingClientRect().right - page.right) / scale + 60)),
    clipped: Math.max(0, ...[...section.querySelectorAll('pre')].map(one => one.scrollWidth - one.clientWidth)),
    figure: Math.min(1, ...images.map(one => Math.min(one.width / one.naturalWidth, one.height / one.naturalHeight))),
    letters: Math.min(...[...section.querySelectorAll('p, li, td, th, code')].map(size)),
  };
}).filter(slide => slide.down > 0.5 || slide.across > 1 || slide.clipped > 1 || slide.figure < 0.65 || slide.letters < 20)"""


@pytest.mark.slow
@pytest.mark.skipif(not MARP or not slides.find_browser(), reason="needs Marp, which make slides installs, and a browser")
def test_rendered_slides_overflow_nowhere_ask_no_host_and_become_a_pdf(built, tmp_path, monkeypatch):
    from playwright.sync_api import sync_playwright

    monkeypatch.chdir(ROOT)
    (tmp_path / "bad.md").write_text(f"---\nmarp: true\nfooter: {NOTE}\n---\n# Long\n\n" + "- line\n" * 40, encoding="utf-8")
    with sync_playwright() as playwright, playwright.chromium.launch(
        executable_path=slides.find_browser(), args=["--no-sandbox"]
    ) as browser:  # fmt: skip
        page, asked = browser.new_page(viewport={"width": 1280, "height": 720}), []
        page.on("request", lambda request: asked.append(request.url))
        for path in [*(built / deck.name for deck in DECKS), tmp_path / "bad.md"]:
            page.goto(slides.render(path, "html").as_uri())
            page.wait_for_function("[...document.images].every(image => image.complete)")
            assert bool(page.evaluate(MEASURE)) == (path.name == "bad.md"), (path, page.evaluate(MEASURE))
    assert asked and not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert keywords(slides.render(built / "00_start_here.md", "pdf").read_bytes()) == digest(built / "00_start_here.md")
