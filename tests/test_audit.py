"""The audit finds a hundred planted leaks, accuses none of a hundred clean functions, and its numbers are the library's own."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markets import random_panel, session_panel
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import measure, periods_of, session_returns
from ploutos.evaluation.overfitting import deflated_sharpe, probabilistic_sharpe, sharpe_moments
from ploutos.evaluation.spec import RobustnessSpec
from ploutos.evaluation.summary import StressTest
from ploutos.reporting.audit_page import render_decisions, returns_sentences
from ploutos.research.audit import audit_features, frame_of, load_function, panel_frame
from ploutos.research.track_record import UnitsStrategy, audit_decisions, audit_returns, falls_of
from ploutos.strategies.base import PrecomputedTargets
from ploutos.walk_forward import Range

BARS = random_panel(8, n_bars=320, n_symbols=2)
HOURS = session_panel(3, n_sessions=30)


def returns(f):
    return f["close"].pct_change()


WINDOWS = (3, 5, 8, 13, 21, 34, 55)


def kinds_of_leaks():
    """(name, function of one symbol's bars) with a parameter each."""
    for n in WINDOWS:
        yield f"shifted {n}", lambda f, n=n: returns(f).rolling(n).mean().shift(-1)
        yield f"target {n}", lambda f, n=n: np.sign(f["close"].shift(-n) - f["close"])
        yield f"centred {n}", lambda f, n=n: f["close"].rolling(n | 1, center=True).mean() / f["close"] - 1
        yield f"all-rows z-score {n}", lambda f, n=n: zscore(f["close"].rolling(n).mean())
        yield f"back-fill {n}", lambda f, n=n: returns(f).where(np.arange(len(f)) % n == 0).bfill()
        yield f"interpolated {n}", lambda f, n=n: f["close"].where(np.arange(len(f)) % n == 0).interpolate()
        yield f"rank over all rows {n}", lambda f, n=n: f["close"].rolling(n).std().rank(pct=True)
        yield f"min-max over all rows {n}", lambda f, n=n: minmax(f["volume"].rolling(n).mean())
        yield f"adjusted by later splits {n}", lambda f, n=n: adjusted(f).rolling(n).mean()
        yield f"future high {n}", lambda f, n=n: f["high"][::-1].rolling(n).max()[::-1] / f["close"]
        yield f"smoothed both ways {n}", lambda f, n=n: f["close"].ewm(span=n).mean()[::-1].ewm(span=n).mean()[::-1]
        yield f"residual of a fit to all {n}", lambda f, n=n: f["close"].rolling(n).mean() - trend(f["close"])
        yield (
            f"winsorised by all rows {n}",
            lambda f, n=n: winsorised(returns(f).rolling(n).sum()),
        )
        yield f"first difference of the next open {n}", lambda f, n=n: (f["open"].shift(-1) / f["close"] - 1).rolling(n).sum()


def winsorised(x):
    return x.clip(*x.quantile([0.05, 0.95]))


def zscore(x):
    return (x - x.mean()) / x.std()


def minmax(x):
    return (x - x.min()) / (x.max() - x.min())


def adjusted(f):
    """Levels divided by every split that comes later, as a vendor adjusts them."""
    ratio = (f["close"] / f["close"].shift(1)).fillna(1.0)
    factor = ratio.where(ratio < 0.6, 1.0)
    return f["close"] * factor[::-1].cumprod()[::-1].shift(-1).fillna(1.0)


def trend(x):
    at = np.arange(len(x))
    return pd.Series(np.polyval(np.polyfit(at, x.to_numpy(), 1), at), x.index)


def session_leaks():
    """Of intraday bars: a session's figure is known on all its bars."""

    def day(f):
        return f.index.tz_convert("America/New_York").date

    yield "day's close", lambda f: f["close"].groupby(day(f)).transform("last") / f["close"]
    yield "day's range", lambda f: f["high"].groupby(day(f)).transform("max") - f["low"].groupby(day(f)).transform("min")
    yield "day's volume", lambda f: f["volume"].groupby(day(f)).transform("sum")
    yield "resampled, label left", lambda f: f["close"].resample("1D").last().reindex(f.index, method="ffill")


def test_a_hundred_planted_leaks_are_found():
    n = 0
    for leaks, bars in ((kinds_of_leaks(), BARS), (session_leaks(), HOURS)):
        one = only_first(bars)
        for name, function in leaks:
            found = audit_features(function, one, n_cuts=4, seed=n).leaks
            assert found, name
            n += 1
    n += sum(1 for name, function in panel_leaks() if audit_features(function, BARS, panel=True, n_cuts=4).leaks or pytest.fail(name))
    assert n >= 100


def only_first(bars):
    """Bars of one symbol."""
    kept = {name: getattr(bars, name)[:, :1] for name in ("open", "high", "low", "close", "volume")}
    return replace(bars, symbols=bars.symbols[:1], instruments=bars.instruments[:1], **kept)


def survivors(f):
    """Ranks among those that are still there at the end."""
    symbols = f.index.get_level_values(1)
    last = f.index.get_level_values(0).max()
    alive = symbols.isin(f.xs(last).index)
    return f["close"].where(alive).groupby(level=0).rank(pct=True)


def panel_leaks():
    yield "future universe", survivors
    yield "cross-section of tomorrow", lambda f: f["close"].groupby(level=1).shift(-1).groupby(level=0).rank(pct=True)
    yield "mean of the panel", lambda f: f["close"] / f["close"].groupby(level=1).transform("mean")


def clean_functions():
    """Causal features, ten families and more; warm-up is nan, windows expand, sums are kept running."""
    for n in WINDOWS:
        yield f"mean {n}", lambda f, n=n: f["close"].rolling(n).mean() / f["close"] - 1
        yield f"ewm {n}", lambda f, n=n: f["close"].ewm(span=n).mean()
        yield f"expanding z-score {n}", lambda f, n=n: (returns(f) - returns(f).expanding(n).mean()) / returns(f).expanding(n).std()
        yield f"rolling z-score {n}", lambda f, n=n: (f["volume"] - f["volume"].rolling(n).mean()) / f["volume"].rolling(n).std()
        yield f"rolling rank {n}", lambda f, n=n: f["close"].rolling(n).rank(pct=True)
        yield f"running sum {n}", lambda f, n=n: running_mean(f["close"] * 1e6, n)
        yield f"fft mean {n}", lambda f, n=n: fft_mean(f["close"].to_numpy(), n)
        yield f"forward fill {n}", lambda f, n=n: returns(f).where(np.arange(len(f)) % n == 0).ffill()
        yield f"range {n}", lambda f, n=n: (f["high"].rolling(n).max() - f["low"].rolling(n).min()).astype("float32")
        yield f"rsi {n}", lambda f, n=n: rsi(f["close"], n)
        yield f"drawdown {n}", lambda f, n=n: f["close"] / f["close"].cummax() - 1 + 0 * n
        yield f"lagged {n}", lambda f, n=n: pd.DataFrame({f"lag {k}": returns(f).shift(k) for k in range(n)})
        yield f"sparse events {n}", lambda f, n=n: (returns(f).abs() > 0.01 * n).astype(int)
        yield f"constant {n}", lambda f, n=n: pd.Series(float(n), f.index)
        yield f"correlation {n}", lambda f, n=n: returns(f).rolling(max(n, 5)).corr(f["volume"])


def running_mean(x, n):
    total = x.cumsum()
    return (total - total.shift(n)) / n


def fft_mean(x, n):
    """A causal mean by Fourier transforms: every value is rounded by what all others are."""
    size = 2 * len(x)
    mean = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(np.ones(n) / n, size), size)[: len(x)]
    mean[: n - 1] = np.nan
    return mean


