"""The heatmap lesson's facts about a case, against the model itself."""

import pytest
import torch

from melanoma_lib.lessons import gradcam, start


@pytest.fixture(scope="module")
def cases(tiny_run):
    return start.tested_cases(tiny_run)


@pytest.fixture(scope="module")
def model(tiny_run):
    return tiny_run.model()


@pytest.fixture(scope="module")
def one(tiny_run, cases, model):
    return gradcam.subject(tiny_run, start.choose_case(cases), model)


def test_the_parts_add_up_to_the_logit_and_the_last_map_to_the_images_part(one):
    parts = gradcam.logit_parts(one)
    with torch.inference_mode():
        logit = float(one.model(one.image, one.metadata))
    assert sum(parts.values()) == pytest.approx(logit, abs=1e-4)
    assert one.maps(layers=one.last_layer)[one.last_layer].sum() == pytest.approx(parts["image"], abs=1e-4)


def test_the_site_moves_the_risk_and_not_the_map_and_a_map_that_moves_is_seen(tiny_run, one, monkeypatch):
    table = gradcam.site_table(one)
    assert list(table.index) == [*gradcam.SITES, "unknown"]
    assert table["risk"].nunique() > 1 and table["largest change of a map"].max() < 1e-4
    moved = one.case.copy()
    moved["anatom_site_general_challenge"] = "head/neck"
    assert table.loc["head/neck", "risk"] == pytest.approx(gradcam.subject(tiny_run, moved, one.model).risk, abs=1e-5)
    plain = one.model.features

    def mixing(image, metadata):
        return plain(image, metadata) * (1 + metadata @ torch.arange(1.0, metadata.shape[1] + 1))[:, None]

    monkeypatch.setattr(one.model, "features", mixing)
    assert gradcam.site_table(one, ("gradcam",))["largest change of a map"].max() > 0.01
