import base64
import json
import re

import nbformat
import pytest

from melanoma_lib.classroom import handout
from melanoma_lib.classroom.handout import WIDGET_STATE, handout_page, print_page
from melanoma_lib.classroom.lesson import Lesson
from melanoma_lib.classroom.papermill import write_handout
from melanoma_lib.errors import LessonError
from tests.notebooks.mini import mini_lesson

PNG = base64.b64encode(b"not looked at").decode()


def notebook(models, *model_ids):
    """An executed notebook that keeps these models and shows some of them, each beside its picture."""
    executed = nbformat.v4.new_notebook(metadata={"widgets": {WIDGET_STATE: {"state": models}}})
    for model_id in model_ids:
        data = {"image/png": PNG, "application/vnd.jupyter.widget-view+json": {"model_id": model_id}, "text/plain": "x"}
        output = nbformat.v4.new_output("display_data", data, metadata={"image/png": {"alt": "a <labelled> picture"}})
        executed.cells.append(nbformat.v4.new_code_cell("explorer", outputs=[output]))
    return executed


def saved(**values):
    return {"model_name": "AnyModel", "state": {"_esm": "esm of it", "_css": ".mk { }", **values}}


def test_an_explorer_that_needs_no_kernel_moves_and_keeps_its_picture_for_paper():
    model = saved(alpha=0.25, alone={"state": {}}, state={"auroc": 1}, request={"of": {}}, word="</script>")
    model["buffers"] = [{"encoding": "base64", "path": ["request", "of", "deep"], "data": "AAAA"}]
    page = handout_page(notebook({"a": model}, "a", "a"), "title")
    ids = re.findall(r'<div id="(explorer-\d)"></div>', page)
    assert ids == ["explorer-1", "explorer-2"]  # shown twice, they are two
    (values, _) = re.findall(r'<script id="explorer-\d-values" type="application/json">(.*?)</script>', page)
    values = json.loads(values)
    assert values["alpha"] == 0.25 and values["state"] == {} and values["request"]["of"]["deep"] == {"bytes": "AAAA"}
    assert values["word"] == "</script>"  # and did not end the element early
    assert page.count('alt="a &lt;labelled&gt; picture"') == 2
    assert "default-src 'none'" in page and not re.findall(r'(?:src|href)="(?:https?:)?//', page)


@pytest.mark.parametrize("models", [{}, {"a": saved(alone=None)}, {"a": {"model_name": "LayoutModel", "state": {}}}])
def test_everything_else_stays_a_picture(models):
    page = handout_page(notebook(models, "a"), "title")
    assert '<div class="still">' not in page and "data:image/png" in page
    assert "widget-view" not in page


def test_a_lesson_that_fails_leaves_the_older_handout(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path / "notebooks", digest="raise RuntimeError('no luck')"))
    (tmp_path / "07_mini.html").write_text("older")
    with pytest.raises(LessonError, match=r"all is left as it was: cell .* no luck"):
        write_handout(lesson, tmp_path, {}, show_progress=False)
    assert (tmp_path / "07_mini.html").read_text() == "older"


def test_the_pdf_is_one_or_an_error_that_leaves_no_file(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<title>x</title><p>hello")
    with pytest.raises(LessonError, match="could not print"):
        print_page(page, "/bin/false")
    assert list(tmp_path.iterdir()) == [page]
    if (browser := handout.find_browser()) is None:
        pytest.skip("no Chromium to print with")
    assert print_page(page, browser).read_bytes().startswith(b"%PDF-")