def rsi(close, n):
    change = close.diff()
    up, down = change.clip(lower=0).ewm(alpha=1 / n).mean(), (-change.clip(upper=0)).ewm(alpha=1 / n).mean()
    return 100 - 100 / (1 + up / down)


def beside_the_mean(f):
    change = f["close"].groupby(level=1).pct_change()
    return change - change.groupby(level=0).transform("mean")


def test_a_hundred_clean_feature_sets_are_not_accused():
    n = 0
    for name, function in clean_functions():
        found = audit_features(function, only_first(BARS), n_cuts=4, seed=n).leaks
        assert not found, (name, found)
        n += 1
    for name, function in (
        ("rank", lambda f: f["close"].groupby(level=0).rank(pct=True)),
        (
            "beside the mean",
            beside_the_mean,
        ),
        ("day so far", lambda f: f["volume"].groupby(level=1).cumsum()),
    ):
        assert not audit_features(function, BARS, panel=True, n_cuts=4).leaks, name
        n += 1
    assert n >= 100


def test_a_leak_names_its_column_its_bar_and_how_far_it_reads():
    def features(f):
        return pd.DataFrame({"fine": returns(f), "peek": returns(f).shift(-1), "far": f["close"].rolling(11, center=True).mean()})

    audit = audit_features(features, only_first(BARS), n_cuts=5, name="features")
    assert audit.columns == ("fine", "peek", "far")
    peek, far = audit.leaks
    assert (peek.column, peek.ahead, peek.symbol) == ("peek", 1, "S0")
    assert (far.column, far.ahead) == ("far", 5)
    frame = frame_of(BARS, 0)
    bar = pd.Timestamp(peek.bar.removesuffix("Z"), tz="UTC")
    assert peek.before == pytest.approx(returns(frame).shift(-1)[bar])
    assert peek.n_seen == 20  # five bars, four futures each


