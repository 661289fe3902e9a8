"""Which checkpoints a run has: data files first, then the manifest that names them.

`checkpoints/manifest.json` is the commit point: a checkpoint that it does not name does not exist. It says which
run the checkpoints belong to, so that another run's are refused instead of silently continued, and which attempt at
the run may write: one that was given up and still breathes cannot undo what came after it.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.settings import StrictModel

FORMAT_VERSION = 3
MANIFEST = "manifest.json"

# An attempt is a token of its own in each name, so that two attempts never write to the same file.
NAME = re.compile(r"round-\d{8,}(-rollback-\d+)?-[0-9a-f]{8}")
# What a process that is killed in the middle of writing the manifest leaves on a local disk.
PART = re.compile(rf"\.{re.escape(MANIFEST)}\.[0-9a-f]+{re.escape(storage.PART_SUFFIX)}")

Metric = Literal["fid", "kid", "kale"]


class FileRecord(StrictModel):
    """One file of a checkpoint."""

    name: str
    bytes: int
    sha256: str


class CheckpointRecord(StrictModel):
    """One checkpoint: the number of rounds done and the folder that holds them."""

    round: int
    name: str
    files: tuple[FileRecord, ...]
    reading: float | None = None  # of trainer.keep_best, where it was taken in that round


class CheckpointManifest(StrictModel):
    """What `checkpoints/manifest.json` holds, oldest checkpoint first."""

    format_version: int = FORMAT_VERSION
    run_digest: str
    attempt: str = ""  # the one that may write
    finished: bool = False  # the model was exported
    checkpoints: tuple[CheckpointRecord, ...] = ()


def folder(run: str) -> str:
    return storage.join(run, "checkpoints")


def checkpoint_name(round_number: int, rollbacks: int, attempt: str) -> str:
    """The folder of a checkpoint in `folder(run)`."""
    # A roll-back leaves another checkpoint of the same round: the one before must stay whole.
    again = f"-rollback-{rollbacks}" if rollbacks else ""
    return f"round-{round_number:08d}{again}-{attempt}"


def read_manifest(run: str, run_digest: str) -> CheckpointManifest:
    """The manifest of `run`, an empty one when nothing was saved.

    Raises `InputError` when the checkpoints are another run's or cannot be understood.
    """
    url = storage.join(folder(run), MANIFEST)
    if not storage.exists(url):
        return CheckpointManifest(run_digest=run_digest)
    try:
        manifest = CheckpointManifest.model_validate_json(storage.read_bytes(url))
    except ValidationError as error:
        raise InputError(f"{url}: not a checkpoint manifest; give another --out or remove the folder") from error
    if manifest.format_version != FORMAT_VERSION:
        raise InputError(f"{url}: format_version {manifest.format_version}, this gebm reads {FORMAT_VERSION}")
    if manifest.run_digest != run_digest:
        raise InputError(
            f"{url}: run_digest: these checkpoints belong to a run with another model, trainer, data or seed; "
            "give another --out, or the settings that it was started with"
        )
    return manifest


class Taken(NamedTuple):
    """What an attempt finds when it takes a run over."""

    newest: CheckpointRecord | None
    """The newest whole checkpoint, from which it goes on; None when nothing was saved."""
    damaged: list[str]
    """URLs of files of newer ones that are missing or not what was written."""


def take_over(run: str, run_digest: str, attempt: str) -> Taken:
    """Make `attempt` the one that writes, and find from where it goes on.

    What was saved after that is forgotten: it will be made anew. Raises `InputError` when there are checkpoints and
    each of them is damaged.
    """
    manifest = read_manifest(run, run_digest)
    kept = manifest.checkpoints
    damaged: list[str] = []
    while kept and (found := damaged_files(run, kept[-1])):
        kept, damaged = kept[:-1], [*damaged, *found]
    if damaged and not kept:
        raise InputError(
            f"{', '.join(damaged)}: missing or damaged, and no older checkpoint is left; "
            f"remove {folder(run)} to start again"
        )
    _write(run, manifest.model_copy(update={"attempt": attempt, "checkpoints": kept}))
    return Taken(kept[-1] if kept else None, damaged)


def commit(run: str, run_digest: str, attempt: str, record: CheckpointRecord, keep: int, best: Metric | None) -> None:
    """Add `record`, whose files are all written, and remove what need not be kept any more.

    The newest `keep` are kept, and the best by `best`. Only `attempt` writes here: folders of our names that the
    manifest does not name were left by others that ended early, and go too. Raises `InputError` when another attempt
    has taken over.
    """
    manifest = _own_manifest(run, run_digest, attempt)
    kept = retained((*manifest.checkpoints, record), keep, best)
    _write(run, manifest.model_copy(update={"checkpoints": kept}))
    named = {each.name for each in kept}
    for name in storage.list_names(folder(run)):
        if PART.fullmatch(name) or (NAME.fullmatch(name) and name not in named):
            storage.remove(storage.join(folder(run), name))


def mark_finished(run: str, run_digest: str, attempt: str) -> None:
    """Note that the model is exported. Raises `InputError` when another attempt has taken over."""
    _write(run, _own_manifest(run, run_digest, attempt).model_copy(update={"finished": True}))


def retained(
    checkpoints: tuple[CheckpointRecord, ...], keep: int, metric: Metric | None
) -> tuple[CheckpointRecord, ...]:
    """Those to keep: the newest `keep`, and the best by `metric`."""
    wanted = [*checkpoints[-keep:], *(best_first(checkpoints, metric)[:1] if metric is not None else [])]
    return tuple(each for each in checkpoints if each in wanted)


def best_first(checkpoints: tuple[CheckpointRecord, ...], metric: Metric) -> list[CheckpointRecord]:
    """Those with a reading of `metric`, the best one first; of equal ones the oldest. KALE is best when high."""
    read = [each for each in checkpoints if each.reading is not None]
    sign = -1.0 if metric == "kale" else 1.0
    return sorted(read, key=lambda each: sign * (each.reading or 0.0))


def whole_best(run: str, run_digest: str, metric: Metric) -> tuple[CheckpointRecord, list[str]]:
    """The best checkpoint by `metric` that is whole, and the URLs of damaged files of better ones.

    Raises `InputError` when none is left.
    """
    damaged: list[str] = []
    for record in best_first(read_manifest(run, run_digest).checkpoints, metric):
        found = damaged_files(run, record)
        if not found:
            return record, damaged
        damaged += found
    raise InputError(f"{folder(run)}: no whole checkpoint with a reading of {metric} is left; damaged: {damaged}")


def damaged_files(run: str, record: CheckpointRecord) -> list[str]:
    """URLs of the files of a checkpoint that are missing or not what was written."""
    return [url for url, file in file_urls(run, record).items() if not _is_whole(url, file)]


def file_urls(run: str, record: CheckpointRecord) -> dict[str, FileRecord]:
    """The files of a checkpoint by their URL."""
    return {storage.join(folder(run), record.name, file.name): file for file in record.files}


def _is_whole(url: str, file: FileRecord) -> bool:
    return storage.exists(url) and storage.size(url) == file.bytes and storage.sha256(url) == file.sha256


def _own_manifest(run: str, run_digest: str, attempt: str) -> CheckpointManifest:
    manifest = read_manifest(run, run_digest)
    if manifest.attempt != attempt:
        raise InputError(
            f"{storage.join(folder(run), MANIFEST)}: attempt: another process has gone on with this run since; "
            "this one has stopped"
        )
    return manifest


def _write(run: str, manifest: CheckpointManifest) -> None:
    storage.write_bytes_atomic(storage.join(folder(run), MANIFEST), manifest.model_dump_json(indent=1).encode())
