"""Every exercise passes right answers, tells each slip by its own diagnosis, and never fails with a traceback of ours."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import seaborn as sns
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
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
CASES = SyntheticDermoscopy(n_patients=300).cases
CHECKS = TABLES | {
    "eda.grouped_split": lambda answer: eda.grouped_split(answer, CASES),
    "eda.preparation": eda.preparation,
    "eda.suspects_figure": eda.suspects_figure,
    "training.training_loop": training.training_loop,
    "training.dataset": training.dataset,
    "training.fusion_net": training.fusion_net,
    "training.freeze": training.freeze,
}


def told(check, answer):
    with pytest.raises(NotYet) as caught:
        check(answer)
    return str(caught.value)


def in_turn(values):
    """A function that answers each of these, whatever it is asked."""
    answers = iter(values)
    return lambda *_: next(answers)


@pytest.mark.parametrize("name", TABLES)
def test_each_slip_alone_and_with_another_is_told_by_its_own_diagnosis(name, monkeypatch, capsys):
    table = TABLES[name]
    trials = table.inputs() if callable(table.inputs) else table.inputs
    few = list(itertools.takewhile(lambda suspect: len(suspect[0]) <= 2, table.suspects(trials)))
    monkeypatch.setattr(Exercise, "suspects", lambda *_: iter(few))
    (none, right), *wrong = few
    assert none == ()
    assert {said for said, _ in wrong if len(said) == 1} == {(said,) for said in (*table.slips, *table.finishes)}
    n_pairs = 0
    for i, (faults, values) in enumerate(wrong):
        if len(faults) == 2 and any(table._alike(values, others) for _, others in few[: i + 1]):
            continue  # no answer could tell these from fewer faults, or from two others
        first_only = f"{faults[0]} (and 1 more)" if len(faults) == 2 else faults[0]
        assert told(table, in_turn(values)) == (first_only if table.hunt else "; and ".join(faults))
        n_pairs += len(faults) == 2
    assert n_pairs >= 0.4 * sum(len(faults) == 2 for faults, _ in wrong)
    if not table.after:
        table(in_turn(right))
        assert capsys.readouterr().out == f"✓ {table.success}\n"


GARBAGE = {
    "nothing": lambda *_: None,
    "text": lambda *_: "0.5",
    "not a number": lambda *_: math.nan,
    "a matrix": lambda *_: np.zeros((2, 2)),
    "a table": lambda *_: pd.DataFrame({"a": [1, 2]}),
    "itself": lambda *inputs: inputs,
    "an error": lambda *_: [][1],
    "too few arguments": lambda: 1,
}


@pytest.mark.parametrize("name", CHECKS)
def test_garbage_and_stubs_are_told_in_plain_words(name, monkeypatch):
    monkeypatch.setattr(engine, "MOST_FAULTS", 1)  # no combination explains garbage

    def stub(*_):
        raise NotImplementedError("Exercise: write it here")

    assert "nothing is written here yet" in told(CHECKS[name], stub)
    assert "expected a function, got 0.5" in told(CHECKS[name], 0.5)
    for kind, answer in GARBAGE.items():
        message = told(CHECKS[name], answer)
        assert message and "<" not in message.replace("<lambda>", ""), (kind, message)
    assert "IndexError: list index out of range in line" in told(CHECKS[name], GARBAGE["an error"])
    assert '"an error": lambda *_: [][1],' in told(CHECKS[name], GARBAGE["an error"])
    assert "TypeError" in told(CHECKS[name], GARBAGE["too few arguments"])


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


def folds(groups="group_id", n=5, y="target", shuffle=True):
    def split(cases, seed):
        splitter = StratifiedGroupKFold(n, shuffle=shuffle, random_state=seed if shuffle else None)
        return next(splitter.split(cases, cases[y] if y else np.zeros(len(cases)), cases[groups]))

    return split


def bars(measure="mean", over="variable", scale=1.0, legend="auto", of_class=True, **more):
    def draw(taken, label):
        long = taken.assign(label=label).melt("label").assign(value=lambda table: scale * table["value"])
        hue = {"hue": "label", "legend": legend} if of_class else {}
        values = {"x": "value", "y": over} | more
        return sns.barplot(long, **values, **hue, estimator=measure, errorbar=None)

    return draw


def turned_round(taken, label):
    return sns.barplot(taken.apply(lambda column: (label[column] == "melanoma").mean()))


def encoded(train, test):
    encoder = MetadataEncoder.fit(train)
    return encoder.transform(train), encoder.transform(test)


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


def colleagues_features(train, test, columns=(), fill=None, flag=False):
    both = pd.concat([train, test])
    both["gap"] = both["age_approx"].isna()
    if fill:
        both["age_approx"] = both["age_approx"].fillna((both if fill == "all" else train)["age_approx"].mean())
    features = pd.get_dummies(both[["age_approx", "sex", eda.SITE, *columns, *["gap"] * flag]], dtype=float)
    return features[: len(train)], features[len(train) :]


def colleagues_loop(head, optimiser, splits, epochs):
    aurocs = []
    for _ in range(epochs):
        x, y = splits["train"]
        value = F.binary_cross_entropy_with_logits(torch.sigmoid(head(x).squeeze(1)), y)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        x, y = splits["test"]
        aurocs.append(roc_auc_score(y, head(x).detach().squeeze(1)))
    return int(np.argmax(aurocs)) + 1, aurocs


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


RIGHT = [
    (threshold.choose, lambda t, s, wanted: np.sort(s[t == 1])[::-1][math.ceil(wanted * t.sum() - 1e-9) - 1]),
    (threshold.cost_threshold, lambda fn, fp: 1 / (1 + fn / fp)),
    (focal.focal_loss, losses.focal_loss),
    (focal.decoder, lambda p, a, g: losses.FocalLoss(a, g).true_risk(p)),
    (focal.draw_weights, lambda y, share: np.where(y == 1, 1.0, (1 - share) / share * y.sum() / (1 - y).sum())),
    (training.starting_bias, lambda p: torch.logit(torch.tensor(p))),
    (training.dataset, ImagesByPath),
    (training.fusion_net, ByIndex),
    (training.freeze, held_one_by_one),
    (gradcam.swap_correlation, lambda a, b: [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]),
    (start.rates, lambda y, c: (recall_score(y, c), recall_score(y, c, pos_label=0))),
    (eda.suspects_figure, bars(x="variable", y="value")),
    (eda.suspects_figure, lambda taken, label: taken.groupby(label).mean().T.plot.barh()),
    (CHECKS["eda.grouped_split"], lambda cases, seed: [np.isin(range(len(cases)), part) for part in folds()(cases, seed)]),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_of_other_kinds_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


split, prepare, suspects = CHECKS["eda.grouped_split"], eda.preparation, eda.suspects_figure
WRONG = [
    (threshold.choose, lambda t, s, wanted: 2 * s.max(), "it returns 1.938, expected"),
    (focal.focal_loss, loss(log=lambda z: torch.log(torch.sigmoid(z))), "Use F.logsigmoid"),
    (focal.focal_loss, loss(log=lambda z: torch.log(torch.sigmoid(z) + 1e-8)), "clamped or added to"),
    (focal.focal_loss, loss(factor=lambda miss, gamma: (1 - (1 - miss.exp())) ** gamma), "has a gradient of"),
    (focal.focal_loss, loss(factor=lambda miss, gamma: torch.exp(gamma * miss).detach()), "must not be detached"),
    (focal.probe, lambda box: reads(box, swap=True), "two gammas are swapped"),
    (focal.probe, lambda box: reads(box, same=True), "of its own class"),
    (training.training_loop, colleagues_loop, "takes the sigmoid itself (and 3 more)"),
    (training.dataset, GapsAndIntegers, "have gaps after a split; and the target is an integer"),
    (training.dataset, NoMetadata, "(1,), ()]; got [(3, 4, 6), ()]"),
    (training.fusion_net, BothFaults, "end with .squeeze(1); and these are probabilities"),
    (training.freeze, held_weights, "still updates its statistics"),
    (training.freeze, lambda module: module.eval(), "its weights still learn"),
    (gradcam.grad_cam, forgets_its_hook, "still on the layer"),
    (start.rates, lambda y, c: (precision_score(y, c), recall_score(y, c, pos_label=0)), "is the precision"),
    (suspects, bars("sum"), "counts"),
    (suspects, bars(scale=100), "percent"),
    (suspects, bars(of_class=False), "one bar a column"),
    (suspects, turned_round, "shares of melanomas among"),
    (suspects, bars("max"), "bars of other lengths"),
    (suspects, bars(legend=False), "which class has which colour"),
    (suspects, lambda taken, label: taken.groupby(label).mean().T.reset_index(drop=True).plot.barh(), "does not name camera_a"),
    (split, lambda cases, seed: tuple(cases.iloc[part] for part in folds()(cases, seed)), "expected positions"),
    (split, folds(groups="image_id"), "dealt out one by one"),
    (split, folds(groups="lesion_id"), "though each lesion_id is whole"),
    (split, folds(n=2), "holds 50%"),
    (split, folds(y=None), "left to chance"),
    (split, folds(shuffle=False), "every seed gives the same"),
    (prepare, lambda *parts: colleagues_features(*parts, ["diagnosis"], "all"), "know the answer"),
    (prepare, lambda *parts: colleagues_features(*parts, fill="all"), "computed from all rows"),
    (prepare, lambda *parts: colleagues_features(*parts, fill="train"), "the gap is hidden"),
    (prepare, lambda *parts: [colleagues_features(part, part, fill="train", flag=True)[0] for part in parts], "training has"),
    (prepare, lambda *parts: [part[:, 1:] for part in encoded(*parts)], "change with age_approx"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_wrong_answers_that_readers_write_are_diagnosed(check, answer, words):
    assert words in told(check, answer)
