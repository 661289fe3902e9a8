"""A run's metrics: JSON lines in segments, one a checkpoint interval, values apart from timings.

A segment is rewritten whole as it grows, since object stores cannot append; its name is the first round it holds.
A resumed run starts at a checkpoint, hence at a segment's beginning: what came after is dropped and written anew,
so the lines of a run that was interrupted are those of one that was not. A checkpoint in the middle of a line, where a
run was told to stop, holds what there is of that line.

What a line of values may hold, besides `phase` and `round`; means over the rounds since the line before:

- base phase: `negative_log_likelihood` (nats a point, of the batch), `base_gradient_norm`;
- joint and energy phase: `critic_loss`, `energy_real`, `energy_fake`, `energy_gap` (fake minus real), `penalty`,
  `log_partition` (as tracked), `log_mean_exp` (of the batch), `energy_gradient_norm`; joint also `base_loss` and
  `base_gradient_norm`. Gradient norms are taken before clipping.

As they are at that round:

- `learning_rate_base`, `learning_rate_energy`: those that the phase has;
- where `trainer.watch.every` says: `log_partition_tracked` against `log_partition_fresh`, an estimate from fresh prior
  draws, with its standard error `log_partition_fresh_error`; `kale_train`, `kale_validation`, on equally many
  images and the same generated ones, and `kale_gap`, the first minus the second, with its standard error
  `kale_gap_error`; in the base phase `negative_log_likelihood_train`, `negative_log_likelihood_validation`, of the
  averaged base;
- where `trainer.watch.fid_every` says: `fid` and `kid` of a small sample against validation samples: of the averaged
  base, and in the energy phase of the model's, by `trainer.watch.fid_chain_steps` Langevin steps.

With an objective that reads features, energies are those of the witness between the samples of the batch, or of the
reading, each by the others: what is trained has no energy of its own.

A line with `event` (a sentence) is a roll-back: training went from round `rolled_back_from` back to `round`, where all
learning rates are those of the recipe times `learning_rate_scale`.

A line of timings holds `round`, `seconds`, `images_per_second` (real images that went through training) and
`watch_seconds`, which the other two leave out. Grids of samples are `grids/round-00000100.png`.
"""

from __future__ import annotations

import json
import time
from typing import Any

from gebm.cluster import storage

VALUES, TIMINGS = "values", "timings"


def folder(run: str) -> str:
    return storage.join(run, "metrics")


class MetricsWriter:
    """Writes the metrics of one run from `round_number` on. Only one worker has one."""

    def __init__(self, run: str, round_number: int):
        self.run = run
        storage.make_directory(folder(run))
        for name in storage.list_names(folder(run)):
            stem, _, ending = name.partition(".")
            kind, _, first = stem.rpartition("-")
            if kind in (VALUES, TIMINGS) and ending == "jsonl" and first.isdigit() and int(first) >= round_number:
                storage.remove(storage.join(folder(run), name))
        self._begin(round_number)

    def _begin(self, round_number: int) -> None:
        self.first_round = round_number
        self.lines: dict[str, list[str]] = {VALUES: [], TIMINGS: []}

    def write(self, values: dict[str, Any], timings: dict[str, Any] | None = None) -> None:
        """Add one line of each; an event has no timings."""
        for kind, record in ((VALUES, values), (TIMINGS, timings)):
            if record is None:
                continue
            self.lines[kind].append(json.dumps(record))
            text = "\n".join(self.lines[kind]) + "\n"
            url = storage.join(folder(self.run), f"{kind}-{self.first_round:08d}.jsonl")
            storage.write_bytes_atomic(url, text.encode())

    def next_segment(self, round_number: int) -> None:
        """Begin a new segment: a checkpoint was committed."""
        self._begin(round_number)


class Window:
    """Means of the rounds since the last line, and how long they took.

    `unfinished` is what `as_dict` of an earlier process said in the middle of a line: that line is gone on with.
    """

    def __init__(self, batches: int, unfinished: dict[str, Any] | None = None):
        kept = unfinished or {"rows": [], "batches": batches, "seconds": 0.0}
        self._rows: list[dict[str, float]] = list(kept["rows"])
        self._batches: int = kept["batches"]
        self._since = time.perf_counter() - kept["seconds"]

    def add(self, values: dict[str, float]) -> None:
        self._rows.append(values)

    def as_dict(self) -> dict[str, Any]:
        """The line so far, in plain values."""
        return {"rows": self._rows, "batches": self._batches, "seconds": time.perf_counter() - self._since}

    def close(
        self, round_number: int, phase: str, batches: int, batch_size: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The line of values and the line of timings up to `round_number`; the window starts anew."""
        now = time.perf_counter()
        seconds = now - self._since
        images = (batches - self._batches) * batch_size
        means = {name: sum(row[name] for row in self._rows) / len(self._rows) for name in self._rows[0]}
        self._rows, self._batches, self._since = [], batches, now
        values = {"phase": phase, "round": round_number, **means}
        return values, {"round": round_number, "seconds": seconds, "images_per_second": images / seconds}

    def restart(self) -> float:
        """Begin the next window only now; returns the seconds since the last one was closed."""
        closed, self._since = self._since, time.perf_counter()
        return self._since - closed


def read_metrics(run: str, kind: str = VALUES) -> list[dict[str, Any]]:
    """All lines of a run in order. Raises `json.JSONDecodeError` when a segment is damaged."""
    if not storage.exists(folder(run)):
        return []
    names = [name for name in storage.list_names(folder(run)) if name.startswith(f"{kind}-")]
    return [
        json.loads(line)
        for name in sorted(names)
        for line in storage.read_text(storage.join(folder(run), name)).splitlines()
    ]
