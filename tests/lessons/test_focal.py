"""The focal-loss lesson's functions, against finite differences, Bayes' rule by counting, scikit-learn and retrained heads."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from melanoma_lib.evaluation import carry_risk
from melanoma_lib.heads import HeadSettings
from melanoma_lib.lessons import focal
from melanoma_lib.losses import FocalLoss
from melanoma_lib.module import loss_and_prior
from tests.test_heads import random_table

FRACTION = st.floats(0.01, 0.99)


# --- gradient share ---


def test_shares_of_the_gradient_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    outputs, targets = rng.uniform(0.02, 0.9, 200), rng.random(200) < 0.3

    def loss(logit, gamma):
        p = 1 / (1 + np.exp(-logit))
        p_t = np.where(targets, p, 1 - p)
        return -((1 - p_t) ** gamma) * np.log(p_t)

    shares, logits = focal.gradient_shares(outputs, targets.astype(int), (0.0, 2.0)), np.log(outputs / (1 - outputs))
    kinds = {"melanomas": targets, "hard others": ~targets & (outputs >= 0.2), "easy others": ~targets & (outputs < 0.2)}
    assert shares["cases"].to_dict() == pytest.approx({name: rows.mean() for name, rows in kinds.items()})
    for gamma in (0.0, 2.0):
        pull = np.abs(loss(logits + 1e-5, gamma) - loss(logits - 1e-5, gamma))
        expected = {name: pull[rows].sum() / pull.sum() for name, rows in kinds.items()}
        assert shares[f"γ {gamma:g}"].to_dict() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(shares.sum(), 1)


# --- the decoder ---


@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_the_decoder_finds_the_risk_whose_best_output_was_found_by_trying(alpha, gamma):
    for risk in (0.02, 0.3, 0.75, 0.97):
        assert FocalLoss(alpha, gamma).true_risk(focal.best_output(risk, alpha, gamma)) == pytest.approx(risk, abs=1e-4)


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


# --- what 0.5 means ---


def test_a_perfectly_trained_head_means_what_the_theory_says():
    """On features that carry the whole truth, the calibration on the cases finds what loss and sampling promise."""
    table = random_table(12_000)
    heads = focal.cut_heads(table, HeadSettings(dropout=0.0, learning_rate=0.05, epochs=20), n=200)
    np.testing.assert_allclose(heads["found"], heads["0.5 means"], atol=0.05)
    prevalence = table.cases.loc[table.cases["split"] == "train", "target"].mean()
    odds = (prevalence / (1 - prevalence)) ** 2
    assert list(heads["0.5 means"]) == pytest.approx([0.5, prevalence, prevalence, 0.75, odds / (1 + odds)])
    assert heads["specificity"].iloc[4] < heads["specificity"].iloc[:4].min()
    text = focal.cuts_figure(heads).alt_text
    assert all(f"{name} sensitivity {row['sensitivity']:.2f}" in text for name, row in heads.iterrows())
