"""Files as people have them, through the whole of Phase 1 and the baselines: the right bars, or a refusal; no skill where there is none.

Every panel here is simulated. A panel is written in many disguises; each must come back as the same bars. On those bars the future
is cut off, and random walks are traded by one-line rules.
"""

import re
from datetime import date

import numpy as np
import pandas as pd
import pytest

from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, DataError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import measure, periods_of
from ploutos.features.build import FeatureSpec, build_features
from ploutos.market import loader
from ploutos.market.calendar import DAY, expected_bars, period_starts, sessions_around
from ploutos.market.data_spec import DataSpec
from ploutos.market.instruments import InstrumentSpec
from ploutos.market.loader import load
from ploutos.market.quality import inspect_bars
from ploutos.market.quality_report import Finding
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.baselines import all_baselines
from ploutos.walk_forward import Range

HOUR, WEEK = pd.Timedelta(hours=1), pd.Timedelta(days=7)
NOW = pd.Timestamp("2026-01-05T12:00", tz="UTC")
NY = "America/New_York"


def starts_of(kind):
    if kind == "share days":
        return expected_bars("NYSE", DAY, date(2021, 1, 4), date(2023, 12, 29))
    if kind == "share hours":
        return expected_bars("NYSE", HOUR, date(2022, 9, 1), date(2023, 3, 31), 30)
    if kind == "currency hours":
        return expected_bars("FX", HOUR, date(2022, 11, 7), date(2023, 3, 31))
    if kind == "coin days":
        return expected_bars("24/7", DAY, date(2021, 1, 1), date(2022, 12, 31))
    if kind == "future days":
        return expected_bars("CME Globex Equity", DAY, date(2021, 1, 4), date(2023, 12, 29))
    return np.unique(period_starts(expected_bars("NYSE", DAY, date(2012, 1, 2), date(2022, 12, 30)), WEEK)).astype("datetime64[us]")


SYMBOLS = {
    "share days": ("AAA", "BBB"), "share hours": ("AAA", "BBB"), "share weeks": ("AAA", "BBB"),
    "currency hours": ("EURUSD",), "coin days": ("BTC-USD",), "future days": ("NQ",),
}  # fmt: skip


def walk(kind, seed, symbol):
    """A driftless random walk in prices that have four decimals: what every format can write."""
    random = np.random.default_rng([seed, sum(map(ord, symbol))])
    starts = starts_of(kind)
    close = 1_000 * np.exp(np.cumsum(random.normal(0, 0.01, len(starts))))
    open_ = np.r_[1_000.0, close[:-1]] * np.exp(random.normal(0, 0.003, len(starts)))
    high, low = np.maximum(open_, close) * 1.004, np.minimum(open_, close) * 0.996
    prices = pd.DataFrame({"open": open_, "high": high, "low": low, "close": close}).round(4)
    frame = prices.assign(timestamp=pd.DatetimeIndex(starts).tz_localize("UTC"))
    return frame.assign(volume=random.integers(1_000, 90_000, len(starts)).astype(float))


def write_panel(folder, kind, seed, disguise, rows=None):
    folder.mkdir(exist_ok=True)
    for symbol in SYMBOLS[kind]:
        disguise(walk(kind, seed, symbol).iloc[:rows], folder, symbol)
    return folder


def plain(frame, folder, symbol):
    frame.to_parquet(folder / f"{symbol}.parquet")


def local(frame, zone=NY):
    return frame["timestamp"].dt.tz_convert(zone)


def iso_offsets(frame, folder, symbol):
    frame.assign(timestamp=local(frame).map(pd.Timestamp.isoformat)).to_csv(folder / f"{symbol}.csv", index=False)


def european(frame, folder, symbol):
    stamps = frame["timestamp"].dt.strftime("%d.%m.%Y")
    frame.assign(timestamp=stamps).rename(columns=str.title).to_csv(folder / f"{symbol}.csv", index=False, sep=";", decimal=",")


def evening(frame, folder, symbol):
    """Days labelled by the time their session closes, in the exchange's zone."""
    stamps = (frame["timestamp"].dt.tz_localize(None) + pd.Timedelta("16h")).dt.tz_localize(NY)
    frame.assign(timestamp=stamps).to_parquet(folder / f"{symbol}.parquet")


