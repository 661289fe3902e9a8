"""What a farm has done and published: its records, their manifest, and the journal while the run is on.

The first publication writes the manifest whole, each further one a small file of the journal, and `close` the manifest
again, with everything; then the journal goes. Killed at any moment, the run goes on from manifest and journal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gebm.cluster.journal import Journal, next_number, remove_journal
from gebm.cluster.manifest import WorkItem, begin_manifest, remove_strays, with_items, write_manifest

Record = dict[str, Any]


class Ledger:
    """The records of the run of `items` in `output`, those of earlier runs included as far as they are sound.

    See `begin_manifest` for `told` and for what is raised. `check` is called before anything is published or removed,
    and raises where this process may not any more: see `lease.py`. Nothing is written before the first `publish`: a run
    that failed at once must not claim the directory.
    """

    def __init__(
        self,
        output: str,
        settings: dict[str, Any],
        items: Sequence[WorkItem],
        told: Callable[[dict[str, Record]], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._output, self._order, self._check = output, [item.id for item in items], check
        self._manifest = begin_manifest(output, settings, items, told)
        self.records: dict[str, Record] = dict(self._manifest.items)
        self._news: list[str] = []
        self._journal: Journal | None = None

    def add(self, item: str, record: Record) -> None:
        """Note a record, to be published with the next ones."""
        self.records[item] = record
        self._news.append(item)

    def has_news(self) -> bool:
        """Say whether a record was noted and is not published."""
        return bool(self._news)

    def publish(self) -> None:
        """Publish what was noted: from now on no kill takes it back. Where it fails, it can be called again."""
        if not self._news:
            return
        self._check()
        if self._journal is None:
            number = next_number(self._output)
            self._write(merged=number)
            self._journal = Journal(self._output, self._manifest.settings_digest, number)
            remove_journal(self._output)  # of an earlier run
        else:
            self._journal.append(self._news, self.records)
        self._news.clear()

    def close(self) -> None:
        """Publish all as one manifest, in the order of the items, and remove the journal and what nobody names."""
        self._check()
        number = next_number(self._output)
        # Of a run that was cut short just before or within this, the journal was left alone.
        if self._news or self._journal is not None or number:
            self._write(merged=number)
            self._news.clear()
            self._journal = None
        remove_journal(self._output)

    def remove_strays(self) -> None:
        """Remove the files of attempts whose records nobody counts."""
        self._check()
        remove_strays(self._output, with_items(self._manifest, self.records))

    def _write(self, merged: int) -> None:
        items = {item: self.records[item] for item in self._order if item in self.records}
        manifest = with_items(self._manifest, items)
        write_manifest(self._output, manifest.model_copy(update={"merged": merged}))
