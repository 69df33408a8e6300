"""A slide deck as a text: its slides, its fields and its speaker's minutes, and the rule that no result is typed into it.

A deck is Marp Markdown whose numbers and figures are fields, filled in from a run by `classroom.slides`:

- ``{{ metrics.auroc.value }}``: a value of the run; ``digits=2`` rounds it. ``{{ percent PATH }}`` writes a share,
  ``{{ interval PATH }}`` a number with its interval (``as="percent"`` in percent), ``{{ setting image_size }}`` a setting.
- ``{{ figure roc }}``: a figure by its name, alone on its line; ``slot="upper"`` above two lines of text, ``"lower"`` below a
  few more, ``"half"`` beside them; ``shrink=0.9`` where it may not become smaller than that share of its size.
- ``{{ reported "97.24%" source="original deck" }}``: somebody else's number; the slide must say *reported, not reproduced here*.
- ``{{ fact "2018" because="year of the paper" }}``: a year, definition or constant, with the reason why it may stand there.
- ``undefined="nobody is flagged"`` says what to write where a run leaves a number undefined; without it that is an error.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from melanoma_lib.errors import DeckError
from melanoma_lib.settings import project_dir

NOTE = "Educational, not for diagnosis"
THEME = "melanoma"
REPORTED = "reported, not reproduced here"
OPTIONS = {
    "value": {"digits", "undefined"},
    "percent": {"digits", "undefined"},
    "interval": {"digits", "as", "undefined"},
    "setting": set(),
    "figure": {"slot", "shrink"},
    "reported": {"source"},
    "fact": {"because"},
}  # by verb
NAMES = (
    "F1", "HAM10000", "BCN20000", "ISIC 2019", "ISIC 2020", "EfficientNet-Lite0", "EfficientNet-B0", "DenseNet-121", "ResNet-50",
)  # fmt: skip
CODE_LANGUAGES = ("bash", "python")  # of fenced blocks that hold commands and code; a diagram is read like any text
DECK_NAME = re.compile(r"\d\d_[a-z0-9_]+")
FIELD = re.compile(r"\{\{(.*?)\}\}")
PART = re.compile(r'\s*(?:(?P<name>\w+)="(?P<text>[^"]*)"|(?P<key>\w+)=(?P<bare>[^\s"]+)|"(?P<quoted>[^"]*)"|(?P<word>[^\s"=]+))')
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
MINUTES = re.compile(r"\s*(\d+(?:\.\d+)?) min: ")  # opens a speaker note
INVISIBLE = (
    re.compile(r"\]\([^)]*\)"),  # addresses of links
    re.compile(r"<!--\s*_\w+:.*?-->", re.DOTALL),  # directives of a slide
    re.compile(r"(?<=<!--)\s*\d+(?:\.\d+)? min: "),
    re.compile(r"</?[a-zA-Z][^>]*>"),
    re.compile(r"^ *\d+\. ", re.MULTILINE),  # numbers of a list
)
INLINE_CODE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:python|make|docker|--)")  # what inline code opens with whose numbers are nobody's result
RESULT = re.compile(r"[\d.,%]+|.*(?:\d[.,]\d|\d%).*")  # of other inline code
FORMULA = re.compile(r"\$[^$\n]+\$")
CONSTANTS = {"0", "1", "2"}  # of formulas


@dataclass(frozen=True)
class Field:
    """One ``{{ … }}``.

    Attributes:
        verb: one of ``OPTIONS``.
        argument: path, name or quoted text.
        quoted: whether the argument is a text.
        options: by name.
        line: in the deck, from 1.
    """

    verb: str
    argument: str
    quoted: bool
    options: dict[str, str]
    line: int


@dataclass(frozen=True)
class Deck:
    """One deck.

    Attributes:
        name: file name without its ending, such as ``03_training``.
        text: as it is written, fields unfilled.
    """

    name: str
    text: str

    @cached_property
    def front(self) -> dict[str, str]:
        """Directives that stand before the first slide.

        Raises:
            DeckError: if there are none.
        """
        opening = re.match(r"---\n(.*?)\n---\n", self.text, re.DOTALL)
        if not opening:
            raise DeckError(f"deck {self.name}, line 1: expected directives between two lines ---, as the other decks have them")
        pairs = (line.partition(":") for line in opening[1].splitlines())
        return {name.strip(): value.strip().strip('"') for name, _, value in pairs}

    @cached_property
    def slides(self) -> list[tuple[int, str]]:
        """First line and text of each slide."""
        assert self.front is not None
        starts, fenced, fences = [], False, 0
        for number, line in enumerate(lines := self.text.split("\n"), 1):
            fenced ^= line.startswith("```")
            if line == "---" and not fenced:
                fences += 1
                if fences >= 2:
                    starts.append(number + 1)
        ends = [*(start - 2 for start in starts[1:]), len(lines)]
        return [(start, "\n".join(lines[start - 1 : end])) for start, end in zip(starts, ends, strict=True)]

    @cached_property
    def fields(self) -> list[Field]:
        """All fields in order.

        Raises:
            DeckError: if one cannot be read.
        """
        return [read_field(match, self) for match in FIELD.finditer(self.text)]

    def line_of(self, position: int) -> int:
        """Line of a position in the text, from 1."""
        return self.text.count("\n", 0, position) + 1


def read_field(match: re.Match, deck: Deck) -> Field:
    """The field that ``FIELD`` has found.

    Raises:
        DeckError: naming deck and line, if it does not follow the field language.
    """
    line, inside = deck.line_of(match.start()), match[1].strip()
    parts = list(PART.finditer(inside))
    words = [part["word"] if part["quoted"] is None else None for part in parts if not (part["name"] or part["key"])]
    texts = [part["quoted"] for part in parts if part["quoted"] is not None]
    options = {part["name"] or part["key"]: part["text"] or part["bare"] or "" for part in parts if part["name"] or part["key"]}
    verb = words.pop(0) if words and words[0] in OPTIONS else "value"
    plain = [word for word in words if word is not None]
    readable = "".join(part[0] for part in parts) == inside and len(plain) + len(texts) == 1
    if not readable or (texts and verb not in ("reported", "fact")) or (verb == "fact" and not texts):
        raise DeckError(
            f"deck {deck.name}, line {line}: cannot read {match[0]}; expected a path, or one of "
            f"{', '.join(OPTIONS)} and its argument, then options such as digits=2"
        )
    if unknown := sorted(set(options) - OPTIONS[verb]):
        allowed = ", ".join(sorted(OPTIONS[verb])) or "none"
        raise DeckError(
            f"deck {deck.name}, line {line}: {match[0]} has no option {', '.join(unknown)}; options of {verb}: {allowed}"
        )
    needed = {"fact": "because", "reported": "source"}.get(verb) if texts else None
    if needed and not options.get(needed, "").strip():
        raise DeckError(f'deck {deck.name}, line {line}: {match[0]} needs {needed}="…": who says so, or why it may stand there')
    return Field(verb, (texts or plain)[0], bool(texts), options, line)


def loose_numbers(deck: Deck) -> list[str]:
    """Numbers that were typed into slides or speaker notes, each with its line; empty for a deck without any.

    No number are: fields; numbers of slides and lists; commands, code and names in it; the minutes of a note; ``NAMES``; and in
    formulas between dollars the whole numbers 0, 1 and 2.
    """
    body = deck.text.split("\n", len(deck.front) + 2)
    text = "\n" * (len(body) - 1) + body[-1]
    text = FIELD.sub(_blank, _without_code(text))
    text = FORMULA.sub(lambda match: _blank(match) if set(re.findall(r"[\d.]+", match[0])) <= CONSTANTS else match[0], text)
    text = INLINE_CODE.sub(_shown, text)
    for pattern in INVISIBLE:
        text = pattern.sub(_blank, text)
    for name in NAMES:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        typed = (token for token in line.split() if any(unicodedata.numeric(sign, None) is not None for sign in token))
        found += [f"line {number}: {token}" for token in typed]
    return found


def _blank(match: re.Match) -> str:
    return "\n" * match[0].count("\n")


def _shown(code: re.Match) -> str:
    return "" if COMMAND.match(code[1]) else " ".join(word for word in code[1].split() if RESULT.fullmatch(word))


def _without_code(text: str) -> str:
    fence = re.compile(rf"^```(?:{'|'.join(CODE_LANGUAGES)})\n.*?^```$", re.DOTALL | re.MULTILINE)
    return fence.sub(_blank, text)


def notes(slide: str) -> list[tuple[float | None, str]]:
    """Minutes and text of a slide's speaker notes; minutes are None where a note does not open with them."""
    found = []
    for comment in COMMENT.findall(slide):
        if not re.match(r"\s*_\w+:", comment):
            minutes = MINUTES.match(comment)
            found.append(
                (float(minutes[1]) if minutes else None, comment[minutes.end() :].strip() if minutes else comment.strip())
            )
    return found


