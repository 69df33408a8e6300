import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from melanoma_lib.data.audit import MAX_BITS, _close_pairs, audit_cases, find_duplicates
from melanoma_lib.data.splits import audit_leakage
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


def test_counts_gaps_and_cameras_agree_with_plain_counting():
    cases = many(acquisition=["A", "B", None] * 20)
    cases.loc[:9, "age_approx"] = np.nan
    audit = audit_cases(cases, n_splits=2)
    melanoma = cases["target"] == 1
    assert audit["counts"][["images", "groups", "lesions", "patients"]].tolist() == [60, 30, 30, 0]
    assert audit["counts"]["melanoma images"] == melanoma.sum()
    assert audit["counts"]["groups with melanoma"] == cases.loc[melanoma, "lesion_id"].nunique()
    assert audit["counts"]["prevalence"] == pytest.approx(melanoma.mean())
    assert audit["missing values"].loc["age_approx", "all"] == pytest.approx(10 / 60)
    assert audit["missing values"].loc["age_approx", "melanoma"] == pytest.approx(melanoma[:10].sum() / melanoma.sum())
    assert audit["missing values"].loc["acquisition", "all"] == pytest.approx(1 / 3)
    assert audit["acquisition"]["images"].to_dict() == {"A": 20, "B": 20, "not recorded": 20}
    assert audit["acquisition"].loc["A", "melanomas"] == melanoma[cases["acquisition"] == "A"].sum()
    pd.testing.assert_frame_equal(audit["leakage"], audit_leakage(cases, n_splits=2))
    assert audit["counts"]["image files compared"] == 0
    for targets in ([0] * 8, [1] * 8, [0, 1] * 2):
        assert "not measured" in audit_cases(case_table(targets))["leakage"]


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
    return case_table([0] * 10, image_path=[str(tmp_path / f"{i}.{'png' if i == 6 else 'jpg'}") for i in range(10)])


def test_copies_and_versions_are_found_and_strangers_are_not(files):
    pairs, unreadable = find_duplicates(files)
    assert [*zip(pairs["image"].str[-1], pairs["other"].str[-1], strict=True)] == [("0", "4"), ("1", "5"), ("2", "6"), ("3", "7")]
    assert pairs["bits"][0] == 0
    assert unreadable == ["image_8", "image_9"]


def test_close_hashes_agree_with_brute_force():
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (20, 32), dtype=np.uint8)
    bits = base[rng.integers(0, 20, 150)] ^ np.packbits(rng.random((150, 256)) < rng.uniform(0, 0.3, (150, 1)), axis=1)
    spread = np.unpackbits(bits, axis=1).astype(int)
    distances = {(i, j): np.abs(spread[i] - spread[j]).sum() for i, j in itertools.combinations(range(150), 2)}
    oracle = {pair: distance for pair, distance in distances.items() if distance <= MAX_BITS}
    assert 0 < len(oracle) < len(distances)
    assert {(i, j): distance for i, j, distance in _close_pairs(bits)} == oracle


def test_repeats_are_reported_by_image_and_across_groups(files):
    cases = files.assign(target=[0, 0, 1, 0, 1, 0, 1, 0, 0, 0])
    cases["group_id"] = [f"g{i}" for i in (0, 1, 2, 3, 4, 5, 2, 7, 8, 9)]
    cases.loc[9, "image_path"] = cases["image_path"][0] + "-absent.jpg"
    audit = audit_cases(cases, n_splits=1)
    crossing = audit["repeated photographs"].query("not same_group")[["image", "other", "same_class"]]
    assert crossing.to_numpy().tolist() == [
        ["image_0", "image_4", False], ["image_1", "image_5", True], ["image_3", "image_7", True],
    ]  # fmt: skip
    assert audit["unreadable files"] == "'image_8'"
    report = str(audit)
    assert audit["counts"][-3:].tolist() == [9, 4, 3]
    assert "image_8" in report
