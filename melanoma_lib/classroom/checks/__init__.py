"""Exercises that check themselves, one module a lesson: a wrong answer is told what probably went wrong."""

from melanoma_lib.classroom.checks.engine import Exercise, NotYet

__all__ = ["Exercise", "NotYet"]
