"""Checks of the heatmap lesson's later exercises: both directions compared, the centre prior, the paired artefact."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks import not_yet, numbers, passed

CUT = 0.4
Maps = np.ndarray


# --- exercise 2: two directions compared --------------------------------------------------------------------------------------


def swap_correlation(compute: Callable[[Maps, Maps], np.ndarray]) -> None:
    """Hold ``compute(melanoma, benign)`` to Pearson's correlation of both maps of each case, shape ``(B,)``.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(4, 5, 6))
    first = shared + 0.5 * rng.normal(size=shared.shape) + np.array([0.0, 2.0, -1.0, 0.5])[:, None, None]
    second = np.array([1.0, -0.7, 0.4, 3.0])[:, None, None] * shared + 0.5 * rng.normal(size=shared.shape)
    answer = compute(first.copy(), second.copy())
    if answer is None:
        not_yet("it returns nothing: end with a return")
    given = np.asarray(answer, dtype=np.float64)
    right = _pearson(first, second)
    if given.shape == () and np.isclose(given, np.corrcoef(first.ravel(), second.ravel())[0, 1]):
        not_yet("all cases are thrown into one: then a case with large values decides. Correlate case by case")
    if given.shape == () and np.isclose(given, right.mean()):
        not_yet("that is the mean over the cases; return one number a case, so that a rare exception shows")
    if given.shape != right.shape:
        not_yet(f"it returns shape {given.shape} for {len(first)} cases; expected {right.shape}, one number a case")
    mistakes = {
        "the ReLU came first: what speaks against is gone before the maps are compared": _pearson(
            np.maximum(first, 0), np.maximum(second, 0)
        ),
        "absolute values came first: a map and its opposite then look alike": _pearson(np.abs(first), np.abs(second)),
        "that is the size of the correlation: its sign is the point here": np.abs(right),
        "that is its square: the sign is lost": right**2,
        "the means were not taken off: that is the cosine, not the correlation": _cosine(first, second),
        "that is the covariance: divide by both standard deviations": _covariance(first, second),
        "that is 1 minus the correlation, a distance": 1 - right,
    }
    if not np.allclose(given, right, atol=1e-6):
        for diagnosis, wrong in mistakes.items():
            if np.allclose(given, wrong, atol=1e-6):
                not_yet(diagnosis)
        not_yet(f"for the first of the check's cases it gives {given[0]:.4f}; Pearson's correlation is {right[0]:.4f}")
    passed("1: the same map whatever is asked; -1: the one is the other turned round")


def _flat(maps: Maps) -> np.ndarray:
    return maps.reshape(len(maps), -1)


def _pearson(first: Maps, second: Maps) -> np.ndarray:
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(_flat(first), _flat(second), strict=True)])


def _cosine(first: Maps, second: Maps) -> np.ndarray:
    a, b = _flat(first), _flat(second)
    return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def _covariance(first: Maps, second: Maps) -> np.ndarray:
    a, b = _flat(first), _flat(second)
    return ((a - a.mean(1, keepdims=True)) * (b - b.mean(1, keepdims=True))).mean(1)


# --- exercise 3: what the centre scores for nothing ---------------------------------------------------------------------------


def beyond_centre(compute: Callable[[Maps, Maps, np.ndarray], float]) -> None:
    """Hold ``compute(heatmap, centre, mask)`` to the map's share of positive energy on the lesion, less that of the centre.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    probes = [_probe(seed) for seed in (1, 2, 3)]
    given = []
    for heatmap, centre, mask in probes:
        try:
            given.append(float(compute(heatmap.copy(), centre.copy(), mask.copy())))
        except TypeError as error:
            not_yet(f"expected one number ({error}); does your function return its result?")

    def right(heatmap: Maps, centre: Maps, mask: np.ndarray) -> float:
        return _share(heatmap, mask) - _share(centre, mask)

    mistakes: dict[str, Callable[[Maps, Maps, np.ndarray], float]] = {
        "that is the share of the map alone: subtract what the centre scores": lambda h, c, m: _share(h, m),
        "the order is wrong: this is the centre less the map": lambda h, c, m: -right(h, c, m),
        "negative values were counted: what speaks against melanoma is no evidence on the lesion. Set it to 0 first": (
            lambda h, c, m: float(h[m].sum() / h.sum()) - _share(c, m)
        ),
        "absolute values were counted: evidence against became evidence for": lambda h, c, m: _share(np.abs(h), m) - _share(c, m),
        "the map was stretched to 0 … 1 first, which turns the strongest evidence against into 0 and all else into evidence "
        "for": lambda h, c, m: _share(h - h.min(), m) - _share(c, m),
        "the area of the lesion was subtracted, which an even map scores; the centre scores more, because lesions lie there": (
            lambda h, c, m: _share(h, m) - float(m.mean())
        ),
        "that is a ratio; the exam subtracts": lambda h, c, m: _share(h, m) / _share(c, m),
        "that is the mean value on the lesion, not the share of the whole": (
            lambda h, c, m: float(np.maximum(h, 0)[m].mean() - np.maximum(c, 0)[m].mean())
        ),
        "that is the energy beside the lesion": lambda h, c, m: _share(h, ~m),
    }
    expected = [right(*probe) for probe in probes]
    if not np.allclose(given, expected, atol=1e-6):
        for diagnosis, mistake in mistakes.items():
            if np.allclose(given, [mistake(*probe) for probe in probes], atol=1e-6):
                not_yet(diagnosis)
        h, c, m = probes[0]
        not_yet(
            f"on the check's first map it gives {given[0]:.4f}; {_share(h, m):.4f} of the map's positive energy and "
            f"{_share(c, m):.4f} of the centre's lie on the lesion"
        )
    passed("above 0: better placed than a map that has seen neither model nor image")


def _share(heatmap: Maps, mask: np.ndarray) -> float:
    energy = np.maximum(heatmap, 0)
    return float(energy[mask].sum() / energy.sum())


def _probe(seed: int) -> tuple[Maps, Maps, np.ndarray]:
    """A signed map, the centre prior and a lesion off the centre."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:24j, -1:1:24j]
    mask = (rows - 0.2) ** 2 + (columns + 0.1) ** 2 < 0.25
    return rng.normal(0.2, 1, mask.shape) + mask, np.exp(-2 * (rows**2 + columns**2)), mask


