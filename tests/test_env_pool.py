"""The pool of environments: never more than its size, one user each, reset on return, nothing left open."""

import threading
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import pytest

from ploutos.envs.pool import EnvironmentStatePool
from ploutos.errors import ConfigError, PoolError, ResourceError


class Counter(gymnasium.Env):
    """Counts its steps; remembers who uses it."""

    built: list["Counter"] = []

    def __init__(self, start=0, fails=False):
        self.start, self.fails = start, fails
        self.steps, self.resets, self.users, self.most_users, self.closed = start, 0, 0, 0, False
        Counter.built.append(self)

    def reset(self, *, seed=None, options=None):
        if self.fails:
            raise RuntimeError("cannot be reset")
        self.steps, self.resets = self.start, self.resets + 1
        return self.steps, {}

    def step(self, action):
        self.steps += 1
        return self.steps, 0.0, False, False, {}

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def built():
    Counter.built = []
    return Counter.built


def test_what_one_user_did_is_gone_for_the_next(built):
    with EnvironmentStatePool(Counter, {"start": 5}, pool_size=1) as pool:
        with pool.lend() as env:
            env.step(None)
            assert env.steps == 6
        with pool.lend() as again:
            assert again is env
            assert again.steps == 5
    assert len(built) == 1
    assert built[0].closed


def test_environments_are_built_when_first_needed_and_never_more_than_the_size(built):
    pool = EnvironmentStatePool(Counter)
    assert pool.pool_size == 8
    assert built == []
    lent = [pool.acquire() for _ in range(8)]
    assert len({id(env) for env in lent}) == 8
    with pytest.raises(ResourceError, match=r"all 8 environments of the pool stayed in use for 0\.01 s"):
        pool.acquire(timeout=0.01)
    pool.release(lent[3])
    assert pool.acquire(timeout=0.01) is lent[3]
    assert len(built) == 8


def test_many_threads_share_few_environments_and_never_two_the_same(built):
    with EnvironmentStatePool(Counter, pool_size=3) as pool:
        guard = threading.Lock()

        def use(_):
            with pool.lend() as env:
                with guard:
                    env.users += 1
                    env.most_users = max(env.most_users, env.users)
                for _ in range(50):
                    env.step(None)
                assert env.steps == 50
                with guard:
                    env.users -= 1

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(use, range(300)))
    assert len(built) <= 3
    assert {env.most_users for env in built} == {1}
    assert sum(env.resets for env in built) == 300
    assert all(env.closed for env in built)


def test_an_exception_gives_the_environment_back():
    pool = EnvironmentStatePool(Counter, pool_size=1)
    with pytest.raises(ZeroDivisionError), pool.lend():
        _ = 1 / 0
    assert pool.acquire(timeout=0.01).steps == 0


def test_an_environment_that_cannot_be_reset_is_replaced(built):
    pool = EnvironmentStatePool(Counter, pool_size=1)
    broken = pool.acquire()
    broken.fails = True
    with pytest.raises(RuntimeError, match="cannot be reset"):
        pool.release(broken)
    assert broken.closed
    assert pool.acquire(timeout=0.01) is not broken
    assert len(built) == 2


def test_a_failed_construction_takes_no_place():
    pool = EnvironmentStatePool(Counter, {"nonsense": 1}, pool_size=1)
    for _ in range(3):
        with pytest.raises(TypeError):
            pool.acquire(timeout=0.01)


def test_what_was_not_lent_cannot_be_released():
    pool = EnvironmentStatePool(Counter, pool_size=2)
    env = pool.acquire()
    pool.release(env)
    for stranger in (env, Counter()):
        with pytest.raises(PoolError, match="this pool has not handed out"):
            pool.release(stranger)
    with pytest.raises(ConfigError, match="pool_size 0"):
        EnvironmentStatePool(Counter, pool_size=0)


def test_a_closed_pool_lends_nothing_and_closes_what_comes_back(built):
    pool = EnvironmentStatePool(Counter, pool_size=2)
    env = pool.acquire()
    pool.close()
    with pytest.raises(PoolError, match="closed"):
        pool.acquire()
    pool.release(env)
    assert env.closed
