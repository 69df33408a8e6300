"""LayerExplorer: its maps, logits and risks against the library and the whole model; what it packs, asks and refuses."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from melanoma_lib.data.images import eight_views
from melanoma_lib.explain import CAM_METHODS, heatmaps
from melanoma_lib.inference import predict_logits
from melanoma_lib.widgets import LayerExplorer
from melanoma_lib.widgets.case_selection import OUTCOMES
from melanoma_lib.widgets.layers import STEPS, SignedMap, choose_cases, logits_by_metadata, pack_maps, recorded_metadata
from tests.data.builders import case_table
from tests.explain.nets import N_METADATA, small_net


@pytest.fixture(scope="module")
def explorer(tiny_run) -> LayerExplorer:
    return LayerExplorer(tiny_run, choose_cases(tiny_run.cases("test"), tiny_run.operating_point.threshold, 1))


def unpacked(packed: dict) -> dict:
    """Packed maps as the page reads them: int8 of ``rows * columns`` from ``at``, against ``size``."""
    found = {}
    for entry in packed["index"]:
        values = np.frombuffer(packed["bytes"], np.int8, entry["rows"] * entry["columns"], entry["at"])
        values = values.reshape(entry["rows"], entry["columns"]) * (entry["size"] / STEPS)
        found[entry["method"], entry["layer"], entry["direction"]] = values
    return found


def model_logit(explorer: LayerExplorer, row: pd.Series, **metadata) -> float:
    """What the whole model answers to a case with these metadata."""
    image = explorer.run.batch(row.to_frame().T).images
    encoded = torch.from_numpy(explorer.run.encoder.encode(**metadata))
    return float(predict_logits(explorer.model, [{"image": image, "metadata": encoded}])[0])


finite_maps = st_numpy.arrays(
    np.float32, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e4, 1e4, width=32)
)
keys = st.tuples(st.sampled_from(["gradcam", "eigencam"]), st.sampled_from(["early", "late"]), st.sampled_from([1, -1]))


@given(st.dictionaries(keys, st.builds(SignedMap, finite_maps, st.booleans()), min_size=1))
def test_packed_maps_come_back_with_sign_and_size(maps):
    packed = pack_maps(maps)
    assert unpacked(packed).keys() == maps.keys()
    for entry in packed["index"]:
        key = entry["method"], entry["layer"], entry["direction"]
        values, doubtful = maps[key]
        assert (entry["size"], entry["doubtful"], entry["energy"]) == (np.abs(values).max(), doubtful, None)
        assert unpacked(packed)[key] == pytest.approx(values, abs=entry["size"] / (2 * STEPS) * 1.001)


def test_eigencam_whose_sign_is_arbitrary_is_graded_with_both():
    values, mask = np.array([[1, -3], [2, 0]], np.float32), np.array([[True, True], [False, False]])
    found = pack_maps({(method, "late", 1): SignedMap(values, False) for method in ("gradcam", "eigencam")}, mask)["index"]
    assert [(entry["energy"], entry["turned"]) for entry in found] == [(pytest.approx(1 / 3), None), (pytest.approx(1 / 3), 1.0)]


def test_chosen_cases_are_of_every_kind_of_outcome_and_of_different_lesions():
    scores = np.linspace(0, 1, 40) % 0.5 * 2  # in either class from 0 to 1
    cases = case_table([1] * 20 + [0] * 20, lesions=[f"l{i // 2}" for i in range(40)], probability=scores)
    chosen = choose_cases(cases, 0.4, 3)
    assert chosen["outcome"].value_counts().to_dict() == dict.fromkeys(OUTCOMES, 3)
    assert chosen["group_id"].is_unique


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("modalities", ["image+metadata", "image"])
def test_counterfactual_logits_are_those_of_the_whole_model(modalities, tta):
    model = small_net("test_efficientnet", modalities=modalities).train()  # its modes are the caller's business
    image, metadata = torch.randn(1, 3, 64, 64), torch.randn(9, N_METADATA)
    found = logits_by_metadata(model, list(eight_views(image)) if tta else [image], metadata)
    expected = [predict_logits(model, [{"image": image, "metadata": row[None]}], tta)[0] for row in metadata]
    assert found == pytest.approx(expected, abs=1e-4)
    assert model.training and (np.ptp(found) > 1e-3) == (modalities == "image+metadata")


def test_the_pages_maps_are_the_librarys_and_its_risks_those_the_run_wrote_down(explorer, tiny_run):
    for (_, row), given_case in zip(explorer.table.iterrows(), explorer.cases, strict=True):
        maps, batch = unpacked(given_case["maps"]), explorer.run.batch(row.to_frame().T)
        assert len(maps) == len(CAM_METHODS) * len(explorer.layers) * 2
        for method, direction in (("gradcam", 1), ("gradcam", -1), ("layercam", -1), ("eigencam", 1)):
            found = heatmaps(explorer.model, batch.images, batch.metadata, method=method, direction=direction)
            for layer, values in found.items():
                assert maps[method, layer, direction] == pytest.approx(values[0], abs=0.005 * float(np.abs(values[0]).max()))
        explorer.show(case=row["image_id"])
        stored = tiny_run.cases("test").set_index("image_id").loc[row["image_id"]]
        own = recorded_metadata(stored)
        assert {name: explorer.shown[name] for name in own} == own
        assert explorer.risk(**own) == pytest.approx(stored["risk"], abs=1e-3)
        every = itertools.product(*(values[:: max(1, len(values) // 3)] for values in explorer.choices.values()))
        for other in ({"age": None}, {"sex": None}, *(dict(zip(own, one, strict=True)) for one in every)):
            logit = model_logit(explorer, row, **own | other)
            assert explorer.risk(**own | other) == pytest.approx(explorer.run.calibrator.risk(logit), abs=1e-4)


def test_a_case_without_mask_and_metadata_is_shown_and_described(tiny_run):
    unknown = {"age_approx": 37.0, "sex": pd.NA, "anatom_site_general_challenge": pd.NA, "mask_path": pd.NA}
    gaps = tiny_run.cases("test").head(2).assign(**unknown)
    gaps.loc[gaps.index[0], "age_approx"] = np.nan
    explorer = LayerExplorer(tiny_run, gaps, chosen=list(gaps["image_id"]))
    assert explorer.cases[0]["mask"] is explorer.cases[0]["covered"] is None
    logit = model_logit(explorer, gaps.iloc[0])
    assert explorer.risk(None, None, None) == pytest.approx(tiny_run.calibrator.risk(logit))
    assert {0.0, 5.0, 37.0, 90.0} < set(explorer.choices["age"])
    text = explorer._repr_mimebundle_()[1]["image/png"]["alt"]
    assert f"risk {explorer.risk(None, None, None):.1%}" in text and "not for diagnosis" in text
