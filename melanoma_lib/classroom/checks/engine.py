"""The engine: an answer is compared with the reference, then with known slips, each of which has its diagnosis."""

import copy
import inspect
import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np
import pandas as pd

MOST_FAULTS = {True: 4, False: 2}  # that are looked for together, in a hunt or else
FEW = 8  # numbers that a message still spells out


class NotYet(AssertionError):
    """An answer that is not right yet; a notebook shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback."""
        return [f"✗ not yet: {self}"]


def not_yet(diagnosis: str) -> NoReturn:
    """Say what is wrong with an answer and what to look at."""
    raise NotYet(diagnosis)


def call(answer: Callable, *inputs: Any) -> Any:
    """What a function returns."""
    return answer(*inputs)


def ask(answer: Callable, *inputs: Any, use: Callable = call, hint: str = "", copies: bool = True) -> Any:
    """What ``use`` makes of a student's function and these inputs, or copies of them that it may change.

    Raises:
        NotYet: if it is a stub, is no function, or fails: then with its error and the student's own line.
    """
    if not callable(answer):
        not_yet(f"expected a function, got {shown(answer)}: hand over its name, without brackets")
    try:
        return use(answer, *(copy.deepcopy(inputs) if copies else inputs))
    except NotYet:
        raise
    except NotImplementedError:
        raise NotYet("nothing is written here yet: put your answer in place of the line that raises") from None
    except Exception as error:  # whatever a student's code may raise
        members = vars(answer).values() if isinstance(answer, type) else [inspect.unwrap(answer)]
        files = {member.__code__.co_filename for member in members if hasattr(member, "__code__")}
        said = f"{type(error).__name__}: {error}"
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
        if use is not call and not own:
            raise NotYet(f"what it returns cannot be used here ({said}). {hint}") from error
        where = f" in line {own[-1].lineno} of its cell:\n    {own[-1].line}" if own else ""
        called = f"It was called with ({', '.join(map(shown, inputs))})"
        raise NotYet(f"your function fails with {said}{where}\n{called}") from error


