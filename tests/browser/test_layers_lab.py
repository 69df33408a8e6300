"""LayerExplorer in a real JupyterLab: what the kernel is asked, and that page and kernel keep step."""

import nbformat
import pytest

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect  # noqa: E402

from melanoma_lib.explain.layers import cam_layers  # noqa: E402
from tests.browser.lab import ask_kernel  # noqa: E402
from tests.browser.test_layers import choose, drawn  # noqa: E402

CELLS = (
    "from melanoma_lib.runs import Run\nfrom melanoma_lib.widgets import LayerExplorer\n"
    "run = Run({run!r})\nanswers = run.predictions('test')[['image_id', 'probability', 'risk']]\n"
    "explorer = LayerExplorer(run, run.cases().merge(answers, on='image_id'))",
    "explorer",
)


@pytest.fixture(scope="module")
def notebook_page(lab, tiny_run, tmp_path_factory):
    cells = [nbformat.v4.new_code_cell(cell.replace("{run!r}", repr(str(tiny_run.path)))) for cell in CELLS]
    path = tmp_path_factory.mktemp("layers") / "layers.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with lab.open(path, height=1300) as page:
        page.locator(".mk-l-pictures[data-drawn]").wait_for()
        yield page


@pytest.fixture
def page(notebook_page: Page) -> Page:
    """The page with the recorded metadata and fast methods."""
    for letter in "AB":
        choose(notebook_page, f"method {letter}", "gradcam")
    back = notebook_page.get_by_role("button", name="Recorded values")
    if back.is_enabled():
        back.click()
    return notebook_page


def told(page: Page):
    return page.locator(".mk-l-told")


def test_a_moved_age_moves_the_risk_at_once_and_the_maps_are_computed_again(page):
    before = page.locator("[data-number=risk]").get_attribute("data-value")
    age = page.get_by_label("age", exact=True)
    age.focus()
    for _ in range(3):
        age.press("ArrowLeft")
    expect(page.locator("[data-number=risk]")).not_to_have_attribute("data-value", before)
    expect(told(page)).to_contain_text("Computed again with these values")
    check = ask_kernel(page, "{k: explorer.checks[-1][k] for k in ('case', 'change', 'n', 'risk')}")
    expect(told(page)).to_contain_text(f"largest change of any of the {check['n']} maps: {100 * check['change']:.1f}%")
    assert float(page.locator("[data-number=risk]").get_attribute("data-value")) == pytest.approx(check["risk"], abs=1e-4)
    assert ask_kernel(page, "explorer.shown") == drawn(page)


def test_only_the_last_of_many_moves_is_waited_for(page):
    before = ask_kernel(page, "explorer.answered")
    moves = "age => [0, 3, 9, 1, 17, 8, 2].forEach((at) => { age.value = at; age.dispatchEvent(new Event('input')); })"
    page.get_by_label("age", exact=True).evaluate(moves)  # faster than any kernel
    expect(told(page)).to_contain_text("Computed again with these values")
    assert ask_kernel(page, "explorer.answered") - before == 1
    place = "explorer.choices.place(*(explorer.shown[name] for name in ('age', 'sex', 'site')))"
    assert ask_kernel(page, f"explorer.checks[-1]['place'] == {place}")


def test_a_slow_map_is_asked_for_shown_and_kept(page, tiny_run):
    layer = next(iter(cam_layers(tiny_run.model())))
    choose(page, "layer A", layer)
    choose(page, "method A", "scorecam")
    panel = page.get_by_role("group", name="map A")
    expect(panel).to_contain_text("raw ±")
    size = ask_kernel(page, "explorer.asked_maps[-1]['maps']['index'][0]['size']")
    expect(panel).to_contain_text(f"raw ±{float(f'{size:.2g}'):g}")
    asked = ask_kernel(page, "len(explorer.asked_maps)")
    choose(page, "method A", "gradcam")
    choose(page, "method A", "scorecam")
    expect(panel).to_contain_text("raw ±")
    page.wait_for_timeout(400)
    assert ask_kernel(page, "len(explorer.asked_maps)") == asked


def test_a_cell_moves_the_page(page):
    case = ask_kernel(page, "explorer.table['image_id'].iloc[2]")
    ask_kernel(page, f"explorer.show(case={case!r}, method_b='eigencam', direction=-1, opacity=0.5)")
    expect(page.get_by_label("case", exact=True)).to_have_value(case)
    expect(page.get_by_label("method B", exact=True)).to_have_value("eigencam")
    expect(page.get_by_role("group", name="map B")).to_contain_text("Both directions have the very same map.")
    assert (drawn(page)["opacity"], drawn(page)["direction"]) == (0.5, -1)
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")


def test_a_failure_is_shown_and_leaves_the_page_usable(page):
    ask_kernel(
        page, "(setattr(explorer, '_kept_model', explorer.model), setattr(explorer, 'model', None), explorer._checks.clear())"
    )
    age = page.get_by_label("age", exact=True)
    age.press("End")
    expect(page.get_by_role("alert")).to_contain_text("AttributeError")
    ask_kernel(page, "setattr(explorer, 'model', explorer._kept_model)")
    age.press("ArrowLeft")
    expect(told(page)).to_contain_text("Computed again with these values")
    expect(page.get_by_role("alert")).to_be_hidden()
