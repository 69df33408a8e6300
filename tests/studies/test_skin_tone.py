"""Angles are those of OpenCV's colours; groups, repeatability and lights what counting by hand gives."""

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lib.studies.skin_tone import (
    LIGHTS,
    light_changes,
    measure_tones,
    repeatability,
    skin_colour,
    skin_mask,
    srgb_to_lab,
    tone_by_source,
    tone_of,
    typology_angle,
)
from tests.data.builders import case_table

PALE, TAN, DARK, PINK = (232, 200, 178), (190, 140, 105), (92, 62, 48), (215, 170, 190)


def test_lab_is_opencvs():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    theirs = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    np.testing.assert_allclose(srgb_to_lab(pixels), theirs, atol=0.4)  # OpenCV reads its cube roots from a table
    np.testing.assert_allclose(srgb_to_lab([255, 255, 255]), [100, 0, 0], atol=0.01)
    np.testing.assert_allclose(srgb_to_lab([255, 0, 0]), [53.24, 80.09, 67.20], atol=0.02)  # Lindbloom's tables
    np.testing.assert_allclose(srgb_to_lab([0, 0, 0]), [0, 0, 0], atol=1e-9)


def test_angles_known_by_heart():
    np.testing.assert_allclose(typology_angle([50, 60, 40, 50 + 10 * np.sqrt(3)], [12, 10, 10, 10]), [0, 45, -45, 60])
    assert np.isnan(typology_angle([70, 70], [0, -3])).all()  # a cast, which a plain arctan would call dark or very light


@pytest.mark.parametrize(
    ("angle", "tone"),
    [(89, "very light"), (55.01, "very light"), (55, "light"), (41, "intermediate"), (28, "tan"), (10, "brown"), (-30, "dark")],
)
def test_groups_end_where_del_bino_ends_them(angle, tone):
    assert tone_of([angle])[0] == tone
    assert tone_of([np.nan]).isna().all()


def skin(colour, side=64, lesion=True, rim=False):
    picture = np.full((side, side, 3), colour, np.uint8)
    y, x = np.ogrid[:side, :side]
    mask = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 5) ** 2
    if lesion:
        picture[mask] = (60, 30, 20)
    if rim:
        picture[(x - side / 2) ** 2 + (y - side / 2) ** 2 > (side / 2.1) ** 2] = 8
        picture[side // 8, : side // 2] = 255
    return picture, mask


@pytest.mark.parametrize("colour", [PALE, TAN, DARK])
@pytest.mark.parametrize("outlined", [True, False])
def test_the_skin_is_measured_and_not_lesion_rim_or_glare(colour, outlined):
    picture, mask = skin(colour, rim=True)
    found = skin_colour(picture, mask if outlined else None)
    np.testing.assert_allclose(found, srgb_to_lab(colour)[[0, 2]], atol=1e-9)
    assert not (skin_mask(picture, mask) & mask).any()


def test_a_picture_that_is_all_lesion_or_black_tells_nothing():
    picture, mask = skin(PALE)
    assert np.isnan(skin_colour(picture, np.ones_like(mask))).all()
    assert np.isnan(skin_colour(np.zeros_like(picture), None)).all()


def test_files_of_known_skin(tmp_path):
    cases = case_table([0, 0, 1, 0])
    for i, colour in enumerate((PALE, TAN, DARK, PINK)):
        picture, mask = skin(colour, 80)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"mask_{i}.png")
    cases["image_path"] = [str(tmp_path / f"{i}.png") for i in range(4)]
    cases["mask_path"] = [str(tmp_path / f"mask_{i}.png") for i in range(3)] + [None]
    tones = measure_tones(cases, LIGHTS)
    expected = [np.degrees(np.arctan((lab[0] - 50) / lab[2])) for lab in srgb_to_lab([PALE, TAN, DARK])]
    np.testing.assert_allclose(tones["ita"][:3], expected, atol=0.5)  # resizing rounds
    assert np.isnan(tones["ita"][3])
    assert tone_of(tones["ita"])[:3].tolist() == ["very light", "tan", "dark"]
    assert (tones["10% darker"] < tones["ita"])[:3].all() and (tones["10% brighter"] > tones["ita"])[:3].all()
    changes = {row["light"]: row for row in light_changes(tones)}
    shifts = tones["10% darker"] - tones["ita"]
    assert changes["10% darker"]["shift"] == pytest.approx(shifts.median())
    moved = [a != b for a, b in zip(tone_of(tones["10% darker"])[:3], tone_of(tones["ita"])[:3], strict=True)]
    assert changes["10% darker"]["other_tone"] == pytest.approx(np.mean(moved))


