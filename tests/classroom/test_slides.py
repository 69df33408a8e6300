"""Slides: the field language, errors that name deck and line, typed numbers, minutes, and every deck from a run to a page."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.classroom import slides
from melanoma_lib.classroom.deck import FIELD, NOTE, Deck, breaches, find_decks, loose_numbers, notes
from melanoma_lib.classroom.lesson import find_lessons
from melanoma_lib.classroom.slides import Content, build, fill, run_values
from melanoma_lib.errors import DeckError
from melanoma_lib.evaluation import describe, kit_figure
from melanoma_lib.lessons.deck_content import REPORTED, deck_content, implied_prevalence
from tests.command_line import command_names

ROOT = Path(__file__).parents[2]
DECKS = find_decks(folder=ROOT / "slides")
OPENING = f"""---
marp: true
theme: melanoma
footer: "{NOTE}"
paginate: true
math: mathjax
minutes: 2
---
"""
SPOKEN = "<!-- 2 min: Long enough a note that somebody could read it aloud. -->"


def deck(body, opening=OPENING, note=SPOKEN):
    return Deck("00_made_up", f"{opening}\n## A heading\n\n{body}\n\n{note}\n")


def content(**values):
    def figure():
        with kit_figure(12, 9) as made:
            made.add_subplot().plot([0, 1])
        return describe(made, 'A line from "0" to 1, <blur>.')

    return Content({name: (lambda value=value: value) for name, value in values.items()}, {"line": figure})


def filled(body, folder=Path("nowhere"), **values):
    text = fill(deck(body), content(**values), folder)
    return text.split("## A heading\n\n")[1].split("\n\n<!--")[0]


def line_of(text, body):
    return text.split(body)[0].count("\n") + 1


# --- fields -------------------------------------------------------------------------------------------------------------------

RATE = {"value": 0.12345, "low": 0.1, "high": 0.2, "resamples": 9, "method": "bootstrap"}


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("{{ m.rate.value }}", "0.123"),
        ("{{m.rate.value digits=1}}", "0.1"),
        ("{{ percent m.rate.value }}", "12.3%"),
        ("{{ percent m.one digits=0 }}", "100%"),
        ("{{ interval m.rate }}", "0.123 [0.100, 0.200]"),
        ('{{ interval m.rate as="percent" digits=0 }}', "12% [10%, 20%]"),
        ("{{ interval m.alone }}", "0.500"),
        ("{{ m.count }}", "12,345"),
        ("{{ m.word }}", "highest threshold"),
        ('{{ m.nothing undefined="nobody is flagged" }}', "nobody is flagged"),
        ('{{ interval m.undefined undefined="–" }}', "–"),
        ('{{ m.nan undefined="–" }}', "–"),
        ("{{ setting alpha }} {{ setting tta }} {{ setting gamma }}", "none no 2.0"),
        ('{{ fact "2018" because="year of the paper" }}', "2018"),
        ('{{ reported "97.24%" source="original deck" }}', '<span class="reported">97.24%</span>'),
        ("{{ reported net.recall }}", '<span class="reported">88.64%</span>'),
    ],
)
def test_a_field_writes_what_the_run_says(field, written):
    m = {
        "rate": RATE, "alone": RATE | {"value": 0.5, "low": None, "high": None}, "undefined": RATE | {"value": None},
        "one": 1, "count": 12345, "word": "highest threshold", "nothing": None, "nan": float("nan"),
    }  # fmt: skip
    setting = {"alpha": None, "tta": False, "gamma": 2.0}
    assert filled(field, m=m, setting=setting, reported={"net": {"recall": "88.64%"}}) == written


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("{{ metrics.aurocc }}", "metrics has no aurocc; there are: auroc, n"),
        ("{{ metric.auroc }}", "a run has no metric; there are: metrics, setting"),
        ("{{ metrics.n.value }}", "nothing below metrics.n"),
        ("{{ metrics }}", "is a group of 3; name one of auroc, n, word"),
        ("{{ interval metrics.n }}", "metrics.n has no interval; it is int 7"),
        ("{{ percent metrics.word }}", "metrics.word is no share"),
        ("{{ metrics.auroc.value }}", "leaves metrics.auroc.value undefined"),
        ("{{ interval metrics.auroc }}", "leaves metrics.auroc undefined"),
        ("{{ setting image_sise }}", "setting has no image_sise; there are: image_size"),
        ("{{ metrics.n digits=two }}", "digits expects a whole number, got 'two'"),
        ("{{ figure rock }}", "no figure rock; there are: line"),
        ('{{ figure line slot="left" }}', "no slot left; there are: full, upper, lower, half"),
        ('{{ reported "97%" }}', 'needs source="…"'),
        ('{{ fact "1997" }}', 'needs because="…"'),
        ('{{ fact "1997" because=" " }}', 'needs because="…"'),
        ('{{ percent "97%" }}', "cannot read"),
        ("{{ fact metrics.n }}", "cannot read"),
        ("{{ metrics.n metrics.n }}", "cannot read"),
        ("{{ }}", "cannot read"),
        ('{{ metrics.n or="7" }}', "has no option or; options of value: digits, undefined"),
    ],
)
def test_a_field_that_cannot_be_filled_is_named_with_its_line(field, said):
    body = f"First.\n\nThen {field}."
    values = {"metrics": {"auroc": RATE | {"value": None}, "n": 7, "word": "w"}, "setting": {"image_size": 64}}
    line = line_of(deck(body).text, field)
    with pytest.raises(DeckError, match=rf"deck 00_made_up, line {line}: ") as error:
        fill(deck(body), content(**values), Path("nowhere"))
    assert said in str(error.value)


@given(value=st.floats(-1e6, 1e6), digits=st.integers(0, 6))
def test_any_number_is_rounded_as_python_rounds(value, digits):
    assert filled(f"{{{{ m.x digits={digits} }}}}", m={"x": value}) == f"{value:.{digits}f}"
    assert filled(f"{{{{ percent m.x digits={digits} }}}}", m={"x": value}) == f"{value:.{digits}%}"


def test_a_figure_is_a_picture_with_its_description_and_large_letters(tmp_path):
    from PIL import Image

    text = filled('{{ figure line slot="half" }}\n', tmp_path)
    assert 'alt="A line from &quot;0&quot; to 1, &lt;blur&gt;."' in text
    picture = re.search(r'src="(.+?)"', text)[1]
    width, height = np.array(Image.open(tmp_path / picture).size) / (2 * slides.PIXELS_PER_INCH)
    assert (width, height) == pytest.approx((0.72 * 12, 0.72 * 9), abs=0.02)  # no smaller than the labels allow
    filled('{{ figure line slot="half" shrink=0.1 }}\n', tmp_path)
    small = np.array(Image.open(tmp_path / picture).size)
    assert (small <= 2 * np.array(slides.SLOTS["half"])).all()


# --- typed numbers and other breaches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    ["0.913", "91%", "of 167 melanomas", "AUROC:0.9", "B0.9", "`0.913`", "`auroc 91.3%`", "½", "x²", "$p = 0.75$", "①", "٣"],
)
@pytest.mark.parametrize("shape", ["We reach {}.", "- {}", "| a | {} |", "## {}", "**{}**", "```text\n{}\n```", "<b>{}</b>"])
def test_a_typed_number_is_found_wherever_it_stands(typed, shape):
    made = deck(shape.format(typed))
    found = loose_numbers(made)
    assert found and all(f"line {line_of(made.text, typed)}:" in one for one in found)


def test_a_typed_number_in_a_speaker_note_is_found():
    assert loose_numbers(deck("Text.", note="<!-- 2 min: It reaches an AUROC of 0.91 on the test. -->")) == ["line 14: 0.91"]


@pytest.mark.parametrize(
    "body",
    [
        "1. first\n2. second",
        "F1 on HAM10000 and ISIC 2020 with EfficientNet-B0",
        "$1 / (1 + e^{-z})$ and $p^2$",
        "`02_focal_loss`, `python -m melanoma_lib train --seed 3`, `--seed 3`",
        "```bash\ntrain --image-size 128\n```",
        "```python\nx = 0.5\n```",
        '<div style="width: 40%">a</div>',
        "[text](https://doi.org/10.1038/x)",
        '{{ metrics.auroc.value digits=2 }} {{ fact "2018" because="year" }}',
        "<!-- _class: lead2 -->",
    ],
)
def test_what_is_no_result_may_stand(body):
    assert loose_numbers(deck(body)) == []


@given(st.integers(0, 10**6), st.sampled_from(["{}", "{}%", "0.{}", "({})", "–{}", "p={}"]), st.text("ab *_|-#\n", max_size=30))
def test_a_number_between_words_never_hides(number, shape, around):
    body = f"{around} {shape.format(number)} {around}".replace("\n---\n", "\n")
    assert loose_numbers(deck(f"a {body}")) or re.search(r"^ *\d+\. ", body, re.MULTILINE)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (deck("Text.", note=""), "expected one speaker note"),
        (deck("Text.", note="<!-- Long enough a note that somebody could read it aloud. -->"), "expected one speaker note"),
        (deck("Text.", note="<!-- 2 min: Short. -->"), "expected one speaker note"),
        (deck("Text.", OPENING.replace("minutes: 2", "minutes: 3")), "its notes add up to 2 minutes, it promises minutes: 3"),
        (deck("Text.", OPENING.replace(NOTE, "Fun")), "expected the directive footer"),
        (deck("Text.", OPENING.replace("theme: melanoma", "theme: gaia")), "expected the directive theme"),
        (deck('{{ reported "97%" source="there" }}'), "without the words 'reported, not reproduced here'"),
        (deck("See {{ figure line }}"), "a figure stands alone on its line"),
        (deck("![roc](roc.png)"), "pictures come from"),
        (deck('<img src="roc.png">'), "pictures come from"),
        (Deck("x", deck("Text.").text.replace("## A heading", "")), "the slide has no heading"),
    ],
)  # fmt: skip
def test_breaches_are_named(made, said, tmp_path):
    assert [breach for breach in breaches(made) if said in breach]
    with pytest.raises(DeckError, match="not ready to be shown"):
        build([made], content(), tmp_path, ())
    assert not list(tmp_path.iterdir())


def test_a_rule_in_a_code_block_divides_no_slides():
    made = deck(f"```bash\n---\n```\n\n{SPOKEN}\n\n---\n\n## Second", OPENING.replace("minutes: 2", "minutes: 4"))
    assert [line for line, _ in made.slides] == [9, line_of(made.text, "\n## Second")]
    assert breaches(made) == []


def test_a_deck_without_directives_or_name_is_an_error(tmp_path):
    with pytest.raises(DeckError, match="line 1: expected directives"):
        breaches(Deck("x", "# Title\n"))
    with pytest.raises(DeckError, match="no deck in"):
        find_decks(folder=tmp_path)
    with pytest.raises(DeckError, match="2 decks fit '00'; there are: 00_overview, 00_start_here"):
        find_decks(["00"], ROOT / "slides")
    assert [one.name for one in find_decks(["03", "00_overview"], ROOT / "slides")] == ["03_training", "00_overview"]


# --- the committed decks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", DECKS, ids=lambda one: one.name)
def test_a_committed_deck_keeps_the_rules(one):
    assert breaches(one) == []
    n = len(one.slides)
    assert 24 <= n <= 29 if one.name == "00_overview" else 6 <= n <= 10
    assert sum(minutes for _, slide in one.slides for minutes, _ in notes(slide)) == float(one.front["minutes"])


def test_there_is_one_deck_a_lesson_and_an_overview():
    lessons = [lesson.name for lesson in find_lessons(folder=ROOT / "notebooks")]
    assert [one.name for one in DECKS] == sorted(["00_overview", *lessons])


@pytest.mark.parametrize("one", DECKS, ids=lambda one: one.name)
def test_a_result_typed_into_a_committed_deck_is_found(one):
    position = one.text.index("<!-- ", one.slides[2][0])
    typed = Deck(one.name, one.text[:position] + "Our AUROC is 0.93.\n\n" + one.text[position:])
    assert [breach for breach in breaches(typed) if "0.93" in breach]


def test_commands_that_decks_show_exist():
    shown = {name for one in DECKS for name in re.findall(r"python -m melanoma_lib (\w+)", one.text)}
    assert shown and shown <= set(command_names())
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make (\w+)", "\n".join(one.text for one in DECKS), re.MULTILINE)) <= set(targets)


def test_the_overview_quotes_what_people_know_as_reported():
    overview = DECKS[0]
    (table,) = [slide for _, slide in overview.slides if "Reported results" in slide]
    for name, row in REPORTED.items():
        assert all(f"{{{{ reported {name}.{score} }}}}" in table for score in row)
    assert "this run" in table and "reported, not reproduced here" in table


def test_implied_prevalence_is_that_of_made_up_decisions():
    rng = np.random.default_rng(0)
    for prevalence in (0.02, 0.135, 0.5):
        targets = rng.random(4000) < prevalence
        called = np.where(targets, rng.random(4000) < 0.9, rng.random(4000) < 0.02)
        tn, _, fn, tp = confusion_matrix(targets, called).ravel()
        numbers = ((tp + tn) / 4000, tp / (tp + fn), f1_score(targets, called))
        assert implied_prevalence(*numbers) == pytest.approx(targets.mean())
    with pytest.raises(ValueError, match=r"no precision gives an F1 of 0\.99"):
        implied_prevalence(0.9, 0.5, 0.99)


# --- from a run ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tiny_run, tmp_path_factory):
    """All committed decks, filled from the tiny run."""
    out = tmp_path_factory.mktemp("slides")
    build(DECKS, deck_content(tiny_run), out, ())
    return out


def test_every_deck_is_filled_from_a_run(built):
    for one in DECKS:
        text = (built / f"{one.name}.md").read_text(encoding="utf-8")
        assert not FIELD.search(text) and "nan" not in re.findall(r"\w+", re.sub(r'alt=".*?"', "", text))
        pictures = re.findall(r'<img src="(.+?)" alt="(.*?)"', text)
        assert len(pictures) == one.text.count("{{ figure ")
        assert all((built / path).stat().st_size and len(description) > 30 for path, description in pictures)


def test_numbers_on_slides_are_scikit_learns(built, tiny_run):
    test, overview = tiny_run.predictions("test"), (built / "00_overview.md").read_text(encoding="utf-8")
    assert f"AUROC **{roc_auc_score(test['target'], test['probability']):.3f} [" in overview
    called = test["probability"] >= json.loads((tiny_run.path / "operating_point.json").read_text())["threshold"]
    sensitivity = called[test["target"] == 1].mean()
    (row,) = [line for line in overview.splitlines() if line.startswith("| sensitivity |")]
    assert row.split("|")[3].strip().startswith(f"{sensitivity:.3f}")
    counts = [part["target"].agg(["size", "sum"]) for _, part in tiny_run.splits.groupby("split")]
    for images, melanomas in counts:
        assert re.search(rf"\| {images} \| \d+ \| {melanomas} \|", overview)


def test_another_run_gives_another_deck(tiny_run, tmp_path):
    values = run_values(tiny_run)
    one = deck("{{ metrics.auroc.value digits=6 }} {{ setting seed }}")
    before = fill(one, Content(values, {}), tmp_path)
    changed = json.loads(json.dumps(tiny_run.metrics))
    changed["auroc"]["value"] -= 0.01
    assert fill(one, Content(values | {"metrics": lambda: changed}, {}), tmp_path) != before


def test_the_command_writes_markdown_and_explains_what_is_wrong(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = ["slides", "build", "00_start_here", "--markdown", "--run-dir", str(tiny_run.path), "--out", str(tmp_path)]
    assert main(words) == 0
    assert str(tmp_path / "00_start_here.md") in capsys.readouterr().out
    assert main(["slides", "build", "99", "--run-dir", str(tiny_run.path)]) == 1
    assert "0 decks fit '99'" in capsys.readouterr().err
    monkeypatch.setattr(slides, "MARP", Path("nowhere"))
    monkeypatch.setenv("PATH", "")
    assert main([word for word in words if word != "--markdown"]) == 1
    assert "make slides installs it" in capsys.readouterr().err


def test_no_committed_file_of_the_slides_names_a_host():
    for path in (ROOT / "Makefile", *(ROOT / "slides").iterdir()):
        assert not re.search(r"https?://(?!doi\.org)", path.read_text(encoding="utf-8")), path


# --- rendered -----------------------------------------------------------------------------------------------------------------

MARP = shutil.which("marp") or (ROOT / slides.MARP if (ROOT / slides.MARP).is_file() else None)
MEASURE = """() => [...document.querySelectorAll('section')].map(section => {
  const page = section.getBoundingClientRect(), scale = page.width / 1280;
  const foot = section.querySelector('footer').getBoundingClientRect().top;
  const below = [...section.children].filter(child => child.tagName !== 'FOOTER' && child.tagName !== 'HEADER');
  const rects = below.map(child => child.getBoundingClientRect());
  const texts = [...section.querySelectorAll('pre, table, p, li, mjx-container, .columns > div')];
  const right = one => {
    const inside = document.createRange();
    inside.selectNodeContents(one);
    return Math.max(inside.getBoundingClientRect().right, one.getBoundingClientRect().right);
  };
  return {
    name: section.querySelector('h1, h2').textContent,
    footer: section.querySelector('footer').textContent,
    down: Math.max(...rects.map(rect => rect.bottom)) - foot,
    across: Math.max(0, ...texts.map(one => (right(one) - page.right) / scale + 60)),
    inches: [...section.querySelectorAll('.figure img')].map(
      image => image.getBoundingClientRect().height / scale / (image.naturalHeight / 220)),
    letters: Math.min(...[...section.querySelectorAll('p, li, td, th, code')].map(
      one => parseFloat(getComputedStyle(one).fontSize))),
  };
})"""


needs_marp = pytest.mark.skipif(
    not MARP or not slides.find_browser(), reason="Marp and a browser are needed; make slides installs Marp"
)


@pytest.fixture(scope="module")
def measured():
    """Renders a filled deck, opens it in a browser and measures every slide; ``asked`` lists what the pages asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        browser = playwright.chromium.launch(executable_path=slides.find_browser(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})

        def measure(path):
            patch.chdir(ROOT)  # each test is moved to a folder of its own
            page.goto(slides.render(path, "html", Path(MARP)).as_uri())
            page.wait_for_function("[...document.images].every(image => image.complete)")
            return page.evaluate(MEASURE)

        measure.asked = []
        page.on("request", lambda request: measure.asked.append(request.url))
        yield measure
        browser.close()


