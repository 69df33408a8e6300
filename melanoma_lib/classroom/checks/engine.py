"""The engine: an answer is compared with the reference, then with known slips, each of which has its diagnosis."""

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from operator import call
from typing import Any

import numpy as np

MOST_FAULTS = 4  # that are looked for together
TOLERANCE = 1e-4  # relative to the largest number of an answer


class NotYet(AssertionError):
    """An answer that is not right yet; a notebook shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"✗ not yet: {self}"]


@dataclass(frozen=True)
class Exercise:
    """An exercise as a table: call it with a student's function to check that."""

    reference: Callable  # the right answer, its parameters named as in the lesson
    inputs: Sequence[tuple] | Callable[[], Sequence[tuple]]  # arguments of each trial, or a function that makes them
    success: str  # what a right answer has shown
    slips: Mapping[str, Mapping[str, Any]]  # by diagnosis, keywords that make ``reference`` give the wrong answer
    names: str = ""  # of the numbers that are compared, where there are several, with a comma between them
    use: Callable = call  # from an answer and the arguments of a trial to what is compared
    hint: str = ""  # where to look if no slip explains the answer

    def __call__(self, answer: Callable) -> None:
        """Check a student's function, and raise :class:`NotYet` with what is wrong."""
        trials = self.inputs() if callable(self.inputs) else self.inputs
        given = [self._ask(answer, inputs) for inputs in trials]
        faults = next((faults for faults, wrong in self.suspects(trials) if all(map(self._same, given, wrong))), None)
        if faults is None:
            raise NotYet(self._unexplained(trials, given))
        if faults:  # all at once would end a bug hunt
            raise NotYet(faults[0] + (f" (and {len(faults) - 1} more)" if faults[1:] else ""))
        print(f"✓ {self.success}")

    def suspects(self, trials: Sequence[tuple]) -> Iterator[tuple[tuple[str, ...], list]]:
        """Diagnoses, and what an answer with these faults gives in each trial: no fault first, then the fewest."""
        for n in range(MOST_FAULTS + 1):
            for faults in combinations(self.slips, n):
                keywords = dict(keyword for said in faults for keyword in self.slips[said].items())
                with np.errstate(all="ignore"):
                    wrong = partial(self.reference, **keywords)
                    yield faults, [plain(self.use(wrong, *copy.deepcopy(inputs))) for inputs in trials]

    def _same(self, one: Any, other: Any) -> bool:
        if not isinstance(one, np.ndarray) or one.shape != other.shape:
            return False
        largest = np.abs(other[np.isfinite(other)]).max(initial=0)
        return np.allclose(one, other, rtol=0, atol=TOLERANCE * largest, equal_nan=True)

    def _ask(self, answer: Callable, inputs: tuple) -> Any:
        if not callable(answer):
            raise NotYet(f"expected a function, got {shown(answer)}: hand over its name, without brackets")
        try:
            return plain(self.use(answer, *copy.deepcopy(inputs)))
        except NotYet:
            raise
        except NotImplementedError:
            raise NotYet("nothing is written here yet: put your answer in place of the line that raises") from None
        except Exception as error:  # whatever a student's code may raise
            members = [answer, *getattr(answer, "__dict__", {}).values()]  # of a class: its methods
            files = {member.__code__.co_filename for member in members if hasattr(member, "__code__")}
            own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
            place = f"in line {own[-1].lineno} of its cell:\n    {own[-1].line}" if own else "when its answer is used"
            called = f"It was called with ({', '.join(map(shown, inputs))})"
            said = f"your function fails with {type(error).__name__}: {error} {place}\n{called}. {self.hint}"
            raise NotYet(said.rstrip()) from error

    def _unexplained(self, trials: Sequence[tuple], given: Sequence) -> str:
        rows = zip(trials, given, next(self.suspects(trials))[1], strict=True)
        inputs, mine, expected = next(row for row in rows if not self._same(*row[1:]))
        said = f"it returns {shown(mine)}, expected {shown(expected)}{': end with a return' if mine is None else ''}"
        if self.names and isinstance(mine, np.ndarray) and mine.shape == expected.shape:
            rows = zip(self.names.split(", "), mine, expected, ~np.isclose(mine, expected, rtol=TOLERANCE), strict=True)
            said = "; ".join(f"{name} is {one:.8g}, expected {other:.8g}" for name, one, other, wrong in rows if wrong)
        if self.use is call:
            parameters = zip(inspect.signature(self.reference).parameters, inputs, strict=False)
            said = f"with {', '.join(f'{name} = {shown(value)}' for name, value in parameters)}: {said}"
        return f"{said}. {self.hint}".removesuffix(". ")


def plain(value: Any) -> Any:
    """An answer as an array of numbers where it holds numbers; anything else as it came."""
    value = [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
    if value is None or isinstance(value, str):
        return value
    try:
        if hasattr(value, "detach"):  # a tensor; numpy knows no bfloat16
            value = value.detach().cpu().double().numpy()
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return value


def shown(value: Any) -> str:
    """A value in a few words."""
    numbers = plain(value)
    if isinstance(numbers, np.ndarray) and numbers.size > 8:
        return f"{numbers.shape} numbers from {numbers.min():.3g} to {numbers.max():.3g}"
    if isinstance(numbers, np.ndarray):
        return np.array2string(numbers, separator=", ", formatter={"float_kind": "{:.6g}".format})
    return repr(value) if value is None or isinstance(value, str) else type(value).__name__
