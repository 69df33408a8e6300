import pytest

from melanoma_lib.studies.backbones_words import (
    FROZEN,
    IMAGENET,
    as_markdown,
    choose,
    costs_markdown,
    league_report,
    notes_for,
    operating_markdown,
    recommend,
)
from tests.studies.leagues import around, made_up, row


def test_of_what_is_not_told_apart_the_cheapest_is_chosen():
    dear, cheap, poor = row("Dear", 0.90, 300), row("Cheap", 0.89, 30), row("Poor", 0.80, 3)
    choice = choose([poor, cheap, dear], "auroc")
    assert (choice.best, choice.chosen) == (dear, cheap) and choice.level == [cheap, dear]


def test_what_is_told_apart_wins_at_any_price():
    dear, cheap = row("Dear", 0.90, 300, spread=0.005), row("Cheap", 0.89, 30, spread=0.005)
    assert choose([cheap, dear], "auroc").chosen is dear


def test_of_equally_cheap_ones_the_better_is_chosen_and_an_unknown_interval_excludes_nobody():
    best = row("Best", 0.90, 300)
    same = row("Same", 0.89, 30), row("Better", 0.895, 30, behind_auroc={"value": -0.005, "low": None, "high": None})
    assert choose([best, *same], "auroc").chosen is same[1]


def test_the_recommendation_names_the_saving_and_the_loss_that_is_not_excluded():
    text = recommend(made_up(
        row("Dear", 0.90, 300_000_000, weights=IMAGENET), row("Cheap", 0.89, 30_000_000, weights=IMAGENET, default=True),
    ))  # fmt: skip
    assert "Highest AUROC: Dear, 0.900 [0.880, 0.920], on 2,003 test images (222 of melanomas)." in text
    assert "On these cases the first choice: Cheap, 30 million MACs an image, 1,000 images a second, the cheapest of them" in text
    assert "Its AUROC differs from the best by -0.010 [-0.030, +0.010], so a loss of 0.030 is not excluded" in text
    assert "the best needs 300 million MACs" in text and "both were picked on these cases, which flatters them" in text
    assert "the recommended Cheap, 0.680 [0.660, 0.700], is not told from it and stays" in text


@pytest.mark.parametrize(("other", "why"), [(0.80, "exclude 0"), (0.89, "None of them is cheaper")])
def test_a_best_that_is_taken_is_the_first_choice_on_these_cases_and_flattered(other, why):
    """Whether it is told from all others, or is the cheapest of those that it is not told from."""
    text = recommend(made_up(row("Best", 0.90, 30_000_000, default=True), row("Dear", other, 300_000_000)))
    paragraph = text.split("\n\n")[0]
    assert why in paragraph and "Take" not in text
    assert "On these cases the first choice: Best, 30 million MACs an image" in paragraph
    assert "its lead is flattered by having been chosen on them" in paragraph


def test_one_word_for_cost_and_it_is_said_once_what_it_means():
    for table in (made_up(), made_up(row("Best", 0.90, 30_000_000, default=True), row("Dear", 0.89, 300_000_000))):
        text = recommend(table)
        assert text.count("A MAC is one multiplication with an addition.") == 1
        assert "arithmetic" not in text and "multiplications" not in text
        assert sum("one multiplication with an addition" in note for note in table.notes) == 1


def test_sensitivity_first_is_another_model_only_where_the_cases_tell_them_apart():
    def wide(name, auroc, macs, specificity, **more):
        behind = around(specificity - 0.8, 0.01)
        return row(name, auroc, macs, specificity_at=around(specificity), behind_specificity_at=behind, **more)

    text = recommend(made_up(
        wide("Ranks", 0.90, 30_000_000, 0.60, default=True), wide("Finds", 0.85, 90_000_000, 0.80),
        wide("Finds cheaply", 0.80, 60_000_000, 0.795),
    ))  # fmt: skip
    assert "The cheapest that is not told from it is Finds cheaply" in text and "that one comes before Ranks, 0.600" in text
    assert "Finds cheaply then has sensitivity 0.940 [0.920, 0.960]" in text


