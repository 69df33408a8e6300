"""Packages whose public names load on first use (PEP 562), so that importing a package costs nothing."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable[[str], object]]:
    """``__all__`` and ``__getattr__`` of a package.

    Args:
        package: its ``__name__``.
        homes: module of the package to the public names it holds.

    Returns:
        The names in order, and the function that loads one; it raises AttributeError for any other, with the names there are.
    """
    home_of = {name: module for module, names in homes.items() for name in names}
    names = sorted(home_of)

    def load(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {', '.join(names)}")
        return getattr(import_module(f"{package}.{home_of[name]}"), name)

    return names, load
