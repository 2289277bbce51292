"""Files as people have them: each way of writing bars gives the instants, prices and symbols that it means, or one sentence."""

import gzip
import io
import zipfile
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ploutos.errors import ConfigError, DataError, UnknownSymbol
from ploutos.market.sources.file_formats import FileFormat
from ploutos.market.sources.files import digests, find, read, symbols_of

NEW_YORK = {"timezone": "America/New_York"}
HEAD = "timestamp,open,high,low,close,volume\n"


def bars(*stamps: str, separator: str = ",") -> str:
    """One row a stamp: open 10, high 12, low 9, close 11, 12 and so on, volume 100."""
    return "".join(separator.join([stamp, "10", "13", "9", f"{11 + 0.5 * i:g}", "100"]) + "\n" for i, stamp in enumerate(stamps))


def write(folder: Any, files: dict[str, Any]) -> Any:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def rows(found: Any) -> list[tuple[Any, ...]]:
    frame = found.frame
    stamps = frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S").str.removesuffix(" 00:00:00")
    return [
        tuple(row)
        for row in zip(frame["symbol"], stamps, frame["open"], frame["high"], frame["low"], frame["close"], frame["volume"], strict=True)
    ]


DAY_1, DAY_2 = ("2024-01-30", 10.0, 13.0, 9.0, 11.0, 100.0), ("2024-01-31", 10.0, 13.0, 9.0, 11.5, 100.0)
HOUR_1, HOUR_2 = ("2024-01-30 14:30:00", *DAY_1[1:]), ("2024-01-30 15:30:00", *DAY_2[1:])
LATER_1, LATER_2 = ("2024-01-30 09:30:00", *DAY_1[1:]), ("2024-01-30 10:30:00", *DAY_2[1:])