def new_york_midnight(frame, folder, symbol):
    stamps = frame["timestamp"].dt.tz_localize(None).dt.tz_localize(NY)
    frame.assign(timestamp=stamps.dt.tz_convert("UTC")).to_parquet(folder / f"{symbol}.parquet")


def day_before(frame, folder, symbol):
    """A session that begins the evening before, at 17:00 in New York."""
    stamps = (frame["timestamp"].dt.tz_localize(None) - pd.Timedelta("7h")).dt.tz_localize(NY)
    frame.assign(timestamp=stamps).to_parquet(folder / f"{symbol}.parquet")


def end_labels(frame, folder, symbol):
    frame.assign(timestamp=frame["timestamp"] + HOUR).to_parquet(folder / f"{symbol}.parquet")


def metatrader(frame, folder, symbol):
    out = pd.DataFrame({"<DATE>": frame["timestamp"].dt.strftime("%Y.%m.%d"), "<TIME>": frame["timestamp"].dt.strftime("%H:%M:%S")})
    for name in ("open", "high", "low", "close"):
        out[f"<{name.upper()}>"] = frame[name]
    out["<TICKVOL>"], out["<VOL>"], out["<SPREAD>"] = frame["volume"].astype(int), 0, 2
    out.to_csv(folder / f"{symbol}.csv", index=False, sep="\t")


def binance(frame, folder, symbol):
    out = frame[["timestamp", "open", "high", "low", "close", "volume"]].set_axis(range(6), axis=1)
    out[0] = frame["timestamp"].astype("int64") // 1_000
    out[6] = out[0] + 86_399_999
    for column in range(7, 12):
        out[column] = 0
    out.to_csv(folder / f"{symbol}.csv", index=False, header=False)


def fridays(frame, folder, symbol):
    frame.assign(timestamp=frame["timestamp"] + pd.Timedelta("4D")).to_parquet(folder / f"{symbol}.parquet")


def yfinance_frame(frame, folder, symbol):
    out = frame.set_index(frame["timestamp"].dt.tz_localize(None).rename("Date")).drop(columns="timestamp").rename(columns=str.title)
    out.columns = pd.MultiIndex.from_product([out.columns, [symbol]], names=["Price", "Ticker"])
    out.to_csv(folder / f"{symbol}.csv")


def epoch_seconds(frame, folder, symbol):
    """As TradingView exports: `time` in seconds, lower case."""
    stamps = frame["timestamp"].astype("int64") // 1_000_000
    frame.assign(timestamp=stamps).rename(columns={"timestamp": "time"}).to_csv(folder / f"{symbol}.csv", index=False)


def kibot(frame, folder, symbol):
    """Date, time in New York and prices, without a header."""
    stamps = local(frame)
    parts = [
        stamps.dt.strftime("%m/%d/%Y"),
        stamps.dt.strftime("%H:%M"),
        frame[["open", "high", "low", "close"]],
        frame["volume"].astype(int),
    ]
    pd.concat(parts, axis=1).to_csv(folder / f"{symbol}.txt", index=False, header=False)


def stooq(frame, folder, symbol):
    out = pd.DataFrame({"<TICKER>": symbol, "<PER>": "D", "<DATE>": frame["timestamp"].dt.strftime("%Y%m%d"), "<TIME>": "000000"})
    for name in ("open", "high", "low", "close"):
        out[f"<{name.upper()}>"] = frame[name]
    out["<VOL>"], out["<OPENINT>"] = frame["volume"].astype(int), 0
    out.to_csv(folder / f"{symbol}.txt", index=False)


def hive(frame, folder, symbol):
    (folder / f"symbol={symbol}").mkdir()
    frame.to_parquet(folder / f"symbol={symbol}" / "part-0.parquet")


def by_year(frame, folder, symbol):
    for year, part in frame.groupby(frame["timestamp"].dt.year):
        part.to_csv(folder / f"{symbol}_{year}.csv.gz", index=False)


def feather(frame, folder, symbol):
    frame.reset_index(drop=True).to_feather(folder / f"{symbol}.feather")


