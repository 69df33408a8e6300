"""Which cases make a batch, in which order: a function of seed and epoch alone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

STRIDE = 1_000_003  # between the augmentation seeds of two processes; the first has those of a process alone


class Draw(NamedTuple):
    """What a sampler hands to the data set: which rows, and the seed of their augmentation."""

    rows: list[int]
    seed: int


class EpochSampler:
    """Batches of row numbers that depend on seed and epoch alone, so that a resumed run draws what an unbroken one would.

    Args:
        targets: 0 or 1 of every case, shape ``(N,)``.
        rows: the rows to draw from.
        mode: ``plain`` draws each row once, ``weighted`` draws with replacement, melanomas with chance ``prevalence``,
            ``oversample`` repeats the rarer class until the classes balance; ``ordered`` keeps the order and every row.
        batch_size: rows a batch; an incomplete last batch is dropped unless it is the only one or the mode is ``ordered``.
        seed: of the order.
        prevalence: share of melanomas that ``weighted`` aims at.
        rank: which of ``size`` processes draws; each takes a contiguous share of every batch, and all shares make the batch that
            one process alone would draw.
        size: processes that train together.

    Raises:
        ValueError: if there are fewer rows than processes.
    """

    def __init__(
        self, targets: np.ndarray, rows: np.ndarray, mode: str, batch_size: int, seed: int, prevalence: float = 0.5,
        rank: int = 0, size: int = 1,
    ) -> None:  # fmt: skip
        if len(rows) < size:
            raise ValueError(f"expected at least one row for each of {size} processes, got {len(rows)}")
        self.rows, self.mode, self.batch_size, self.seed, self.epoch = np.asarray(rows), mode, batch_size, seed, 0
        self.prevalence, self.rank, self.size = prevalence, rank, size
        self.positive = np.asarray(targets)[self.rows] == 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.mode == "ordered":
            return min(-(-len(self.rows) // self.batch_size), len(self.rows) // self.size)  # a case for each process in each
        balanced = 2 * int(max(self.positive.sum(), (~self.positive).sum()))
        return max(1, (balanced if self.mode == "oversample" else len(self.rows)) // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        """Draws of the current epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        rows, steps = self._order(rng), len(self)
        for step in range(steps):
            if self.mode == "ordered" and self.size > 1:
                chosen = np.array_split(rows, steps)[step]  # of even length: a short last one could leave a process none
            else:
                chosen = rows[step * self.batch_size : (step + 1) * self.batch_size]
            seed = (int(rng.integers(2**31)) + self.rank * STRIDE) % 2**31
            yield Draw(np.array_split(chosen, self.size)[self.rank].tolist(), seed)

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        if self.mode == "ordered":
            return self.rows
        if self.mode == "plain":
            return rng.permutation(self.rows)
        melanomas, others = self.rows[self.positive], self.rows[~self.positive]
        if self.mode == "weighted":
            from_melanomas = rng.random(len(self.rows)) < self.prevalence
            return np.where(from_melanomas, rng.choice(melanomas, len(self.rows)), rng.choice(others, len(self.rows)))
        larger = max(len(melanomas), len(others))
        return rng.permutation(np.concatenate([np.resize(rng.permutation(part), larger) for part in (melanomas, others)]))
