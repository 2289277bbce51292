"""A content-addressed store of artifacts, and the cache that stands on it.

An artifact is one file, named by its sha256. It is written under a temporary name, hashed, and moved into place; the
key file that says "this key gave that artifact" is written last, so a key that exists names a whole file. A key's
lock is an `flock`: the kernel drops it when its holder dies, so nothing waits for a dead process. One host only; for
several there is `ploutos.remote_store`.

Left out: pruning (delete the folder; everything is recomputed).
"""

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ploutos.errors import StoreError

_BLOCK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of artifact: how a value becomes a file, and how it is read again. Each stands beside the value's own module.

    Attributes:
        name: what a reference to one calls it.
        suffix: file ending with its dot.
        write: a value to a path; the same value gives the same bytes.
        read: the value from a path.
    """

    name: str
    suffix: str
    write: Callable[[T, Path], object]
    read: Callable[[Path], T]


class Ref(BaseModel):
    """A small pointer to an artifact: the only thing that tasks exchange."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    path: str
    sha256: str
    bytes: int


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex sha256 of a JSON-able value or pydantic model, independent of key order."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode()).hexdigest()


@contextmanager
def _temporary(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield a temporary file's name; whatever still lies there at the end is removed.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=f".tmp{suffix}")
        os.close(handle)
        temporary = Path(name)
        yield temporary
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left in {folder}; free some space and run again") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise StoreError(f"cannot write in {folder}: {error.strerror}; choose another folder") from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _place(temporary: Path, target: Path) -> None:
    """Move a finished file to its name; after a crash the name holds the whole file or nothing."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a temporary name in the target's folder; on success move it into place, on failure leave nothing."""
    with _temporary(target.parent, target.suffix) as temporary:
        yield temporary
        _place(temporary, target)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write JSON atomically: keys in the order given, two spaces, no NaN."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def key_file(stage: str, key: str) -> str:
    """Where, in a store, a key says what it gave."""
    return f"keys/{stage}/{key}.json"


def key_record(ref: Ref, describe: dict[str, Any]) -> dict[str, Any]:
    """What it says there."""
    return {"ref": ref.model_dump(), "stands_on": describe}


class NotComputed(Exception):
    """A store that only finds has nothing of a key."""


class Store:
    """Artifacts and keys under one folder, usually `$PLOUTOS_HOME/store`.

    Args:
        root: the folder.
        code: digest of the code that whoever computes for it must have, where that may be another process; empty for any.
    """

    def __init__(self, root: Path, code: str = "") -> None:
        self.root, self.code = Path(root), code
        self._computes = True

    def only_found(self) -> Self:
        """This store for who must not compute: `cached` raises `NotComputed` where there is nothing."""
        found = object.__new__(type(self))
        vars(found).update(vars(self), _computes=False)  # a copy would be a store that has travelled, with a connection of its own
        return found

    @property
    def where(self) -> str:
        """Where it is, for a sentence."""
        return str(self.root)

    def path(self, ref: Ref) -> Path:
        """Where an artifact lies; verified before it is handed out.

        Raises:
            StoreError: the file is missing or its content is not what the reference says.
        """
        if not self.holds(ref):
            raise StoreError(f"artifact {ref.kind} {ref.sha256[:12]} is missing or damaged in {self.where}; run again")
        return self.root / ref.path

    def load(self, ref: Ref, kind: Kind[T]) -> T:
        """The value of an artifact, verified before it is read.

        Raises:
            StoreError: the file is missing or damaged, or it is of another kind.
        """
        if ref.kind != kind.name:
            raise StoreError(f"artifact {ref.sha256[:12]} is of kind {ref.kind}; expected {kind.name}")
        return kind.read(self.path(ref))

    def holds(self, ref: Ref) -> bool:
        """Whether the artifact exists with the size and sha256 that the reference gives."""
        file = self.root / ref.path
        return file.is_file() and file.stat().st_size == ref.bytes and file_sha256(file) == ref.sha256

    def lookup(self, stage: str, key: str) -> Ref | None:
        """The valid artifact that a key gave before; None when there is none or it was lost or damaged."""
        try:
            ref = Ref.model_validate(json.loads(self._read_key(stage, key) or "{}")["ref"])
        except (json.JSONDecodeError, KeyError, TypeError, ValidationError):
            return None
        return ref if self.holds(ref) else None

    def cached(
        self, stage: str, key: str, kind: Kind[Any], write: Callable[[Path], object], describe: dict[str, Any] | None = None
    ) -> tuple[Ref, bool]:
        """The artifact of a key, computed at most once even when several processes ask at the same time.

        Args:
            stage: what is computed.
            key: hex digest of everything that the artifact depends on.
            kind: of the artifact.
            write: writes the artifact to the path it is given.
            describe: what went into the key, kept for people beside the reference.

        Returns:
            The reference, and whether it was there already.

        Raises:
            NotComputed: this is an `only_found` store, and it was not.
        """
        if (ref := self.lookup(stage, key)) is not None:
            return ref, True
        if not self._computes:
            raise NotComputed(f"{self.where} has no {stage} {key[:12]}")
        with self.locked(f"{stage}-{key}"):
            if (ref := self.lookup(stage, key)) is not None:
                return ref, True
            ref = self.publish(kind.name, kind.suffix, write)
            return self._write_key(stage, key, ref, describe or {}), False

    def publish(self, kind: str, suffix: str, write: Callable[[Path], object]) -> Ref:
        """Write one artifact under its content's name."""
        objects = self.root / "objects"
        with _temporary(objects, suffix) as temporary:
            write(temporary)
            sha256 = file_sha256(temporary)
            target = objects / sha256[:2] / f"{sha256}{suffix}"
            size = temporary.stat().st_size
            _place(temporary, target)
        return Ref(kind=kind, path=target.relative_to(self.root).as_posix(), sha256=sha256, bytes=size)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold an exclusive lock, shared by all processes of this host, for the length of a block."""
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / name).open("w")
        except OSError as error:
            raise StoreError(f"cannot write in {folder}: {error.strerror}; choose another PLOUTOS_HOME") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read_key(self, stage: str, key: str) -> str | None:
        try:
            return (self.root / key_file(stage, key)).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write_key(self, stage: str, key: str, ref: Ref, describe: dict[str, Any]) -> Ref:
        """Keep what a key gave; the reference that holds from now on."""
        write_json(self.root / key_file(stage, key), key_record(ref, describe))
        return ref