FORMATS: dict[str, tuple[str, Any, dict[str, Any], str, list[tuple[Any, ...]]]] = {
    "semicolon": ("A.csv", HEAD.replace(",", ";") + bars("2024-01-30", "2024-01-31", separator=";"), {}, "A", [DAY_1, DAY_2]),
    "tab": ("A.tsv", HEAD.replace(",", "\t") + bars("2024-01-30", "2024-01-31", separator="\t"), {}, "A", [DAY_1, DAY_2]),
    "pipe": ("A.txt", HEAD.replace(",", "|") + bars("2024-01-30", "2024-01-31", separator="|"), {}, "A", [DAY_1, DAY_2]),
    "trailing separators in rows": ("A.csv", HEAD + bars("2024-01-30", "2024-01-31").replace("100\n", "100,\n"), {}, "A", [DAY_1, DAY_2]),
    "trailing separators": ("A.csv", (HEAD + bars("2024-01-30", "2024-01-31")).replace("\n", ",\n"), {}, "A", [DAY_1, DAY_2]),
    "decimal comma": (
        "A.csv",
        "Date;Open;High;Low;Close;Volume\n30.01.2024;1.010,5;1.013,25;1.009,0;1.011,0;1.234\n",
        {},
        "A",
        [("2024-01-30", 1010.5, 1013.25, 1009.0, 1011.0, 1234.0)],
    ),
    "decimal comma alone": (
        "A.csv",
        "Date;Open;High;Low;Close;Volume\n2024-01-30;10,5;13,25;9;11;100\n",
        {},
        "A",
        [("2024-01-30", 10.5, 13.25, 9.0, 11.0, 100.0)],
    ),
    "thousands in volume": (
        "A.csv",
        'Date,Open,High,Low,Close,Volume\n2024-01-30,10.25,13.25,9.25,11.25,"1,234,567"\n',
        {},
        "A",
        [("2024-01-30", 10.25, 13.25, 9.25, 11.25, 1234567.0)],
    ),
    "thousands, told": (
        "A.csv",
        'Date,Open,High,Low,Close,Volume\n2024-01-30,"1,010","1,013","1,009","1,011",100\n',
        {"format": FileFormat(decimal="point")},
        "A",
        [("2024-01-30", 1010.0, 1013.0, 1009.0, 1011.0, 100.0)],
    ),
    "apostrophes": (
        "A.csv",
        "Date,Open,High,Low,Close,Volume\n2024-01-30,1'010.5,1'013,1'009,1'011,100\n",
        {},
        "A",
        [("2024-01-30", 1010.5, 1013.0, 1009.0, 1011.0, 100.0)],
    ),
    "missing numbers": (
        "A.csv",
        HEAD + "2024-01-30,10,13,9,11,NA\n2024-01-31,10,13,9,11.5,100\n",
        {},
        "A",
        [(*DAY_1[:-1], "nan"), DAY_2],
    ),
    "scientific": ("A.csv", HEAD + "2024-01-30,1E1,1.3e+1,9,11,1e2\n", {}, "A", [DAY_1]),
    "blank and comment lines": (
        "A.csv",
        "# made by hand\n\n" + HEAD + "\n" + bars("2024-01-30") + "# a remark\n   \n,,,,,\n2024-01-31,10,13,9,11.5,100\n\n",
        {},
        "A",
        [DAY_1, DAY_2],
    ),
    "a line above the header": ("A.csv", "https://prices.example\n" + HEAD + bars("2024-01-30", "2024-01-31"), {}, "A", [DAY_1, DAY_2]),
    "a commented header": ("A.csv", "# " + HEAD + bars("2024-01-30", "2024-01-31"), {}, "A", [DAY_1, DAY_2]),
    "a separator for Excel": ("A.csv", "sep=;\n" + (HEAD + bars("2024-01-30", "2024-01-31")).replace(",", ";"), {}, "A", [DAY_1, DAY_2]),
    "carriage returns": ("A.csv", (HEAD + bars("2024-01-30", "2024-01-31")).replace("\n", "\r\n"), {}, "A", [DAY_1, DAY_2]),
    "UTF-8 with a mark": ("A.csv", ("\ufeff" + HEAD + bars("2024-01-30", "2024-01-31")).encode(), {}, "A", [DAY_1, DAY_2]),
    "UTF-16": ("A.csv", (HEAD + bars("2024-01-30", "2024-01-31")).encode("utf-16"), {}, "A", [DAY_1, DAY_2]),
    "UTF-16 without a mark": ("A.csv", (HEAD + bars("2024-01-30", "2024-01-31")).encode("utf-16-le"), {}, "A", [DAY_1, DAY_2]),
    "Latin": (
        "A.csv",
        ("Datum;Eröffnung;Höchst;Tief;Schluß;Stück\n" + bars("30.01.2024", "31.01.2024", separator=";")).encode("latin-1"),
        {
            "format": FileFormat(
                columns={"date": "Datum", "open": "Eröffnung", "high": "Höchst", "low": "Tief", "close": "Schluß", "volume": "Stück"}
            )
        },
        "A",
        [DAY_1, DAY_2],
    ),
    "gz": ("A.csv.gz", gzip.compress((HEAD + bars("2024-01-30", "2024-01-31")).encode()), {}, "A", [DAY_1, DAY_2]),
    # timestamps
    "seconds": ("A.csv", HEAD + bars("1706625000", "1706628600"), {}, "A", [HOUR_1, HOUR_2]),
    "milliseconds": ("A.csv", HEAD + bars("1706625000000", "1706628600000"), {}, "A", [HOUR_1, HOUR_2]),
    "microseconds": ("A.csv", HEAD + bars("1706625000000000", "1706628600000000"), {}, "A", [HOUR_1, HOUR_2]),
    "nanoseconds": ("A.csv", HEAD + bars("1706625000000000000", "1706628600000000000"), {}, "A", [HOUR_1, HOUR_2]),
    "both milliseconds and microseconds": ("A.csv", HEAD + bars("1706625000000", "1706628600000000"), {}, "A", [HOUR_1, HOUR_2]),
    "seconds with a fraction": ("A.csv", HEAD + bars("1706625000.0", "1706628600.0"), {}, "A", [HOUR_1, HOUR_2]),
    "early seconds, told": (
        "A.csv",
        HEAD + bars("86400", "172800"),
        {"format": FileFormat(epoch="s")},
        "A",
        [("1970-01-02", *DAY_1[1:]), ("1970-01-03", *DAY_2[1:])],
    ),
    "day first": ("A.csv", HEAD + bars("30/01/2024", "31/01/2024"), {}, "A", [DAY_1, DAY_2]),
    "month first": ("A.csv", HEAD + bars("01/30/2024", "01/31/2024"), {}, "A", [DAY_1, DAY_2]),
    "two digits of the year": ("A.csv", HEAD + bars("1/30/24", "1/31/24"), {}, "A", [DAY_1, DAY_2]),
    "day first, told": (
        "A.csv",
        HEAD + bars("01/02/2024", "02/02/2024"),
        {"format": FileFormat(day_first=True)},
        "A",
        [("2024-02-01", *DAY_1[1:]), ("2024-02-02", *DAY_2[1:])],
    ),
    "day, name, year": ("A.csv", HEAD + bars("30-Jan-2024", "31-Jan-24"), {}, "A", [DAY_1, DAY_2]),
    "name, day, year": ("A.csv", HEAD + bars('"Jan 30, 2024"', '"January 31, 2024"'), {}, "A", [DAY_1, DAY_2]),
    "years of two digits first": (
        "A.csv",
        HEAD + bars("23-12-29", "23-12-30", "23-12-31", "24-01-01", "24-01-02"),
        {},
        "A",
        [
            (day, 10.0, 13.0, 9.0, 11 + 0.5 * i, 100.0)
            for i, day in enumerate(["2023-12-29", "2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02"])
        ],
    ),
    "weekday, day, name": ("A.csv", HEAD + bars('"Tue, 30 Jan 2024"', '"Wed, 31 Jan 2024"'), {}, "A", [DAY_1, DAY_2]),
    "compact": ("A.csv", HEAD + bars("20240130", "20240131"), {}, "A", [DAY_1, DAY_2]),
    "compact with a time": ("A.csv", HEAD + bars("20240130 093000", "20240130 103000"), NEW_YORK, "A", [HOUR_1, HOUR_2]),
    "compact in one": ("A.csv", HEAD + bars("20240130093000", "20240130103000"), NEW_YORK, "A", [HOUR_1, HOUR_2]),
    "compact without seconds": ("A.csv", HEAD + bars("202401300930", "202401301030"), NEW_YORK, "A", [HOUR_1, HOUR_2]),
    "compact ISO": ("A.csv", HEAD + bars("20240130T143000Z", "20240130T153000Z"), {}, "A", [HOUR_1, HOUR_2]),
    "twelve hours": ("A.csv", HEAD + bars("01/30/2024 2:30:00 PM", "01/30/2024 3:30 p.m."), {"timezone": "UTC"}, "A", [HOUR_1, HOUR_2]),
    "noon and midnight": (
        "A.csv",
        HEAD + bars("2024-01-30 12:00 AM", "2024-01-30 12:30 PM"),
        {"timezone": "UTC"},
        "A",
        [DAY_1, ("2024-01-30 12:30:00", *DAY_2[1:])],
    ),
    "hours of a coin": (
        "A.csv",
        HEAD + bars("2024-01-30 02-PM", "2024-01-30 03-PM"),
        {"timezone": "UTC"},
        "A",
        [("2024-01-30 14:00:00", *DAY_1[1:]), ("2024-01-30 15:00:00", *DAY_2[1:])],
    ),
    "date and time": (
        "A.csv",
        "Date,Time,Open,High,Low,Close,Volume\n" + bars("2024-01-30,09:30", "2024-01-30,10:30"),
        NEW_YORK,
        "A",
        [HOUR_1, HOUR_2],
    ),
    "date and digits": (
        "A.csv",
        "Date,Time,Open,High,Low,Close,Volume\n" + bars("20240130,93000", "20240130,103000"),
        NEW_YORK,
        "A",
        [HOUR_1, HOUR_2],
    ),
    "date and four digits": (
        "A.csv",
        "Date,Time,Open,High,Low,Close,Volume\n" + bars("1/30/2024,930", "1/30/2024,1030"),
        NEW_YORK,
        "A",
        [HOUR_1, HOUR_2],
    ),
    "told by strptime": (
        "A.csv",
        HEAD + bars("30|2024|01 0930", "30|2024|01 1030"),
        {"format": FileFormat(dates="%d|%Y|%m %H%M"), **NEW_YORK},
        "A",
        [HOUR_1, HOUR_2],
    ),
    "nanoseconds in ISO": (
        "A.csv",
        HEAD + bars("2024-01-30T14:30:00.000000000Z", "2024-01-30T15:30:00.000000000Z"),
        {},
        "A",
        [HOUR_1, HOUR_2],
    ),
    "offsets": ("A.csv", HEAD + bars("2024-01-30T09:30:00-05:00", "2024-01-30T10:30:00-0500"), {}, "A", [HOUR_1, HOUR_2]),
    "offsets that differ": ("A.csv", HEAD + bars("2024-01-30 14:30:00+00:00", "2024-01-30 10:30:00-05:00"), {}, "A", [HOUR_1, HOUR_2]),
    "offsets of summer time": (
        "A.csv",
        HEAD + bars("2024-03-08 09:30:00-05:00", "2024-03-11 09:30:00-04:00"),
        {},
        "A",
        [("2024-03-08 14:30:00", *DAY_1[1:]), ("2024-03-11 13:30:00", *DAY_2[1:])],
    ),
    "a browser's dates": (
        "A.csv",
        HEAD
        + bars("Tue Jan 30 2024 09:30:00 GMT-0500 (Eastern Standard Time)", "Tue Jan 30 2024 10:30:00 GMT-0500 (Eastern Standard Time)"),
        {},
        "A",
        [HOUR_1, HOUR_2],
    ),
    "small letters": ("A.csv", HEAD + bars("2024-01-30t14:30:00z", "2024-01-30t15:30:00z"), {}, "A", [HOUR_1, HOUR_2]),
    "abbreviations": ("A.csv", HEAD + bars("2024-01-30 09:30:00 EST", "2024-01-30 15:30:00 UTC"), {}, "A", [HOUR_1, HOUR_2]),
    "Tokyo midnights": ("A.csv", HEAD + bars("2024-01-31T00:00+09:00"), {}, "A", [("2024-01-30 15:00:00", *DAY_1[1:])]),
    "a fixed offset, set": ("A.csv", HEAD + bars("2024-01-30 09:30", "2024-01-30 10:30"), {"timezone": "-05:00"}, "A", [HOUR_1, HOUR_2]),
    # programs and vendors
    "yfinance": (
        "x.csv",
        "Price,Close,High,Low,Open,Volume\nTicker,LOW,LOW,LOW,LOW,LOW\nDate,,,,,\n2024-01-30,11.0,13.0,9.0,10.0,100\n2024-01-31,11.5,13.0,9.0,10.0,100\n",
        {},
        "LOW",
        [DAY_1, DAY_2],
    ),
    "yfinance, two lines": (
        "x.csv",
        "Date,Close,High,Low,Open,Volume\n,SPY,SPY,SPY,SPY,SPY\n2024-01-30,11.0,13.0,9.0,10.0,100\n2024-01-31,11.5,13.0,9.0,10.0,100\n",
        {},
        "SPY",
        [DAY_1, DAY_2],
    ),
    "yfinance, by ticker": (
        "x.csv",
        "Ticker,7203,7203,7203,7203,7203\nPrice,Open,High,Low,Close,Volume\nDate,,,,,\n" + bars("2024-01-30", "2024-01-31"),
        {},
        "7203",
        [DAY_1, DAY_2],
    ),
    "pandas without an index name": ("A.csv", ",open,high,low,close,volume\n" + bars("2024-01-30", "2024-01-31"), {}, "A", [DAY_1, DAY_2]),
    "pandas with row numbers": (
        "A.csv",
        ",date,open,high,low,close,volume\n" + bars("0,2024-01-30", "1,2024-01-31"),
        {},
        "A",
        [DAY_1, DAY_2],
    ),
    "MetaTrader 5": (
        "EURUSD.csv",
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2024.01.30\t09:30:00\t10\t13\t9\t11\t100\t0\t5\n2024.01.30\t10:30:00\t10\t13\t9\t11.5\t100\t0\t5\n",
        {"timezone": "UTC"},
        "EURUSD",
        [LATER_1, LATER_2],
    ),
    "MetaTrader 4": ("EURUSD.csv", bars("2024.01.30,09:30", "2024.01.30,10:30"), {"timezone": "UTC"}, "EURUSD", [LATER_1, LATER_2]),
    "Binance": (
        "BTCUSDT-1h-2024-01.csv",
        "1706625000000,10,13,9,11,100,1706628599999,5,7,1,2,0\n1706628600000,10,13,9,11.5,100,1706632199999,5,7,1,2,0\n",
        {},
        "BTCUSDT",
        [HOUR_1, HOUR_2],
    ),
    "Binance with a header": (
        "BTCUSDT-1h-2025-01-30.csv",
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
        "1706625000000000,10,13,9,11,100,1706628599999999,5,7,1,2,0\n1706628600000000,10,13,9,11.5,100,1706632199999999,5,7,1,2,0\n",
        {},
        "BTCUSDT",
        [HOUR_1, HOUR_2],
    ),
    "TradingView": (
        "NASDAQ_AAPL.csv",
        "time,open,high,low,close,Volume,Volume MA\n1706625000,10,13,9,11,100,NaN\n1706628600,10,13,9,11.5,100,NaN\n",
        {},
        "NASDAQ_AAPL",
        [HOUR_1, HOUR_2],
    ),
    "TradingView, ISO": (
        "A.csv",
        "time,open,high,low,close,Volume\n" + bars("2024-01-30T09:30:00-05:00", "2024-01-30T10:30:00-05:00"),
        {},
        "A",
        [HOUR_1, HOUR_2],
    ),
    "Kibot": ("IBM.txt", bars("01/30/2024,09:30", "01/30/2024,10:30"), NEW_YORK, "IBM", [HOUR_1, HOUR_2]),
    "Kibot, daily": ("IBM.txt", bars("01/30/2024", "01/31/2024"), {}, "IBM", [DAY_1, DAY_2]),
    "Interactive Brokers": (
        "A.csv",
        "date,open,high,low,close,volume\n" + bars("20240130 09:30:00 US/Eastern", "20240130 10:30:00 US/Eastern"),
        {},
        "A",
        [HOUR_1, HOUR_2],
    ),
    "Interactive Brokers, naive": (
        "A.csv",
        "date,open,high,low,close,volume\n" + bars("20240130  09:30:00", "20240130  10:30:00"),
        NEW_YORK,
        "A",
        [HOUR_1, HOUR_2],
    ),
    "Stooq": (
        "aapl.us.txt",
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "AAPL.US,D,20240130,000000,10,13,9,11,100,0\nAAPL.US,D,20240131,000000,10,13,9,11.5,100,0\n",
        {},
        "AAPL.US",
        [DAY_1, DAY_2],
    ),
    "Dukascopy": (
        "A.csv",
        "Gmt time,Open,High,Low,Close,Volume\n" + bars("30.01.2024 14:30:00.000", "30.01.2024 15:30:00.000"),
        {},
        "A",
        [HOUR_1, HOUR_2],
    ),
    "Dukascopy, local": (
        "A.csv",
        "Local time,Open,High,Low,Close,Volume\n" + bars("30.01.2024 09:30:00.000 GMT-0500", "30.01.2024 10:30:00.000 GMT-0500"),
        {},
        "A",
        [HOUR_1, HOUR_2],
    ),
    "Alpha Vantage": (
        "A.csv",
        "date,1. open,2. high,3. low,4. close,5. volume\n" + bars("2024-01-30", "2024-01-31"),
        {},
        "A",
        [DAY_1, DAY_2],
    ),
    "FirstRate": ("A.txt", bars("2024-01-30 09:30:00", "2024-01-30 10:30:00"), NEW_YORK, "A", [HOUR_1, HOUR_2]),
    "HistData": ("A.csv", bars("20240130 093000", "20240130 103000", separator=";"), NEW_YORK, "A", [HOUR_1, HOUR_2]),
    "a symbol first": ("x.csv", bars("NA,2024-01-30", "NA,2024-01-31"), {}, "NA", [DAY_1, DAY_2]),
    "NASDAQ": (
        "A.csv",
        'Date,Close/Last,Volume,Open,High,Low\n01/31/2024,$11.50,100,$10.00,$13.00,$9.00\n01/30/2024,"$1,011.00",100,$10.00,$13.00,$9.00\n',
        {},
        "A",
        [DAY_2, ("2024-01-30", 10.0, 13.0, 9.0, 1011.0, 100.0)],
    ),
    "Investing.com": (
        "A.csv",
        '\ufeff"Date","Price","Open","High","Low","Vol.","Change %"\n"01/31/2024","11.50","10.00","13.00","9.00","1.25M","0.10%"\n'
        '"01/30/2024","11.00","10.00","13.00","9.00","12.5K","-0.10%"\n',
        {},
        "A",
        [(*DAY_2[:-1], 1_250_000.0), (*DAY_1[:-1], 12_500.0)],
    ),
    "CryptoDataDownload": (
        "x.csv",
        "https://prices.example\nunix,date,symbol,open,high,low,close,Volume BTC,Volume USDT\n"
        "1706625000,2024-01-30 14:30:00,BTC/USDT,10,13,9,11,100,1100\n1706628600000,2024-01-30 15:30:00,BTC/USDT,10,13,9,11.5,100,1150\n",
        {},
        "BTC/USDT",
        [HOUR_1, HOUR_2],
    ),
    "letters": ("A.csv", "t,o,h,l,c,v\n" + bars("1706625000000", "1706628600000"), {}, "A", [HOUR_1, HOUR_2]),
    "FinRL": ("x.csv", "date,open,high,low,close,volume,tic\n2024-01-30,10,13,9,11,100,TRUE\n", {}, "TRUE", [DAY_1]),
    "numbered columns": (
        "A.csv",
        "11,100,2024-01-30,9,13,10\n11.5,100,2024-01-31,9,13,10\n",
        {"format": FileFormat(header=False, columns={"close": 1, "volume": 2, "date": 3, "low": 4, "high": 5, "open": 6})},
        "A",
        [DAY_1, DAY_2],
    ),
    "a symbol by name": ("SPY_1min_raw.csv", HEAD + bars("2024-01-30"), {"format": FileFormat(symbol="{symbol}_*")}, "SPY", [DAY_1]),
    "a symbol, told": ("x.csv", HEAD + bars("2024-01-30"), {"format": FileFormat(symbol="000001")}, "000001", [DAY_1]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_way_of_writing_bars_is_read(tmp_path, name):
    file, content, settings, symbol, expected = FORMATS[name]
    found = rows(read(write(tmp_path, {file: content}) / file, **settings))
    assert str(found) == str([(symbol, *row) for row in expected]).replace("'nan'", "nan")


# --- symbols and folders


@pytest.mark.parametrize("symbol", ["NA", "TRUE", "NaN", "INF", "1E5", "000001", "JAN1", "nan", "null", "None", "1.0", "-"])
def test_a_symbol_is_text_whatever_it_looks_like(tmp_path, symbol):
    write(tmp_path, {"long.csv": HEAD.replace("timestamp", "Ticker,timestamp") + bars(f"{symbol},2024-01-30", f"{symbol},2024-01-31")})
    assert rows(read(tmp_path)) == [(symbol, *DAY_1), (symbol, *DAY_2)]
    write(tmp_path / "named", {f"{symbol}.csv": HEAD + bars("2024-01-30")})
    assert rows(read(tmp_path / "named")) == [(symbol, *DAY_1)]


def frame(*stamps: Any, symbol: Any = None) -> pd.DataFrame:
    result = pd.read_csv(io.StringIO(HEAD + bars(*(["x"] * len(stamps))))).assign(timestamp=list(stamps))
    return result if symbol is None else result.assign(symbol=symbol)


def test_symbols_in_parquet_may_be_categories_or_integers(tmp_path):
    for symbol in (pd.Categorical(["1", "NA"]), [1, 2]):
        frame("2024-01-30", "2024-01-31", symbol=symbol).to_parquet(tmp_path / "x.parquet")
        assert [row[0] for row in rows(read(tmp_path / "x.parquet"))] == [str(each) for each in symbol]


def test_hive_folders_name_symbols_and_years(tmp_path):
    for folder, day in (
        ("symbol=BRK%2FB/year=2024", "2024-01-30"),
        ("symbol=BRK%2FB/year=2025", "2025-01-30"),
        ("symbol=1/year=2024", "2024-01-31"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        frame(pd.Timestamp(day)).to_parquet(tmp_path / folder / "part-0.parquet")
    assert [row[:2] for row in rows(read(tmp_path))] == [("1", "2024-01-31"), ("BRK/B", "2024-01-30"), ("BRK/B", "2025-01-30")]
    assert rows(read(tmp_path / "symbol=1")) == [("1", "2024-01-31", *DAY_1[1:])]
    assert symbols_of(tmp_path) == ["1", "BRK/B"]
    assert len(set(digests(tmp_path))) == len(find(tmp_path)) == 3


def test_files_of_years_hold_one_symbol_and_other_names_are_symbols(tmp_path):
    names = ("AAPL_2019.csv", "AAPL-2020.csv", "IBM_2019-01-01_2019-12-31.csv", "BRK.B.csv", "ES_5.csv", "BTCUSDT-1d-2024-01.csv")
    write(tmp_path, {name: HEAD + bars(f"20{10 + i}-01-30") for i, name in enumerate(names)})
    assert symbols_of(tmp_path) == sorted(set(read(tmp_path).frame["symbol"])) == ["AAPL", "BRK.B", "BTCUSDT", "ES_5", "IBM"]


def test_files_that_hold_one_symbol_twice_are_refused(tmp_path):
    write(tmp_path, {name: HEAD + bars("2024-01-30", "2024-01-31") for name in ("FUND_2030.csv", "FUND_2035.csv")})
    with pytest.raises(DataError, match=r"FUND_2030.csv and FUND_2035.csv both hold FUND and overlap .* data.format.symbol=\{symbol\}"):
        read(tmp_path)
    assert set(read(tmp_path, format=FileFormat(symbol="{symbol}")).frame["symbol"]) == {"FUND_2030", "FUND_2035"}


def test_wanted_symbols_are_read_and_the_others_left(tmp_path):
    write(tmp_path, {"A.csv": HEAD + bars("2024-01-30"), "B.csv": HEAD + bars("soon")})
    assert rows(read(tmp_path, wanted=["A"])) == [("A", *DAY_1)]
    with pytest.raises(UnknownSymbol, match=r"has no symbol C; it holds A, B"):
        read(tmp_path, wanted=["A", "C"])
    write(tmp_path, {"long.csv": "symbol," + HEAD + bars("A,2024-01-30", "D,2024-01-30"), "B.csv": HEAD + bars("2024-01-30")})
    assert [row[0] for row in rows(read(tmp_path, wanted=["D"]))] == ["D"]
    assert symbols_of(tmp_path) is None


def test_what_is_no_bars_is_skipped_beside_bars(tmp_path):
    strays = ("README.md", ".DS_Store", "._A.csv", "manifest.csv", "A.csv.lock", "notes.txt", ".hidden/B.csv")
    write(
        tmp_path,
        {
            "A.csv": HEAD + bars("2024-01-30"),
            "about.txt": "Columns: date, open, high, low, close\nEnjoy.\n",
            **{name: "symbol,rows,first\nA,1,2024-01-30\n" for name in strays},
        },
    )
    found = read(tmp_path)
    assert [row[0] for row in rows(found)] == ["A"]
    assert found.notes == (".DS_Store, ._A.csv, A.csv.lock and 4 more: skipped, since there are no bars in it.",)
    with pytest.raises(
        DataError, match=r"manifest.csv has no column timestamp, open.*; found 'symbol', 'rows', 'first' \(separated by comma\)"
    ):
        read(tmp_path / "manifest.csv")


def test_a_zip_holds_one_file(tmp_path):
    for members in (["A.csv"], ["A.csv", "B.csv"]):
        with zipfile.ZipFile(tmp_path / "X.zip", "w") as archive:
            for member in members:
                archive.writestr(member, HEAD + bars("2024-01-30"))
        if len(members) == 1:
            assert rows(read(tmp_path / "X.zip")) == [("X", *DAY_1)]
    with pytest.raises(DataError, match=r"X\.zip holds 2 files; expected one; unpack it into a folder and set data\.path"):
        read(tmp_path / "X.zip")


def test_columns_of_two_levels_hold_many_symbols(tmp_path):
    index = pd.DatetimeIndex(["2024-01-30", "2024-01-31"], name="Date")
    wide = pd.concat(
        {s: frame(*index).set_index(index)[["open", "high", "low", "close", "volume"]] for s in ("A", "B")},
        axis=1,
        names=["Ticker", "Price"],
    )
    wide.loc["2024-01-30", "B"] = np.nan  # listed later
    fields_first = wide.swaplevel(axis=1).sort_index(axis=1)
    texts = wide.set_axis([str(column) for column in wide.columns], axis=1)
    for i, each in enumerate((wide, fields_first, wide.reset_index(), texts, wide.rename_axis(index=None))):
        each.to_parquet(tmp_path / f"{i}.parquet")
        each.to_csv(tmp_path / f"{i}.csv")
        files = [f"{i}.parquet"] if each is texts else [f"{i}.parquet", f"{i}.csv"]
        for file in files:
            assert rows(read(tmp_path / file)) == [("A", *DAY_1), ("A", *DAY_2), ("B", *DAY_2)], file
    assert rows(read(tmp_path / "0.csv", wanted=["B"])) == [("B", *DAY_2)]


@pytest.mark.parametrize(
    ("stamps", "zone", "expected"),
    [
        (["2024-01-30T09:30"], "America/New_York", "America/New_York, as given"),
        (["2024-01-30T14:30"], "UTC", "UTC, as given"),
        (["2024-01-30T09:30"], None, "America/New_York, as set"),
    ],
)
def test_arrow_files_are_read_like_parquet(tmp_path, stamps, zone, expected):
    table = frame(*pd.DatetimeIndex(stamps, tz=zone))
    table.to_parquet(tmp_path / "A.parquet")
    table.to_feather(tmp_path / "A.feather")
    table.to_feather(tmp_path / "A.arrow")
    table.set_index("timestamp").rename_axis(index=None).to_parquet(tmp_path / "A.pq")
    for kind in ("parquet", "feather", "arrow", "pq"):
        found = read(tmp_path / f"A.{kind}", **NEW_YORK)
        assert (rows(found), found.zone) == ([("A", *HOUR_1)], expected)


def test_dates_times_and_integers_in_parquet(tmp_path):
    day, clock = pd.Timestamp("2024-01-30"), pd.Timestamp("09:30").time()
    frame(day.date()).to_parquet(tmp_path / "dates.parquet")
    assert rows(read(tmp_path / "dates.parquet")) == [("dates", *DAY_1)]
    frame(20240130).to_parquet(tmp_path / "numbers.parquet")
    assert rows(read(tmp_path / "numbers.parquet")) == [("numbers", *DAY_1)]
    frame(1706625000.0).to_parquet(tmp_path / "floats.parquet")
    assert rows(read(tmp_path / "floats.parquet")) == [("floats", *HOUR_1)]
    for days, times in ((day, clock), (day.date(), clock), (20240130, 93000), ("2024-01-30", "09:30")):
        frame(days).rename(columns={"timestamp": "Date"}).assign(Time=times).to_parquet(tmp_path / "both.parquet")
        assert rows(read(tmp_path / "both.parquet", **NEW_YORK)) == [("both", *HOUR_1)]


# --- adjusted closes, volume, dates


@pytest.mark.parametrize(
    "name",
    ["Adj Close", "Adj. Close", "Adjusted Close", "adjusted", "adj_close", "adjclose", "AdjClose", "5. adjusted close", "Adj Close**"],
)
def test_adjusted_closes_are_known_by_many_names(tmp_path, name):
    write(tmp_path, {"A.csv": f"timestamp,open,high,low,close,{name},volume\n2024-01-30,10,13,9,11,5.5,100\n"})
    assert read(tmp_path).frame["adj_close"].tolist() == [5.5]
    assert "adj_close" not in read(tmp_path, adjusted=False).frame


def test_adjusted_closes_in_some_files_only_are_refused(tmp_path):
    write(
        tmp_path,
        {"A.csv": HEAD.replace("volume", "volume,adj_close") + "2024-01-30,10,13,9,11,100,5\n", "B.csv": HEAD + bars("2024-01-30")},
    )
    with pytest.raises(DataError, match=r"A\.csv has adj_close and B\.csv has none.*set data\.adjustment=raw"):
        read(tmp_path)
    assert len(read(tmp_path, adjusted=False).frame) == 2


def test_volume_may_be_missing_and_ticks_stand_in(tmp_path):
    write(tmp_path, {"A.csv": "date,open,high,low,close\n2024-01-30,10,13,9,11\n"})
    found = read(tmp_path)
    assert rows(found) == [("A", *DAY_1[:-1], 0.0)]
    assert found.notes == ("A.csv: no volume, which is taken as 0.",)
    for real, volume in ((0, 100.0), (7, 7.0)):
        write(tmp_path, {"A.csv": f"time,open,high,low,close,tick_volume,spread,real_volume\n1706625000,10,13,9,11,100,1,{real}\n"})
        assert read(tmp_path).frame["volume"].tolist() == [volume]


@pytest.mark.parametrize(
    ("stamp", "settings", "date", "utc", "zone"),
    [
        ("2024-01-30", {}, "2024-01-30", "2024-01-30T00:00", "dates without a time"),
        ("2024-01-30", NEW_YORK, "2024-01-30", "2024-01-30T05:00", "dates without a time"),
        ("2024-01-30 00:00:00", NEW_YORK, "2024-01-30", "2024-01-30T05:00", "dates without a time"),
        ("2024-01-30T00:00-05:00", {}, "2024-01-30", "2024-01-30T05:00", "offsets as given"),
        ("2024-01-30T00:00+09:00", {}, "2024-01-30", "2024-01-29T15:00", "offsets as given"),
        ("20240130 00:00:00 Asia/Tokyo", {}, "2024-01-30", "2024-01-29T15:00", "Asia/Tokyo, as given"),
        ("2024-01-30T00:00Z", NEW_YORK, "2024-01-30", "2024-01-30T00:00", "UTC, as given"),
        ("1706572800", {}, "2024-01-30", "2024-01-30T00:00", "UTC, as given"),
        ("2024-01-30T09:30", NEW_YORK, None, "2024-01-30T14:30", "America/New_York, as set"),
        ("2024-01-30T09:30-05:00", NEW_YORK, None, "2024-01-30T14:30", "offsets as given"),
    ],
)
def test_timestamps_at_local_midnight_name_days(tmp_path, stamp, settings, date, utc, zone):
    found = read(write(tmp_path, {"A.csv": HEAD + bars(stamp)}), **settings)
    assert found.zone == zone
    assert found.frame["timestamp"].tolist() == [pd.Timestamp(utc, tz="UTC")]
    assert found.frame["timestamp"].dtype == "datetime64[us, UTC]"
    assert ("date" in found.frame) == (date is not None)
    if date:
        assert found.frame["date"].dtype == "datetime64[us]"
        assert found.frame["date"].tolist() == [pd.Timestamp(date)]


def test_files_of_different_zones_stand_side_by_side(tmp_path):
    write(
        tmp_path, {"A.csv": HEAD + bars("2024-01-30T14:30Z"), "B.csv": HEAD + bars("2024-01-30 09:30"), "C.csv": HEAD + bars("2024-01-30")}
    )
    found = read(tmp_path, **NEW_YORK)
    assert [row[:2] for row in rows(found)] == [("A", "2024-01-30 14:30:00"), ("B", "2024-01-30 14:30:00"), ("C", "2024-01-30 05:00:00")]
    assert found.frame["date"].isna().tolist() == [True, True, False]
    assert found.zone == "UTC, as given; America/New_York, as set; dates without a time"


# --- dates that can be read two ways, hours that occur twice


def test_the_order_of_rows_tells_days_from_months(tmp_path):
    days = [f"{d:02d}/{m:02d}/2024" for m in (2, 3) for d in range(1, 13)]
    found = read(write(tmp_path, {"A.csv": HEAD + bars(*days)}))
    assert rows(found)[1][1] == "2024-02-02"
    assert found.notes == ("A.csv: dates were read day first, since only then they are in order.",)
    found = read(write(tmp_path, {"A.csv": HEAD + bars("01.02.2024", "02.02.2024")}))
    assert rows(found)[1][1] == "2024-02-02"
    assert found.notes == ("A.csv: dates were read day first, as dates with dots are.",)


def hours(*texts: str, symbols: Any = None) -> str:
    return (
        "symbol," + HEAD + bars(*(f"{symbol},2024-11-03 {text}" for text, symbol in zip(texts, symbols or "A" * len(texts), strict=True)))
    )


def test_an_hour_that_occurs_twice_is_told_by_order_or_by_setting(tmp_path):
    write(tmp_path, {"x.csv": hours("00:30", "00:30", "01:30", "01:30", "01:30", "01:30", "02:30", symbols="ABABABA")})
    told = [row[1][11:16] for row in rows(read(tmp_path, ambiguous="infer", **NEW_YORK))]
    assert told == ["04:30", "04:30", "05:30", "05:30", "06:30", "06:30", "07:30"]
    with pytest.raises(ConfigError, match=r"x\.csv has two bars at 2024-11-03 01:30:00, .* set data\.ambiguous=infer"):
        read(tmp_path, ambiguous="earlier", **NEW_YORK)
    write(tmp_path, {"x.csv": hours("00:30", "00:30", "01:30", "01:30", "02:30", symbols="ABABA")})
    for how, hour in (("earlier", "05:30"), ("later", "06:30")):
        told = [row[1][11:16] for row in rows(read(tmp_path, ambiguous=how, **NEW_YORK))]
        assert told == ["04:30", "04:30", hour, hour, "07:30"]
    write(tmp_path, {"x.csv": hours("02:00", "01:30", "01:00", "01:30", "01:00", "00:30")})  # newest first
    assert [row[1][11:16] for row in rows(read(tmp_path, ambiguous="infer", **NEW_YORK))] == [
        "07:00",
        "06:30",
        "06:00",
        "05:30",
        "05:00",
        "04:30",
    ]
    with pytest.raises(
        DataError, match=r"x.csv has a bar at 2024-11-03 01:30:00, an hour that occurs twice in America/New_York.*data.ambiguous"
    ):
        read(tmp_path, **NEW_YORK)
    write(tmp_path, {"x.csv": hours("00:30", "01:30", "02:30")})
    with pytest.raises(
        DataError, match=r"the order of the rows does not show which one it is; .* data\.ambiguous=earlier or data.ambiguous=later"
    ):
        read(tmp_path, ambiguous="infer", **NEW_YORK)


# --- refusals

REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "nothing in it": ("", {}, "A.csv is empty; expected a header and one row per bar"),
    "blank": ("\n \n", {}, "A.csv is empty"),
    "a header only": (HEAD, {}, "A.csv holds no bars; expected at least one row"),
    "no words": (
        "x\n",
        {},
        r"A.csv has no column timestamp, open, high, low, close; found 'x' .*; expected timestamp, open, high, low, close, volume",
    ),
    "foreign words": (
        "Zeit;Erst;Hoch;Tief;Schluss\n2024-01-30;10;13;9;11\n",
        {},
        r"found 'Zeit', 'Erst', 'Hoch', 'Tief', 'Schluss' \(separated by semicolon\); .* data.format.columns.timestamp=NAME",
    ),
    "no close": (
        "date,open,high,low,volume\n2024-01-30,10,13,9,11\n",
        {},
        r"has no column close; found 'date', .*data.format.columns.close=NAME",
    ),
    "a name that is not there": (
        HEAD + bars("2024-01-30"),
        {"format": FileFormat(columns={"close": "Schluss"})},
        "data.format.columns.close is 'Schluss' and A.csv has no such column; expected one of 'timestamp', 'open'",
    ),
    "twice the same name": (
        "date,open,high,low,close,Close\n2024-01-30,10,13,9,11,11\n",
        {},
        "A.csv has 2 columns called 'close'; expected one close",
    ),
    "too few names": ("date,open,high,low,close\n1,2024-01-30,10,13,9,11\n", {}, "A.csv names 5 columns and its rows have 6"),
    "the wrong separator": (
        HEAD + bars("2024-01-30"),
        {"format": FileFormat(separator=";")},
        r"\(separated by semicolon\).*data.format.separator",
    ),
    "no header and no order": (
        bars("2024-01-30").replace("13", "5"),
        {},
        "A.csv names no columns, and after the date there are not open, high, low",
    ),
    "a workbook": ("PK\x03\x04\x14\x00", {}, "A.csv is not text, whatever its name says"),
    "cut in a line": (
        HEAD + bars("2024-01-30") + "2024-01-31,10,1",
        {},
        "has a line of 3 fields where 6 are expected: '2024-01-31,10,1'; the file may be cut",
    ),
    "cut in a field": (HEAD + bars("2024-01-30") + "2024-0", {}, "has a line of 1 fields where 6 are expected: '2024-0'"),
    "one field too many": (HEAD + bars("2024-01-30") + "2024-01-31,10,13,9,11,100,1\n", {}, "has a line of 7 fields where 6 are expected"),
    "text for a price": (HEAD + "2024-01-30,10,13,9,n/a?,100\n", {}, "A.csv has text in column close: 'n/a\\?' in row 1; expected numbers"),
    "a thousand or one": (
        'Date,Open,High,Low,Close,Volume\n2024-01-30,"1,010","1,013","1,009","1,011",100\n',
        {},
        "data.format.decimal=point or data.format.decimal=comma",
    ),
    "both marks": (
        'Date,Open,High,Low,Close,Volume\n2024-01-30,"1,010.5","1.013,5",9,11,100\n',
        {},
        "some numbers like 1,234.5 and others like 1.234,5",
    ),
    "a word for a date": (
        HEAD + bars("soon"),
        {},
        "A.csv has a timestamp that is not a date: 'soon'; expected one such as 2024-01-02; set data.format.dates",
    ),
    "a word later": (HEAD + bars("30/01/2024", "soon"), {}, "not a date like the first one, '30/01/2024': 'soon'"),
    "two ways": (HEAD + bars("2024-01-30", "31/01/2024"), {}, "not a date like the first one, '2024-01-30': '31/01/2024'"),
    "a day that is none": (HEAD + bars("30/02/2024"), {}, "A.csv has a timestamp that does not exist: '30/02/2024'"),
    "years of two digits": (HEAD + bars("24-01-30", "24-01-31"), {}, "can be read day first or year first; .* data.format.dates"),
    "an hour that is none": (HEAD + bars("30/01/2024 25:00"), {}, "A.csv has a timestamp that does not exist: '30/01/2024 25:00'"),
    "days or months": (
        HEAD + bars("01/02/2024", "02/02/2024"),
        {},
        r"such as 01/02/2024 that can be read day first or month first; .* data.format.day_first=true",
    ),
    "row numbers": (HEAD + bars("1", "2"), {}, "A.csv has numbers as timestamps, such as 1; expected dates .* data.format.epoch"),
    "numbers and text": (HEAD + bars("1706625000", "soon"), {}, "A.csv has numbers and text as timestamps"),
    "an unfit strptime": (
        HEAD + bars("2024-01-30"),
        {"format": FileFormat(dates="%d.%m.%Y")},
        "data.format.dates is '%d.%m.%Y' and does not fit A.csv",
    ),
    "no zone": (
        HEAD + bars("2024-01-30 09:30"),
        {},
        r"timestamps without a time zone, such as 2024-01-30 09:30:00; .* set data.timezone=America/New_York",
    ),
    "some zones": (
        HEAD + bars("2024-01-30 09:30", "2024-01-30 15:30Z"),
        NEW_YORK,
        r"with a zone \(2024-01-30 15:30Z\) and without one \(2024-01-30 09:30\)",
    ),
    "an unknown zone inside": (HEAD + bars("2024-01-30 09:30 Mars/Base"), {}, "timestamps in the zone 'Mars/Base', which is unknown"),
    "an unknown zone": (
        HEAD + bars("2024-01-30 09:30"),
        {"timezone": "America/NewYork"},
        "'America/NewYork', which is not a time zone; did you mean America/New_York",
    ),
    "an unknown city": (HEAD + bars("2024-01-30 09:30"), {"timezone": "new york"}, "did you mean America/New_York"),
    "half a zone": (HEAD + bars("2024-01-30 09:30"), {"timezone": "America"}, "is not a time zone"),
    "an hour that was skipped": (
        HEAD + bars("2024-03-10 02:30"),
        NEW_YORK,
        "a bar at 2024-03-10 02:30:00, an hour that clocks skip in America/New_York; .* set data.timezone",
    ),
    "no symbol": ("symbol," + HEAD + bars(",2024-01-30"), {}, "A.csv has rows without a symbol, the first is row 1; .* data.format.symbol"),
    "a name unlike the pattern": (
        HEAD + bars("2024-01-30"),
        {"format": FileFormat(symbol="{symbol}_*")},
        "data.format.symbol is '{symbol}_\\*' and A.csv is not named like that",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_without_doubt_is_one_clear_sentence(tmp_path, name):
    content, settings, sentence = REFUSED[name]
    with pytest.raises((DataError, ConfigError), match=sentence) as caught:
        read(write(tmp_path, {"A.csv": content}) / "A.csv", **settings)
    assert "\n" not in str(caught.value)


def test_what_looks_like_bars_is_never_skipped(tmp_path):
    good = {"B.csv": HEAD + bars("2024-01-30")}
    for content in (
        "date,open,close\n2024-01-30,10,11\n",
        "date,close\n2024-01-30,11\n",
        "Zeit;Erst;Hoch;Tief;Schluss\n2024-01-30;10;13;9;11\n",
        HEAD,
        "",
    ):
        with pytest.raises(DataError, match=r"^A\.csv"):
            read(write(tmp_path, {"A.csv": content, **good}))


@pytest.mark.parametrize("file", ["A.parquet", "A.feather", "A.csv.gz", "A.zip"])
def test_a_damaged_file_is_refused(tmp_path, file):
    with pytest.raises(DataError, match=rf"{file} cannot be read: .*; get it again"):
        read(write(tmp_path, {file: b"\x00damaged"}))


def test_paths_without_bars_are_refused(tmp_path):
    with pytest.raises(DataError, match="nothing does not exist; expected a file of bars, or a folder of them"):
        read(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"holds no \.parquet, \.csv"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"A\.xlsx is neither text \(\.csv.*; convert it"):
        read(write(tmp_path, {"A.xlsx": "x"}) / "A.xlsx")


def test_a_column_that_must_be_an_adjusted_close_is_never_passed_over(tmp_path):
    for name in ("Adj Close (USD)", "PX_ADJ", "total_return_close", "aclose"):
        write(tmp_path, {"A.csv": f"date,open,high,low,close,volume,{name}\n2024-01-30,10,13,9,11,100,5.5\n"})
        with pytest.raises(DataError, match="looks like an adjusted close"):
            read(tmp_path)
    write(tmp_path, {"A.csv": "date,open,high,low,close,volume,adjcp\n2024-01-30,10,13,9,11,100,5.5\n"})
    with pytest.raises(DataError, match=r"A\.csv has a column 'adjcp' that looks like an adjusted close; .* data\.adjustment=raw"):
        read(tmp_path)
    assert read(tmp_path, adjusted=False).frame["close"].tolist() == [11]
    named = FileFormat(columns={"adj_close": "adjcp"})
    assert read(tmp_path, format=named).frame["adj_close"].tolist() == [5.5]


def test_files_named_by_years_alone_take_their_folders_name(tmp_path):
    for year in (2023, 2024):
        write(tmp_path, {f"AAA/{year}.csv": HEAD + bars(f"{year}-01-30")})
    assert read(tmp_path).frame["symbol"].tolist() == ["AAA", "AAA"]


def test_columns_without_names_that_cannot_be_told_are_asked_for(tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", {"A.csv": "2024-01-30,10,13,9,11,10.5,1000\n2024-01-31,10,13,9,11,10.5,1000\n"})
    with pytest.raises(DataError, match=r"after open, high, low and close there are two numbers: .* data\.format\.columns\.adj_close=6"):
        read(tmp_path / "a")


def walk() -> str:
    """Thirty days of a random walk's prices."""
    close = 100 + np.random.default_rng(5).normal(0, 1, 30).round(3)
    days = pd.date_range("2024-01-01", periods=30).strftime("%Y-%m-%d")
    return HEAD + "".join(f"{day},{x},{x},{x},{x},100\n" for day, x in zip(days, close, strict=True))


def test_the_same_bars_under_two_names_are_refused(tmp_path):
    write(tmp_path, {"AAA.csv": walk(), "aaa.csv": walk()})
    with pytest.raises(DataError, match=r"AAA\.csv and aaa\.csv hold the same bars, of AAA and aaa; .* leave it out of data\.symbols"):
        read(tmp_path)
    assert len(read(tmp_path, wanted=["AAA"]).frame) == 30


@pytest.mark.parametrize("name", ["AAA (1).csv", "AAA - Copy.csv"])
def test_a_copy_is_no_symbol_of_its_own(tmp_path, name):
    write(tmp_path, {"AAA.csv": walk(), name: walk()})
    with pytest.raises(DataError, match=r"both hold AAA and overlap"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("EURUSD_H1_202401020000_202405310000", "EURUSD"),
        ("EURUSD_Daily_202301020000_202406280000", "EURUSD"),
        ("EURUSD_202301020000_202406280000", "EURUSD"),
        ("CME_MINI_NQ1!, 1D", "NQ1!"),
        ("NASDAQ_AAPL, 60", "AAPL"),
        ("AAA_part2", "AAA"),
        ("BF-B", "BF-B"),
        ("AAPL_1h", "AAPL_1h"),
    ],
)
def test_names_that_charting_programs_give_files_hold_the_symbol(tmp_path, name, symbol):
    assert symbols_of(write(tmp_path, {f"{name}.csv": HEAD + bars("2024-01-30")})) == [symbol]


def test_parts_of_one_symbol_are_put_together(tmp_path):
    write(tmp_path, {"AAA_part1.csv": HEAD + bars("2024-01-30"), "AAA_part2.csv": HEAD + bars("2024-01-31")})
    assert read(tmp_path).frame["symbol"].tolist() == ["AAA", "AAA"]


def test_dots_that_may_stand_for_thousands_are_asked_about(tmp_path):
    head = "Date;Open;High;Low;Close;Volume\n"
    write(tmp_path, {"A.csv": head + "2024-01-30;5.017;5.059;4.999;5.020;1.234\n2024-01-31;5.017;5.059;4.999;5.020;2.345\n"})
    with pytest.raises(DataError, match=r"A\.csv has numbers such as 1\.234 .* data\.format\.decimal=point or data\.format\.decimal=comma"):
        read(tmp_path)
    assert read(tmp_path, format=FileFormat(decimal="comma")).frame["close"].tolist() == [5020, 5020]
    assert read(tmp_path, format=FileFormat(decimal="point")).frame["close"].tolist() == [5.02, 5.02]
    write(tmp_path, {"A.csv": head + "30.01.2024;5.017;5.059;4.999;5.020;850\n"})  # a date as those write it who write 5.017,50
    with pytest.raises(DataError, match=r"A\.csv has numbers such as 1\.234 "):
        read(tmp_path)
    write(tmp_path, {"A.csv": head + "2024-01-30;145.017;145.059;144.999;145.020;0\n"})  # a yen rate; its volume is no thousand
    assert read(tmp_path).frame["close"].tolist() == [145.02]


def test_days_that_excel_counted_are_named(tmp_path):
    write(tmp_path, {"A.csv": HEAD + bars("45293", "45294")})
    with pytest.raises(DataError, match=r"such as 45293, which Excel shows as 2024-01-02; .* format the column as a date in Excel"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.format\.epoch is 's' and makes 1970-01-01T12:34:54 of 45294 in A\.csv"):
        read(tmp_path, format=FileFormat(epoch="s"))
    write(tmp_path, {"A.csv": HEAD + bars("-252460800", "1704153600")})
    assert rows(read(tmp_path, format=FileFormat(epoch="s")))[0][1] == "1962-01-01"


def test_a_symbol_written_otherwise_is_named_as_the_files_name_it(tmp_path):
    write(tmp_path, {"NQ=F.csv": HEAD + bars("2024-01-30"), "AAPL.csv": HEAD + bars("2024-01-30")})
    for name, meant in (("nq", "NQ=F"), ("aapl", "AAPL")):
        with pytest.raises(UnknownSymbol, match=rf"has no symbol {name}; it holds AAPL, NQ=F; write {meant} in data\.symbols"):
            read(tmp_path, wanted=[name])


def test_a_file_of_closes_alone_in_a_folder_can_be_taken_out(tmp_path):
    write(tmp_path, {"A.csv": HEAD + bars("2024-01-30"), "spx.csv": "Date,Close\n2024-01-30,4900\n"})
    with pytest.raises(DataError, match=r"spx\.csv has no column open, high, low; .* remove the file from data\.path if it holds no bars"):
        read(tmp_path)
    write(tmp_path, {"spx.csv": HEAD})
    with pytest.raises(DataError, match=r"spx\.csv holds no bars; .* remove it from data\.path"):
        read(tmp_path)
