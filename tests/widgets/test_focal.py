"""FocalLossExplorer: its numbers against high precision, its values, its answers without a page."""

import json
from dataclasses import replace

import numpy as np
import pytest

from melanoma_lib.errors import SettingsError
from melanoma_lib.heads import HeadSettings
from melanoma_lib.losses import FocalLoss
from melanoma_lib.widgets import FocalLossExplorer
from melanoma_lib.widgets.focal import focal_numbers
from melanoma_lib.widgets.head import PRESETS, head_state
from tests.test_losses import exact
from tests.widgets.test_head import random_table

QUICK = HeadSettings(alpha=0.3, epochs=3)
NUMBERS = ("melanoma_loss", "other_loss", "melanoma_slope", "other_slope", "risk")


@pytest.fixture(scope="module")
def table():
    return random_table()


@pytest.mark.parametrize(("alpha", "gamma"), [(None, 0.0), (None, 2.0), (0.25, 2.0), (0.9, 0.5), (0.05, 5.0)])
def test_numbers_are_those_of_the_definition_at_any_logit(alpha, gamma):
    logits = [-40.0, -12.0, -3.3, -0.2, 0.0, 1.7, 9.0, 30.0]
    given = focal_numbers(alpha, gamma, logits)
    melanoma, other = (np.array([exact(logit, target, alpha, gamma) for logit in logits]).T for target in (1, 0))
    risk = other[1] / (other[1] - melanoma[1])  # where risk * slope of a melanoma + (1 - risk) * slope of another = 0
    wanted = (melanoma[0], other[0], melanoma[1], other[1], risk)
    for name, expected in zip(NUMBERS, wanted, strict=True):
        # An output is a float64: near 1 its complement, and so a risk's last digits, are lost.
        np.testing.assert_allclose(given[name], expected, rtol=1e-9, atol=1e-14 if name == "risk" else 1e-300)


def test_it_starts_where_its_settings_say_and_a_page_leaves_the_head_out(table, tmp_path):
    alone, beside = FocalLossExplorer(), FocalLossExplorer(table, QUICK)
    assert (alone.alpha, alone.gamma, alone.output, alone.state) == (0.25, 2.0, 0.5, {})
    assert (beside.alpha, beside.gamma) == (0.3, 2.0)
    assert beside.state == head_state(table, QUICK)
    alone.alpha, alone.gamma = None, 0.0
    for explorer, alpha in ((alone, None), (beside, 0.3)):  # the head needs Python; what remains does not
        page = explorer.save_page(tmp_path / "page.html", "Focal loss").read_text()
        values = json.loads(page.split('type="application/json">')[1].split("<")[0])
        assert (values["alpha"], values["state"]) == (alpha, {})


def test_a_request_retrains_the_head_with_its_alpha_and_gamma(table):
    explorer = FocalLossExplorer(table, QUICK)
    explorer.request = {"alpha": None, "gamma": 0.0, "number": 1}
    assert explorer.state == head_state(table, replace(QUICK, alpha=None, gamma=0.0))
    assert (explorer.answered, explorer.problem) == (1, "")
    with pytest.raises(SettingsError, match="a request holds alpha, gamma"):
        explorer.request = {"alpha": None, "number": 2}
    assert (explorer.answered, explorer.state["alpha"]) == (2, None)
    assert "a request holds" in explorer.problem


@pytest.mark.parametrize("with_head", [False, True])
def test_a_page_without_a_kernel_gets_the_presets_with_their_numbers(table, with_head):
    explorer = FocalLossExplorer(table, QUICK) if with_head else FocalLossExplorer()
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    alt = metadata["image/png"]["alt"]
    for name, values in PRESETS.items():
        loss = FocalLoss(values["alpha"], values["gamma"])
        assert f"{name}: loss of a melanoma " in alt and f", risk {loss.true_risk(0.5):.2f}" in alt
        assert (f"sensitivity {head_state(table, replace(QUICK, **values))['sensitivity']:.2f}" in alt) or not with_head
    assert explorer.presets_figure() is explorer.presets_figure()
