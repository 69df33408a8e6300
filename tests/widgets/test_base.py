"""What all explorers share: an explorer that computes in Python cannot be saved as a page of its own."""

import pytest

from melanoma_lib.widgets.base import Explorer


class Asking(Explorer):
    _esm = "export default { render() {} }"


def test_an_explorer_that_needs_a_kernel_refuses_to_become_a_page(tmp_path):
    with pytest.raises(ValueError, match="Asking computes its answers in Python"):
        Asking().save_page(tmp_path / "page.html", "title")
    assert not list(tmp_path.iterdir())
