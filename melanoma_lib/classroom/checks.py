"""Checks of the lessons' exercises: each says what is right, or diagnoses what went wrong instead of saying "wrong"."""

from typing import Any, NoReturn


class NotYet(AssertionError):
    """An answer that is not right yet; a notebook shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback."""
        return [f"✗ not yet: {self}"]


def numbers(answer: Any, count: int, expected: str) -> tuple[float, ...]:
    """What an exercise's function returned, as so many numbers.

    Args:
        answer: what came back; for a count of 1 the number itself.
        count: of numbers that should have come.
        expected: what they are, in words.

    Raises:
        NotYet: if something else came back.
    """
    try:
        found = tuple(float(one) for one in (answer if count > 1 else [answer]))
    except (TypeError, ValueError):
        hint = ": does your function return something?" if answer is None else ""
        not_yet(f"expected {expected}, got {answer!r}{hint}")
    if len(found) != count:
        not_yet(f"expected {expected}, got {len(found)} numbers")
    return found


def passed(message: str) -> None:
    """Say what the right answer showed."""
    print(f"✓ {message}")


def not_yet(diagnosis: str) -> NoReturn:
    """Say what is wrong with an answer and what to look at.

    Raises:
        NotYet: always.
    """
    raise NotYet(diagnosis)
