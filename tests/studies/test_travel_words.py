"""The sentences follow from the numbers, whichever way these fall."""

import pytest

from melanoma_lib.studies.recalibration import AS_IT_IS, BOTH, INTERCEPT, LOCAL_THRESHOLD, METHODS, PRIOR
from melanoma_lib.studies.results import ResultTable
from melanoma_lib.studies.skin_tone import TONES
from melanoma_lib.studies.travel_figures import recalibration_figure, stress_figure, within_figure
from melanoma_lib.studies.travel_home import NO_TONE
from melanoma_lib.studies.travel_home_words import sources_words, stress_words, tone_words, within_words
from melanoma_lib.studies.travel_words import external_words, prior_words, recalibration_words


def around(value, spread=0.02):
    """An interval; without a spread its ends are unknown."""
    ends = (None, None) if value is None or spread is None else (value - spread, value + spread)
    return {"value": value, "low": ends[0], "high": ends[1]}


def table(rows=(), **details):
    return ResultTable("travel", "made up", "none", rows, details=details, made="2026-01-01", machine="none")


def abroad(
    auroc=(0.60, 0.15), gain=(0.0, 0.1), sensitivity=(0.4, 0.2), specificity=(0.8, 0.05), ratio=(1.0, 0.5), prior=None,
    shift=-2.0, whole=True,
):  # fmt: skip
    home = {"auroc_home": around(0.9), "sensitivity_home": around(0.95), "specificity_home": around(0.7)}
    here = {"images": 1000, "patients": 50, "melanomas": 20, "prevalence": 0.02, "patients_with_melanoma": 0.3}
    sample = {"here": here} | ({"table": {"patients": 2056}} if whole else {})
    mean = {"auroc_abroad": auroc, "sensitivity_abroad": sensitivity, "specificity_abroad": specificity}
    ratios = {AS_IT_IS: ratio, PRIOR: prior or ratio}
    return table(
        [home | {name: around(*value) for name, value in mean.items()}], sample=sample,
        calibration=[{"method": method, "observed_over_expected": around(*value)} for method, value in ratios.items()],
        shift={"prevalence_home": 0.1, "prevalence_abroad": 0.02, "prior_shift": shift},
        **({"metadata_alone": {"auroc": around(0.6), "gain": around(*gain)}} if gain else {}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said", "unsaid"),
    [
        ({}, ["includes 0.5: these cases do not show that the model ranks at all. Nor do they"], ["than chance"]),
        ({"auroc": (0.6, None)}, ["too few for an interval: these cases do not show"], ["includes 0.5"]),
        ({"auroc": (0.7, 0.1)}, ["better than chance, but worse than at home. These cases do not show"], ["at all"]),
        ({"auroc": (0.9, 0.1)}, ["better than chance. These"], ["worse than at home"]),
        ({"auroc": (0.3, 0.1)}, ["the wrong way round", "who is ill"], ["Nor do they"]),
        ({"gain": (0.1, 0.05)}, ["It ranks better than age, sex and site alone, by +0.100 [+0.050, +0.150]"], ["show that it"]),
        ({"gain": (-0.1, 0.05)}, ["It ranks worse than age, sex and site alone, by -0.100"], []),
        ({"gain": None}, [], ["age, sex and site"]),
        ({"sensitivity": (0.4, 0.2)}, ["95% [93%, 97%]", "found 40% [20%, 60%] here", "flagged 20% [15%, 25%]", "did not"], []),
        ({"sensitivity": (0.9, 0.1)}, ["do not tell the two sensitivities apart"], ["did not travel"]),
        ({"sensitivity": (0.99, 0.01)}, ["That is more than at home"], ["did not travel"]),
        ({"ratio": (0.5, 0.1)}, ["promised 40.0 melanomas where there were 20", "on average they are too high."], ["who is ill"]),
        ({"ratio": (2.0, 0.5)}, ["promised 10.0 melanomas", "on average they are too low."], ["not shown to be wrong"]),
        ({"ratio": (1.0, 0.5)}, ["not shown to be wrong, but that does not say who is ill."], ["too low", "too high"]),
        ({"ratio": (1.0, 0.5), "auroc": (0.9, 0.1)}, ["not shown to be wrong."], ["who is ill"]),
        ({}, ["1,000 images of 50 of ISIC 2020's 2,056 patients, 20 of them melanomas (from 15 patients)"], []),
        ({"whole": False}, ["1,000 images of 50 of the patients of ISIC 2020, 20"], ["2,056"]),
    ],
)  # fmt: skip
def test_abroad_ranking_decisions_and_risks_are_each_judged_by_their_interval(change, said, unsaid):
    text = external_words(abroad(**change))
    assert all(part in text for part in said) and not any(part in text for part in unsaid)


@pytest.mark.parametrize(
    ("ratio", "prior", "shift", "said", "unsaid"),
    [
        ((0.9, 0.3), (6, 3), -2, ["Here more than that differs: the mean risk was 2.2%", "lowers it too far"], ["contradict"]),
        ((1.1, 0.3), (0.3, 0.1), 2, ["the mean risk was 1.8%", "raises it too far"], ["contradict"]),
        ((0.2, 0.1), (1.1, 0.3), -2, ["these cases do not contradict it"], ["differs:", "nearer"]),
        ((0.2, 0.1), (0.6, 0.1), -2, ["nearer and does not mend"], ["too far", "contradict"]),
    ],
)
def test_the_prior_is_contradicted_only_where_it_misses(ratio, prior, shift, said, unsaid):
    text = prior_words(abroad(ratio=ratio, prior=prior, shift=shift))
    assert "2.0% here and 10.0% at home" in text
    assert all(part in text for part in said) and not any(part in text for part in unsaid)


def draws(
    spreads=((0.1, 6.0), (0.3, 4.0)),
    as_it_is=(0.4, 2.0),
    turned=(0.3, 0.1),
    found=(0.7, 1.0),
    cleared=(0.4, 0.05),
    fitted=(0.75, 1),
):
    """Two sizes, 5 and 20 patients."""
    rows = []
    for i, patients in enumerate((5, 20)):
        for method in (*METHODS, LOCAL_THRESHOLD):
            low, high = as_it_is if method == AS_IT_IS else spreads[i]
            rates = (found[i], cleared[i]) if method == LOCAL_THRESHOLD else (0.5, 0.9)
            row = {"patients": patients, "method": method, "melanomas": patients / 4, "fitted": fitted[i]}
            row |= {"reversed": turned[i] if method == BOTH else 0.0, "observed_over_expected": 1.0}
            for name, value, ends in (
                ("observed_over_expected", 1.0, (low, high)),
                ("sensitivity", rates[0], (0, 1)),
                ("specificity", rates[1], (0, 1)),
            ):
                row |= {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
            rows.append(row)
    return rows


def test_the_local_shift_is_near_from_the_size_on_that_keeps_it_there():
    text = recalibration_words(table(few_cases=draws()))
    assert (
        "between 0.10 and 6.00 with 5 patients (1.2 melanomas; 25% of draws had none), 0.30 and 4.00 with 20 patients (5.0"
        in text
    )
    assert "uncorrected, 0.40 and 2.00. No number of patients tried keeps it within a factor of 2; here, not to correct" in text
    near = recalibration_words(table(few_cases=draws(spreads=((0.1, 3.0), (0.6, 1.9)), fitted=(1, 1))))
    assert "From 20 patients on it stays within a factor of 2." in near
    assert "gamble" not in near and "had none" not in near
    lost = recalibration_words(table(few_cases=draws(spreads=((0.6, 1.9), (0.0, 1.5)))))
    assert "No number of patients tried" in lost  # near with few is luck where more do not keep it, and nobody ill is no fit


def test_turned_rankings_are_counted_by_size():
    text = recalibration_words(table(few_cases=draws()))
    assert "turned the ranking round, high risks becoming low ones, in 30% and 10% of fits to 5 and 20 patients." in text
    assert "never turned the ranking round" in recalibration_words(table(few_cases=draws(turned=(0.0, 0.0))))
    assert "No draw determined a slope" in recalibration_words(table(few_cases=draws(turned=(None, None))))


def test_a_threshold_that_flags_everybody_is_exposed_and_another_is_not():
    lesson = "A threshold that finds every melanoma may do so by flagging nearly everybody."
    text = recalibration_words(table(few_cases=draws()))
    assert "found 70% of the melanomas and flagged 60% of the others when set on 5 patients, 100% and 95% on 20 patients" in text
    assert text.endswith(lesson)
    assert lesson not in recalibration_words(table(few_cases=draws(cleared=(0.4, 0.6))))
    assert lesson not in recalibration_words(table(few_cases=draws(found=(0.1, 0.2))))


def test_draws_without_any_fit_are_said_to_be_none():
    empty = [
        row | dict.fromkeys(("observed_over_expected", "sensitivity", "specificity")) | {"reversed": None}
        if row["method"] in (INTERCEPT, BOTH, LOCAL_THRESHOLD) else row
        for row in draws()
    ]  # fmt: skip
    text = recalibration_words(table(few_cases=empty))
    assert all(part in text for part in ("determined an intercept", "determined a slope", "held a melanoma"))
    with pytest.raises(ValueError, match="too few patients"):
        recalibration_words(table(few_cases=[]))


def test_the_figure_shows_what_a_local_threshold_costs():
    figure = recalibration_figure(table(few_cases=draws()))
    assert [axes.get_title("left") for axes in figure.axes] == ["observed / expected", "sensitivity", "specificity"]
    green = [line for line in figure.axes[2].lines if line.get_marker() == "v"]
    assert [list(line.get_ydata()) for line in green] == [[0.4, 0.05]]
    assert "specificity, 20 patients, local threshold: 0.05" in figure.alt_text


def source(name, melanomas, sensitivity, **more):
    rates = {"auroc": around(0.8), "sensitivity": sensitivity and around(*sensitivity)}
    return {"source": name, "melanomas": melanomas, "prevalence": 0.1} | rates | more


def within(excess=(0.05, 0.01), alone=(0.7, 0.05), sources=(("film", 20, (0.5, 0.1)), ("modern", 300, (0.9, 0.05)))):
    parts = {name: around(value) for name, value in (("pooled", 0.9), ("within", 0.85), ("between", 0.95))}
    found = parts | {"excess": around(*excess), "source_alone": around(*alone), "share_between": 0.7}
    return table(within_sources=found | {"sources": [source(*one) for one in sources]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "70% of the pairs are across sources. Over all pairs it is 0.900 [0.880, 0.920], over pairs within a source 0.850"),
        ({}, "Counting across sources lifts it, by +0.050 [+0.040, +0.060]."),
        ({"excess": (0.01, 0.05)}, "is not shown to change it (+0.010"),
        ({"excess": (-0.05, 0.01)}, "lowers it (-0.050"),
        ({"alone": (0.7, 0.05)}, "ranks with 0.700 [0.650, 0.750], so where a picture comes from is a clue by itself."),
        ({"alone": (0.52, 0.05)}, "not shown to be a clue"),
        ({"alone": (0.4, 0.05)}, "misleads"),
        ({}, "from 50% [40%, 60%] in film (20 melanomas) to 90% [85%, 95%] in modern (300 melanomas)."),
        ({"sources": (("modern", 9, (0.8, 0.3)), ("film", 8, (0.7, 0.3)))}, "(9 melanomas), which these cases do not tell"),
    ],
)  # fmt: skip
def test_pairs_across_sources_add_what_the_interval_says(change, said):
    assert said in within_words(within(**change))


def test_a_source_without_melanomas_has_no_sensitivity_to_compare():
    text = within_words(within(sources=(("film", 0, (None, None)), ("modern", 300, (0.9, 0.05)))))
    assert "stored thresholds" not in text
    with pytest.raises(ValueError, match="does not name them"):
        within_words(table(within_sources={}))


def test_pairs_are_across_sources_in_the_figure():
    assert "pairs across sources (70%) 0.950" in within_figure(within()).alt_text


def tones(counts, no_tone=0, lights=(("10% darker", 0.2), ("5% warmer", 0.3))):
    rows = [{"tone": tone, "images": n, "melanomas": n // 10} for tone, n in (counts | {NO_TONE: no_tone}).items() if n]
    checks = {"lights": [{"light": light, "other_tone": share} for light, share in lights]}
    return table(tone={"performance": {"home": rows}, "checks": checks})


def test_tones_hardly_there_are_named_and_dark_skin_only_where_it_is_missing():
    text = tone_words(tones({"very light": 500, "light": 300, "intermediate": 100, "tan": 60, "brown": 4}, no_tone=36))
    assert "Hardly there: brown (4 photographs, 0.4%; 0 melanomas) and dark (0 photographs, 0.0%; 0 melanomas)." in text
    assert "dark skin is hardly there (0.4% of the 1,000 photographs at home): these rows cannot say" in text
    assert '"No colour of skin" (4%) means' in text
    assert "light that is 5% warmer alone moves 30% of the photographs to another group." in text
    even = tone_words(tones(dict.fromkeys(TONES, 100), lights=(("5% cooler", None),)))
    assert "Every tone group has at least 1% of the 600 photographs at home." in even and "Every photograph has a tone." in even
    assert "Brown and dark tones make up 33.3% of the 600 photographs" in even and "ardly" not in even
    assert even.endswith("not the person's skin.")


def stressed(**artefacts):
    """Of each artefact: flips and change of risk among melanomas, then among others."""
    rows = []
    for artefact, values in artefacts.items():
        for kind, (flips, change) in zip(("melanoma", "other"), values, strict=True):
            row = {"artefact": artefact, "class": kind, "part": "all", "images": 80, "flips": around(flips, 0.01)}
            rows += [row | {"risk_change": around(change)}, row | {"part": "off the lesion", "flips": around(0.99)}]
    return table(stress=rows)


def test_the_artefact_that_flips_most_and_the_one_that_moves_most_are_named_by_class():
    text = stress_words(stressed(hair=((0.1, -0.09), (0.05, 0.01)), ink=((0.02, 0.0), (0.03, 0.06))))
    assert "Among 80 melanomas hair flips most decisions, 10% [9%, 11%], and lowers the mean risk (-9.0 [-11.0, -7.0] per" in text
    assert "Among 80 others hair flips most decisions, 5% [4%, 6%], and is not shown to move the mean risk (+1.0 [-1.0" in text
    assert "; ink raises the mean risk (+6.0 [+4.0, +8.0] percentage points), the largest change." in text
    assert text.endswith("Where the risk of melanomas falls, some may be missed.")


def test_no_flip_and_no_fall_are_said_as_such():
    text = stress_words(stressed(hair=((0.0, 0.05), (0.0, -0.05))))
    assert "Among 80 melanomas none flips a decision; the mean risk moves most with hair: raises the mean risk (+5.0" in text
    assert "missed" not in text
    with pytest.raises(ValueError, match="--stressed"):
        stress_words(table())


def test_ticks_of_the_stress_figure_say_where_they_are():
    figure = stress_figure(stressed(hair=((0.1, -0.11), (0.05, 0.01)), ink=((0.02, 0.0), (0.03, 0.06))))
    figure.canvas.draw()
    for axes, suffix in zip(figure.axes, ("%", ""), strict=True):
        labels = [tick.get_text() for tick in axes.get_xticklabels()]
        said = [float(label.removesuffix(suffix).replace("\N{MINUS SIGN}", "-")) / 100 for label in labels]
        assert said == pytest.approx(list(axes.get_xticks()))
        assert len(labels) > 3
    assert "0" in labels and any(label.startswith("+") for label in labels)


def left_out(*rows):
    details = {"train": {"size": 3000}, "image_size": 64, "max_epochs": 5}
    return table([
        {"source": name, "melanomas": 30, "auroc_change": around(*change), "sensitivity_change": around(*found),
         "specificity_change": around(*cleared), "sensitivity_seen": around(0.5), "sensitivity_unseen": around(0.5 + found[0]),
         "specificity_seen": around(0.8), "specificity_unseen": around(0.8 + cleared[0])}
        for name, change, found, cleared in rows
    ], **details)  # fmt: skip


def test_the_source_that_loses_most_is_named_with_its_interval_and_what_it_is_not_told_from():
    flat = (0.0, 0.1)
    text = sources_words(
        left_out(("a", (-0.05, 0.01), flat, flat), ("b", (-0.15, 0.12), flat, flat), ("c", (-0.01, 0.015), flat, flat))
    )
    assert "b loses most AUROC: -0.150 [-0.270, -0.030] (30 melanomas; the interval overlaps with that of a)." in text
    assert "A loss is shown for a and b. The interval includes 0 for c." in text and "rose" not in text
    assert "3,000 images of 64 pixels and at most 5 epochs: read the gap" in text
    clear = sources_words(left_out(("a", (-0.2, 0.01), flat, flat), ("b", (-0.1, 0.01), flat, flat)))
    assert "(30 melanomas)." in clear and "includes 0" not in clear
    few = sources_words(left_out(("a", (-0.2, None), flat, flat), ("b", (-0.1, 0.01), flat, flat)))
    assert "a loses most AUROC: -0.200 (30 melanomas). A loss is shown for b. Too few lesions for an interval: a." in few


def test_no_loss_and_gains_are_said_as_such():
    text = sources_words(left_out(("a", (0.05, 0.01), (0.0, 0.1), (0.0, 0.1)), ("b", (0.0, 0.01), (0.0, 0.1), (0.0, 0.1))))
    assert "No source's AUROC is lower" in text and "A gain is shown for a. The interval includes 0 for b." in text
    assert "loss" not in text and "loses" not in text
    assert "nothing can be said" in sources_words(left_out(("a", (None, None), (0.0, 0.1), (0.0, 0.1))))


def test_a_sensitivity_that_rises_is_read_with_its_specificity():
    text = sources_words(left_out(("a", (-0.1, 0.05), (0.3, 0.1), (-0.4, 0.1)), ("b", (-0.1, 0.05), (0.1, 0.2), (-0.4, 0.1))))
    assert (
        "Sensitivity in a rose without it, from 50% to 80% (30 melanomas); specificity fell from 80% to 40%: the model that"
        in text
    )
    assert "in b rose" not in text
    free = sources_words(left_out(("a", (-0.1, 0.05), (0.3, 0.1), (0.1, 0.2))))
    assert "(30 melanomas)." in free and "specificity" not in free
