import itertools
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from melanoma_lib.data.audit import audit_cases
from melanoma_lib.data.duplicates import MAX_BITS, _close_hashes, find_duplicates
from melanoma_lib.data.sources import load_cases
from melanoma_lib.data.splits import audit_leakage
from melanoma_lib.errors import DataError
from tests.data.builders import case_table


def many(n: int = 60, **columns):
    rng = np.random.default_rng(0)
    cases = case_table(rng.permutation([1] * (n // 4) + [0] * (n - n // 4)), lesions=[f"l{i // 2}" for i in range(n)], **columns)
    cases["target"] = cases.groupby("lesion_id")["target"].transform("max")
    return cases.assign(diagnosis=np.where(cases["target"] == 1, "mel", "nv"))


def photograph(seed: int, size=(200, 150)) -> Image.Image:
    """A picture with structure at many scales, none of it shared between seeds."""
    rng = np.random.default_rng(seed)
    layers = [np.kron(rng.normal(size=(150 // k, 200 // k, 3)), np.ones((k, k, 1)))[:150, :200] for k in (5, 10, 25, 50)]
    pixels = np.clip(128 + 25 * sum(layers), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(size)


def test_counts_gaps_cameras_and_sizes_agree_with_plain_counting():
    cases = many(acquisition=["A", "B", None] * 20)
    cases.loc[:9, "age_approx"] = np.nan
    audit = audit_cases(cases, images=False, n_splits=2)
    melanoma = cases["target"] == 1
    assert audit.counts["images"] == 60
    assert audit.counts["groups"] == audit.counts["lesions"] == 30
    assert audit.counts["patients"] == 0
    assert audit.counts["melanoma images"] == melanoma.sum()
    assert audit.counts["groups with melanoma"] == cases.loc[melanoma, "lesion_id"].nunique()
    assert audit.counts["prevalence"] == pytest.approx(melanoma.mean())
    assert audit.missing["age_approx"]["all"] == pytest.approx(10 / 60)
    assert audit.missing["age_approx"]["melanoma"] == pytest.approx(melanoma[:10].sum() / melanoma.sum())
    assert audit.missing["acquisition"]["all"] == pytest.approx(1 / 3)
    for name in ("A", "B"):
        assert audit.acquisition[name]["images"] == 20
        assert audit.acquisition[name]["melanomas"] == melanoma[cases["acquisition"] == name].sum()
    assert audit.acquisition["not recorded"]["images"] == 20
    assert audit.sizes["lesion_id"]["2"] == 30
    assert audit.sizes["lesion_id"]["largest"] == 2
    assert "patient_id" not in audit.sizes
    assert audit.leakage.to_dict() == audit_leakage(cases, n_splits=2).to_dict()
    assert audit.contradictions == {}
    assert audit.duplicates is None


def test_contradictions_are_counted_and_named():
    cases = many()
    cases.loc[[0, 4], "target"] = 1 - cases.loc[[0, 4], "target"]
    cases.loc[10, "sex"] = "male"
    cases.loc[12, "sex"] = None  # a gap contradicts nothing
    found = audit_cases(cases, images=False, n_splits=1).contradictions
    assert found == {
        "lesion_id: target": {"units": 2, "examples": ["l0", "l2"]},
        "lesion_id: sex": {"units": 1, "examples": ["l5"]},
    }


def test_a_table_that_breaks_the_schema_is_refused():
    with pytest.raises(DataError, match="'sex', row 0"):
        audit_cases(many(sex="F"))


@pytest.mark.parametrize("targets", [[0] * 8, [1] * 8, [0, 1] * 2])
def test_tables_too_small_to_split_are_still_audited(targets):
    audit = audit_cases(case_table(targets), images=False)
    assert audit.leakage is None
    assert "Not measured" in str(audit)
    json.dumps(audit.to_dict(), allow_nan=False)


def test_the_report_fits_100_columns_and_says_what_to_dict_says():
    cases = many(acquisition=[f"[clinic {i}] " + "long name " * 12 for i in range(60)])
    cases.attrs = {
        "source": "ham10000",
        "table": "x.csv",
        "absent_images": 7,
        "dropped_rows": {"undecided": 3},
        "leaky_columns": ["dx"],
    }
    audit = audit_cases(cases, images=False, n_splits=2)
    report = str(audit)
    assert max(map(len, report.splitlines())) <= 100
    assert "[clinic" in report  # brackets are text, not markup
    for words in ("60 images", "7 image files are absent", "3 rows left out: undecided", "and 48 more", "\ndx"):
        assert words in report
    plain = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert f"prevalence {plain['counts']['prevalence']:.2%}" in report
    assert plain["leaky_columns"] == ["dx"]


@pytest.fixture
def files(tmp_path):
    """0-3 different; 4 a byte copy of 0; 5-7 other versions of 1, 2 and 3; 8 no image; 9 cut short."""
    pictures = [photograph(seed) for seed in range(4)]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.jpg", quality=95)
    (tmp_path / "4.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    pictures[1].save(tmp_path / "5.jpg", quality=40)
    pictures[2].resize((400, 300), Image.Resampling.BICUBIC).save(tmp_path / "6.png")
    ImageEnhance.Brightness(pictures[3]).enhance(0.8).save(tmp_path / "7.jpg")
    (tmp_path / "8.jpg").write_text("no image")
    (tmp_path / "9.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:1500])
    return [tmp_path / f"{i}.{'png' if i == 6 else 'jpg'}" for i in range(10)]


def test_copies_and_versions_are_found_and_strangers_are_not(files):
    found = find_duplicates(files)
    assert found.exact == [[0, 4]]
    assert [(i, j) for i, j, _ in found.near] == [(1, 5), (2, 6), (3, 7)]
    assert all(0.9 <= r <= 1 for *_, r in found.near)
    assert found.unreadable == [8, 9]
    assert found.compared == 8


def test_files_of_one_size_but_other_content_are_no_copies(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(bytes([i]) * 100)
    assert find_duplicates([tmp_path / f"{i}.jpg" for i in range(3)]).exact == []


def test_uniform_images_are_not_called_near_duplicates_of_each_other(tmp_path):
    paths = [tmp_path / f"{grey}.png" for grey in (40, 80, 120)]
    for path, grey in zip(paths, (40, 80, 120), strict=True):
        Image.new("RGB", (60, 40), (grey, grey, grey)).save(path)
    assert find_duplicates(paths).near == []


def test_close_hashes_agree_with_brute_force():
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (20, 32), dtype=np.uint8)
    bits = base[rng.integers(0, 20, 150)] ^ np.packbits(rng.random((150, 256)) < rng.uniform(0, 0.3, (150, 1)), axis=1)
    spread = np.unpackbits(bits, axis=1).astype(int)
    oracle = {(i, j) for i, j in itertools.combinations(range(150), 2) if np.abs(spread[i] - spread[j]).sum() <= MAX_BITS}
    assert 0 < len(oracle) < 150 * 149 / 2
    assert set(_close_hashes(bits)) == oracle


def test_repeats_are_reported_by_image_and_across_groups(files):
    cases = case_table([0, 0, 1, 0, 1, 0, 1, 0, 0, 0], image_path=[str(path) for path in files])
    cases["group_id"] = [f"g{i}" for i in (0, 1, 2, 3, 4, 5, 2, 7, 8, 9)]
    cases.loc[9, "image_path"] = str(files[0].parent / "absent.jpg")
    found = audit_cases(cases, n_splits=1).duplicates
    assert found["compared"] == 8
    assert found["unreadable"] == ["image_8"]
    assert found["exact"] == [["image_0", "image_4"]]
    crossing = [(*pair["images"], pair["same_class"]) for pair in found["crossing_groups"]]
    assert crossing == [("image_0", "image_4", False), ("image_1", "image_5", True), ("image_3", "image_7", True)]
    report = str(audit_cases(cases, n_splits=1))
    assert "image_0 and image_4 (correlation 1.00, melanoma and not)" in report
    assert "image_8" in report


def test_nothing_to_find_finds_nothing():
    assert find_duplicates([]).near == []


def test_real_ham10000_table(ham10000_root):
    audit = audit_cases(load_cases("ham10000", ham10000_root), images=False, n_splits=1)
    assert audit.contradictions == {}
    assert audit.acquisition["vidir_molemax"]["prevalence"] < 0.01 < audit.acquisition["vidir_modern"]["prevalence"]
    assert audit.sizes["lesion_id"]["1"] == 5514
    assert audit.leaky_columns == ["dx", "dx_type"]


def test_real_photograph_that_ham10000_lists_under_two_lesions(ham10000_root):
    cases = load_cases("ham10000", ham10000_root)
    few = cases[cases["image_id"].isin(["ISIC_0030074", "ISIC_0025226", *cases["image_id"][:60]])].reset_index(drop=True)
    crossing = audit_cases(few, n_splits=1).duplicates["crossing_groups"]
    assert {"ISIC_0030074", "ISIC_0025226"} in [set(pair["images"]) for pair in crossing]