def breaches(deck: Deck) -> list[str]:
    """What keeps a deck from being shown: typed numbers, notes without minutes, a missing footer, pictures past the fields.

    Raises:
        DeckError: if a field cannot be read.
    """
    return [f"{deck.name}, {breach}" for breach in (*loose_numbers(deck), *_opening(deck), *_slides(deck), *_figures(deck))]


def _opening(deck: Deck) -> Iterator[str]:
    wanted = {"marp": "true", "theme": THEME, "footer": NOTE, "paginate": "true", "math": "mathjax"}
    for name, value in wanted.items():
        if deck.front.get(name) != value:
            yield f"line 1: expected the directive {name}: {value}, got {deck.front.get(name)!r}"
    told = sum(minutes or 0 for _, slide in deck.slides for minutes, _ in notes(slide))
    if deck.front.get("minutes") != f"{told:g}":
        yield f"line 1: its notes add up to {told:g} minutes, it promises minutes: {deck.front.get('minutes')}"


def _slides(deck: Deck) -> Iterator[str]:
    for line, slide in deck.slides:
        spoken = notes(slide)
        if len(spoken) != 1 or spoken[0][0] is None or len(spoken[0][1]) < 40:
            yield f"line {line}: expected one speaker note <!-- 2 min: what to say --> on the slide"
        if "{{ reported " in slide and REPORTED not in slide:
            yield f"line {line}: shows reported numbers without the words {REPORTED!r}"
        if not re.search(r"^#{1,2} \S", slide, re.MULTILINE):
            yield f"line {line}: the slide has no heading"


