"""The focal-loss lesson's functions, against finite differences, Bayes' rule by counting, scikit-learn and retrained heads."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score

from melanoma_lib.evaluation import carry_risk
from melanoma_lib.heads import HeadSettings, train_head
from melanoma_lib.lessons import cuts, focal
from melanoma_lib.losses import FocalLoss
from melanoma_lib.module import loss_and_prior
from tests.test_heads import random_table

FRACTION = st.floats(0.01, 0.99)


# --- who has the say ---


def test_shares_of_the_pull_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    outputs, targets = rng.uniform(0.02, 0.9, 200), rng.random(200) < 0.3

    def loss(logit, gamma):
        p = 1 / (1 + np.exp(-logit))
        p_t = np.where(targets, p, 1 - p)
        return -((1 - p_t) ** gamma) * np.log(p_t)

    shares, logits = focal.who_has_the_say(outputs, targets.astype(int), (0.0, 2.0)), np.log(outputs / (1 - outputs))
    kinds = {"melanomas": targets, "hard others": ~targets & (outputs >= 0.2), "easy others": ~targets & (outputs < 0.2)}
    assert shares["cases"].to_dict() == pytest.approx({name: rows.mean() for name, rows in kinds.items()})
    for gamma in (0.0, 2.0):
        pull = np.abs(loss(logits + 1e-5, gamma) - loss(logits - 1e-5, gamma))
        expected = {name: pull[rows].sum() / pull.sum() for name, rows in kinds.items()}
        assert shares[f"γ {gamma:g}"].to_dict() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(shares.sum(), 1)


def test_the_figure_says_every_share():
    shares = focal.who_has_the_say([0.1, 0.3, 0.05, 0.6], [0, 0, 0, 1])
    text = focal.say_figure(shares).alt_text
    for column in shares:
        assert f"{column}: melanomas {shares.loc['melanomas', column]:.0%}" in text


# --- the decoder ---


@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_the_decoder_finds_the_risk_whose_best_output_was_found_by_trying(alpha, gamma):
    for risk in (0.02, 0.3, 0.75, 0.97):
        assert FocalLoss(alpha, gamma).true_risk(focal.best_output(risk, alpha, gamma)) == pytest.approx(risk, abs=1e-4)


def test_undoing_the_sampling_is_bayes_rule_by_counting():
    """Of 1000 cases that look alike among drawn ones, put back as many of each class as there would have been."""
    risk, drawn, prevalence = 0.4, 0.5, 0.1
    melanomas, others = 1000 * risk * (prevalence / drawn), 1000 * (1 - risk) * ((1 - prevalence) / (1 - drawn))
    assert carry_risk(risk, drawn, prevalence) == pytest.approx(melanomas / (melanomas + others))


@given(FRACTION, FRACTION, FRACTION)
def test_undoing_twice_the_other_way_round_gives_the_risk_back(risk, drawn, prevalence):
    undone = carry_risk(risk, drawn, prevalence)
    assert carry_risk(undone, prevalence, drawn) == pytest.approx(risk)
    assert carry_risk(risk, drawn, drawn) == pytest.approx(risk)
    assert carry_risk([0.0, 1.0], drawn, prevalence) == pytest.approx([0, 1])


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "focal", "alpha": 0.3, "gamma": 1.5}, {"loss": "bce"}, {"loss": "weighted_bce"},
        {"loss": "bce", "sampler": "oversample"},
        {"loss": "focal", "sampler": "weighted", "sampled_prevalence": 0.4},
    ],
)  # fmt: skip
def test_a_runs_untrained_output_means_the_prevalence(tiny_settings, changes):
    """What a model starts from when it knows nothing but the base rate, read back, must be the base rate."""
    settings, prevalence = tiny_settings.with_changes(**changes), 0.17
    _, start = loss_and_prior(settings, prevalence)
    loss, drawn = focal.correction_of(settings, prevalence)
    assert carry_risk(loss.true_risk(start), drawn, prevalence) == pytest.approx(prevalence, abs=1e-6)


# --- three readings ---


def scores_of(loss: FocalLoss, drawn: float, prevalence: float, n: int = 6000, seed: int = 0) -> pd.DataFrame:
    """Outputs of a perfectly trained model: true risks, as they look among drawn cases, through the loss."""
    rng = np.random.default_rng(seed)
    risk = rng.beta(0.6, 0.6 * (1 - prevalence) / prevalence, n)
    outputs = loss.optimal_output(carry_risk(risk, prevalence, drawn))
    groups = [f"g{i // 2}" for i in range(n)]
    return pd.DataFrame(
        {"group_id": groups, "target": (rng.random(n) < risk).astype(int), "probability": outputs, "true_risk": risk}
    )


@pytest.mark.parametrize(("alpha", "gamma", "drawn"), [(0.25, 2.0, 0.15), (None, 2.0, 0.5), (0.8, 0.0, 0.3)])
def test_outputs_of_a_perfect_model_are_decoded_to_the_true_risks(alpha, gamma, drawn):
    loss = FocalLoss(alpha, gamma)
    scores = scores_of(loss, drawn, 0.15)
    risks = focal.three_readings(scores, loss, drawn, 0.15)
    np.testing.assert_array_equal(risks["output as it is"], scores["probability"])
    # Risks next to 0 and 1 have left float64's outputs.
    inner = scores["true_risk"].between(1e-6, 1 - 1e-3)
    np.testing.assert_allclose(risks["decoded"][inner], scores["true_risk"][inner], rtol=1e-4)
    table = focal.reading_table(risks, scores["target"])
    assert table.loc["decoded, then calibrated", "slope"] == pytest.approx(1, abs=0.1)
    for name, risk in risks.items():
        assert table.loc[name, "Brier"] == pytest.approx(brier_score_loss(scores["target"], risk))
        assert table.loc[name, "mean"] == pytest.approx(risk.mean())


def test_no_group_is_calibrated_by_a_fit_that_knew_its_answers(monkeypatch):
    scores, pairs = scores_of(FocalLoss(None, 0.0), 0.3, 0.3, n=120), []
    group_of = dict(
        zip(np.round(np.log(scores["probability"] / (1 - scores["probability"])), 9), scores["group_id"], strict=True)
    )

    class Spy:
        @classmethod
        def fit(cls, logits, targets):
            spy = cls()
            spy.known = {group_of[logit] for logit in np.round(logits, 9)}
            return spy

        def risk(self, logits):
            pairs.append((self.known, {group_of[logit] for logit in np.round(logits, 9)}))
            return np.full(len(logits), 0.5)

    monkeypatch.setattr(focal, "Calibrator", Spy)
    focal.three_readings(scores, FocalLoss(None, 0.0))
    assert len(pairs) == 5
    for known, judged in pairs:
        assert not known & judged
        assert known | judged == set(scores["group_id"])
    assert set.union(*(judged for _, judged in pairs)) == set(scores["group_id"])


def test_a_runs_readings_are_its_probabilities_decoded(tiny_run):
    risks, validation = focal.readings(tiny_run), tiny_run.predictions("val")
    settings = tiny_run.settings
    np.testing.assert_array_equal(risks["output as it is"], validation["probability"])
    assert settings.sampler == "plain"
    expected = FocalLoss(settings.alpha, settings.gamma).true_risk(validation["probability"].to_numpy())
    np.testing.assert_allclose(risks["decoded"], expected)


# --- what 0.5 means ---


@pytest.fixture(scope="module")
def table():
    return random_table(12_000)


@pytest.fixture(scope="module")
def heads(table):
    return cuts.cut_heads(table, HeadSettings(dropout=0.0, learning_rate=0.05, epochs=20), n=200)


def test_a_perfectly_trained_head_means_what_the_theory_says(heads):
    """On features that carry the whole truth, the calibration on the cases finds what loss and sampling promise."""
    for cut in heads:
        assert cut.found == pytest.approx(cut.meant, abs=0.05), cut.name


def test_a_cut_is_what_scikit_learn_says_of_the_head_retrained(table, heads):
    for cut in heads:
        scores = train_head(table, cut.settings).of("val")
        (tn, fp), (fn, tp) = confusion_matrix(scores["target"], scores["probability"] >= 0.5)
        assert (cut.sensitivity, cut.specificity) == pytest.approx((tp / (tp + fn), tn / (tn + fp)))
        assert cut.auroc.value == pytest.approx(roc_auc_score(scores["target"], scores["probability"]))
        assert cut.mean_output == pytest.approx(scores["probability"].mean())


def test_weights_and_sampling_say_the_same_and_two_corrections_more(table, heads):
    prevalence = table.cases.loc[table.cases["split"] == "train", "target"].mean()
    plain, sampled, weighted, focal_cut, twice = heads
    assert plain.meant == 0.5
    assert sampled.meant == pytest.approx(prevalence)
    assert weighted.meant == pytest.approx(prevalence)
    assert focal_cut.meant == pytest.approx(0.75)
    odds = (prevalence / (1 - prevalence)) ** 2
    assert twice.meant == pytest.approx(odds / (1 + odds))
    assert twice.specificity < min(cut.specificity for cut in heads[:4])


def test_class_weights_are_alpha(table):
    """``pos_weight`` of BCE is alpha but for a factor of the whole loss."""
    import torch

    from melanoma_lib.losses import focal_loss

    prevalence = 0.17
    logits, targets = torch.randn(50, dtype=torch.float64), (torch.arange(50) % 4 == 0).double()
    weighted = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor((1 - prevalence) / prevalence))(logits, targets)
    alpha = cuts.corrections(prevalence)["class weights"]["alpha"]
    torch.testing.assert_close(weighted * prevalence, focal_loss(logits, targets, alpha, 0.0), rtol=1e-6, atol=0)


def test_table_and_figure_say_the_same_numbers(heads):
    written, said = cuts.cut_table(heads), cuts.cuts_figure(heads).alt_text
    for cut in heads:
        assert written.loc[cut.name, "AUROC"] == f"{cut.auroc:.3f}"
        assert written.loc[cut.name, "0.5 means"] == f"{cut.meant:.1%}"
        assert f"{cut.name} AUROC {cut.auroc.value:.3f}, at 0.5 sensitivity {cut.sensitivity:.2f}" in said
    with pytest.raises(ValueError, match="one to 5, got 0"):
        cuts.cuts_figure([])


def test_only_the_heads_asked_for_are_trained(table):
    only = cuts.cut_heads(table, replace(HeadSettings(), epochs=1), ["class weights"], n=100)
    assert [cut.name for cut in only] == ["class weights"]
