"""A handout opened from a file, offline: its explorers move, on paper they are pictures."""

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.classroom.lesson import Lesson
from melanoma_lib.classroom.papermill import write_handout
from tests.browser.lab import offline, press
from tests.notebooks.mini import mini_lesson

EXPLORERS = """from melanoma_lib.widgets import FocalLossExplorer, ThresholdExplorer
display(FocalLossExplorer())
ThresholdExplorer([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.8])"""


@pytest.mark.slow
def test_explorers_move_from_a_file_and_stand_still_on_paper(chromium, tmp_path):
    lesson = Lesson(mini_lesson(tmp_path / "notebooks", extra=EXPLORERS))
    made = write_handout(lesson, tmp_path, {}, show_progress=False)
    with offline(chromium, made) as page:
        focal, threshold = page.locator("#explorer-1 .mk"), page.locator("#explorer-2 .mk")
        before = threshold.inner_text()
        press(page, "threshold", "ArrowRight")
        expect(threshold).not_to_have_text(before, use_inner_text=True)
        expect(focal).to_be_visible()
        expect(page.locator(".still").first).to_be_hidden()
        page.emulate_media(media="print")
        expect(focal).to_be_hidden()
        expect(page.locator(".still img").first).to_be_visible()
