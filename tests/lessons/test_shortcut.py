"""Both runs of the shortcut experiment differ in the artefact alone, and are scored as scikit-learn scores them."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.data.images import read_square, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.lessons import shortcut
from melanoma_lib.lessons.shortcut import DIFFERENCE, HONEST, TIED, TRAPPED, UNTIED, set_trap
from melanoma_lib.runs import DEMONSTRATION, Run


def test_the_runs_share_all_but_the_tied_artefact(trap):
    assert trap.honest.splits.equals(trap.trapped.splits)
    assert trap.honest.settings.shaping() == trap.trapped.settings.shaping()
    ours, theirs = trap.cases, trap.tied_cases
    changed = [column for column in ours if not ours[column].equals(theirs[column])]
    assert changed == ["image_path", "mask_path", "truth_artefact_patch"]
    assert (theirs["truth_artefact_patch"] == (theirs["target"] == 1)).all()  # a tie of 1: exactly the melanomas
    assert ours["truth_artefact_patch"].mean() < 0.2
    melanoma = theirs[theirs["target"] == 1].iloc[0]
    index = trap.tied.cases.index[trap.tied.cases["image_id"] == melanoma["image_id"]][0]
    stored = read_square(melanoma["image_path"], stored_side(32)).astype(int)
    assert np.abs(stored - trap.tied.render(int(index)).image).mean() < 6  # JPEG; another picture differs by dozens


def test_the_experiment_is_kept_and_found_again(trap, trap_settings, monkeypatch):
    monkeypatch.setattr("melanoma_lib.training.fit", lambda *_: pytest.fail("trained again"))
    again = set_trap(trap_settings, "patch", 1.0)
    assert (again.trapped.path, again.honest.path) == (trap.trapped.path, trap.honest.path)
    assert again.trapped.path.name.startswith(f"{trap.honest.path.name}-patch-tied-")
    assert "patch tied to the label" in trap.trapped.demonstration and not trap.honest.demonstration
    (trap.trapped.path / DEMONSTRATION).unlink()  # as earlier versions left it
    assert set_trap(trap_settings, "patch", 1.0).trapped.demonstration
    assert Run.latest(trap_settings.runs_dir).path == trap.honest.path


def test_aurocs_are_those_of_scikit_learn(trap):
    worlds = shortcut.compare_worlds(trap, n=100)
    for model, run, world in ((TRAPPED, trap.trapped, TIED), (HONEST, trap.honest, UNTIED)):
        stored = run.predictions("test")
        expected = roc_auc_score(stored["target"], stored["logit"])
        assert worlds.loc[(model, world), "auroc"] == pytest.approx(expected, abs=1e-3)
    for model, run in trap.runs.items():
        by_hand = [roc_auc_score(cases["target"], shortcut.file_logits(run, cases)) for cases in (trap.tied_cases, trap.cases)]
        by_hand.append(by_hand[0] - by_hand[1])
        assert worlds.loc[model]["auroc"][[TIED, UNTIED, DIFFERENCE]].tolist() == pytest.approx(by_hand)
    assert (worlds["low"] <= worlds["auroc"]).all() and (worlds["auroc"] <= worlds["high"]).all()
    assert trap.ceiling == SyntheticDermoscopy(80, 0, stored_side(32)).bayes_auroc()["both"]
    assert f"{worlds.loc[(TRAPPED, TIED), 'auroc']:.3f}" in shortcut.auroc_figure(worlds, trap.ceiling).alt_text
