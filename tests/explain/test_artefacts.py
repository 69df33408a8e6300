"""Pairs differ in the artefact and nowhere else; answers to them are the model's own; what is not there is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import evaluation_transform, read_square, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.explain import artefact_pair, paired_artefacts
from tests.data.builders import case_table, pixels


@pytest.fixture
def photographs(tmp_path):
    """Two photographs of 4:3; the lesion of the first fills it, that of the second is not outlined."""
    cases = case_table([0, 1], image_path=[str(tmp_path / f"{i}.png") for i in range(2)])
    for i, path in enumerate(cases["image_path"]):
        Image.fromarray(pixels(60, 80, seed=i)).save(path)
    Image.fromarray(np.full((60, 80), 255, np.uint8)).save(tmp_path / "mask.png")
    cases["mask_path"] = [str(tmp_path / "mask.png"), None]
    return cases


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_pairs_differ_inside_the_artefact_and_nowhere_else(artefact, photographs, tiny_run):
    abroad = SimpleNamespace(settings=tiny_run.settings.with_changes(source="ham10000"), path="ham")
    side = stored_side(tiny_run.settings.image_size)
    for case in (photographs.iloc[0], photographs.iloc[1]):
        pair, again = (artefact_pair(case, artefact, abroad) for _ in range(2))
        assert np.array_equal(pair.painted, again.painted) and np.array_equal(pair.without, read_square(case["image_path"], side))
        assert np.array_equal((pair.without != pair.painted).any(axis=-1), pair.where) and pair.where.any()
    generator = SyntheticDermoscopy(tiny_run.settings.n_patients, tiny_run.settings.data_seed, side)
    for present, rows in tiny_run.cases("test").groupby(f"truth_artefact_{artefact}"):
        case = rows.iloc[0]
        pair = artefact_pair(case, artefact, tiny_run)
        whole = generator.render(int(np.flatnonzero(generator.cases["image_id"] == case["image_id"])[0]))
        assert np.array_equal(pair.without[~pair.where], pair.painted[~pair.where]) and np.array_equal(pair.lesion, whole.mask)
        if present:
            assert np.array_equal(pair.where, whole.artefacts[artefact])
            assert np.array_equal(pair.painted[pair.where], whole.image[pair.where])
        else:
            assert np.array_equal(pair.without, whole.image)


def test_a_row_holds_what_the_model_answers_to_either_picture(tiny_run):
    cases = tiny_run.cases("test").head(35)  # more than a batch
    table = paired_artefacts(cases, "ink", tiny_run)
    assert table["image_id"].tolist() == cases["image_id"].tolist()
    settings, model = tiny_run.settings, tiny_run.model()
    transform = evaluation_transform(settings.backbone, settings.image_size)
    for place in (0, len(cases) - 1):
        case, row = cases.iloc[place], table.iloc[place]
        pair = artefact_pair(case, "ink", tiny_run)
        metadata = torch.from_numpy(tiny_run.encoder.transform(case.to_frame().T))
        for name, picture in (("without", pair.without), ("with", pair.painted)):
            with torch.no_grad():
                logit = model(transform(Image.fromarray(picture))[None], metadata).item()
            assert row[f"logit_{name}"] == pytest.approx(logit, abs=1e-4)
            assert row[f"risk_{name}"] == pytest.approx(float(tiny_run.calibrator.risk(logit)), abs=1e-4)
            assert row[f"flagged_{name}"] == (1 / (1 + np.exp(-logit)) >= tiny_run.operating_point.threshold)
        assert (row["area"], row["on_lesion"]) == (pair.where.mean(), (pair.where & pair.lesion).any())
