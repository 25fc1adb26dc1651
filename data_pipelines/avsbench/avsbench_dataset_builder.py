"""TFDS builder `avsbench`: AVSBench's unified layout as array_record, without TensorFlow.

Features are handed over as encoded bytes, which is why TFDS never reaches for TensorFlow, and why
pictures are stored as they came, without a second compression.
"""

import collections
import contextlib
import fcntl
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipelines.audio import EXAMPLE_WINDOWS, MEL_BANDS
from data_pipelines.avsbench import layout, raw
from data_pipelines.errors import DataError

KEY_SPACE = 2**128  # TFDS spreads examples over temporary files by where in it their key lies


class _LocalInfo(tfds.core.DatasetInfo):
    """Information on a data set that is nowhere but here."""

    def initialize_from_bucket(self) -> None:
        """Does not look for it on TFDS's server, which would leave a temporary folder each time."""


class Builder(tfds.core.GeneratorBasedBuilder):
    """One example is one clip.

    Splits are train, val and test, each in the order of `metadata.csv`. The data set's metadata
    says what is in it without a record being read: `class_names` (by class id), `clips` (split ->
    a list of [subset, uid, class ids of the sounding objects] in the order of the examples), and
    the `fingerprint` of the folder it was made from.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "AVSBench's unified layout."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    AVSBench is given out by its authors on request. The manual folder is the one that holds
    metadata.csv, label2idx.json and one or more of the folders v1s, v1m and v2.
    """

    progress = False  # whether examples are counted on a progress bar while they are made

    def _info(self) -> tfds.core.DatasetInfo:
        described = self.get_metadata()  # README.md and CITATIONS.bib beside this file
        return _LocalInfo(
            builder=self,
            description=described.description,
            citation=described.citation,
            features=tfds.features.FeaturesDict(
                {
                    "uid": tfds.features.Text(),
                    "subset": tfds.features.Text(),
                    "frames": tfds.features.Sequence(tfds.features.Image()),
                    "labels": tfds.features.Sequence(tfds.features.Image()),
                    "labelled": tfds.features.Sequence(np.bool_),
                    "objects": tfds.features.Sequence(np.int64),
                    "audio": tfds.features.Tensor(
                        shape=(None, EXAMPLE_WINDOWS, MEL_BANDS), dtype=np.float32, encoding="bytes"
                    ),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            homepage="https://github.com/OpenNLPLab/AVSBench",
            # Grain shuffles when it reads; a known order lets the metadata be an index.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        root = Path(dl_manager.manual_dir)
        table = raw.read_table(root)
        splits = {
            split: chosen
            for split in layout.SPLITS
            if (chosen := [clip for clip in table.clips if clip.split == split])
        }
        self.info.metadata.update(
            class_names=list(table.class_names),
            clips={
                split: [[clip.subset, clip.uid, list(clip.objects)] for clip in clips]
                for split, clips in splits.items()
            },
            fingerprint=table.fingerprint,
        )
        return {
            split: self._generate_examples(root, split, clips, len(table.class_names))
            for split, clips in splits.items()
        }

    def _generate_examples(self, root, split, clips, num_classes):
        # Keys rise with the order in the table and are spread over the whole key space: TFDS
        # sorts each of its temporary files in memory, and small keys would all share one.
        step = KEY_SPACE // len(clips)
        examples = _ordered_map(lambda clip: raw.read_clip(root, clip, num_classes), clips)
        bar = tqdm(
            examples, f"preparing {split}", len(clips), unit="clip", disable=not self.progress
        )
        for position, example in enumerate(bar):
            yield position * step, example


def prepare(
    raw_dir: str | os.PathLike[str], data_dir: str | os.PathLike[str], *, progress: bool = True
) -> Path:
    """Makes array_record files of a folder in AVSBench's unified layout, once.

    Called again with the same folder it returns at once. It stops at the first fault, and whether
    it stops or is killed, what was written is never taken for a data set: files are written under
    another name and renamed when they are complete. Two processes may call it at the same time;
    one waits for the other.

    Args:
        raw_dir: the folder; subsets that are absent are left out, and said so.
        data_dir: where to write; the files lie in `<data_dir>/avsbench/<version>`.
        progress: whether to show progress bars.

    Returns:
        The path of the prepared data set.

    Raises:
        DataError: a fault in `raw_dir`; `data_dir` cannot be written (the disk is full, say), or
            holds a data set made from other files.
    """
    raw_dir, data_dir = Path(raw_dir), Path(data_dir)
    table = raw.read_table(raw_dir)
    try:
        builder = Builder(data_dir=data_dir)
        if not is_complete(builder):
            data_dir.mkdir(parents=True, exist_ok=True)
            with _only_one(data_dir / "avsbench.lock"):
                builder = Builder(data_dir=data_dir)
                if not is_complete(builder):  # nobody finished it while this one waited
                    if progress:
                        _say_what_is_absent(raw_dir, table)
                    builder.progress = progress
                    _build(builder, raw_dir)
    except OSError as fault:
        raise DataError(
            f"cannot prepare {raw_dir} in {data_dir}: {fault.strerror or fault}"
            + (f" ({fault.filename})" if fault.filename else "")
        ) from fault
    except RuntimeError as fault:
        # So array_record's writer reports a full disk and the like.
        reason = re.search(r"write\(\) failed: ([^;]+)", str(fault))
        if reason is None:
            raise
        raise DataError(f"cannot prepare {raw_dir} in {data_dir}: {reason[1]}") from fault
    if builder.info.metadata["fingerprint"] != table.fingerprint:
        raise DataError(
            f"{builder.data_path} was prepared from other files than {raw_dir} now holds: "
            "delete it, or choose another folder for prepared data"
        )
    return Path(builder.data_path)


def is_complete(builder: Builder) -> bool:
    """Whether the builder's data set has been prepared, to the end."""
    # The folder gets its name when it is complete; asked about one that is not there, TFDS warns.
    return builder.data_path.exists() and builder.is_prepared()


def _say_what_is_absent(raw_dir: Path, table: raw.RawTable) -> None:
    if table.absent:
        absent = ", ".join(f"{name} ({count} clips)" for name, count in table.absent.items())
        print(f"{raw_dir} has no folder for: {absent}; going on without", file=sys.stderr)


def _build(builder: Builder, raw_dir: Path) -> None:
    for leftover in builder.data_path.parent.glob("incomplete.*"):
        shutil.rmtree(leftover)
    # TFDS reports to stdout and draws bars for its internals; ours counts clips, on stderr.
    tfds.disable_progress_bar()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory() as downloads,  # TFDS wants one; nothing is downloaded
    ):
        builder.download_and_prepare(
            file_format="array_record",
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=raw_dir),
        )


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Waits until no other process is inside; the system lifts the lock of one that was killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ordered_map(function: Callable, items: Iterable) -> Iterator:
    """Maps with threads (decoding runs outside Python's lock), in order, a few items ahead."""
    workers = os.cpu_count() or 1
    pending = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
