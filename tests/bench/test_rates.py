from statistics import median

import pytest

from melanoma_lib.bench.rates import Rates, in_words, result_and_seconds


def test_ratio_is_the_median_of_the_rounds_ratios():
    kit, peer = [10.0, 30.0, 20.0], [20.0, 10.0, 20.0]
    rates = Rates("title", {"kit": kit, "peer": peer})
    assert rates.ratio("peer") == median([0.5, 3.0, 1.0])
    assert rates.ratio("kit") == 1
    assert "peer" in str(rates)
    assert "goal" not in str(rates)


@pytest.mark.parametrize(("goal", "words"), [(2.0, "at least 2 times as fast: met"), (2.1, "at least 2.1 times as fast: MISSED")])
def test_a_goal_counts_against_every_peer(goal, words):
    rates = Rates("title", {"kit": [20.0], "slow peer": [1.0], "fast peer": [10.0]}, goal)
    assert words in str(rates)


@pytest.mark.parametrize(("seconds", "words"), [(77.04, "77 s"), (0.0123, "12.3 ms"), (1.68e-5, "16.8 µs")])
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds, words):
    assert in_words(seconds) == words


def test_a_result_comes_with_its_seconds():
    result, seconds = result_and_seconds(lambda: sum(range(1000)))
    assert result == 499500
    assert seconds > 0