def _figures(deck: Deck) -> Iterator[str]:
    lines = deck.text.split("\n")
    for field in deck.fields:
        if field.verb == "figure" and FIELD.fullmatch(lines[field.line - 1].strip()) is None:
            yield f"line {field.line}: a figure stands alone on its line"
    for number, line in enumerate(lines, 1):
        if "![" in line or "<img" in line:
            yield f"line {number}: pictures come from {{{{ figure … }}}}, which brings their description along"


def find_decks(names: Iterable[str] = (), folder: Path | None = None) -> list[Deck]:
    """Decks in the order of their numbers.

    Args:
        names: names such as ``03_training``, their numbers where only one deck has it, or paths; none for all.
        folder: where to look; by default the project's ``slides``.

    Raises:
        DeckError: if a name fits no deck or more than one, or the folder holds none.
    """
    folder = project_dir() / "slides" if folder is None else folder
    paths = [path for path in sorted(folder.glob("*.md")) if DECK_NAME.fullmatch(path.stem)]
    if not paths:
        raise DeckError(f"no deck in {folder}: expected files such as 00_overview.md; run from the project's folder")
    chosen = []
    for name in names:
        fitting = [path for path in paths if path.stem == Path(name).stem or path.stem.startswith(f"{name}_")]
        if len(fitting) != 1:
            raise DeckError(f"{len(fitting)} decks fit {name!r}; there are: {', '.join(path.stem for path in paths)}")
        chosen += fitting
    return [Deck(path.stem, path.read_text(encoding="utf-8")) for path in chosen or paths]