def test_what_cannot_be_audited_says_so(tmp_path):
    one = only_first(BARS)
    with pytest.raises(DataError, match="different values for the same bars"):
        audit_features(lambda f: np.random.default_rng().normal(size=len(f)), one)
    with pytest.raises(DataError, match="fails on the bars: KeyError"):
        audit_features(lambda f: f["Close"], one)
    with pytest.raises(DataError, match=r"returns ndarray of shape \(7,\)"):
        audit_features(lambda f: np.zeros(7), one)
    with pytest.raises(DataError, match="names no function"):
        load_function("nothing.py:f")
    file = tmp_path / "mine.py"
    file.write_text("def f(bars):\n    return bars.close\n")
    assert not audit_features(load_function(f"{file}:f"), one).leaks
    with pytest.raises(DataError, match="has no function g"):
        load_function(f"{file}:g")
    assert panel_frame(BARS).index.is_monotonic_increasing


ENV = EnvSpec(costs=CostSpec(commission_bps=2, slippage_bps=3))
FEW = RobustnessSpec(paths=40)


def weights_frame(table, bars, name="weight"):
    rows, columns = np.nonzero(np.isfinite(table))
    stamps = pd.to_datetime(bars.timestamps[rows]).tz_localize("UTC")
    return pd.DataFrame({"timestamp": stamps, "symbol": np.array(bars.symbols)[columns], name: table[rows, columns]})


def test_weights_give_the_account_that_a_backtest_gives_and_the_market_beside_it():
    table = np.where(np.arange(320)[:, None] % 40 < 20, 0.3, 0.0) * BARS.tradable
    audit = audit_decisions(weights_frame(table, BARS), BARS, ENV, trials=10, stress=FEW)
    env = ENV.model_copy(update={"rebalance_band": 0.0})
    segment = [Segment(Range(start=1, stop=320))]
    result = run_backtests(BARS, None, segment, [PrecomputedTargets("own", np.where(np.isfinite(table), table, np.nan))], env)
    periods = periods_of(BARS, result)
    assert audit.own == measure(result, 0, periods)
    assert audit.matched.exposure == pytest.approx(audit.own.exposure, rel=0.1)
    moments = sharpe_moments(session_returns(result.equity[0], periods))
    assert audit.luck.psr == probabilistic_sharpe(moments)
    assert audit.luck.dsr == deflated_sharpe(moments, 10, 1 / np.sqrt(moments.n - 1))
    assert audit.luck.dsr < audit.luck.psr
    assert abs(audit.attribution.residual) < 0.01
    assert audit.robustness.row(StressTest.ONE_BAR_LATER) is not None
    assert "the market at its exposure" in render_decisions(audit)


def test_trades_in_units_are_the_units_that_are_held():
    units = np.full((320, 2), np.nan)
    units[10], units[50], units[90] = [100, 50], [50, np.nan], [-150, -20]
    own = UnitsStrategy(np.where(np.isfinite(units), np.cumsum(np.nan_to_num(units), axis=0), np.nan), np.nan_to_num(BARS.mark))
    result = run_backtests(BARS, None, [Segment(Range(start=11, stop=320))], [own], ENV.model_copy(update={"rebalance_band": 0.0}))
    filled = result.fill_units[0].sum(axis=0)
    assert filled == pytest.approx([0, 30])
    assert result.fill_units[0, 1] == pytest.approx([100, 50])
    audit = audit_decisions(weights_frame(units, BARS, "units"), BARS, ENV, stress=FEW)
    assert audit.kind == "units"
    assert audit.own.total_return == result.equity[0, -1] / result.equity[0, 0] - 1


