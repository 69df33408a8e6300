from IPython.core.formatters import DisplayFormatter

from melanoma_lib.lessons.words import Words


def test_words_are_rendered_where_they_can_be_and_plain_elsewhere():
    shown, _ = DisplayFormatter().format(Words("Sensitivity is **95%**.\n\n| a |\n|---|\n"))
    assert shown == dict.fromkeys(("text/plain", "text/markdown"), "Sensitivity is **95%**.\n\n| a |\n|---|\n")
