"""How tests read a command line without running it."""

from melanoma_lib.__main__ import build_parser


def parsed(words: list[str]) -> dict:
    """The values that a command would be given; wrong usage raises."""
    return vars(build_parser().parse_args(words))
