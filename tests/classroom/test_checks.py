"""Every exercise passes right answers, tells each slip by its own diagnosis, and never fails with a traceback of ours."""

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image
from sklearn.metrics import precision_score, recall_score
from torch.nn import functional as F

from melanoma_lib import losses
from melanoma_lib.classroom.checks import (
    Exercise,
    NotYet,
    cross_validation,
    eda,
    engine,
    focal,
    gradcam,
    start,
    threshold,
    training,
)
from melanoma_lib.data import MetadataEncoder, SyntheticDermoscopy

LESSONS = (start, eda, focal, training, threshold, gradcam, cross_validation)
TABLES = {
    f"{lesson.__name__.split('.')[-1]}.{name}": value
    for lesson in LESSONS
    for name, value in vars(lesson).items()
    if isinstance(value, Exercise)
}


def told(check, answer):
    with pytest.raises(NotYet) as caught:
        check(answer)
    return str(caught.value)


@pytest.mark.parametrize("name", TABLES)
def test_each_slip_alone_and_with_another_is_told_by_its_own_diagnosis(name, monkeypatch, capsys):
    table = TABLES[name]
    trials = table.inputs() if callable(table.inputs) else table.inputs
    few = list(itertools.takewhile(lambda suspect: len(suspect[0]) <= 2, table.suspects(trials)))
    (none, _), *wrong = few
    assert none == ()
    assert {said for said, _ in wrong if len(said) == 1} == {(said,) for said in table.slips}
    replace(table, after=None)(table.reference)
    assert capsys.readouterr().out == f"✓ {table.success}\n"
    for said, slip in table.slips.items():
        assert told(table, slip if callable(slip) else partial(table.reference, **slip)) == said
    monkeypatch.setattr(Exercise, "suspects", lambda *_: iter(few))
    monkeypatch.setattr(Exercise, "_ask", lambda *_: next(answers))
    n_pairs = 0
    for i, (faults, values) in enumerate(wrong):
        if len(faults) == 1 or any(table._alike(values, others) for _, others in few[: i + 1]):
            continue  # no answer could tell these from fewer faults, or from two others
        answers = iter(values)
        assert told(table, None) == (f"{faults[0]} (and 1 more)" if table.hunt else "; and ".join(faults))
        n_pairs += 1
    assert n_pairs >= 0.4 * sum(len(faults) == 2 for faults, _ in wrong)


GARBAGE = {
    "nothing": lambda *_: None,
    "text": lambda *_: "0.5",
    "not a number": lambda *_: math.nan,
    "a number that no float holds": lambda *_: 10**400,
    "a sparse tensor": lambda *_: torch.eye(2).to_sparse(),
    "a matrix": lambda *_: np.zeros((2, 2)),
    "a table": lambda *_: pd.DataFrame({"a": [1, 2]}),
    "itself": lambda *inputs: inputs,
    "an error": lambda *_: [][1],
    "too few arguments": lambda: 1,
}


CASES = SyntheticDermoscopy(n_patients=30, seed=3).cases
CHECKS = TABLES | {"eda.grouped_split": lambda answer: eda.grouped_split(answer, CASES)}


@pytest.mark.parametrize("name", CHECKS)
def test_garbage_and_stubs_are_told_in_plain_words(name, monkeypatch):
    check = CHECKS[name]
    monkeypatch.setattr(engine, "MOST_FAULTS", {True: 1, False: 1})  # no combination explains garbage

    def stub(*_):
        raise NotImplementedError("Exercise: write it here")

    assert "nothing is written here yet" in told(check, stub)
    assert "expected a function, got 0.5" in told(check, 0.5)
    for kind, answer in GARBAGE.items():
        message = told(check, answer)
        assert message and "<" not in message.replace("<lambda>", ""), (kind, message)
    assert "IndexError: list index out of range in line" in told(check, GARBAGE["an error"])
    assert '"an error": lambda *_: [][1],' in told(check, GARBAGE["an error"])
    assert "TypeError" in told(check, GARBAGE["too few arguments"])


