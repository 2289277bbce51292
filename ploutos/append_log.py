"""Files of lines that are only added to; one host.

A line is on the disk before its writer goes on. One that a crash cut short was never acknowledged: it is passed over when read and removed
at the next write. Writers take turns by `flock`, which the kernel drops when its holder dies.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from ploutos.errors import StoreError
from ploutos.specs import Spec

S = TypeVar("S", bound=Spec)


class AppendLog:
    """One file, a JSON object a line.

    Args:
        file: need not exist yet, nor its folder.
        what: a line is, with its article, for a sentence about one that cannot be read: "a trial".
    """

    def __init__(self, file: Path, what: str) -> None:
        self.file, self.what = Path(file), what

    def read(self, kind: type[S]) -> tuple[S, ...]:
        """All lines, the oldest first.

        Raises:
            StoreError: a line that was written whole cannot be read.
        """
        return tuple(self._parsed(kind, number, line) for number, line in enumerate(self._whole().splitlines(), start=1))

    def append(self, values: Iterable[Spec]) -> None:
        """Add lines, all on the disk when this returns; to be called by who holds the lock."""
        content = b"".join(value.model_dump_json().encode() + b"\n" for value in values)
        if not content:
            return
        new = not self.file.exists()
        with self.file.open("ab") as file:
            file.truncate(len(self._whole()))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            self._keep_name()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer for the length of a block.

        Raises:
            StoreError: the folder cannot be written.
        """
        folder = self.file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = self.file.with_suffix(".lock").open("w")
        except OSError as error:
            raise StoreError(f"cannot write in {folder}: {error.strerror}; choose another PLOUTOS_HOME") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _whole(self) -> bytes:
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return b""
        return content[: content.rfind(b"\n") + 1]

    def _keep_name(self) -> None:
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _parsed(self, kind: type[S], number: int, line: bytes) -> S:
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            raise StoreError(f"line {number} of {self.file} is not {self.what}; restore it from a copy") from error
