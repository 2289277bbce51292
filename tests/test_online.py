"""One bar's market features: equal to the batch's, and cached by the content of the bars."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ploutos.features import online
from ploutos.features.llm_features import market_features
from ploutos.features.online import OnlineFeatures, OptimizedFeatureCache


@pytest.fixture(scope="module")
def market(panel):
    return market_features(panel)


@settings(max_examples=30, deadline=None)
@given(t=st.integers(0, 699), s=st.integers(0, 2))
def test_a_bars_features_are_those_of_the_batch_first_time_and_from_the_cache(panel, market, t, s):
    features = OnlineFeatures()
    for _ in range(2):
        np.testing.assert_array_equal(features.market(panel, t, s), market[t, s].astype(float))


def test_a_cached_row_is_not_computed_again_and_a_corrected_bar_is(panel, monkeypatch):
    calls = []
    compute = online.compute
    monkeypatch.setattr(online, "compute", lambda *fields: calls.append(1) or compute(*fields))
    features = OnlineFeatures()
    first = features.market(panel, 500, 0)
    np.testing.assert_array_equal(features.market(panel.head(501), 500, 0), first)
    assert (len(calls), features.cache.hits, features.cache.misses) == (1, 1, 1)
    close = panel.close.copy()
    close[480, 0] *= 1.01
    corrected = features.market(replace(panel, close=close), 500, 0)
    assert len(calls) == 2
    assert not np.array_equal(corrected, first)
    assert features.cache.hit_rate == pytest.approx(1 / 3)


def test_two_readers_may_share_a_cache(panel):
    cache = OptimizedFeatureCache()
    for _ in range(2):
        OnlineFeatures(cache).market(panel, 500, 0)
    assert (cache.hits, cache.misses) == (1, 1)
    assert str(cache) == "1 of 2 rows found, hit rate 50%"


def test_rows_of_two_symbols_with_the_same_bars_are_kept_apart(panel):
    twin = replace(panel, **{name: getattr(panel, name)[:, [0, 0, 0]] for name in ("open", "high", "low", "close", "volume")})
    features = OnlineFeatures()
    for s in range(3):
        features.market(twin, 400, s)
    assert len(features.cache) == 3


def test_nobody_can_change_a_cached_row(panel):
    features = OnlineFeatures()
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            features.market(panel, 500, 0)[0] = 1


# --- the cache itself


def row(value):
    return np.full(28, float(value))


def test_the_row_that_was_not_used_for_longest_goes_first():
    cache = OptimizedFeatureCache(max_size=2)
    cache.put(("S", "a"), row(1))
    cache.put(("S", "b"), row(2))
    assert cache.get(("S", "a"))[0] == 1
    cache.put(("S", "c"), row(3))
    assert cache.get(("S", "b")) is None
    assert [cache.get(("S", k))[0] for k in "ac"] == [1, 3]
    assert len(cache) == 2
    assert cache.hit_rate == 3 / 4


@settings(max_examples=100)
@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 8))))
def test_any_sequence_of_calls_agrees_with_a_plain_list(size, calls):
    cache, known, hits = OptimizedFeatureCache(size), [], 0
    for is_put, k in calls:
        if is_put:
            cache.put(("S", str(k)), row(k))
        else:
            found = cache.get(("S", str(k)))
            assert (found is not None) == (k in known)
            hits += k in known
        if is_put or k in known:
            known = [*(other for other in known if other != k), k][-size:]
    assert len(cache) == len(known)
    assert cache.hits == hits
    asked = sum(not is_put for is_put, _ in calls)
    assert cache.hit_rate == (hits / asked if asked else 0)


def test_a_kept_row_does_not_follow_the_array_it_came_from():
    cache, values = OptimizedFeatureCache(), row(1)
    cache.put(("S", "a"), values)
    values[:] = 9
    assert (cache.get(("S", "a")) == 1).all()
    assert values.flags.writeable


def test_threads_that_share_a_cache_get_whole_rows_and_every_call_is_counted():
    cache, wrong = OptimizedFeatureCache(max_size=20), []

    def work(seed):
        random = np.random.default_rng(seed)
        for k in random.integers(0, 40, 3000).tolist():
            found = cache.get(("S", str(k)))
            if found is None:
                cache.put(("S", str(k)), row(k))
            elif not (found == k).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.hits + cache.misses == 4 * 3000
    assert len(cache) == 20


def test_a_cache_of_nothing_is_refused_and_a_thousand_is_the_default():
    assert OptimizedFeatureCache().max_size == 1000
    assert OptimizedFeatureCache().hit_rate == 0
    with pytest.raises(ValueError, match="expected at least 1"):
        OptimizedFeatureCache(0)
