"""The size of the kit, held by numbers that are only ever lowered."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "melanoma_lib"
BUDGET = {
    "lines of the library": 12_000,
    "modules": 88,
    "modules at the root": 12,
    "import layers": 8,
    "lines of tests": 10_000,
    "lines of JavaScript, CSS and HTML": 1_900,
    "functions of prose": 0,
    "longest module": 310,
    "words of README": 1_999,
}
PROSE_NAMES = re.compile(r"(_|^)(words|headlines?|conclusions?|sentences?|verdict_text)$")
SPEAKERS = (("app",), ("classroom", "checks"))  # the app answers a person, a check tells a student what is wrong


def lines(files: list[Path]) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def sentences_from_numbers(function: ast.AST) -> Iterator[ast.JoinedStr]:
    """Formatted strings of at least eight words that put a formatted number into them; errors and alt texts do not count."""
    skipped = set()
    for node in ast.walk(function):
        is_error = isinstance(node, ast.Raise)
        is_call = isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "with_alt_text", "warning", "info", "warn",
        )  # fmt: skip
        if is_error or is_call:
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(function):
        if isinstance(node, ast.JoinedStr) and id(node) not in skipped:
            words = " ".join(part.value for part in node.values if isinstance(part, ast.Constant)).split()
            formatted = any(isinstance(part, ast.FormattedValue) and part.format_spec for part in node.values)
            if formatted and sum(word.isalpha() for word in words) >= 8:
                yield node


def prose_functions(file: Path) -> list[str]:
    """Functions and classes of a module that compose English from numbers, by their names or by what they format."""
    place = file.relative_to(PACKAGE).parts
    if any(place[: len(speaker)] == speaker for speaker in SPEAKERS):
        return []
    definitions = [
        node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    return [
        f"{file.relative_to(PACKAGE)}:{node.name}"
        for node in definitions
        if PROSE_NAMES.search(node.name.lower()) or (isinstance(node, ast.FunctionDef) and any(sentences_from_numbers(node)))
    ]


def measured() -> dict[str, int]:
    modules = sorted(PACKAGE.rglob("*.py"))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    page_files = [file for file in PACKAGE.rglob("*") if file.suffix in (".js", ".css", ".html")]
    return {
        "lines of the library": lines(modules),
        "modules": len(modules),
        "modules at the root": len(list(PACKAGE.glob("*.py"))),
        "import layers": len(next(contract["layers"] for contract in contracts if contract["id"] == "layers")),
        "lines of tests": lines(sorted((ROOT / "tests").rglob("*.py"))),
        "lines of JavaScript, CSS and HTML": lines(page_files),
        "functions of prose": sum(len(prose_functions(file)) for file in modules),
        "longest module": max(lines([file]) for file in modules),
        "words of README": len((ROOT / "README.md").read_text(encoding="utf-8").split()),
    }


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    return measured()


@pytest.mark.parametrize("what", BUDGET)
def test_the_budget_holds(what, sizes):
    assert sizes[what] <= BUDGET[what], f"{what}: {sizes[what]:,} of at most {BUDGET[what]:,}; make it smaller elsewhere first"


def test_the_budget_is_no_looser_than_it_must_be(sizes):
    loose = {what: (size, BUDGET[what]) for what, size in sizes.items() if BUDGET[what] > 1.08 * size + 5}
    assert loose == {}, "lower these budgets to what stands"


if __name__ == "__main__":
    for name, size in measured().items():
        print(f"{name:36} {size:>7,} of {BUDGET[name]:>7,}")
    for module in sorted(PACKAGE.rglob("*.py")):
        for function in prose_functions(module):
            print("prose:", function)
