"""LayerExplorer: its maps, logits and risks against the library and the whole model; what it packs, asks and refuses."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from torch import nn

from melanoma_lib.data.images import eight_views
from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.errors import DataError
from melanoma_lib.explain import heatmaps
from melanoma_lib.explain.exam import energy_in_mask
from melanoma_lib.inference import predict_logits
from melanoma_lib.widgets import LayerExplorer
from melanoma_lib.widgets.layer_states import (
    OUTCOMES,
    STEPS,
    WANTED,
    MetadataChoices,
    SignedMap,
    choose_cases,
    largest_change,
    logits_by_metadata,
    outcome,
    pack_maps,
    recorded_metadata,
)
from melanoma_lib.widgets.layers import ONE_PASS, ROUNDING
from tests.explain.nets import N_METADATA, small_net


def answered_cases(run) -> pd.DataFrame:
    """The run's tested cases with its answers, as lessons give them."""
    answers = run.predictions("test")[["image_id", "probability", "risk"]]
    return run.cases().merge(answers, on="image_id")


@pytest.fixture(scope="module")
def table(tiny_run) -> pd.DataFrame:
    return answered_cases(tiny_run)


@pytest.fixture(scope="module")
def explorer(tiny_run, table) -> LayerExplorer:
    return LayerExplorer(tiny_run, choose_cases(table, tiny_run.operating_point.threshold, 4))


def unpacked(packed: dict) -> dict:
    """Packed maps as the page reads them: int8 of ``rows * columns`` from ``at``, against ``size``."""
    found = {}
    for entry in packed["index"]:
        values = np.frombuffer(packed["bytes"], np.int8, entry["rows"] * entry["columns"], entry["at"])
        values = values.reshape(entry["rows"], entry["columns"]) * (entry["size"] / STEPS)
        found[entry["method"], entry["layer"], entry["direction"]] = values
    return found


def request(explorer: LayerExplorer, number: int = 1, maps: list | None = None, **metadata) -> dict:
    case = explorer.table["image_id"].iloc[0]
    values = recorded_metadata(explorer.table.iloc[0]) | metadata
    return {"number": number, "case": case, "maps": maps or [], **values}


# --- maps in few bytes -----------------------------------------------------------------------------------------------------


maps_of_a_case = st.dictionaries(
    st.tuples(st.sampled_from(["gradcam", "eigencam"]), st.sampled_from(["early", "late"]), st.sampled_from([1, -1])),
    st.builds(
        SignedMap,
        st_numpy.arrays(
            np.float32, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e4, 1e4, width=32)
        ),
        st.booleans(),
    ),
    min_size=1,
)


@given(maps_of_a_case)
def test_packed_maps_come_back_with_sign_and_size(maps):
    packed = pack_maps(maps)
    assert unpacked(packed).keys() == maps.keys()
    for entry in packed["index"]:
        key = entry["method"], entry["layer"], entry["direction"]
        values, doubtful = maps[key]
        assert entry["size"] == np.abs(values).max()
        assert entry["doubtful"] == doubtful
        assert unpacked(packed)[key] == pytest.approx(values, abs=entry["size"] / (2 * STEPS) * 1.001)
        assert np.abs(unpacked(packed)[key]).max() == pytest.approx(entry["size"])
        other = maps.get((*key[:2], -key[2]))
        assert entry["same"] == (other is not None and np.array_equal(other.values, values))
        assert entry["energy"] is None


def test_equal_maps_of_both_directions_share_their_bytes_and_opposite_ones_do_not():
    values = np.array([[1.0, -2.0], [0.5, 0.0]], np.float32)
    same = pack_maps({("eigencam", "late", 1): SignedMap(values, False), ("eigencam", "late", -1): SignedMap(values, False)})
    opposite = pack_maps({("gradcam", "late", 1): SignedMap(values, False), ("gradcam", "late", -1): SignedMap(-values, False)})
    assert (len(same["bytes"]), len(opposite["bytes"])) == (4, 8)
    assert unpacked(opposite)["gradcam", "late", -1] == pytest.approx(-values, abs=0.01)


def test_energy_on_the_lesion_is_that_of_the_exam():
    values, mask = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32), np.zeros((8, 8), bool)
    mask[2:5, 1:7] = True
    maps = {("gradcam", "late", 1): SignedMap(values, False), ("layercam", "late", 1): SignedMap(-np.abs(values), False)}
    first, nothing_positive = pack_maps(maps, mask)["index"]
    assert first["energy"] == energy_in_mask(values, mask)
    assert nothing_positive["energy"] is None