def test_decisions_that_do_not_fit_are_refused():
    table = np.full((320, 2), 0.8)
    with pytest.raises(DataError, match=r"the weights of one bar come to 1\.6 times equity; expected 1 at most"):
        audit_decisions(weights_frame(table, BARS), BARS, ENV)
    with pytest.raises(DataError, match="a weight is negative"):
        audit_decisions(weights_frame(-table / 2, BARS), BARS, ENV)
    with pytest.raises(DataError, match="expected timestamp, symbol, and weight or units"):
        audit_decisions(pd.DataFrame({"a": [1]}), BARS, ENV)
    late = weights_frame(table / 2, BARS).assign(symbol="NONE")
    with pytest.raises(DataError, match="none of 640 rows fits a bar of S0, S1"):
        audit_decisions(late, BARS, ENV)
    twice = weights_frame(table / 2, BARS)
    with pytest.raises(DataError, match="two weights for one symbol and bar"):
        audit_decisions(pd.concat([twice, twice]), BARS, ENV)


def returns_table(k, n=500, edge=0.0):
    random = np.random.default_rng(2)
    days = pd.bdate_range("2020-01-01", periods=n)
    return pd.DataFrame(random.normal(0, 0.01, (n, k)) + edge * (np.arange(k) == 0), index=days, columns=[f"c{j}" for j in range(k)])


def test_returns_are_judged_by_the_library_s_own_statistics():
    table = returns_table(20)
    audit = audit_returns(table, trials=200)
    best = audit.columns[0]
    assert table[best].mean() / table[best].std() == pytest.approx(max(table.mean() / table.std()))
    assert audit.luck[best].dsr < 0.5 < audit.luck[best].psr  # the best of 200 random walks is no skill
    assert audit.spa > 0.05
    assert 0 <= audit.pbo <= 1
    assert "may be the luck" in returns_sentences(audit)[0] or "shows no skill yet" in returns_sentences(audit)[0]
    skilled = audit_returns(returns_table(20, edge=0.003), trials=200)
    assert skilled.columns[0] == "c0"
    assert skilled.luck["c0"].dsr > 0.95
    assert skilled.spa < 0.05
    with pytest.raises(DataError, match="--trials is 3 and the table holds 20 columns"):
        audit_returns(table, trials=3)
    alone = audit_returns(table[["c1"]])
    assert alone.spa is None
    assert alone.luck["c1"].dsr == alone.luck["c1"].psr
    assert "c0" not in audit_returns(table, benchmark="c0").columns


def test_the_deepest_falls_are_those_of_the_path():
    falls = falls_of(np.array([0.1, -0.5, 1.0, -0.2, 0.1, 0.0]), list("abcdef"))
    assert [(round(f.depth, 9), f.first, f.deepest, f.back) for f in falls] == [(-0.5, "a", "b", "c"), (-0.2, "c", "d", None)]


def test_the_commands_write_a_page_and_exit_by_what_they_found(tmp_path):
    run = CliRunner()
    file = tmp_path / "mine.py"
    file.write_text("def clean(f):\n    return f.close.pct_change()\n\ndef leaky(f):\n    return f.close.pct_change().shift(-1)\n")
    common = ["--source", "sample", "--market", "IBM", "--bars", "300", "--cuts", "2", "--out", str(tmp_path / "a.html"), "--json"]
    found = run.invoke(app, ["audit", "features", f"{file}:clean", *common])
    assert (found.exit_code, json.loads(found.stdout)["found"]) == (0, False), found.output
    found = run.invoke(app, ["audit", "features", f"{file}:leaky", *common])
    assert found.exit_code == 4
    assert json.loads(found.stdout)["audit"]["leaks"][0]["ahead"] == 1
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "close reads the future: 1 of 1 columns of leaky." in page
    assert "src=" not in page.split("</script>")[-1]
    assert run.invoke(app, ["audit", "features", "no.py:f", *common]).exit_code == 3
    csv = tmp_path / "returns.csv"
    returns_table(1, edge=0.004).to_csv(csv)
    assert run.invoke(app, ["audit", "returns", str(csv), "--out", str(tmp_path / "r.html")]).exit_code == 0
    returns_table(1).to_csv(csv)
    found = run.invoke(app, ["audit", "returns", str(csv), "--trials", "50", "--out", str(tmp_path / "r.html")])
    assert found.exit_code == 4
    assert "shows no skill yet" in found.output
    csv.write_text("a,b\nx,y\n")
    assert run.invoke(app, ["audit", "returns", str(csv)]).exit_code == 3


def test_a_function_that_changes_its_bars_harms_nobody():
    def rude(f):
        f["close"] *= 2
        return f["close"]

    assert not audit_features(rude, only_first(BARS)).leaks