DISGUISES = [
    ("share days", stooq, {}), ("share days", hive, {}), ("share days", by_year, {}), ("share days", feather, {}),
    ("share hours", epoch_seconds, {}), ("share hours", kibot, {"timezone": NY}), ("coin days", epoch_seconds, {}),
    ("share days", plain, {}), ("share days", european, {}), ("share days", evening, {}), ("share days", new_york_midnight, {}),
    ("share days", yfinance_frame, {}), ("share days", iso_offsets, {}),
    ("share hours", plain, {}), ("share hours", iso_offsets, {}), ("share hours", end_labels, {}),
    ("currency hours", plain, {}), ("currency hours", metatrader, {"timezone": "UTC"}), ("currency hours", end_labels, {}),
    ("coin days", plain, {}), ("coin days", binance, {}), ("future days", plain, {}), ("future days", day_before, {}),
    ("share weeks", plain, {}), ("share weeks", fridays, {}),
]  # fmt: skip
CALENDARS = {"share": "NYSE", "currency": "FX", "coin": "24/7", "future": "CME Globex Equity"}


def read(folder, **settings):
    return load(DataSpec(source="files", path=folder, **settings), now=NOW)


@pytest.mark.parametrize(("kind", "disguise", "settings"), DISGUISES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_disguise_gives_the_same_bars(tmp_path, kind, disguise, settings):
    bars = read(write_panel(tmp_path / "files", kind, 1, disguise), **settings)
    assert (bars.symbols, bars.calendar) == (SYMBOLS[kind], CALENDARS[kind.split()[0]])
    starts = starts_of(kind)
    if kind == "share weeks":  # labelled by the first session in the week
        sessions = sessions_around(starts[0], starts[-1], "NYSE").dates
        starts = sessions[np.searchsorted(sessions, starts.astype("datetime64[D]"))].astype("datetime64[us]")
    np.testing.assert_array_equal(bars.timestamps, starts)
    for s, symbol in enumerate(SYMBOLS[kind]):
        frame = walk(kind, 1, symbol)
        for name in ("open", "high", "low", "close", "volume"):
            np.testing.assert_allclose(getattr(bars, name)[:, s], frame[name], rtol=1e-12)
    found = inspect_bars(bars)
    assert found.errors == ()
    per_year = {"share": 251.5, "currency": 260, "coin": 365.25, "future": 258.5}[kind.split()[0]] if kind != "share weeks" else 52.18
    assert bars.sessions_per_year == pytest.approx(per_year, rel=0.02)


def rules(bars):
    """One-line rules, fully invested in what they like: mean reversion and momentum over one bar."""
    before = np.vstack([bars.mark[:1], bars.mark[:-1]])
    share = 1 / bars.n_symbols
    return (
        PrecomputedTargets("mean-reversion", np.where(bars.mark < before, share, 0.0)),
        PrecomputedTargets("one-bar-momentum", np.where(bars.mark > before, share, 0.0)),
    )


def sharpes(bars, env=EnvSpec(initial_cash=1_000_000)):  # noqa: B008 a frozen spec
    """Sharpe ratio before costs of the rules and the baselines; a walk earns nothing, and costs only ever cost."""
    free = env.model_copy(update={"costs": env.costs.model_copy(update={"commission_bps": 0.0, "slippage_bps": 0.0})})
    first = min(130, bars.n_bars // 3)
    strategies = [*rules(bars), *all_baselines(bars, first, free, 0)]
    result = run_backtests(bars, None, [Segment(Range(start=first + 1, stop=bars.n_bars))], strategies, free)
    periods = periods_of(bars, result)
    found = {slug: measure(result, row, periods).sharpe for row, slug in enumerate(result.slugs)}
    return {slug: value for slug, value in found.items() if value is not None}


@pytest.mark.parametrize("kind", sorted(SYMBOLS))
def test_nothing_shows_skill_on_random_walks(tmp_path, kind):
    """No rule's Sharpe ratio lies beyond what twenty other walks show, and the mean over all is that of luck."""
    seen = [sharpes(read(write_panel(tmp_path / str(seed), kind, seed, plain))) for seed in range(21)]
    span = starts_of(kind)
    years = (span[-1] - span[0]) / np.timedelta64(365, "D")
    for name in seen[0]:
        others = np.array([found[name] for found in seen[1:] if name in found])
        if name != "random-turnover":  # its draws are all there is to it; the mean below holds for it too
            assert abs(seen[0][name]) <= 1.5 * np.abs(others).max(), name
        everything = np.array([found[name] for found in seen if name in found])
        assert abs(everything.mean()) < 4 / np.sqrt(years * 2 / 3 * len(everything)), name


@pytest.mark.parametrize(("kind", "disguise", "settings"), DISGUISES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_file_that_ends_earlier_has_the_same_past(tmp_path, kind, disguise, settings):
    """Bars, features, decisions and accounts before the cut do not know what the longer file goes on to say."""
    rows = len(starts_of(kind))
    bars = {n: read(write_panel(tmp_path / str(n), kind, 2, disguise, n), **settings) for n in (rows - 150, rows)}
    short, whole = bars[rows - 150], bars[rows].head(bars[rows - 150].n_bars)
    for name in ("timestamps", "available_at", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(short, name), getattr(whole, name))
    features = [build_features(panel, FeatureSpec()).values for panel in (short, bars[rows])]
    np.testing.assert_array_equal(features[0], features[1][: short.n_bars])
    env, first = EnvSpec(initial_cash=1_000_000), 130
    equity = []
    for panel in (short, bars[rows]):
        strategies = [*rules(panel), *all_baselines(panel, first, env, 0)[:4]]
        equity.append(run_backtests(panel, None, [Segment(Range(start=first + 1, stop=panel.n_bars))], strategies, env).equity)
    np.testing.assert_array_equal(equity[0], equity[1][:, : equity[0].shape[1]])


# --- the clock cases, the year's length


def test_two_clocks_and_two_ways_to_label_a_day(tmp_path):
    """A random walk seen at :00 and at :30 earned 479 % a year, a pair of days under two labels 150 %: refused, and one panel."""
    mixed = tmp_path / "hours"
    mixed.mkdir()
    plain(walk("share hours", 3, "AAA"), mixed, "AAA")
    plain(walk("share hours", 3, "BBB").assign(timestamp=lambda frame: frame["timestamp"] - pd.Timedelta("30min")), mixed, "BBB")
    with pytest.raises(DataError, match=r"BBB's bar of .* is known at .*, after AAA's bar of .* has begun .* data\.timeframe=1D"):
        read(mixed)
    assert read(mixed, timeframe="1D").n_symbols == 2
    days = tmp_path / "days"
    days.mkdir()
    plain(walk("share days", 3, "AAA"), days, "AAA")
    new_york_midnight(walk("share days", 3, "BBB"), days, "BBB")
    bars = read(days)
    assert (bars.n_bars, bool(bars.tradable.all())) == (len(starts_of("share days")), True)


def test_a_year_of_weeks_has_fifty_two(tmp_path):
    """30.0 % a year in weekly bars was reported as 254.7 %."""
    starts = starts_of("share weeks")
    close = 100 * 1.3 ** (np.arange(len(starts)) * 7 / 365.2425)
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close))
    plain(frame.assign(timestamp=pd.DatetimeIndex(starts).tz_localize("UTC"), volume=1e6), tmp_path, "AAA")
    bars = read(tmp_path)
    env = EnvSpec(costs={"commission_bps": 0, "slippage_bps": 0})
    result = run_backtests(
        bars, None, [Segment(Range(start=1, stop=bars.n_bars))], [PrecomputedTargets("long", np.ones((bars.n_bars, 1)))], env
    )
    assert measure(result, 0, periods_of(bars, result)).cagr == pytest.approx(0.3, abs=0.002)


def test_a_calendar_that_is_not_the_bars_own_stops_the_run(tmp_path):
    for kind, symbol, sentence in (
        ("coin days", "AAA.US", None),  # seven days a week under a name that says nothing: taken as crypto
        ("share days", "BTC-USD", r"has 25\d\.\d sessions a year .* those of NYSE; set data\.calendar=NYSE, or data\.asset_class"),
        ("share days", "EURUSD", r"the sessions are those of NYSE"),
        ("currency hours", "AAA", r"the sessions are those of FX; set data\.asset_class=fx"),
    ):
        folder = tmp_path / symbol
        folder.mkdir()
        plain(walk(kind, 4, symbol), folder, symbol)
        if sentence is None:
            assert read(folder).instruments[0].asset_class == "crypto"
            continue
        with pytest.raises(DataError, match=sentence):
            read(folder)
    assert read(tmp_path / "BTC-USD", asset_class="equity").calendar == "NYSE"


# --- what a symbol is


def test_a_share_with_a_futures_name_is_told_apart(tmp_path):
    plain(walk("share days", 5, "ES"), tmp_path, "ES")
    with pytest.raises(ConfigError, match=r"ES is the name of a future and its bars keep the hours of the NYSE, .*asset_class=equity"):
        read(tmp_path)
    plain(walk("share days", 5, "AEP"), tmp_path, "AEP")
    with pytest.raises(ConfigError, match=r"ES is the name of a future and stands beside shares \(AEP\); .*asset_class=equity .* ES=F"):
        read(tmp_path)
    assert {each.asset_class for each in read(tmp_path, asset_class="equity").instruments} == {"equity"}


@pytest.mark.parametrize("name", ["NQ", "NQ=F", "NQH24", "NQ1!"])
def test_a_future_is_a_contract_whatever_its_name_looks_like(tmp_path, name):
    plain(walk("future days", 6, "NQ"), tmp_path, name)
    (found,) = read(tmp_path).instruments
    assert (found.symbol, found.asset_class, found.multiplier, found.lot, found.tick_size) == (name, "future", 20, 1, 0.25)


def test_a_future_that_nobody_knows_needs_its_terms(tmp_path):
    plain(walk("future days", 6, "KC"), tmp_path, "KC=F")
    with pytest.raises(ConfigError, match=r"KC=F is a future and its contract is not known; .* data\.instruments"):
        read(tmp_path)
    terms = InstrumentSpec(symbol="KC=F", asset_class="future", multiplier=375, tick_size=0.05, lot=1, calendar="CME Globex Equity")
    assert read(tmp_path, instruments=(terms,)).instruments == (terms,)


def test_prices_in_two_currencies_are_refused(tmp_path):
    for symbol in ("EURUSD", "USDJPY"):
        plain(walk("currency hours", 7, symbol), tmp_path, symbol)
    with pytest.raises(ConfigError, match=r"prices are EURUSD in USD and USDJPY in JPY; expected one currency"):
        read(tmp_path)


# --- delisting, rolls, prices below zero


def test_a_symbol_that_ends_is_paid_out_and_reported(tmp_path):
    plain(walk("share days", 8, "AAA"), tmp_path, "AAA")
    plain(walk("share days", 8, "BBB").iloc[:500], tmp_path, "BBB")
    bars = read(tmp_path)
    last = bars.close[499, 1]
    assert (bars.payout_bars.tolist(), bars.payouts[1]) == ([-1, 500], last)
    assert re.search(r"BBB ends on 2022-12-\d\d, before the others: taken as delisted and paid out at its last close", " ".join(bars.notes))
    assert read(tmp_path, delisting="zero").payouts[1] == 0
    assert read(tmp_path, delisting={"BBB": 12.5}).payouts[1] == pytest.approx(12.5)
    with pytest.raises(ConfigError, match=r"data\.delisting names AAA, which trades to the end"):
        read(tmp_path, delisting={"AAA": 1.0})
    assert bars.head(500).payouts == ()
    assert bars.head(501).payouts[1] == last
    result = run_backtests(
        bars, None, [Segment(Range(start=400, stop=bars.n_bars))], [PrecomputedTargets("hold", half_once(bars, 399))], EnvSpec()
    )
    assert result.weights[0, 110, 1] == 0
    assert "ends_early" in {finding.check for finding in inspect_bars(bars).findings}


def half_once(bars, row):
    targets = np.full((bars.n_bars, bars.n_symbols), np.nan)
    targets[row] = 0.5
    return targets


def test_gaps_at_rolls_are_found_and_removed(tmp_path):
    frame = walk("future days", 9, "NQ")
    sessions = frame["timestamp"].dt.tz_localize(None)
    rolls = [k for k in range(1, len(frame)) if sessions[k].month in (3, 6, 9, 12) and sessions[k].month == sessions[k - 1].month and
             sessions[k].day >= 10 > sessions[k - 1].day]  # fmt: skip
    factor = np.ones(len(frame))
    for k in rolls:
        factor[k:] *= 1.012
    prices = ["open", "high", "low", "close"]
    frame.loc[1:, "open"] = frame["close"].shift()[1:]
    frame[prices] = frame[prices].mul(factor, axis=0)
    frame["high"], frame["low"] = frame[prices].max(axis=1), frame[prices].min(axis=1)
    plain(frame, tmp_path, "NQ")
    gapped, clean = read(tmp_path), read(tmp_path, rolls=tuple(sessions[k].date() for k in rolls))
    growth = [bars.close[-1, 0] / bars.close[0, 0] for bars in (gapped, clean)]
    assert growth[0] / growth[1] == pytest.approx(1.012 ** len(rolls))
    assert "NQ is traded as the source gives it: gaps at rolls, if any, count as gains and losses." in gapped.notes
    assert f"NQ is back-adjusted by ratio at {len(rolls)} rolls" in clean.notes[0]
    assert "roll_gaps" in {finding.check for finding in inspect_bars(gapped).findings}
    assert "roll_gaps" not in {finding.check for finding in inspect_bars(clean).findings}


def test_crude_may_close_below_zero_and_a_share_may_not(tmp_path):
    frame = walk("future days", 10, "CL")
    prices = ["open", "high", "low", "close"]
    frame[prices] /= 20
    frame.loc[400, prices] = [1.0, 2.0, -40.32, -37.63]
    frame.loc[401, prices] = [-14.0, 13.86, -16.74, 10.01]
    (tmp_path / "oil").mkdir()
    plain(frame, tmp_path / "oil", "CL")
    terms = InstrumentSpec(symbol="CL", asset_class="future", multiplier=1000, tick_size=0.01, lot=1, calendar="CME Globex Equity")
    bars = read(tmp_path / "oil", instruments=(terms,))
    features = build_features(bars, FeatureSpec())
    assert np.isnan(features.values[400]).all()
    assert features.ready[-1].all()
    env = EnvSpec(initial_cash=1_000_000, costs={"commission_bps": 0, "slippage_bps": 0}, rebalance_band=0)
    result = run_backtests(bars, None, [Segment(Range(start=380, stop=410))], [PrecomputedTargets("hold", half_once(bars, 379))], env)
    units = result.fill_units[0, 1, 0]
    at = 401 - 380  # closes are counted from the decision
    assert units > 0
    assert result.equity[0, at] - result.equity[0, at - 1] == pytest.approx(units * 1000 * (-37.63 - bars.close[399, 0]))
    plain(frame, tmp_path, "XYZ")
    with pytest.raises(DataError, match="1 open price of zero or less"):
        read(tmp_path / "XYZ.parquet")


# --- room, dates


def test_more_symbols_than_a_run_holds_are_refused_when_files_are_listed(tmp_path):
    for k in range(513):
        (tmp_path / f"S{k:03d}.csv").write_text("date,open,high,low,close,volume\nnot,to,be,read,at,all\n")
    with pytest.raises(ConfigError, match=r"found 513 symbols; a run holds 512 at most; name fewer with data\.symbols"):
        read(tmp_path)


def test_a_start_is_the_first_session_and_not_a_time_of_day(tmp_path):
    plain(walk("currency hours", 11, "EURUSD"), tmp_path, "EURUSD")
    bars = read(tmp_path, start="2023-01-09", end="2023-01-13")
    assert (str(bars.timestamps[0]), str(bars.timestamps[-1])) == ("2023-01-08T22:00:00.000000", "2023-01-13T21:00:00.000000")
    assert np.unique(bars.sessions).tolist() == [date(2023, 1, day) for day in range(9, 14)]
    with pytest.raises(DataError, match="no bars between 2030-01-01 and its end"):
        read(tmp_path, start="2030-01-01")


# --- bars of another length, symbols that vanish, what is told from days


def dated(folder, stamps, symbol="AAA", start=0):
    """A walk at given times."""
    frame = walk("coin days", 12, symbol).iloc[start : start + len(stamps)]
    folder.mkdir(exist_ok=True)
    plain(frame.assign(timestamp=pd.DatetimeIndex(stamps).tz_localize("UTC").as_unit("us")), folder, symbol)
    return folder


@pytest.mark.parametrize("freq", ["MS", "ME", "7D"])
def test_months_and_weeks_of_a_share_do_not_trade_at_weekends(tmp_path, freq):
    (found,) = read(dated(tmp_path, pd.date_range("2015-01-05" if freq == "7D" else "2015-01-01", periods=100, freq=freq))).instruments
    assert (found.asset_class, found.calendar) == ("equity", "NYSE")


def test_a_short_file_of_a_coin_is_no_share(tmp_path):
    assert read(dated(tmp_path / "days", pd.date_range("2024-01-01", periods=9), "FOO")).calendar == "24/7"
    short = dated(tmp_path / "hours", pd.date_range("2024-01-02", periods=60, freq="h"), "FOO")
    with pytest.raises(ConfigError, match=r"FOO has bars in all 24 hours of the day, .* set data\.asset_class=crypto"):
        read(short)
    assert read(short, asset_class="crypto").calendar == "24/7"


@pytest.mark.parametrize("timeframe", ["auto", "1D"])
def test_a_series_whose_bars_change_their_length_is_refused(tmp_path, timeframe):
    stamps = pd.date_range("2023-09-01", "2023-12-31").append(pd.date_range("2024-01-01", periods=400, freq="h"))
    with pytest.raises(DataError, match=r"BTC-USD has bars of 1D before 2024-01-01 00:00Z and of 1h from there; expected one length"):
        read(dated(tmp_path, stamps, "BTC-USD"), timeframe=timeframe)


def test_a_symbol_without_a_complete_bar_is_named(tmp_path):
    days = starts_of("share days")
    dated(tmp_path, days[:15], "AAA")
    with pytest.raises(DataError, match=r"has no complete bar of 1M of AAA; expected at least one of each symbol; .* data\.timeframe$"):
        read(tmp_path, timeframe="1M")
    dated(tmp_path, days[:60], "AAA")
    dated(tmp_path, days[58:60], "NEW")
    with pytest.raises(DataError, match=r"no complete bar of 1M of NEW; .* or name the other symbols with data\.symbols"):
        read(tmp_path, timeframe="1M")
    bars = read(tmp_path, timeframe="1M", symbols=("AAA",))
    assert bars.notes[-1] == "Incomplete bars of 1M left out: 1 of AAA."


def test_nothing_is_left_of_bars_that_are_not_over(tmp_path):
    dated(tmp_path, pd.date_range("2026-01-05", periods=24, freq="h"), "BTC-USD")
    with pytest.raises(DataError, match=r"has no finished bar"):
        read(tmp_path, timeframe="1D")  # at noon of that day


@pytest.mark.parametrize(
    ("calendar", "remedy"),
    [("FX", "set data.asset_class=fx"), ("24/7", "set data.asset_class=crypto"), ("CME Globex Equity", "name the future as NQ, NQ=F")],
)
def test_a_share_is_not_traded_on_the_calendar_of_another_class(tmp_path, calendar, remedy):
    dated(tmp_path, starts_of("future days")[:300])
    with pytest.raises(ConfigError, match=f"AAA is taken as a share by its name, and data.calendar is {calendar}, .*{remedy}"):
        read(tmp_path, calendar=calendar)


@pytest.mark.parametrize(
    ("calendar", "remedy"),
    [("CME Globex Equity", "name the future as NQ"), ("HKEX", r"set data\.calendar=HKEX"), ("FX", r"set data\.asset_class=fx")],
)
def test_the_calendar_that_fits_keeps_the_hours_too(tmp_path, calendar, remedy):
    dated(tmp_path, expected_bars(calendar, HOUR, date(2024, 2, 1), date(2024, 3, 28), 30 if calendar == "HKEX" else 0)[:700])
    with pytest.raises(DataError, match=rf"the sessions are those of {calendar}; {remedy}"):
        read(tmp_path)


def test_a_short_share_has_no_weekends(tmp_path):
    days = starts_of("share days")[:20]
    with pytest.raises(DataError, match="NYSE lacks 1 of them and holds 0 more"):
        read(dated(tmp_path, np.sort(np.r_[days, np.datetime64("2021-01-16", "us")])))


def test_an_adjustment_that_is_wrong_is_refused_and_a_doubtful_one_noted(tmp_path, monkeypatch):
    frame = walk("share days", 13, "AAA")
    plain(frame.assign(adj_close=frame["close"]), tmp_path, "AAA")
    for severity in ("warning", "error"):
        finding = Finding("AAA", "adjustment_level", severity, np.empty(0, dtype="datetime64[us]"), "AAA has an odd adj_close")
        monkeypatch.setattr(loader, "inspect_adjustment", lambda frame, finding=finding: [finding])
        if severity == "warning":
            assert "AAA has an odd adj_close" in read(tmp_path).notes
            continue
        with pytest.raises(DataError, match="AAA has an odd adj_close"):
            read(tmp_path)