@pytest.mark.parametrize("gain", [*LIGHTS.values(), (1.0, 1.0, 1.0), (0.4, 0.5, 0.6)])
@pytest.mark.parametrize("colour", [PALE, TAN, DARK])
def test_a_lamp_multiplies_light_and_not_its_code(colour, gain):
    """The colour is photographed again under the lamp: its light, multiplied, is coded anew and read by OpenCV."""
    linear = np.array([[colour]], dtype=np.float64) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4) * gain
    code = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).clip(0, 1)
    theirs = cv2.cvtColor(code.astype(np.float32), cv2.COLOR_RGB2LAB)[0, 0]
    found = skin_colour(np.full((64, 64, 3), colour, np.uint8), None, gain)
    np.testing.assert_allclose(found, theirs[[0, 2]], atol=0.4)


def test_a_tenth_less_light_lowers_lightness_by_the_cube_root():
    """CIE L* + 16 is a cube root of light, so a neutral grey under 0.9 of the light loses 3.45% of it."""
    grey = np.full((64, 64, 3), 180, np.uint8)
    before, after = skin_colour(grey, None)[0], skin_colour(grey, None, LIGHTS["10% darker"])[0]
    assert (after + 16) / (before + 16) == pytest.approx(0.9 ** (1 / 3), abs=1e-6)


def test_light_beyond_white_is_cut_off():
    nearly = np.full((64, 64, 3), (249, 240, 230), np.uint8)
    assert skin_colour(nearly, None, (9, 9, 9)) == pytest.approx((100, 0), abs=0.01)


def test_repeatability_is_the_textbooks_analysis_of_variance():
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(400), 3)
    angles = rng.normal(30, 12, 400)[lesions] + rng.normal(0, 6, lesions.size)
    found = repeatability(np.append(angles, 80.0), np.append(lesions, 9999))  # photographed once: does not count
    table = angles.reshape(400, 3)
    within = table.var(axis=1, ddof=1).mean()
    between = 3 * table.mean(axis=1).var(ddof=1)
    assert found["sd_within"] == pytest.approx(np.sqrt(within))
    assert found["icc"] == pytest.approx((between - within) / (between + 2 * within))
    assert found["icc"] == pytest.approx(144 / 180, abs=0.06)
    assert (found["lesions"], found["photographs"]) == (400, 1200)
    names = tone_of(angles).astype(str).to_numpy().reshape(400, 3)
    pairs = [a != b for row in names for i, a in enumerate(row) for j, b in enumerate(row) if i != j]
    assert found["other_tone"] == pytest.approx(np.mean(pairs))


def test_nothing_photographed_twice_says_nothing():
    found = repeatability([1.0, 2.0], ["a", "b"])
    assert found["lesions"] == 0 and np.isnan(found["icc"])


def test_variance_between_sources():
    rows, share = tone_by_source([10.0, 10, 50, 50, np.nan], ["a", "a", "b", "b", "b"])
    assert share == pytest.approx(1)
    assert [(row["all"], row["images"], row["median"]) for row in rows] == [(2, 2, 10.0), (3, 2, 50.0)]
    assert rows[0]["tones"]["brown"] == 1 and sum(rows[1]["tones"].values()) == pytest.approx(1)
    angles = np.random.default_rng(0).normal(size=300)
    sources = np.repeat(["a", "b", "c"], 100)
    explained = pd.Series(angles).groupby(sources).transform("mean").var(ddof=0) / angles.var()
    assert tone_by_source(angles, sources)[1] == pytest.approx(explained)