def test_the_largest_change_is_a_share_of_each_maps_own_size():
    def maps(*arrays):
        return {("gradcam", str(i), 1): SignedMap(np.array([values], np.float32), False) for i, values in enumerate(arrays)}

    assert largest_change(maps([2.0, -4.0], [100.0, 0.0]), maps([2.0, -3.0], [110.0, 0.0])) == pytest.approx(0.25)
    assert largest_change(maps([0.0, 0.0]), maps([0.0, 0.0])) == 0
    assert largest_change(maps([0.0, 0.0]), maps([0.0, 1e-9])) == 1


# --- which cases -----------------------------------------------------------------------------------------------------------


def random_table(n: int, seed: int, threshold: float = 0.4, kinds: tuple[str, ...] = tuple(WANTED)) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    blank = pd.DataFrame({"image_id": [f"c{i}" for i in range(n)], "image_path": "x.jpg", "age_approx": 50.0, "sex": "male"})
    cases = blank.assign(
        anatom_site_general_challenge="torso", target=rng.integers(0, 2, n), probability=rng.random(n).round(3),
        group_id=[f"g{i}" for i in rng.integers(0, max(1, n // 2), n)],
    )  # fmt: skip
    return cases[cases.apply(outcome, axis=1, threshold=threshold).isin(kinds)]


@given(st.integers(1, 80), st.integers(0, 1000), st.integers(1, 20), st.sets(st.sampled_from(list(WANTED)), min_size=1))
def test_chosen_cases_are_varied_and_as_many_as_there_can_be(n, seed, wanted, kinds):
    cases = random_table(n, seed, kinds=tuple(kinds))
    if cases.empty:
        return
    chosen = choose_cases(cases, 0.4, wanted)
    pool = cases.drop_duplicates("group_id")
    assert len(chosen) == min(wanted, len(pool))
    assert chosen["group_id"].is_unique
    counts = chosen.apply(outcome, axis=1, threshold=0.4).value_counts()
    available = pool.apply(outcome, axis=1, threshold=0.4).value_counts()
    for kind, count in counts.items():
        if wanted >= len(WANTED) * max(WANTED.values()):
            assert count >= min(WANTED[kind], available[kind])
    distance = (chosen["probability"] - 0.4).abs().groupby(chosen.apply(outcome, axis=1, threshold=0.4), sort=False)
    assert all(part.is_monotonic_increasing for _, part in distance)


def test_a_dozen_of_plenty_is_the_declared_mix():
    chosen = choose_cases(random_table(2000, 3), 0.4)
    assert chosen.apply(outcome, axis=1, threshold=0.4).value_counts().to_dict() == WANTED


def test_outcomes_count_a_probability_at_the_threshold_as_flagged():
    found = {outcome({"target": t, "probability": p}, 0.4) for t in (0, 1) for p in (0.4, 0.3999)}
    assert found == set(OUTCOMES.values())
    assert outcome({"target": 1, "probability": 0.4}, 0.4) == "found"


# --- metadata --------------------------------------------------------------------------------------------------------------


def test_every_combination_is_encoded_where_its_place_says(table, tiny_run):
    cases = table.head(5).assign(age_approx=[37.0, np.nan, 45.0, 97.5, 0.0])
    choices, encoder = MetadataChoices.of(cases, tiny_run.encoder), tiny_run.encoder
    encoded = choices.encoded(encoder)
    assert {0.0, 5.0, 90.0, 95.0, 37.0, 97.5} < set(choices.ages)
    assert encoded.shape == (len(choices.ages) * len(choices.sexes) * len(choices.sites), encoder.n_features)
    for age in choices.ages[::4]:
        for sex in choices.sexes:
            for site in choices.sites[::3]:
                assert np.array_equal(encoded[choices.place(age, sex, site)], encoder.encode(age, sex, site)[0])
    with pytest.raises(DataError, match="age: expected one of"):
        choices.place(41.0, "male", "torso")


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("modalities", ["image+metadata", "image"])
def test_counterfactual_logits_are_those_of_the_whole_model(modalities, head, tta):
    model = small_net("test_efficientnet", modalities=modalities)
    if head == "mlp":
        model.head = nn.Sequential(nn.Linear(model.n_features, 7), nn.Tanh(), nn.Linear(7, 1))
    model.train()  # its modes are the caller's business
    image, metadata = torch.randn(1, 3, 64, 64), torch.randn(9, N_METADATA)
    views = list(eight_views(image)) if tta else [image]
    found = logits_by_metadata(model, views, metadata)
    expected = [predict_logits(model, [{"image": image, "metadata": row[None]}], tta)[0] for row in metadata]
    assert found == pytest.approx(expected, abs=1e-4)
    assert model.training
    assert (np.ptp(found) > 1e-3) == (modalities == "image+metadata")


# --- the explorer ----------------------------------------------------------------------------------------------------------


def test_the_pages_maps_are_the_librarys(explorer, tiny_run):
    for (_, row), given_case in zip(explorer.table.iterrows(), explorer.cases, strict=True):
        image, metadata = explorer._image(row), explorer._encoded(row)
        maps = unpacked(given_case["maps"])
        assert len(maps) == len(ONE_PASS) * len(explorer.layers) * 2
        for method in ("gradcam", "eigencam", "layercam"):
            for direction in (1, -1):
                expected = heatmaps(explorer.model, image, metadata, method=method, direction=direction)
                for layer, values in expected.items():
                    size = np.abs(values[0]).max()
                    assert maps[method, layer, direction] == pytest.approx(values[0], abs=0.005 * float(size))


def test_recorded_risks_are_those_the_run_wrote_down(explorer, table):
    for case in explorer.table["image_id"]:
        explorer.show(case=case)
        stored = table.set_index("image_id").loc[case]
        own = recorded_metadata(stored)
        assert {name: explorer.shown[name] for name in own} == own
        assert explorer.risk(**own) == pytest.approx(stored["risk"], abs=1e-3)


def test_eigencam_shares_its_map_and_gradcam_turns_it_round(explorer):
    for entry in explorer.cases[0]["maps"]["index"]:
        if entry["method"] == "eigencam":
            assert entry["same"]
    maps = unpacked(explorer.cases[0]["maps"])
    for layer in explorer.layers:
        assert np.array_equal(maps["gradcam", layer, 1], -maps["gradcam", layer, -1])


def test_a_request_for_other_metadata_is_checked_with_the_whole_model(tiny_run, table):
    explorer = LayerExplorer(tiny_run, table, chosen=[table["image_id"].iloc[0]])
    explorer.request = request(explorer, 3, age=85.0, sex=None)
    found = explorer.checks[-1]
    encoded = torch.from_numpy(tiny_run.encoder.encode(85.0, None, recorded_metadata(table.iloc[0])["site"]))
    logit = predict_logits(explorer.model, [{"image": explorer._image(table.iloc[0]), "metadata": encoded}])[0]
    assert found["logit"] == pytest.approx(logit)
    assert found["risk"] == pytest.approx(tiny_run.calibrator.risk(logit))
    assert found["n"] == len(ONE_PASS) * len(explorer.layers) * 2
    assert found["change"] <= ROUNDING  # one linear layer ends the model: its gradients do not know the metadata
    assert found["maps"] is None
    assert (explorer.answered, explorer.problem) == (3, "")


def test_where_metadata_do_change_the_maps_the_page_gets_the_new_ones(tiny_run, table):
    model = tiny_run.model()
    torch.manual_seed(0)
    model.head = nn.Sequential(nn.Linear(model.n_features, 8), nn.Tanh(), nn.Linear(8, 1)).eval()
    explorer = LayerExplorer(tiny_run, table, chosen=[table["image_id"].iloc[0]], model=model)
    explorer.request = request(explorer, age=90.0, sex=None, site=None)
    found = explorer.checks[-1]
    assert found["change"] > 10 * ROUNDING
    encoded = torch.from_numpy(tiny_run.encoder.encode(90.0, None, None))
    layer = list(explorer.layers)[-1]
    expected = heatmaps(model, explorer._image(table.iloc[0]), encoded, layer, "gradcam")[layer][0]
    assert unpacked(found["maps"])["gradcam", layer, 1] == pytest.approx(expected, abs=0.005 * float(np.abs(expected).max()))


def test_slow_maps_are_computed_once_and_kept(tiny_run, table, monkeypatch):
    explorer = LayerExplorer(tiny_run, table, chosen=[table["image_id"].iloc[0]])
    layer = next(iter(explorer.layers))
    explorer.request = request(explorer, 1, [["scorecam", layer, 1], ["ablationcam", layer, -1]])
    assert len(explorer.asked_maps) == 2
    expected = heatmaps(explorer.model, explorer._image(table.iloc[0]), explorer._encoded(table.iloc[0]), layer, "scorecam")
    values = unpacked(explorer.asked_maps[0]["maps"])["scorecam", layer, 1]
    assert values == pytest.approx(expected[layer][0], abs=0.005 * float(np.abs(expected[layer]).max()))
    monkeypatch.setattr("melanoma_lib.widgets.layers.signed_maps", lambda *_: pytest.fail("computed a second time"))
    explorer.request = request(explorer, 2, [["scorecam", layer, 1]])
    assert (explorer.answered, len(explorer.asked_maps)) == (2, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"case": "nobody"}, "case: expected one of"),
        ({"age": 41.3}, "age: expected one of"),
        ({"sex": "other"}, "sex: expected one of"),
        ({"maps": [["scorecam", "nowhere", 1]]}, "expected some of"),
        ({"maps": [["magic", "blocks.0", 1]]}, "method: expected one of"),
    ],
)
def test_a_wrong_request_is_shown_and_counts_as_answered(explorer, wrong, message):
    number = explorer.answered + 1
    with pytest.raises(ValueError, match=message):
        explorer.request = request(explorer, number) | wrong
    assert explorer.answered == number
    assert wrong["case"] in explorer.problem if "case" in wrong else "expected" in explorer.problem
    explorer.request = request(explorer, number + 1)
    assert (explorer.answered, explorer.problem) == (number + 1, "")