def test_a_notebook_shows_the_message_and_no_traceback():
    shell = InteractiveShell()
    shell.run_cell("from melanoma_lib.classroom.checks import start as checks\ndef decide(p, t):\n    return p / 0")
    with capture_output() as shown:
        shell.run_cell("checks.decision(decide)")
    assert shown.stdout.startswith("✗ not yet: your function fails with ZeroDivisionError: float division by zero in line 3")
    assert "return p / 0" in shown.stdout
    assert "engine.py" not in shown.stdout


def test_an_error_in_a_students_class_shows_their_line():
    class Lens:
        def __init__(self, x):
            self.x = 1 / x

    with pytest.raises(NotYet, match=r"ZeroDivisionError: division by zero in line \d+ of its cell:\n    self.x = 1 / x"):
        engine.ask(Lens, 0)


def test_an_answer_by_chance_and_one_that_ignores_its_arguments_are_told():
    rng = np.random.default_rng()
    assert "asked twice" in told(start.ppv, lambda *_: rng.random())
    assert "whatever it is given" in told(start.ppv, lambda *_: 0.3)


def loss(factor=lambda log_miss, gamma: torch.exp(gamma * log_miss), log=F.logsigmoid):
    def compute(logits, targets, alpha, gamma):
        signed = torch.where(targets == 1, logits, -logits)
        weight = torch.where(targets == 1, alpha, 1 - alpha)
        return (-weight * factor(F.logsigmoid(-signed), gamma) * log(signed)).mean()

    return compute


def reads(loss_of, swap=False, same=False):
    def at(p_t, target):
        logit = math.log(p_t / (1 - p_t)) * (1 if target else -1)
        return float(loss_of(torch.tensor([logit], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)))

    def gamma(target):
        return math.log(at(0.8, target) / at(0.5, target) * math.log(0.5) / math.log(0.8)) / math.log(0.4)

    gammas = gamma(1.0), gamma(1.0 if same else 0.0)
    return at(0.5, 1.0) / (at(0.5, 1.0) + at(0.5, 0.0)), *(gammas[::-1] if swap else gammas)


def forgets_its_hook(model, layer, image, metadata):
    kept = []
    layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    gradients = torch.autograd.grad(model(image, metadata).sum(), kept[0])[0]
    return (gradients.mean((2, 3), keepdim=True) * kept[0]).sum(1)


class ImagesByPath(training._Lesions):
    """Lists in place of a table, an array in place of a picture."""

    def __getitem__(self, i):
        with Image.open([*self.cases["image_path"]][i]) as opened:
            pixels = np.array(opened)
        return self.transform(pixels), self.metadata[i], torch.FloatTensor([*self.cases["target"]])[i]


class GapsAndIntegers(ImagesByPath):
    def __getitem__(self, i):
        case = self.cases.loc[i]
        return self.transform(Image.open(case["image_path"])), self.metadata[i], torch.tensor(case["target"])


class NoMetadata(ImagesByPath):
    def __getitem__(self, i):
        return self.transform(Image.open(self.cases["image_path"].iloc[i])), torch.tensor(1.0)


class ByIndex(training._Fusion):
    def forward(self, image, metadata):
        both = torch.hstack((self.image_branch(image), self.metadata_branch(metadata)))
        return self.head(both)[:, 0]


class BothFaults(training._Fusion):
    def forward(self, image, metadata):
        return self.head(torch.cat([self.image_branch(image), self.metadata_branch(metadata)], 1)).sigmoid()


def held_one_by_one(module):
    for parameter in module.parameters():
        parameter.requires_grad = False
    module.train(False)


def held_weights(module):
    for parameter in module.parameters():
        parameter.requires_grad = False


def sides_by_lesion(cases, seed):
    test = cases["lesion_id"].isin(cases["lesion_id"].unique()[::5])
    return np.flatnonzero(~test), np.flatnonzero(test)


