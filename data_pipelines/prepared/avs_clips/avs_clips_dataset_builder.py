"""TFDS builder `avs_clips`: clips of any layout as array_record, without TensorFlow.

Features are handed over as encoded bytes, which is why TFDS does not reach for TensorFlow to encode
them, and why pictures are stored without a second compression.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, shuffle
from tqdm import tqdm

from data_pipelines.errors import DataError

PIECE = 2**28  # bytes of records in one of the temporary files


class _InOrder(example_serializer.ExampleSerializer):
    """Writes the fields of an example in an order that is the same in every process.

    Protobuf's own order of a map depends on where the library was loaded in memory.
    """

    def serialize_example(self, example: Any) -> bytes:
        return self.get_tf_example(example).SerializeToString(deterministic=True)


class _OnDisk:
    """Keeps records, in their order, until it is known into how many files they go.

    TFDS's own `Shuffler` holds 1000 MB in memory and writes what is more with TensorFlow.
    """

    def __init__(self, dirpath: os.PathLike, **options: Any):
        """`dirpath`: folder for temporary files. Options are about another order than theirs."""
        self._folder = dirpath
        self._pieces: list[tuple[Any, list[int]]] = []  # file, lengths of its records
        self.size = 0  # bytes of all records
        self.num_examples = 0

    @property
    def bucket_lengths(self) -> list[int]:
        return [self.num_examples]

    def add(self, key: int, data: bytes) -> None:
        if not self._pieces or self._pieces[-1][0].tell() >= PIECE:
            os.makedirs(self._folder, exist_ok=True)
            self._pieces.append((tempfile.TemporaryFile(dir=self._folder), []))
        file, lengths = self._pieces[-1]
        file.write(data)
        lengths.append(len(data))
        self.size += len(data)
        self.num_examples += 1

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """What was added, once: each file is gone when it has been read."""
        key = 0
        while self._pieces:
            file, lengths = self._pieces.pop(0)
            with file:
                file.seek(0)
                for length in lengths:
                    yield key, file.read(length)
                    key += 1


class _LocalInfo(tfds.core.DatasetInfo):
    """Information on a data set that is nowhere but here."""

    def initialize_from_bucket(self) -> None:
        """Does not look for it on TFDS's server, which would leave a temporary folder each time."""

    def write_to_directory(self, dataset_info_dir: os.PathLike, all_metadata: bool = True) -> None:
        """Also notes how large the files of records are, which are all there by now."""
        found = sorted(Path(dataset_info_dir).glob("*.array_record*"))
        self.metadata["files"] = {path.name: path.stat().st_size for path in found}
        super().write_to_directory(dataset_info_dir, all_metadata)


class Builder(tfds.core.GeneratorBasedBuilder):
    """One example is one clip.

    Splits are those of train, val and test that have clips. The data set's metadata says what is in
    it without a record being read: `class_names` (by class id), `clips` (split -> a list of
    [subset, uid, class ids of the sounding objects, seconds, labelled seconds, stored frames, the
    most classes that one label map shows, ignored pixels of the label maps, whether mono is left
    and right added up (of sources with positions) and not their mean] in the order of the
    examples), `layout` (its name), `binary_only` (subsets whose labels tell no classes), `stereo`
    (whether left and right were kept), `size` (of the frames, or None), the `fingerprint` of what
    it was made from and how, a digest of all `sounds` and one of all `pictures`, and `files` (the
    name of each file of records -> its bytes).
    """

    VERSION = tfds.core.Version("1.3.0")
    RELEASE_NOTES = {"1.3.0": "Waveforms in place of log-mel examples."}

    stored: Mapping[str, Any] | None = None  # the metadata of what `build` stores
    examples: Mapping[str, Iterator[dict[str, Any]]]
    progress = False  # whether examples are counted on a progress bar while they are stored

    def __init__(self, *, data_dir: str | os.PathLike[str] | None = None, **options: Any):
        """Raises DataError where what describes a data set in `data_dir` cannot be read."""
        try:
            super().__init__(data_dir=data_dir, **options)
        except Exception as fault:  # of JSON, of protobuf, of TFDS or of the system
            described = Path(data_dir or "", self.name, str(self.VERSION))
            if not (data_dir and described.exists()):
                raise
            raise damaged(described, "its description cannot be read") from fault

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
                    "waveform": tfds.features.Tensor(
                        shape=(None, None), dtype=np.int16, encoding="bytes"
                    ),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            # Grain shuffles when it reads; a known order lets the metadata be an index.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        if self.stored is None:
            raise DataError(
                "avs_clips is made from a folder on disk: "
                "python -m data_pipelines.prepare FOLDER --out DIR"
            )
        self.info.metadata.update(self.stored)
        return {split: self._generate_examples(split) for split in self.examples}

    def _generate_examples(self, split):
        count = len(self.stored["clips"][split])
        examples = self.examples[split]
        bar = tqdm(examples, f"writing {split}", count, unit="clip", disable=not self.progress)
        yield from enumerate(bar)


