"""The trap differs from its honest twin in the artefact alone, is kept, and is told apart by what the twins answer."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.datamodule import source_root
from melanoma_lib.data.images import read_square, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError
from melanoma_lib.lessons import shortcut
from melanoma_lib.lessons.shortcut import HONEST, TIED, TRAPPED, UNTIED, set_trap
from melanoma_lib.training import train


def test_the_twins_share_all_but_the_tied_artefact(trap):
    assert trap.honest.splits.equals(trap.trapped.splits)
    assert trap.honest.settings.shaping() == trap.trapped.settings.shaping()
    assert trap.tied.knobs == trap.untied.knobs | {"shortcut": {"patch": 1.0}}
    ours, theirs = trap.cases, trap.tied_cases
    changed = [column for column in ours if not ours[column].equals(theirs[column])]
    assert changed == ["image_path", "mask_path", "truth_artefact_patch"]
    assert (theirs["truth_artefact_patch"] == (theirs["target"] == 1)).all()  # a tie of 1: exactly the melanomas
    assert ours["truth_artefact_patch"].mean() < 0.2


def test_the_trapped_run_finds_the_pictures_it_was_trained_on(trap):
    read = trap.trapped.cases()
    assert read["truth_artefact_patch"].tolist() == (read["target"] == 1).tolist()
    melanoma = trap.tied_cases[trap.tied_cases["target"] == 1].iloc[0]
    index = trap.tied.cases.index[trap.tied.cases["image_id"] == melanoma["image_id"]][0]
    painted = trap.tied.render(int(index))
    assert "patch" in painted.artefacts
    stored = read_square(melanoma["image_path"], stored_side(32)).astype(int)
    assert np.abs(stored - painted.image).mean() < 6  # JPEG; another picture differs by dozens


def test_the_trap_is_kept_and_found_again(trap, trap_settings, monkeypatch):
    monkeypatch.setattr("melanoma_lib.training.fit", lambda *_: pytest.fail("trained again"))
    again = set_trap(trap_settings, "patch", 1.0)
    assert (again.trapped.path, again.honest.path) == (trap.trapped.path, trap.honest.path)
    assert again.trapped.path.parent == trap_settings.runs_dir
    assert again.trapped.path.name.startswith(f"{trap.honest.path.name}-patch-tied-")


def test_another_tie_is_another_run(trap):
    names = {SyntheticDermoscopy(**trap.untied.knobs | {"shortcut": {name: tie}}).fingerprint
             for name in ARTEFACTS for tie in (0.5, 1.0, -1.0)}  # fmt: skip
    assert len(names) == 3 * len(ARTEFACTS)
    assert trap.tied.fingerprint in names and trap.trapped.path.name.endswith(trap.tied.fingerprint[-8:])


def test_worlds_are_those_of_scikit_learn_on_the_stored_predictions(trap):
    worlds = shortcut.compare_worlds(trap, n=100)
    for model, run, world in ((TRAPPED, trap.trapped, TIED), (HONEST, trap.honest, UNTIED)):
        stored = run.predictions("test")
        assert worlds.auroc[model][world].value == pytest.approx(roc_auc_score(stored["target"], stored["logit"]), abs=1e-3)
    for model, run in trap.runs.items():
        by_hand = [roc_auc_score(cases["target"], shortcut.file_logits(run, cases)) for cases in (trap.tied_cases, trap.cases)]
        assert [worlds.auroc[model][world].value for world in (TIED, UNTIED)] == pytest.approx(by_hand)
        assert worlds.loss[model].value == pytest.approx(by_hand[0] - by_hand[1])
        assert worlds.loss[model].low <= worlds.loss[model].value <= worlds.loss[model].high
    assert worlds.n == len(trap.cases)
    assert worlds.ceiling == SyntheticDermoscopy(80, 0, stored_side(32)).bayes_auroc()["both"]


def test_of_real_photographs_the_trap_is_set_in_the_synthetic_world(trap_settings):
    settings = trap_settings.with_changes(source="ham10000", data_dir="somewhere", run_dir="elsewhere", seed=3)
    honest = shortcut._synthetic(settings)
    assert (honest.source, honest.profile, honest.seed, honest.image_size) == ("synthetic", "fast", 3, 64)
    assert honest.runs_dir == settings.runs_dir and honest.data_dir is honest.run_dir is None
    assert shortcut._synthetic(trap_settings).shaping() == trap_settings.shaping()


def test_what_is_no_trap_is_refused_before_anything_is_trained(trap_settings, monkeypatch):
    monkeypatch.setattr(shortcut, "train", lambda _: pytest.fail("trained"))
    for artefact, tie, message in (("ink", 0, "other than 0"), ("rular", 0.5, "unknown artefact 'rular'"), ("ink", 2, "between")):
        with pytest.raises(ValueError, match=message):
            set_trap(trap_settings, artefact, tie)


def test_cases_that_are_tied_already_are_no_honest_world(trap, trap_settings):
    tied = trap.trapped.settings
    with pytest.raises(DataError, match=r"trained on cases with ties \{'patch': 1.0\}"):
        set_trap(trap_settings.with_changes(data_dir=tied.data_dir, run_dir=tied.run_dir), "ink")


def test_a_tied_run_keeps_to_its_folder(trap, trap_settings):
    """Image ids of both worlds are the same, so reading the wrong one would go unnoticed."""
    assert set(trap.honest.splits["image_id"]) == set(trap.trapped.splits["image_id"])
    assert source_root(trap.trapped.settings) != source_root(trap_settings)
    assert train(trap.trapped.settings).path == trap.trapped.path
