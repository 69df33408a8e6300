import itertools
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image
from sklearn.metrics import precision_score, recall_score

from melanoma_lib import losses
from melanoma_lib.classroom.checks import cross_validation, eda, engine, focal, gradcam, start, threshold, training
from melanoma_lib.data import MetadataEncoder, SyntheticDermoscopy

TABLES = {
    f"{lesson.__name__.split('.')[-1]}.{name}": value
    for lesson in (start, eda, focal, training, threshold, gradcam, cross_validation)
    for name, value in vars(lesson).items()
    if isinstance(value, engine.Exercise)
}
CASES = SyntheticDermoscopy(n_patients=30, seed=3).cases
CHECKS = TABLES | {"eda.grouped_split": lambda answer: eda.grouped_split(answer, CASES)}


def told(check, answer):
    with pytest.raises(engine.NotYet) as caught:
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
    table(table.reference)
    assert capsys.readouterr().out == f"✓ {table.success}\n"
    for said, slip in table.slips.items():
        assert told(table, partial(table.reference, **slip)) == said
    monkeypatch.setattr(engine.Exercise, "suspects", lambda *_: iter(few))
    monkeypatch.setattr(engine.Exercise, "_ask", lambda *_: next(answers))
    for i, (faults, values) in enumerate(wrong):
        if len(faults) == 2 and not any(all(map(table._same, values, others)) for _, others in few[: i + 1]):
            answers = iter(values)  # that neither fewer faults nor two others explain
            assert told(table, None) == f"{faults[0]} (and 1 more)"


GARBAGE = {
    "nothing": lambda *_: None,
    "text": lambda *_: "0.5",
    "not a number": lambda *_: math.nan,
    "a number that no float holds": lambda *_: 10**400,
    "a sparse tensor": lambda *_: torch.eye(2).to_sparse(),
    "itself": lambda *inputs: inputs,
    "an error": lambda *_: [][1],
    "too few arguments": lambda: 1,
}


@pytest.mark.parametrize("name", CHECKS)
def test_garbage_is_told_in_plain_words(name, monkeypatch):
    check = CHECKS[name]
    monkeypatch.setattr(engine, "MOST_FAULTS", 1)  # no combination explains garbage
    assert "expected a function, got 0.5" in told(check, 0.5)
    for kind, answer in GARBAGE.items():
        message = told(check, answer)
        assert message and "<" not in message.replace("<lambda>", ""), (kind, message)
    line = r'IndexError: list index out of range in line \d+ of its cell:\n    "an error": lambda \*_: \[\]\[1\],'
    assert re.search(line, told(check, GARBAGE["an error"]))
    assert "TypeError" in told(check, GARBAGE["too few arguments"])


def test_a_notebook_shows_the_message_and_no_traceback():
    shell = InteractiveShell()
    shell.run_cell("from melanoma_lib.classroom.checks import start as checks\ndef decide(p, t):\n    return p / 0")
    with capture_output() as shown:
        shell.run_cell("checks.decision(decide)")
    error = "ZeroDivisionError: float division by zero in line 3 of its cell:\n    return p / 0"
    assert shown.stdout.startswith(f"✗ not yet: your function fails with {error}")
    assert "engine.py" not in shown.stdout


def naive_loss(logits, targets, alpha, gamma, added=0.0):
    p_t = torch.sigmoid(torch.where(targets == 1, logits, -logits))
    return (-torch.where(targets == 1, alpha, 1 - alpha) * (1 - p_t) ** gamma * torch.log(p_t + added)).mean()


def reads(loss_of, place=0.5):
    def at(p_t, target):
        logit = math.log(p_t / (1 - p_t)) * (1 if target else -1)
        return float(loss_of(torch.tensor([logit], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)))

    def gamma(target):
        return math.log(at(0.8, target) / at(0.5, target) * math.log(0.5) / math.log(0.8)) / math.log(0.4)

    return at(place, 1.0) / (at(place, 1.0) + at(place, 0.0)), gamma(1.0), gamma(0.0)


def forgets_its_hook(model, layer, image, metadata):
    layer.register_forward_hook(lambda *_: None)
    return gradcam._maps(model, layer, image, metadata)


class ImagesByPath:
    def __init__(self, cases, encoder, transform):
        self.cases, self.metadata, self.transform = cases, torch.tensor(encoder.transform(cases)), transform

    def __getitem__(self, i):
        pixels = np.array(Image.open([*self.cases["image_path"]][i]))
        return self.transform(pixels), self.metadata[i], torch.FloatTensor([*self.cases["target"]])[i]


class GapsAndIntegers(ImagesByPath):
    def __getitem__(self, i):
        case = self.cases.loc[i]
        return self.transform(Image.open(case["image_path"])), self.metadata[i], torch.tensor(case["target"])


class LooksForAWrongColumn(ImagesByPath):
    def __getitem__(self, i):
        return self.cases["path"]


RIGHT = [
    (focal.focal_loss, losses.focal_loss),
    (focal.probe, reads),
    (focal.decoder, lambda p, a, g: losses.FocalLoss(a, g).true_risk(p)),
    (focal.draw_weights, lambda y, share: np.where(y == 1, 1.0, (1 - share) / share * y.sum() / (1 - y).sum())),
    (training.starting_bias, lambda p: torch.logit(torch.tensor(p))),
    (training.dataset, ImagesByPath),
    (training.freeze, lambda module: [part.requires_grad_(False).eval() for part in module.children()]),
    (start.rates, lambda y, c: (recall_score(y, c), recall_score(y, c, pos_label=0))),
    (eda.suspects_figure, lambda taken, label: taken.groupby(label).mean().T.plot.barh()),
    (eda.grouping, lambda cases, seed: [np.isin(range(len(cases)), part) for part in eda._split(cases, seed)]),
    (eda.preparation, lambda train, test: map(MetadataEncoder.fit(train).transform, (train, test))),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_of_other_kinds_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


WRONG = [
    (threshold.choose, lambda t, s, wanted: 2 * s.max(), "sensitivity = 0.25: it returns 1.64, expected 0.62"),
    (focal.focal_loss, naive_loss, "Use F.logsigmoid"),
    (focal.focal_loss, partial(naive_loss, added=1e-8), "must not be clamped"),
    (focal.focal_loss, lambda *given: losses.focal_loss(*given).detach().requires_grad_(), "when its answer is used"),
    (focal.probe, partial(reads, place=0.8), "Alpha still holds gamma"),
    (training.starting_bias, lambda p: torch.logit(torch.tensor(p)).bfloat16(), "it returns -4, expected -3.999"),
    (training.dataset, GapsAndIntegers, "labels have gaps (and 1 more)"),
    (training.dataset, LooksForAWrongColumn, "KeyError: 'path' in line"),
    (training.freeze, lambda module: module.eval(), "its weights still learn"),
    (gradcam.grad_cam, forgets_its_hook, "still on the layer"),
    (start.rates, lambda y, c: (precision_score(y, c), recall_score(y, c, pos_label=0)), "is the precision"),
    (eda.preparation, lambda *parts: [part[:, 1:] for part in eda._prepared(*parts)], "cannot be used"),
]


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_wrong_answers_that_readers_write_are_diagnosed(check, answer, words):
    assert words in told(check, answer)
