"""Every exercise passes its reference, tells each slip by its own diagnosis, and never fails with a traceback of ours."""

import importlib

import numpy as np
import pytest

from melanoma_lib.classroom.checks import Exercise, NotYet

LESSONS = ("start", "eda", "focal", "training", "threshold", "gradcam", "cross_validation")
TABLES = {
    f"{lesson}.{name}": value
    for lesson in LESSONS
    for name, value in vars(importlib.import_module(f"melanoma_lib.classroom.checks.{lesson}")).items()
    if isinstance(value, Exercise)
}
each_table = pytest.mark.parametrize("name", TABLES)


def told(check, answer):
    with pytest.raises(NotYet) as caught:
        check(answer)
    return str(caught.value)


def finishing(function, finish):
    return lambda *inputs: finish(function(*inputs))


def wrong_answers(table):
    from functools import partial

    for said, slip in table.slips.items():
        function = slip if callable(slip) else partial(table.reference, **slip)
        yield (said,), finishing(function, table.finish)
        for last, finish in table.finishes.items():
            yield (said, last), finishing(function, finish)
    for last, finish in table.finishes.items():
        yield (last,), finishing(table.reference, finish)


@each_table
def test_the_reference_passes(name, capsys):
    table = TABLES[name]
    table(finishing(table.reference, table.finish))
    assert capsys.readouterr().out == f"✓ {table.success}\n"


@each_table
def test_each_slip_is_told_by_its_own_diagnosis_alone_or_with_a_wrong_last_step(name):
    table = TABLES[name]
    for diagnoses, answer in wrong_answers(table):
        if len(diagnoses) == 1:
            message = told(table, answer)
            assert message == diagnoses[0]
