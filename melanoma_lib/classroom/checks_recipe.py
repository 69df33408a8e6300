"""More checks of the training lesson: how often a melanoma is drawn, and which epoch is kept."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from melanoma_lib.classroom.checks import not_yet, passed

DRAWS = ((60, 12, 0.3), (200, 20, 0.5), (50, 30, 0.2))  # cases, melanomas among them, share to be drawn
COURSES = (  # validation scores of each epoch, and the patience
    ((0.60, 0.70, 0.72, 0.71, 0.70, 0.69, 0.90), 3),
    ((0.60, 0.70, 0.70, 0.65, 0.66, 0.80), 2),
    ((0.50, 0.60, 0.55, 0.65, 0.62, 0.64, 0.63, 0.62), 3),
    ((0.80, 0.70, 0.60, 0.50), 1),
    ((0.50, 0.60, 0.55), 4),
)


def draw_weights(compute: Callable[[np.ndarray, float], Any]) -> None:
    """Check weights to draw cases by, one each, so that a drawn case is a melanoma with the chance asked for.

    Args:
        compute: from targets, 0 or 1, shape ``(N,)``, and that chance to weights, shape ``(N,)``, of any sum.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    shares = []
    for n, n_melanoma, share in DRAWS:
        targets = np.random.default_rng(n).permutation((np.arange(n) < n_melanoma).astype(int))
        weights = _weights(compute(targets.copy(), share), n)
        if any(np.ptp(weights[targets == kind]) > 1e-9 * weights.max() for kind in (0, 1)):
            not_yet("cases of one class have different weights, so that some are seen more often than others for no reason")
        shares.append(float(weights[targets == 1].sum() / weights.sum()))
    even = "each class gets the weight it is to have as a whole, but each case brings it along: divide by the cases of its class"
    mistakes: dict[str, Callable[[int, int, float], tuple[float, float]]] = {
        even: lambda n, m, share: (share, 1 - share),
        "one over the cases of each class: that draws half melanomas, whatever share was asked for": (
            lambda n, m, share: (1 / m, 1 / (n - m))
        ),
        "the classes are swapped: share is that of the melanomas": lambda n, m, share: ((1 - share) / m, share / (n - m)),
        "all weigh alike, so melanomas come as often as they are": lambda n, m, share: (1, 1),
        "melanomas weigh share / prevalence, but the others still weigh 1: theirs is (1 - share) / (1 - prevalence)": (
            lambda n, m, share: (share / (m / n), 1)
        ),
        "the class with more cases gets the heavier weights: divide each class by its own cases": (
            lambda n, m, share: (share * m, (1 - share) * (n - m))
        ),
    }
    for diagnosis, mistake in mistakes.items():
        if np.allclose(shares, [m * a / (m * a + (n - m) * b) for n, m, share in DRAWS for a, b in [mistake(n, m, share)]]):
            not_yet(diagnosis)
    if not np.allclose(shares, [share for *_, share in DRAWS]):
        n, m, share = DRAWS[0]
        not_yet(f"of {n} cases, {m} of them melanomas, it draws a melanoma with chance {shares[0]:.3f}; {share} was asked for")
    passed("drawn with these weights, a case is a melanoma as often as was asked for, and each melanoma is as likely as the next")


def _weights(answer: Any, n: int) -> np.ndarray:
    try:
        weights = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        not_yet(f"expected weights, one a case, got {answer!r}")
    if weights.shape != (n,):
        hint = ": one a case, not one a class; np.where(targets == 1, …, …) hands them out" if weights.size == 2 else ""
        not_yet(f"expected {n} weights, got shape {weights.shape}{hint}")
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        not_yet(f"weights must be numbers from 0, got some from {weights.min():.3g} to {weights.max():.3g}")
    return weights