# --- exercise 4: the bug hunt -------------------------------------------------------------------------------------------------


def artefact_report(report: Callable[[pd.DataFrame, float], tuple[float, float, float]]) -> None:
    """Name every fault left in ``report(pairs, threshold)``.

    Args:
        report: returns the share of cases whose decision changes; of those not flagged without the artefact the share that is
            flagged with it; the mean size of the change in risk.

    Raises:
        NotYet: with all faults found.
    """
    pairs = _pairs()
    answer = report(pairs.copy(), CUT)
    flips, raised, size = numbers(answer, 3, "three numbers: flips, raised, size of the change")
    faults = [fault for fault in (*_faults_of_decisions(flips, raised, pairs), _fault_of_size(size, pairs)) if fault]
    if faults:
        count = "one fault is" if len(faults) == 1 else f"{len(faults)} faults are"
        not_yet(f"{count} left:\n" + "\n".join(f"  · {fault}" for fault in faults))
    passed("flips in both directions, each rate out of those it can happen to, changes that do not cancel")


def _pairs() -> pd.DataFrame:
    """Twelve pairs: flips both ways, risks that equal the threshold, changes that nearly cancel."""
    return pd.DataFrame(
        {
            "risk_without": [0.1, 0.2, 0.3, 0.35, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.05, 0.45],
            "risk_with": [0.15, 0.5, 0.4, 0.45, 0.2, 0.6, 0.3, 0.35, 0.8, 0.7, 0.1, 0.4],
        }
    )


def _decided(pairs: pd.DataFrame, strict: bool) -> tuple[np.ndarray, np.ndarray]:
    risks = (pairs[name].to_numpy() for name in ("risk_without", "risk_with"))
    before, after = (risk > CUT if strict else risk >= CUT for risk in risks)
    return before, after


def _faults_of_decisions(flips: float, raised: float, pairs: pd.DataFrame) -> list[str]:
    """Faults behind the two rates, the comparison named once."""
    of_flips: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "": lambda before, after: float((before != after).mean()),
        "flips in both directions cancel: a case raised and a case lowered are two changed decisions, not none": (
            lambda before, after: float(after.mean() - before.mean())
        ),
        "only the cases that become suspicious are counted as flips; those let go are changed decisions too": (
            lambda before, after: float((after & ~before).mean())
        ),
        "flips are counted, not their share": lambda before, after: float((before != after).sum()),
    }
    of_raised: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "": lambda before, after: float(after[~before].mean()),
        "'raised' is out of all cases; those flagged anyway cannot be raised. Divide by those not flagged without the artefact": (
            lambda before, after: float((after & ~before).mean())
        ),
        "'raised' is out of the flagged: divide by those not flagged without the artefact": (
            lambda before, after: float((after & ~before).sum() / before.sum())
        ),
        "'raised' is out of those flagged with the artefact: divide by those not flagged without it": (
            lambda before, after: float((after & ~before).sum() / after.sum())
        ),
        "'raised' counts all who are flagged with the artefact, those flagged before among them": (
            lambda before, after: float(after.mean())
        ),
    }
    for strict in (False, True):
        ways = _decided(pairs, strict)
        found = [
            next((text for text, rate in rates.items() if np.isclose(given, rate(*ways))), None)
            for given, rates in ((flips, of_flips), (raised, of_raised))
        ]
        if None not in found:
            equal = "a risk that equals the threshold is flagged: use >=, not >" if strict else ""
            return [equal, *found]
    before, after = _decided(pairs, strict=False)
    wanted = float((before != after).mean()), float(after[~before].mean())
    return [
        f"{name} is {given:.3f}, expected {right:.3f} on the check's {len(pairs)} pairs"
        for name, given, right in zip(("flips", "raised"), (flips, raised), wanted, strict=True)
        if not np.isclose(given, right)
    ]


def _fault_of_size(size: float, pairs: pd.DataFrame) -> str:
    change = pairs["risk_with"] - pairs["risk_without"]
    if np.isclose(size, change.abs().mean()):
        return ""
    if np.isclose(size, change.mean()) or np.isclose(size, -change.mean()):
        return "changes up and down cancel in their mean: a model that is thrown about looks unmoved. Average their size"
    if np.isclose(size, abs(change.mean())):
        return "the size is taken of the mean, where changes have cancelled already: take it of each change, then average"
    if np.isclose(size, change.abs().max()):
        return "that is the largest change, not the mean of their sizes"
    return f"the mean size of the change is {change.abs().mean():.4f} on the check's pairs, not {size:.4f}"