RIGHT = [
    (threshold.choose, lambda t, s, wanted: np.sort(s[t == 1])[::-1][math.ceil(wanted * t.sum() - 1e-9) - 1]),
    (threshold.cost_threshold, lambda fn, fp: 1 / (1 + fn / fp)),
    (focal.focal_loss, losses.focal_loss),
    (focal.probe, reads),
    (focal.decoder, lambda p, a, g: losses.FocalLoss(a, g).true_risk(p)),
    (focal.draw_weights, lambda y, share: np.where(y == 1, 1.0, (1 - share) / share * y.sum() / (1 - y).sum())),
    (training.starting_bias, lambda p: torch.logit(torch.tensor(p))),
    (training.dataset, ImagesByPath),
    (training.fusion_net, ByIndex),
    (training.freeze, held_one_by_one),
    (gradcam.swap_correlation, lambda a, b: [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]),
    (start.rates, lambda y, c: (recall_score(y, c), recall_score(y, c, pos_label=0))),
    (eda.suspects_figure, lambda taken, label: eda._drawn(taken, label, x="variable", y="value")),
    (eda.suspects_figure, lambda taken, label: taken.groupby(label).mean().T.plot.barh()),
    (eda.grouping, lambda cases, seed: [np.isin(range(len(cases)), part) for part in eda._split(cases, seed)]),
    (eda.preparation, lambda train, test: map(MetadataEncoder.fit(train).transform, (train, test))),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_of_other_kinds_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


WRONG = [
    (threshold.choose, lambda t, s, wanted: 2 * s.max(), "it returns 1.938, expected"),
    (focal.focal_loss, loss(log=lambda z: torch.log(torch.sigmoid(z))), "Use F.logsigmoid"),
    (focal.focal_loss, loss(log=lambda z: torch.log(torch.sigmoid(z) + 1e-8)), "clamped or added to"),
    (focal.focal_loss, loss(factor=lambda miss, gamma: (1 - (1 - miss.exp())) ** gamma), "the gradient is not finite"),
    (focal.focal_loss, loss(factor=lambda miss, gamma: torch.exp(gamma * miss).detach()), "must not be detached"),
    (focal.focal_loss, lambda *given: losses.focal_loss(*given).detach().requires_grad_(), "has no gradient"),
    (focal.probe, lambda box: reads(box, swap=True), "two gammas are swapped"),
    (focal.probe, lambda box: reads(box, same=True), "of its own class"),
    (training.training_loop, partial(training._fit, split="test", outputs=torch.sigmoid, zero=False), "(and 2 more)"),
    (training.starting_bias, lambda p: torch.logit(torch.tensor(p)).bfloat16(), "it returns -4, expected -3.999"),
    (training.dataset, GapsAndIntegers, "have gaps after a split; and the target is an integer"),
    (training.dataset, NoMetadata, "(1,), ()]; got [(3, 4, 6), ()]"),
    (training.fusion_net, BothFaults, "end with .squeeze(1); and these are probabilities"),
    (training.freeze, held_weights, "still updates its statistics"),
    (training.freeze, lambda module: module.eval(), "its weights still learn"),
    (gradcam.grad_cam, forgets_its_hook, "still on the layer"),
    (start.rates, lambda y, c: (precision_score(y, c), recall_score(y, c, pos_label=0)), "is the precision"),
    (eda.suspects_figure, lambda taken, label: taken.groupby(label).mean().T.reset_index(drop=True).plot.barh(), "axis names"),
    (eda.grouping, sides_by_lesion, "groups on both sides is 1"),
    (eda.preparation, lambda *parts: [part[:, 1:] for part in eda._prepared(*parts)], "cannot be used"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_wrong_answers_that_readers_write_are_diagnosed(check, answer, words):
    assert words in told(check, answer)


def test_a_split_is_also_tried_on_the_lessons_own_cases(capsys):
    cases = SyntheticDermoscopy(n_patients=100).cases
    eda.grouped_split(eda._split, cases)
    assert f"Here: {cases['group_id'].nunique()} groups" in capsys.readouterr().out