@dataclass(frozen=True)
class Exercise:
    """An exercise as a table: call it with a student's function to check that.

    Attributes:
        reference: the right answer, its parameters named as in the lesson.
        inputs: arguments of each trial, or a function that makes them.
        returns: what is compared, in words; a tuple names each of its numbers.
        success: what a right answer has shown.
        slips: wrong answers by diagnosis: other keyword arguments for ``reference``, which are also looked for together, or a
            function in its place.
        use: from an answer and the arguments of a trial to what is compared.
        after: looks closer at an answer whose values are right.
        hint: where to look if no slip explains the answer.
        hunt: a bug hunt: only the first fault is named, for all at once would end the hunt.
        tolerance: relative to the largest number of an answer.
    """

    reference: Callable
    inputs: Sequence[tuple] | Callable[[], Sequence[tuple]]
    returns: str | tuple[str, ...]
    success: str
    slips: Mapping[str, Callable | Mapping[str, Any]]
    use: Callable = call
    after: Callable[[Callable], None] | None = None
    hint: str = ""
    hunt: bool = False
    tolerance: float = 1e-5

    def __call__(self, answer: Callable) -> None:
        """Check a student's function.

        Raises:
            NotYet: with what is wrong.
        """
        trials = self.inputs() if callable(self.inputs) else self.inputs
        came = [self._ask(answer, inputs) for inputs in trials]
        given = [plain(value) for value in came]
        faults = next((faults for faults, wrong in self.suspects(trials) if self._alike(given, wrong)), None)
        if faults is None:
            not_yet(self._unexplained(answer, trials, came, given))
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            not_yet(faults[0] + more if self.hunt else "; and ".join(faults))
        if self.after:
            self.after(answer)
        print(f"✓ {self.success}")

    def suspects(self, trials: Sequence[tuple]) -> Iterator[tuple[tuple[str, ...], list]]:
        """Diagnoses, and what an answer with these faults gives in each trial: no fault first, then the fewest."""
        functions = {said: slip for said, slip in self.slips.items() if callable(slip)}
        changes = {said: slip for said, slip in self.slips.items() if not callable(slip)}
        wrong = [((), self.reference), *(((said,), slip) for said, slip in functions.items())]
        for several in itertools.chain(*(itertools.combinations(changes, n + 1) for n in range(MOST_FAULTS[self.hunt]))):
            keywords = [keyword for said in several for keyword in changes[said].items()]
            if len(dict(keywords)) == len(keywords):  # none is changed twice
                wrong.append((several, partial(self.reference, **dict(keywords))))
        for faults, function in wrong:
            with np.errstate(all="ignore"):
                yield faults, [plain(self.use(function, *copy.deepcopy(inputs))) for inputs in trials]

    def _ask(self, answer: Callable, inputs: tuple) -> Any:
        return ask(answer, *inputs, use=self.use, hint=self.hint)

    def _alike(self, ones: Sequence, others: Sequence) -> bool:
        return all(same(one, other, self.tolerance) for one, other in zip(ones, others, strict=True))

    def _unexplained(self, answer: Callable, trials: Sequence[tuple], came: Sequence, given: Sequence) -> str:
        """What to say of an answer that no slip explains: its kind, or the first trial where it is wrong."""
        _, right = next(self.suspects(trials))
        names = self.returns if isinstance(self.returns, tuple) else ()
        wanted = f"{len(names)} numbers ({', '.join(names)})" if names else self.returns
        for raw, mine, expected in zip(came, given, right, strict=True):
            if raw is None:
                return f"it returns nothing: end with a return. Expected {wanted}"
            if type(mine) is not type(expected) or np.shape(mine) != np.shape(expected):
                shape = f" (shape {np.shape(expected)})" if np.ndim(expected) and not names else ""
                return f"expected {wanted}{shape}, got {shown(raw)}"
            if isinstance(mine, np.ndarray) and not np.isfinite(mine).all():
                return f"it returns {shown(raw)}: was something divided by zero, or the logarithm of zero taken?"
        if not self._alike(given, [plain(self._ask(answer, inputs)) for inputs in trials]):
            return "asked twice with the same arguments, it answers differently: is there a random number in it?"
        if len(trials) > 1 and self._alike(given, [given[0]] * len(trials)):
            return f"it answers {shown(given[0])} whatever it is given: use the arguments"
        rows = zip(trials, given, right, strict=True)
        inputs, mine, expected = next(row for row in rows if not same(*row[1:], self.tolerance))
        if names:
            triples = zip(names, mine, expected, strict=True)
            differing = [triple for triple in triples if not np.isclose(*triple[1:], rtol=self.tolerance)]
            said = "; ".join(f"{name} is {one:.8g}, expected {other:.8g}" for name, one, other in differing)
        elif np.size(mine) <= FEW:
            said = f"it returns {shown(mine)}, expected {shown(expected)}"
        else:
            said = f"its numbers are off by up to {np.abs(mine - expected).max() / np.abs(expected).max():.1%} of the largest"
        if self.use is call:
            parameters = zip(inspect.signature(self.reference).parameters, inputs, strict=False)
            said = f"with {', '.join(f'{name} = {shown(value)}' for name, value in parameters)}: {said}"
        return said + (f". {self.hint}" if self.hint else "")


def plain(value: Any) -> Any:
    """An answer as an array of numbers where it holds numbers; anything else as it came."""
    if isinstance(value, (list, tuple)):
        value = [plain(one) for one in value]
    if value is None or isinstance(value, str):
        return value
    try:
        if hasattr(value, "detach"):  # a tensor; numpy knows no bfloat16
            value = value.detach().cpu().double().numpy()
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return value


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two answers agree; numbers up to a share of the largest one."""
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return False
    largest = np.abs(other[np.isfinite(other)]).max(initial=0)
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=tolerance * largest, equal_nan=True)


def shown(value: Any) -> str:
    """A value in a few words."""
    shape = getattr(value, "shape", ())
    if isinstance(value, pd.DataFrame):
        return f"a table of {len(value)} rows"
    if isinstance(value, (list, tuple)) and len(value) <= FEW:
        return f"[{', '.join(map(shown, value))}]"
    if len(shape) == 1 and shape[0] <= FEW:
        return shown([*value])
    if shape:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    if isinstance(value, (bool, str)) or value is None:
        return repr(value)
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return "a function" if hasattr(value, "__code__") else f"a {type(value).__name__}"
