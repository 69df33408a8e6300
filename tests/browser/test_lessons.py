"""Each lesson in a real JupyterLab: opened cold, all cells run, and what the page shows against the library."""

from pathlib import Path

import nbformat
import pytest

from melanoma_lib.classroom.lesson import find_lessons, tags_of
from melanoma_lib.settings import Settings

pytest_plugins = ["tests.browser.lab"]
pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PATIENCE = 900.0  # seconds: a lesson may have to train its run first


@pytest.fixture(params=[lesson.name for lesson in find_lessons(folder=NOTEBOOKS)])
def lesson_file(request, tmp_path, lesson_folders):
    """A copy of a lesson that keeps its data and its run where the other tests of lessons keep theirs."""
    (lesson,) = find_lessons([request.param], NOTEBOOKS)
    notebook = lesson.notebook
    run = Settings(profile="fast", seed=lesson.parameters.get("seed", 0), **lesson_folders).run_path
    shared = {
        "data_dir": str(lesson_folders["data_dir"]), "run_dir": str(run),
        "results": str(NOTEBOOKS.parent / "docs" / "results"),  # a copy elsewhere does not find the project's
    }  # fmt: skip
    (parameters,) = lesson.cells("parameters")
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in shared.items() if name in lesson.parameters)
    path = tmp_path / lesson.path.name
    nbformat.write(notebook, path)
    return path


@pytest.mark.xdist_group("lessons")
def test_a_lesson_runs_in_the_page_without_scrolling_sideways(lab, lesson_file, lesson_folders):
    explorers = sum("Explorer(" in cell.source for cell in nbformat.read(lesson_file, 4).cells if cell.cell_type == "code")
    with lab.open(lesson_file, patience=PATIENCE) as page:
        shown = page.locator(".mk")
        if explorers:
            shown.first.wait_for()
        assert shown.count() == explorers
        assert page.locator(".mk-problem:visible").count() == 0
        wide = page.evaluate("""() => [...document.querySelectorAll(".jp-OutputArea-output")]
            .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.innerText.slice(0, 80))""")
        assert wide == []
        digests = [cell for cell in nbformat.read(lesson_file, 4).cells if "digest" in tags_of(cell)]
        outputs = "\n".join(page.locator(".jp-OutputArea-output").all_inner_texts())
        for digest in digests:  # the committed text is in the page that was just computed
            for line in "".join(output.text for output in digest.outputs if output.output_type == "stream").splitlines():
                assert line.strip() in outputs
