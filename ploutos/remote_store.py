"""A store on S3, for workers on several hosts, with a folder of this host before it.

An artifact is uploaded whole under its content's name, and S3 shows an object when all of it is there. The key file is then created on the
condition that there is none (`If-None-Match`), so of two that computed the same key one wins and the other takes the winner's artifact. The
lease that makes the second one wait instead of computing as well saves work; nothing rests on it. A host downloads an artifact once, into
its own folder, checks its digest, and checks it again whenever it is used. Checkpoints of training stay on the host that trains.

Left out: registry, forward log, datasets, cassettes and runs, which are files of one host, `PLOUTOS_HOME`. So a store belongs to one home:
flows of another one are refused, because they would count their trials apart.
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from ploutos.errors import ConfigError, StoreError
from ploutos.extras import require_extra
from ploutos.settings import Settings
from ploutos.store import Ref, Store, file_sha256, key_file, key_record, write_json, writing

logger = logging.getLogger(__name__)
_LEASE_S, _RENEWED_S, _LOOK_S = 45.0, 10.0, 1.0
_HOME = "home.json"


class _Damaged(Exception):
    """What was downloaded is not what its reference says."""


def open_store(settings: Settings, code: str = "", claim: bool = True) -> Store:
    """The store that the settings name: a folder of this host, or S3 with a folder of this host before it.

    Args:
        code: as of `Store`.
        claim: whether this host's home is the one whose runs it holds; not that of a worker for another host.

    Raises:
        ConfigError: the package for S3 is not installed, or the store belongs to another home.
        StoreError: S3 does not answer.
    """
    if settings.store is None:
        return Store(settings.store_root, code)
    require_extra("s3fs", "s3", f"PLOUTOS_STORE={settings.store}")
    store = RemoteStore(settings.store, settings.store_root, code)
    if claim:
        store.claim(settings.home)
    return store


def _opened_here(address: str, code: str) -> "RemoteStore":
    return RemoteStore(address, Settings().store_root, code)


class RemoteStore(Store):
    """A store at an address of S3.

    Args:
        address: s3://bucket/prefix.
        root: folder of this host for what was downloaded or made here; a store that travels to another host takes that host's.
        code: as of `Store`.
    """

    def __init__(self, address: str, root: Path, code: str = "") -> None:
        super().__init__(root / f"s3-{sha256(address.encode()).hexdigest()[:12]}", code)
        self.address = address

    @property
    def where(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_here, (self.address, self.code)

    def claim(self, home: Path) -> None:
        """Take the store for a home, or see that it is that home's.

        Raises:
            ConfigError: it belongs to another home.
        """
        file = home / _HOME
        if not file.is_file():
            write_json(file, {"id": uuid.uuid4().hex})
        own = json.loads(file.read_text(encoding="utf-8"))["id"]
        record = {"id": own, "host": platform.node(), "home": str(home.absolute())}
        if not self._create(_HOME, json.dumps(record).encode()):
            owner = json.loads(self._bytes(_HOME) or b"{}")
            if owner.get("id") != own:
                raise ConfigError(
                    f"the store at {self.address} belongs to {owner.get('home')} on {owner.get('host')}, where its trials, forward log and "
                    "runs are; start runs there, on which any host can work, or give this home a prefix of its own"
                )

    def holds(self, ref: Ref) -> bool:
        """Whether the artifact is on S3 with the size and the sha256 that the reference gives; it is here afterwards."""
        with self._reaching():
            try:
                size = self._files.info(self._name(ref.path), refresh=True)["size"]
            except FileNotFoundError:
                return False
            return size == ref.bytes and (super().holds(ref) or self._fetch(ref))

    def publish(self, kind: str, suffix: str, write: Callable[[Path], object]) -> Ref:
        """Write one artifact under its content's name, here and on S3, where a damaged one of that name is replaced."""
        ref = super().publish(kind, suffix, write)
        with self._reaching():
            self._files.put_file(str(self.root / ref.path), self._name(ref.path))
        return ref

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock of this host and a lease that other hosts see; a holder that died keeps it for less than a minute."""
        with super().locked(name):
            mine = json.dumps({"by": f"{platform.node()}:{os.getpid()}", "token": uuid.uuid4().hex}).encode()
            lease = f"leases/{name}"
            self._acquire(lease, mine)
            over = threading.Event()
            renewing = threading.Thread(target=self._renew, args=(lease, mine, over), daemon=True)
            renewing.start()
            try:
                yield
            finally:
                over.set()
                renewing.join()
                if self._bytes(lease) == mine:
                    self._remove(lease)

    def _acquire(self, lease: str, mine: bytes) -> None:
        """Wait until nobody else holds the lease, or until whoever does has been silent for too long, by this host's clock."""
        seen, since = None, time.monotonic()
        while not self._create(lease, mine):
            now = self._version(lease)
            if now != seen:
                seen, since = now, time.monotonic()
            elif now is not None and time.monotonic() - since > _LEASE_S:
                logger.warning("the holder of %s has been silent for %.0f s; going on without it", lease, _LEASE_S)
                self._remove(lease)
                continue
            time.sleep(_LOOK_S)

    def _renew(self, lease: str, mine: bytes, over: threading.Event) -> None:
        while not over.wait(_RENEWED_S):
            try:
                if self._bytes(lease) != mine:
                    return  # somebody took it over: both compute, one key is kept
                with self._reaching():
                    self._files.pipe_file(self._name(lease), mine)
            except StoreError as error:
                logger.warning("a lease was not renewed: %s", error)

    def _read_key(self, stage: str, key: str) -> str | None:
        found = self._bytes(key_file(stage, key))
        return None if found is None else found.decode()

    def _write_key(self, stage: str, key: str, ref: Ref, describe: dict[str, Any]) -> Ref:
        """Create the key file, or take the artifact that somebody else's names; one that names none is replaced."""
        name, content = key_file(stage, key), json.dumps(key_record(ref, describe), indent=2).encode()
        if self._create(name, content):
            return ref
        if (first := self.lookup(stage, key)) is not None:
            return first
        with self._reaching():
            self._files.pipe_file(self._name(name), content)
        return ref

    @cached_property
    def _files(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)

    def _name(self, path: str) -> str:
        return f"{self.address.removeprefix('s3://').rstrip('/')}/{path}"

    def _fetch(self, ref: Ref) -> bool:
        """Download an artifact, once for all processes of this host; whether it is what the reference says."""
        target = self.root / ref.path
        with super().locked(f"fetch-{ref.sha256}"):
            if super().holds(ref):
                return True
            try:
                with writing(target) as temporary:
                    self._files.get_file(self._name(ref.path), str(temporary))
                    if file_sha256(temporary) != ref.sha256:
                        raise _Damaged
            except _Damaged:
                return False
        return True

    def _create(self, path: str, content: bytes) -> bool:
        """Write an object if there is none of its name; whether there was none."""
        with self._reaching():
            try:
                self._files.pipe_file(self._name(path), content, mode="create")
            except FileExistsError:
                return False
        return True

    def _bytes(self, path: str) -> bytes | None:
        with self._reaching():
            try:
                return self._files.cat_file(self._name(path))
            except FileNotFoundError:
                return None

    def _version(self, path: str) -> Any:
        """What changes whenever an object is written; None where there is none."""
        with self._reaching():
            try:
                found = self._files.info(self._name(path), refresh=True)
            except FileNotFoundError:
                return None
        return found["LastModified"], found["ETag"]

    def _remove(self, path: str) -> None:
        with self._reaching():
            try:
                self._files.rm_file(self._name(path))
            except FileNotFoundError:
                return

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """A block that speaks to S3.

        Raises:
            StoreError: it does not answer, or refuses.
        """
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (BotoCoreError, ValueError) as error:
            raise StoreError(f"the store at {self.address} does not answer: {error}; check the address and AWS's own settings") from error
        except FileNotFoundError as error:
            raise StoreError(f"the store at {self.address} does not exist: {error}; make the bucket first") from error
        except PermissionError as error:
            raise StoreError(
                f"the store at {self.address} refuses access: {error}; check AWS's credentials and the bucket's policy"
            ) from error
