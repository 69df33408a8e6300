"""Checks of the lessons' exercises: each says what is right, or diagnoses what went wrong instead of saying "wrong"."""

from typing import NoReturn


class NotYet(AssertionError):
    """An answer that is not right yet; a notebook shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback."""
        return [f"✗ not yet: {self}"]


def passed(message: str) -> None:
    """Say what the right answer showed."""
    print(f"✓ {message}")


def not_yet(diagnosis: str) -> NoReturn:
    """Say what is wrong with an answer and what to look at.

    Raises:
        NotYet: always.
    """
    raise NotYet(diagnosis)
