"""Slides: the fields, errors that name deck and line, and every committed deck from a run to a page."""

import base64
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.classroom import slides
from melanoma_lib.classroom.lesson import find_lessons
from melanoma_lib.classroom.slides import build, fill, find_decks, run_values
from melanoma_lib.errors import LessonError
from tests.command_line import command_names
from tests.notebooks.mini import mini_lesson

ROOT = Path(__file__).parents[2]
DECKS = find_decks(folder=ROOT / "slides")
NOTE = "Educational, not for diagnosis"
RATE = {"value": 0.12345, "low": 0.1, "high": 0.2}
VALUES = {
    "rate": RATE, "alone": {"value": 0.5, "low": None, "high": None}, "unknown": RATE | {"value": None}, "one": 1.0,
    "count": 12345, "word": "highest threshold", "nothing": None, "nan": float("nan"),
}  # fmt: skip


PNG = b"a picture"


def illustrated(folder):
    """A lesson 07 whose cells tagged figure:line and figure:empty hold a picture and none."""
    path = mini_lesson(folder)
    notebook = nbformat.read(path, as_version=4)
    data = {"image/png": base64.b64encode(PNG).decode()}
    shown = nbformat.v4.new_output("display_data", data, metadata={"image/png": {"alt": 'A line from "0" to 1, <blur>.'}})
    notebook.cells += [
        nbformat.v4.new_code_cell("plot()", outputs=[shown], metadata={"tags": ["figure:line"]}),
        nbformat.v4.new_code_cell("plot()", metadata={"tags": ["figure:empty"]}),
    ]
    nbformat.write(notebook, path)
    return path.parent


def filled(field, folder):
    (deck := folder / "00_made_up.md").write_text(f"## First\n\n{field}\n", encoding="utf-8")
    return fill(deck, {"m": VALUES}, folder, illustrated(folder)).removeprefix("## First\n\n").removesuffix("\n")


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("{{ m.rate.value }}", "0.123"),
        ("{{ percent(m.rate.value) }}", "12.3%"),
        ("{{ interval(m.rate) }}", "0.123 [0.100, 0.200]"),
        ("{{ interval(m.rate, digits=0, percent=true) }}", "12% [10%, 20%]"),
        ("{{ interval(m.alone) }}", "0.500"),
        ("{{ m.count }}", "12,345"),
        ("{{ m.word }}", "highest threshold"),
        ('{{ number(m.nothing, undefined="nobody is flagged") }}', "nobody is flagged"),
        ('{{ interval(m.unknown, undefined="–") }}', "–"),
        ('{{ number(m.nan, undefined="–") }}', "–"),
    ],
)
def test_a_field_writes_what_the_run_says(field, written, tmp_path):
    assert filled(field, tmp_path) == written


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("{{ m.rat }}", "has no attribute 'rat'"),
        ("{{ metric.auroc }}", "'metric' is undefined"),
        ("{{ interval(m.count) }}", "expected a number with its interval, got 12345"),
        ("{{ percent(m.word) }}", "expected a share"),
        ("{{ interval(m.unknown) }}", "leaves the number undefined"),
        ('{{ figure("07", "rock") }}', "no cell of 07_mini is tagged figure:rock"),
        ('{{ figure("07", "empty") }}', "figure:empty and holds a picture; see notebooks refresh"),
        ('{{ figure("09", "line") }}', "0 files fit '09', expected one; there are: 07_"),
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


# --- the committed decks ------------------------------------------------------------------------------------------------------


def test_decks_are_found_by_name_and_number(tmp_path):
    lessons = [lesson.name for lesson in find_lessons(folder=ROOT / "notebooks")]
    assert [one.stem for one in DECKS] == sorted(["00_overview", *lessons])
    assert [one.stem for one in find_decks(["03", "00_overview"], ROOT / "slides")] == ["03_training", "00_overview"]
    with pytest.raises(LessonError, match="2 files fit '00', expected one; there are: 00_overview, 00_start_here"):
        find_decks(["00"], ROOT / "slides")
    with pytest.raises(LessonError, match="no deck in"):
        find_decks(folder=tmp_path)


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_a_committed_deck_says_what_it_is_and_its_notes_fill_its_minutes(deck):
    text = deck.read_text(encoding="utf-8")
    assert f'footer: "{NOTE}"' in text and "marp: true" in text
    assert sum(map(float, re.findall(r"<!-- ([\d.]+) min: ", text))) == float(re.search(r"^minutes: (.+)$", text, re.M)[1])
    assert "![" not in text and "<img" not in text, "pictures come from figure(...), which brings their description along"
    assert set(re.findall(r"python -m melanoma_lib (\w+)", text)) <= set(command_names())


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
    for deck in DECKS:
        text = (built / deck.name).read_text(encoding="utf-8")
        assert "{{" not in text and "{#" not in text and "nan" not in re.findall(r"\w+", re.sub(r'alt=".*?"', "", text))
        pictures = re.findall(r'<img src="(.+?)" alt="(.*?)"', text)
        assert len(pictures) == deck.read_text(encoding="utf-8").count("{{ figure(")
        assert all((built / path).stat().st_size and len(description) > 30 for path, description in pictures)
    test, overview = tiny_run.predictions("test"), (built / "00_overview.md").read_text(encoding="utf-8")
    assert f"AUROC **{roc_auc_score(test['target'], test['probability']):.3f} [" in overview
    called = test["probability"] >= json.loads((tiny_run.path / "operating_point.json").read_text())["threshold"]
    (row,) = [line for line in overview.splitlines() if line.startswith("| sensitivity |")]
    assert row.split("|")[3].strip().startswith(f"{called[test['target'] == 1].mean():.3f}")


def test_the_command_writes_markdown_and_explains_what_is_wrong(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = ["slides", "build", "00_start_here", "06", "--markdown", "--run-dir", str(tiny_run.path), "--out", str(tmp_path)]
    assert main(words) == 0
    assert str(tmp_path / "00_start_here.md") in capsys.readouterr().out
    monkeypatch.setattr(slides, "MARP", Path("nowhere"))
    monkeypatch.setenv("PATH", "")
    assert main([word for word in words if word != "--markdown"]) == 1
    assert "make slides installs it" in capsys.readouterr().err


# --- rendered -----------------------------------------------------------------------------------------------------------------

MARP = shutil.which("marp") or (ROOT / slides.MARP if (ROOT / slides.MARP).is_file() else None)
MEASURE = """() => [...document.querySelectorAll('section')].map(section => {
  const page = section.getBoundingClientRect(), scale = page.width / 1280;
  const foot = section.querySelector('footer').getBoundingClientRect().top;
  const below = [...section.children].filter(child => child.tagName !== 'FOOTER' && child.tagName !== 'HEADER');
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
    pdf = slides.render(built / "00_start_here.md", "pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    with pytest.raises(LessonError, match=r"Marp could not render .*missing\.md to html"):
        slides.render(tmp_path / "missing.md", "html")
