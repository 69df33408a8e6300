"""Simulated worlds against closed forms."""

import numpy as np
import pytest
from scipy.stats import norm

from melanoma_lib.lessons import threshold_worlds as worlds

# --- how often an interval holds the truth ---


def test_alike_images_cost_coverage_only_where_they_are_taken_for_independent():
    alone = worlds.coverage(60, images=1, alike=0.5)
    twins = worlds.coverage(60, images=4, alike=1.0)
    assert twins.by_group == pytest.approx(alone.by_group, abs=0.03)
    # Four copies of each image: an interval of half the width, which the normal curve covers with 67%.
    assert twins.by_image == pytest.approx(2 * norm.cdf(1.96 / 2) - 1, abs=0.05)


# --- the optimism of choosing on test ---


@pytest.mark.parametrize("n", [1, 7, 20, 50])
@pytest.mark.parametrize("auroc", [0.6, 0.95])
def test_the_sensitivity_rule_finds_what_order_statistics_say_whatever_the_model(n, auroc):
    reported, expected = worlds.expected_true_sensitivity(n)
    table = worlds.choose_and_report("sensitivity", n, 40, auroc, repetitions=3000)
    cheat, honest = (table[table["chosen"] == way] for way in ("on test", "on validation"))
    np.testing.assert_allclose(cheat["sensitivity"], reported)
    for part in (cheat, honest):
        error = part["true_sensitivity"].std() / np.sqrt(len(part))
        assert abs(part["true_sensitivity"].mean() - expected) < 4 * error + 1e-9
