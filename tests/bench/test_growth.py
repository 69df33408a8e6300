import numpy as np
import pytest
from matplotlib.text import Text

from melanoma_lib.bench import growth
from melanoma_lib.bench.growth import Growth, growth_figure, measure_growth
from melanoma_lib.bench.thresholds import predictions

SIZES = (1_000, 10_000, 100_000)


def growing_as(power: float, logs: bool = False) -> list[float]:
    return [1e-8 * n**power * (np.log(n) if logs else 1) for n in SIZES]


@pytest.mark.parametrize(
    ("seconds", "worst", "words"),
    [
        (growing_as(1, logs=True), 1.0, "met"),
        (growing_as(1), 3 / 4, "met"),  # log 1,000 over log 10,000
        (growing_as(2), 100 * 3 / 5, "MISSED"),
        ([1e-3, 2e-1, 1e-3], 200 / 10 * 3 / 4, "MISSED"),  # one size alone is enough
    ],
)
def test_cost_is_judged_against_n_log_n_from_the_first_size(seconds, worst, words):
    measured = Growth(SIZES, {"work": seconds})
    assert measured.worst("work") == pytest.approx(worst)
    if worst != 1:
        assert words in str(measured).splitlines()[1]


def test_every_work_is_timed_at_every_size(monkeypatch):
    monkeypatch.setattr(growth, "SIZES", (100, 400))
    monkeypatch.setattr(growth, "ROUNDS", 2)
    asked = []
    measured = measure_growth(lambda n: asked.append(n) or predictions(n, 0))
    assert asked == [100, 400]
    assert len(measured.seconds) == 3
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in measured.seconds.values())


def test_the_figure_draws_what_was_measured_and_says_it():
    names = ("build the curve", "resample", "ask")
    measured = Growth(SIZES, dict(zip(names, (growing_as(1), growing_as(1, logs=True), [2e-5] * 3), strict=True)))
    figure = growth_figure(measured)
    (axes,) = figure.axes
    drawn = [line.get_xydata()[:, 1] for line in axes.lines if line.get_marker() != "None"]
    np.testing.assert_allclose(drawn, list(measured.seconds.values()))
    bounds = [line.get_xydata()[:, 1] for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xydata())]
    np.testing.assert_allclose(bounds, [measured.line(name) for name in names])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert "build the curve takes 10 µs at 1,000 and 1 ms at 100,000" in figure.alt_text
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= 12
