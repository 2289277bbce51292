"""A bounded pool of environments that are expensive to build: built when first needed, lent to one user at a time, reset on return.

`benchmarks/environment.py` measures what it saves. ploutos' own environments are built in a millisecond and do not need it.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar

import gymnasium

from ploutos.errors import ConfigError, PoolError, ResourceError

Env = TypeVar("Env", bound=gymnasium.Env[Any, Any])


class EnvironmentStatePool(Generic[Env]):
    """At most `pool_size` environments of one kind; safe to use from several threads.

    >>> with EnvironmentStatePool(gymnasium.make, {"id": "CartPole-v1"}, pool_size=2) as pool, pool.lend() as env:
    ...     env.reset(seed=1)[0].shape
    (4,)

    Args:
        env_class: what builds an environment.
        env_kwargs: what it is called with.
        pool_size: most environments that exist at once.

    Raises:
        ConfigError: `pool_size` is not positive.
    """

    def __init__(self, env_class: type[Env] | Any, env_kwargs: Mapping[str, Any] | None = None, pool_size: int = 8) -> None:
        if pool_size < 1:
            raise ConfigError(f"found pool_size {pool_size}; expected at least 1")
        self.env_class, self.env_kwargs, self.pool_size = env_class, dict(env_kwargs or {}), pool_size
        self._slots = threading.Semaphore(pool_size)
        self._lock = threading.Lock()
        self._idle: list[Env] = []
        self._lent: dict[int, Env] = {}
        self._closed = False

    def acquire(self, timeout: float = 30.0) -> Env:
        """An environment that is nobody else's until it is released.

        Args:
            timeout: seconds to wait for one when all are lent.

        Raises:
            ResourceError: none was released in time.
            PoolError: the pool is closed.
        """
        if not self._slots.acquire(timeout=timeout):
            raise ResourceError(
                f"all {self.pool_size} environments of the pool stayed in use for {timeout:g} s; release some or enlarge it"
            )
        try:
            with self._lock:
                if self._closed:
                    raise PoolError("the pool is closed; open another")
                env = self._idle.pop() if self._idle else None
            if env is None:
                env = self.env_class(**self.env_kwargs)
            with self._lock:
                self._lent[id(env)] = env
        except BaseException:
            self._slots.release()
            raise
        return env

    def release(self, env: Env) -> None:
        """Give an environment back; it is reset before anyone else gets it. One that cannot be reset is closed and forgotten.

        Raises:
            PoolError: it was not lent by this pool, or was given back already.
        """
        with self._lock:
            if self._lent.pop(id(env), None) is None:
                raise PoolError("found an environment that this pool has not handed out; release each one that acquire returned, once")
            closed = self._closed
        kept = False
        try:
            if not closed:
                env.reset()
                kept = True
        finally:
            with self._lock:
                kept = kept and not self._closed
                if kept:
                    self._idle.append(env)
            self._slots.release()
            if not kept:
                env.close()

    @contextmanager
    def lend(self, timeout: float = 30.0) -> Iterator[Env]:
        """Acquire an environment and release it at the end, whatever happens."""
        env = self.acquire(timeout)
        try:
            yield env
        finally:
            self.release(env)

    def close(self) -> None:
        """Close all idle environments now and each lent one when it is released."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for env in idle:
            env.close()

    def __enter__(self) -> "EnvironmentStatePool[Env]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
