"""Hypothesis without a clock: a slow machine is no failure."""

from hypothesis import settings

settings.register_profile("evaluation", deadline=None, max_examples=60)
settings.load_profile("evaluation")
