"""Sentences that code wrote, shown in a notebook as text of the lesson rather than as output of a program."""


class Words(str):
    """Markdown that a cell may end with: rendered on a page, plain where nothing renders."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)

    def _repr_pretty_(self, printer, _cycle: bool) -> None:
        printer.text(str(self))