def shortcomings(slide):
    """What is wrong with a measured slide."""
    wrong = {
        "no note": slide["footer"] != NOTE,
        "runs over the foot": slide["down"] > 0.5,
        "runs over the side": slide["across"] > 1,
        "small letters": slide["letters"] < 19,
        "small picture": min(slide["inches"], default=99) < 74,
    }
    return [name for name, is_so in wrong.items() if is_so]


@needs_marp
@pytest.mark.parametrize("one", DECKS, ids=lambda one: one.name)
def test_rendered_slides_overflow_nowhere_and_carry_to_the_last_row(one, built, measured):
    found = measured(built / f"{one.name}.md")
    assert len(found) == len(one.slides)
    assert [(slide["name"], wrong, slide) for slide in found if (wrong := shortcomings(slide))] == []
    assert measured.asked and not [url for url in measured.asked if not url.startswith(("file:", "data:", "blob:"))]


@needs_marp
@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("- line\n" * 14, "runs over the foot"),
        ("Long " * 120 + '\n\n<div class="figure"><img src="small.png"></div>', "small picture"),
        (f"```bash\n{'wide ' * 30}\n```", "runs over the side"),
        ("| a |\n|---|\n| " + "w" * 90 + " |", "runs over the side"),
        ('<p style="font-size: 12px">Tiny.</p>', "small letters"),
    ],
)
def test_the_measure_sees_what_nobody_could_read(body, wrong, tmp_path, measured):
    from PIL import Image

    Image.new("RGB", (2500, 1100)).save(tmp_path / "small.png")
    (tmp_path / "bad.md").write_text(deck(body).text, encoding="utf-8")
    (slide,) = measured(tmp_path / "bad.md")
    assert wrong in shortcomings(slide), slide


@needs_marp
def test_a_deck_becomes_a_pdf_and_failures_are_told(built, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shutil.copytree(built / "figures", tmp_path / "figures")
    shutil.copy(built / "00_start_here.md", tmp_path)
    made = slides.render(tmp_path / "00_start_here.md", "pdf", Path(MARP))
    assert made.read_bytes().startswith(b"%PDF") and made.stat().st_size > 20_000
    with pytest.raises(DeckError, match=r"Marp could not render .*missing\.md to html"):
        slides.render(tmp_path / "missing.md", "html", Path(MARP))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeckError, match="no theme in"):
        slides.render(tmp_path / "00_start_here.md", "html", Path(MARP))
    assert os.environ.get("CHROME_NO_SANDBOX") is None  # the caller's environment stays as it was
