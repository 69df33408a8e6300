"""Pictures between two requests: in memory alone, few, and not for long."""

import secrets
import threading
import time
from collections import OrderedDict

from melanoma_lib.app.answers import Case
from melanoma_lib.errors import DataError

MOST = 100  # cases at a time, about 2 MB each at 256 pixels
SECONDS = 1800.0  # without being asked for


class Store:
    """Cases by a name that cannot be guessed; the one that was not asked for longest makes room.

    Args:
        most: cases kept at a time.
        seconds: how long a case stays without being asked for.
    """

    def __init__(self, most: int = MOST, seconds: float = SECONDS) -> None:
        self.most, self.seconds = most, seconds
        self._cases: OrderedDict[str, tuple[float, Case]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Cases held now."""
        return len(self._cases)

    def put(self, case: Case) -> str:
        """Keep a case; returns its name."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._forget_old()
            self._cases[token] = (time.monotonic(), case)
            while len(self._cases) > self.most:
                self._cases.popitem(last=False)
        return token

    def get(self, token: str) -> Case:
        """The case of a name.

        Raises:
            DataError: if it is no longer, or never was, kept.
        """
        with self._lock:
            self._forget_old()
            if token not in self._cases:
                raise DataError("This image is no longer held in memory (uploads are kept for half an hour). Choose it again.")
            case = self._cases[token][1]
            self._cases[token] = (time.monotonic(), case)
            self._cases.move_to_end(token)
        return case

    def drop(self, token: str) -> None:
        """Forget a case; a name that is not known is no error."""
        with self._lock:
            self._cases.pop(token, None)

    def _forget_old(self) -> None:
        oldest = time.monotonic() - self.seconds
        while self._cases and next(iter(self._cases.values()))[0] < oldest:
            self._cases.popitem(last=False)