def kept_epoch(choose: Callable[[Sequence[float], int], tuple[int, int]]) -> None:
    """Hold ``choose(scores, patience)`` to early stopping: the epoch whose weights are kept, and the last one that is trained.

    Args:
        choose: from validation scores, higher is better, and a patience of at least 1 to two epochs, counted from 1.

    Raises:
        NotYet: with the mistake that gives the epochs seen.
    """
    given = []
    for scores, patience in COURSES:
        answer = choose(list(scores), patience)
        try:
            best, last = (int(epoch) for epoch in answer)
        except (TypeError, ValueError):
            not_yet(f"expected two epochs, the one that is kept and the last one trained, got {answer!r}")
        given.append((best, last))
    for diagnosis, mistake in STOPPING_MISTAKES.items():
        if given == [mistake(*course) for course in COURSES]:
            if diagnosis:
                not_yet(diagnosis)
            passed("the best epoch so far is kept, and after so many epochs without a better one there is no next")
            return
    for (scores, patience), mine in zip(COURSES, given, strict=True):
        if mine != (right := _stopped(scores, patience)):
            not_yet(
                f"scores {', '.join(f'{score:.2f}' for score in scores)} with patience {patience}: it keeps epoch {mine[0]} and "
                f"stops after {mine[1]}; expected to keep {right[0]} and to stop after {right[1]}"
            )


def _stopped(
    scores: Sequence[float], patience: int, ties: bool = False, reset: bool = True, previous: bool = False, sign: int = 1
) -> tuple[int, int]:
    """The epoch kept and the last one trained, with the faults that are asked for.

    As Lightning's EarlyStopping counts, whose source is the oracle of the tests.
    """
    best, waited, reference = 1, 0, sign * scores[0]
    for epoch, score in enumerate([sign * score for score in scores[1:]], start=2):
        if better := score >= reference if ties else score > reference:
            best, reference = epoch, score
        elif previous:
            reference = score
        waited = (0 if reset else waited) if better else waited + 1
        if waited >= patience:
            return best, epoch
    return best, len(scores)


def _in_hindsight(scores: Sequence[float], patience: int) -> tuple[int, int]:
    best = int(np.argmax(scores)) + 1
    return best, min(best + patience, len(scores))


STOPPING_MISTAKES: dict[str, Callable[[Sequence[float], int], tuple[int, int]]] = {
    "": _stopped,
    "it never stops: the best of all epochs is kept, but patience is not used": (
        lambda scores, patience: (int(np.argmax(scores)) + 1, len(scores))
    ),
    "it knows the future: the best of all epochs may come after the stop. Go through the epochs one after the other": (
        _in_hindsight
    ),
    "training stops at the right epoch, but the best is looked for among all scores, those never trained too": (
        lambda scores, patience: (int(np.argmax(scores)) + 1, _stopped(scores, patience)[1])
    ),
    "epochs are counted from 0; the first epoch is 1": lambda *course: tuple(epoch - 1 for epoch in _stopped(*course)),
    "the best epoch is counted from 0; the first epoch is 1": lambda *course: (_stopped(*course)[0] - 1, _stopped(*course)[1]),
    "the last epoch is counted from 0; the first epoch is 1": lambda *course: (_stopped(*course)[0], _stopped(*course)[1] - 1),
    "it waits one epoch too long: with a patience of 1, the first epoch that is no better is the last": (
        lambda scores, patience: _stopped(scores, patience + 1)
    ),
    "it keeps the last epoch: by then patience has run out, and the best one is some epochs back": (
        lambda *course: (_stopped(*course)[1],) * 2
    ),
    "the two are swapped: first the epoch that is kept, then the last one": lambda *course: _stopped(*course)[::-1],
    "an equal score counts as better, so that training goes on without getting better: use >": (
        lambda *course: _stopped(*course, ties=True)
    ),
    "patience counts epochs that are worse than the one before; count those that are no better than the best so far": (
        lambda scores, patience: (int(np.argmax(scores[: (last := _stopped(scores, patience, previous=True)[1])])) + 1, last)
    ),
    "a score above the one before it need not be the best: hold it against the best so far": (
        lambda *course: _stopped(*course, previous=True)
    ),
    "a better epoch does not give the patience back: start counting again at 0": lambda *course: _stopped(*course, reset=False),
    "it keeps the lowest score: right for a loss, but here higher is better": lambda *course: _stopped(*course, sign=-1),
}
