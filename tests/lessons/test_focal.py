"""The focal-loss lesson's decoder, against the prevalence that a run starts from and true risks that are known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss

from melanoma_lib.evaluation import carry_risk
from melanoma_lib.lessons import focal
from melanoma_lib.losses import FocalLoss
from melanoma_lib.module import loss_and_prior

# --- the decoder ---


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