def test_the_worth_of_weights_is_the_twins_gain_turned_round():
    text = recommend(made_up())
    assert "starting from ImageNet's weights was worth +0.070 [+0.050, +0.090] AUROC to Good. What" in text
    assert "What Bare (from scratch, 64 px) and Dear (from scratch, 64 px) reach here" in text
    without = recommend(made_up(row("Good", 0.9, 30, weights=IMAGENET, default=True), row("Dear", 0.8, 300)))
    assert "was worth" not in without


def test_larger_images_of_the_default_are_told_apart_from_other_backbones():
    large = row("Good (ImageNet, 128 px)", 0.93, 120_000_000, weights=IMAGENET, backbone="net", size=128, best=0.93)
    text = recommend(made_up(*made_up().rows, large))
    assert "the same network gained at 128 px +0.060 [+0.040, +0.080] AUROC at 4.0 times the MACs an image" in text
    longer = recommend(made_up(*made_up().rows, large | {"epochs": 12}))
    assert "at 128 px and 12 epochs (the default had 8) +0.060" in longer
    other = large | {"command": large["command"].replace("val/auroc", "val/f1")}
    assert "gained at 128 px (different, too: monitor) +0.060" in recommend(made_up(*made_up().rows, other))
    both = recommend(made_up(*made_up().rows, other | {"epochs": 12}))
    assert "at 128 px and 12 epochs (the default had 8; different, too: monitor) +0.060" in both
    assert "same network gained" not in recommend(made_up())


def test_a_threshold_that_missed_its_promise_is_named():
    good = row("Good", 0.9, 30, default=True, sensitivity=around(0.90))
    assert "Good did not keep the promise" in recommend(made_up(good))
    assert "did not keep" not in recommend(made_up())


def test_what_a_graphics_card_must_compute_follows_from_size_and_folds():
    assert "All 5 folds at 224 px take about 61 times the MACs of the trainings at 64 px" in recommend(made_up())
    assert "The same at 224 px take about 12 times" in recommend(made_up(folds=5, fold=0))


def test_markdown_holds_every_row_in_every_table_and_every_note():
    table = made_up()
    worth, decisions, costs = (shown(table) for shown in (as_markdown, operating_markdown, costs_markdown))
    for text, columns in ((worth, 6), (decisions, 4), (costs, 9)):
        lines = text.splitlines()
        assert {line.count("|") for line in lines} == {columns + 1} and len(lines) == len(table.rows) + 2
        assert all(entry["name"] in line for entry, line in zip(table.rows, lines[2:], strict=True))
    assert "| AUROC minus the default's |" in worth and "less the default" not in worth
    assert "| **Good (ImageNet, 64 px)** (default) | 0.900 [0.880, 0.920] | – | – |" in worth and "| 0.030 |" in worth
    assert "| specificity at 95% sensitivity (test ROC) | sensitivity at the threshold" in decisions
    assert "| 0.700 [0.680, 0.720] | 0.940 [0.920, 0.960] | 0.700 [0.680, 0.720] |" in decisions.splitlines()[2]
    assert f"| {FROZEN} | 3 | 120 | – |" in costs and "| < 0.01 |" in costs
    report = league_report(table)
    assert all(text in report for text in (worth, decisions, costs, recommend(table), "Educational, not for diagnosis"))
    assert all(f"- {note}" in report.splitlines() for note in table.notes)


@pytest.mark.parametrize(("where", "words"), [((5, 1), "fold 1 of 5"), ((5, 0), "all 5 folds"), ((0, 0), "one test split")])
def test_notes_say_which_cases_were_tested(where, words):
    folds, fold = where
    assert words in notes_for(made_up(folds=folds, fold=fold).details, True)[0]
    assert not any("From scratch" in note for note in notes_for(made_up().details, False))