def test_a_model_that_changed_under_the_page_is_noticed(tiny_run, table):
    explorer = LayerExplorer(tiny_run, table, chosen=[table["image_id"].iloc[0]])
    with torch.no_grad():
        explorer.model.head[-1].bias.add_(1)
    with pytest.raises(ValueError, match="run the cell again"):
        explorer.request = request(explorer, age=90.0)
    assert "run the cell again" in explorer.problem


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"case": "nobody"}, "case: expected one of"),
        ({"method_a": "magic"}, "method_a: expected one of"),
        ({"layer_b": "nowhere"}, "layer_b: expected one of"),
        ({"direction": 0}, "direction: expected one of"),
        ({"opacity": 1.5}, "opacity: expected a share"),
        ({"age": -5}, "age: expected one of"),
        ({"colour": "jet"}, "shown: expected"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_changes_nothing(explorer, values, message):
    before = explorer.shown
    with pytest.raises(DataError, match=message):
        explorer.show(**values)
    assert explorer.shown == before


def test_tables_and_choices_that_do_not_fit_say_so(tiny_run, table):
    with pytest.raises(DataError, match="probability"):
        LayerExplorer(tiny_run, table.drop(columns="probability"))
    with pytest.raises(DataError, match="0 rows"):
        LayerExplorer(tiny_run, table.head(0))
    for chosen in ([], ["nobody"], [table["image_id"].iloc[0]] * 2):
        with pytest.raises(DataError, match="different image_ids"):
            LayerExplorer(tiny_run, table, chosen=chosen)
    with pytest.raises(DataError, match="at least one case"):
        choose_cases(table, 0.5, 0)


def test_a_model_without_an_image_branch_is_refused(tiny_run, table):
    with pytest.raises(ValueError, match="image branch"):
        LayerExplorer(tiny_run, table, model=small_net("test_efficientnet", modalities="metadata"))


def test_metadata_that_is_not_known_starts_as_unknown(tiny_run, table):
    gaps = table.head(1).assign(age_approx=np.nan, sex=pd.NA, anatom_site_general_challenge=pd.NA, mask_path=pd.NA)
    explorer = LayerExplorer(tiny_run, gaps, chosen=list(gaps["image_id"]))
    assert (explorer.shown["age"], explorer.shown["sex"], explorer.shown["site"]) == (None, None, None)
    assert explorer.cases[0]["mask"] is explorer.cases[0]["covered"] is None
    assert explorer.facts["ages"][0] is None
    encoder: MetadataEncoder = tiny_run.encoder
    logit = predict_logits(
        explorer.model, [{"image": explorer._image(gaps.iloc[0]), "metadata": torch.from_numpy(encoder.encode())}]
    )
    assert explorer.risk(None, None, None) == pytest.approx(tiny_run.calibrator.risk(logit)[0])


def test_a_page_without_a_kernel_gets_a_picture_with_its_numbers(explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    text, first = metadata["image/png"]["alt"], explorer.table.iloc[0]
    assert "not for diagnosis" in text
    for case, risk in [(explorer.shown["case"], explorer.risk(**recorded_metadata(explorer._row(explorer.shown["case"]))))]:
        assert case in text
        assert f"Calibrated risk {risk:.1%} as recorded" in text
    assert f"female {explorer.risk(**recorded_metadata(explorer._row(explorer.shown['case'])) | {'sex': 'female'}):.1%}" in text
    assert first["image_id"] in set(explorer.table["image_id"])