def is_complete(builder: Builder) -> bool:
    """Whether the builder's data set has been prepared, to the end.

    Raises:
        DataError: it was, and has lost files or parts of files since.
    """
    folder = Path(builder.data_path)
    # The folder gets its name when it is complete; asked about one that is not there, TFDS warns.
    if not folder.exists():
        return False
    if not builder.is_prepared():
        raise damaged(folder, "its description is missing")
    try:  # not what the builder holds: another process may have completed it since
        files = json.loads((folder / "metadata.json").read_text("utf-8"))["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise damaged(folder, "metadata.json does not name its files") from fault
    for name, size in files:
        path = folder / name
        if not path.is_file():
            raise damaged(folder, f"{name} is missing")
        if path.stat().st_size != size:
            raise damaged(folder, f"{name} has {path.stat().st_size} bytes instead of {size}")
    return True


def check_form(builder: Builder) -> None:
    """Raises DataError where the builder's data set is there in another form than it reads."""
    wanted = str(builder.version)
    for folder in sorted(Path(builder.data_path).parent.glob("*.*.*")):
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and folder.name != wanted:
            raise DataError(
                f"the prepared data set {folder} has the form {folder.name} of another version, "
                f"and this one reads {wanted}: delete it and prepare the data folder again with "
                f"python -m data_pipelines.prepare FOLDER --out {folder.parents[1]}"
            )


def damaged(folder: str | os.PathLike[str], why: str) -> DataError:
    """What to say of a prepared data set that is not whole any more."""
    return DataError(
        f"the prepared data set in {folder} is damaged ({why}): delete it and prepare again"
    )


def build(
    builder: Builder,
    metadata: Mapping[str, Any],
    examples: Mapping[str, Iterator[dict[str, Any]]],
    *,
    progress: bool,
) -> None:
    """Stores a data set; what is not complete keeps another name and is cleared away next time.

    Args:
        builder: of a data set that is not prepared; no other process may build it meanwhile.
        metadata: see `Builder`; `clips` says how many examples a split has.
        examples: split -> its examples, in the order of `clips`.
        progress: whether to show progress bars.

    Raises:
        OSError, RuntimeError: it cannot be written.
    """
    clear(builder)
    builder.stored, builder.examples, builder.progress = metadata, examples, progress
    # TFDS reports to stdout and draws bars for its internals; ours counts clips, on stderr.
    tfds.disable_progress_bar()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        _written_our_way(),
        tempfile.TemporaryDirectory() as downloads,  # TFDS wants one; nothing is downloaded
    ):
        builder.download_and_prepare(file_format="array_record", download_dir=downloads)


@contextlib.contextmanager
def _written_our_way() -> Iterator[None]:
    """TFDS has no other way to choose how examples are written."""
    usual = example_serializer.ExampleSerializer, shuffle.Shuffler
    example_serializer.ExampleSerializer, shuffle.Shuffler = _InOrder, _OnDisk
    try:
        yield
    finally:
        example_serializer.ExampleSerializer, shuffle.Shuffler = usual


def clear(builder: Builder) -> None:
    """Removes what killed runs left of a data set that they had not completed."""
    for leftover in builder.data_path.parent.glob("incomplete.*"):
        shutil.rmtree(leftover)
