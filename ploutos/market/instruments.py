"""Instruments: what one unit of a symbol is worth, what its exchange charges, when it trades, and what vendors call it.

A name says what it is where it can: `NQ=F`, `NQH24` and `CL` are futures of the table below, `EURUSD` and `EUR/USD` are
exchange rates, `BTC-USD` and `BTCUSDT` are crypto. Any other name is a share or ETF, in fractions, because adjusted prices
need them. Spot crypto is paid for in dollars, and so is a stable coin's pair.
"""

import re
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from ploutos.errors import ConfigError
from ploutos.specs import Spec

AssetClass = Literal["equity", "future", "crypto", "fx"]


class InstrumentSpec(Spec):
    """One tradable instrument."""

    symbol: str
    """Name in the bars."""
    asset_class: AssetClass = "equity"
    """What it is."""
    multiplier: PositiveFloat = 1.0
    """Account currency per point of price and unit held."""
    tick_size: PositiveFloat = 0.01
    """Smallest price step; of an exchange rate one pip."""
    lot: NonNegativeFloat = 0.0
    """Smallest tradable quantity; 0 allows fractions."""
    commission_per_unit: NonNegativeFloat = 0.0
    """Fee per unit and side, account currency."""
    slippage_ticks: NonNegativeFloat = 0.0
    """Adverse ticks per fill, beyond the cost model's basis points."""
    pays_bps: bool | None = None
    """Whether a fill pays the cost model's basis points and a short its borrow fee; empty means yes for shares and crypto, and no for
    futures and exchange rates, which pay ticks (of a rate: pips) instead."""
    margin: NonNegativeFloat = 0.0
    """Initial margin per unit held overnight, account currency; 0 means paid in full."""
    calendar: str = "NYSE"
    """Exchange calendar, a pandas-market-calendars name."""
    currency: str = "USD"
    """Currency of its prices, and so of the account that trades it."""
    roll_cycle: str = ""
    """Months in which a future's contracts end, as exchange letters (HMUZ); empty for everything else."""
    yahoo: str | None = None
    """What Yahoo calls it; empty means its own name."""
    alpaca_proxy: str | None = None
    """The ETF to read where Alpaca, which has no futures, is the source."""

    @property
    def costs_in_bps(self) -> bool:
        """What `pays_bps` says, or the asset class."""
        return self.asset_class in ("equity", "crypto") if self.pays_bps is None else self.pays_bps

    @property
    def tick_value(self) -> float:
        """Account currency per tick and unit."""
        return self.tick_size * self.multiplier


_QUARTERS, _MONTHS = "HMUZ", "FGHJKMNQUVXZ"
_EQUITY, _RATES, _CURRENCIES = "CME Globex Equity", "CME Globex Interest Rate Products", "CMEGlobex_FX"
_OIL, _GAS, _GOLD, _COPPER, _GRAINS, _CATTLE = (
    f"CMEGlobex_{name}" for name in ("Crude", "NatGas", "Gold", "Copper", "Grains", "Livestock")
)


def _future(
    symbol: str, multiplier: float, tick: float, commission: float, ticks: float, margin: float, calendar: str, cycle: str,
    proxy: str | None = None,
) -> InstrumentSpec:  # fmt: skip
    return InstrumentSpec(
        symbol=symbol, asset_class="future", multiplier=multiplier, tick_size=tick, lot=1.0, commission_per_unit=commission,
        slippage_ticks=ticks, margin=margin, calendar=calendar, roll_cycle=cycle, yahoo=f"{symbol}=F", alpaca_proxy=proxy,
    )  # fmt: skip


FUTURES: dict[str, InstrumentSpec] = {
    spec.symbol: spec
    for spec in (
        _future("ES", 50, 0.25, 2.50, 1, 22_000, _EQUITY, _QUARTERS, "SPY"),
        _future("NQ", 20, 0.25, 2.50, 1, 33_000, _EQUITY, _QUARTERS, "QQQ"),
        _future("YM", 5, 1.0, 2.50, 2, 15_000, _EQUITY, _QUARTERS, "DIA"),
        _future("RTY", 50, 0.10, 2.50, 2, 10_000, _EQUITY, _QUARTERS, "IWM"),
        _future("MES", 5, 0.25, 0.60, 1, 2_200, _EQUITY, _QUARTERS, "SPY"),
        _future("MNQ", 2, 0.25, 0.60, 1, 3_300, _EQUITY, _QUARTERS, "QQQ"),
        _future("MYM", 0.5, 1.0, 0.60, 2, 1_500, _EQUITY, _QUARTERS, "DIA"),
        _future("M2K", 5, 0.10, 0.60, 2, 1_000, _EQUITY, _QUARTERS, "IWM"),
        _future("CL", 1_000, 0.01, 2.50, 1, 6_500, _OIL, _MONTHS),
        _future("QM", 500, 0.025, 2.50, 1, 3_300, _OIL, _MONTHS),
        _future("MCL", 100, 0.01, 0.60, 1, 650, _OIL, _MONTHS),
        _future("BZ", 1_000, 0.01, 2.50, 2, 6_500, _OIL, _MONTHS),
        _future("HO", 42_000, 0.0001, 2.50, 3, 8_000, _OIL, _MONTHS),
        _future("RB", 42_000, 0.0001, 2.50, 3, 7_000, _OIL, _MONTHS),
        _future("NG", 10_000, 0.001, 2.50, 1, 4_000, _GAS, _MONTHS),
        _future("GC", 100, 0.10, 2.50, 1, 16_000, _GOLD, "GJMQVZ"),
        _future("MGC", 10, 0.10, 0.60, 1, 1_600, _GOLD, "GJMQVZ"),
        _future("SI", 5_000, 0.005, 2.50, 1, 16_000, _GOLD, "HKNUZ"),
        _future("SIL", 1_000, 0.005, 0.60, 2, 3_200, _GOLD, "HKNUZ"),
        _future("PL", 50, 0.10, 2.50, 2, 3_500, _GOLD, "FJNV"),
        _future("PA", 100, 0.50, 2.50, 2, 13_000, _GOLD, _QUARTERS),
        _future("HG", 25_000, 0.0005, 2.50, 1, 9_000, _COPPER, "HKNUZ"),
        _future("ZB", 1_000, 1 / 32, 2.50, 1, 4_500, _RATES, _QUARTERS),
        _future("UB", 1_000, 1 / 32, 2.50, 1, 6_000, _RATES, _QUARTERS),
        _future("ZN", 1_000, 1 / 64, 2.50, 1, 2_200, _RATES, _QUARTERS),
        _future("TN", 1_000, 1 / 64, 2.50, 1, 2_800, _RATES, _QUARTERS),
        _future("ZF", 1_000, 1 / 128, 2.50, 1, 1_500, _RATES, _QUARTERS),
        _future("ZT", 2_000, 1 / 256, 2.50, 1, 1_200, _RATES, _QUARTERS),
        _future("6E", 125_000, 0.00005, 2.50, 1, 2_800, _CURRENCIES, _QUARTERS),
        _future("6B", 62_500, 0.0001, 2.50, 1, 2_200, _CURRENCIES, _QUARTERS),
        _future("6J", 12_500_000, 0.0000005, 2.50, 1, 3_200, _CURRENCIES, _QUARTERS),
        _future("6A", 100_000, 0.00005, 2.50, 1, 1_700, _CURRENCIES, _QUARTERS),
        _future("6C", 100_000, 0.00005, 2.50, 1, 1_300, _CURRENCIES, _QUARTERS),
        _future("6S", 125_000, 0.00005, 2.50, 1, 4_000, _CURRENCIES, _QUARTERS),
        _future("6N", 100_000, 0.00005, 2.50, 1, 1_600, _CURRENCIES, _QUARTERS),
        _future("6M", 500_000, 0.00001, 2.50, 1, 1_800, _CURRENCIES, _QUARTERS),
        _future("M6E", 12_500, 0.0001, 0.60, 1, 280, _CURRENCIES, _QUARTERS),
        _future("ZC", 50, 0.25, 2.50, 1, 1_200, _GRAINS, "HKNUZ"),
        _future("ZS", 50, 0.25, 2.50, 1, 2_200, _GRAINS, "FHKNQUX"),
        _future("ZW", 50, 0.25, 2.50, 1, 1_900, _GRAINS, "HKNUZ"),
        _future("ZM", 100, 0.10, 2.50, 1, 1_900, _GRAINS, "FHKNQUVZ"),
        _future("ZL", 600, 0.01, 2.50, 1, 1_900, _GRAINS, "FHKNQUVZ"),
        _future("LE", 400, 0.025, 2.50, 1, 2_500, _CATTLE, "GJMQVZ"),
        _future("HE", 400, 0.025, 2.50, 1, 1_700, _CATTLE, "GJKMNQVZ"),
    )
}
"""The futures of the CME group that people trade most, and their micros, by root. Prices are as the exchange quotes them: grains in
cents a bushel, livestock in cents a pound, notes and bonds in points of par. Fees and slippage are those of a retail account;
margins are of the order that brokers asked in 2025 and move with volatility: set your own in data.instruments."""

_SHARE_CLASSES = frozenset(("A", "B", "C", "D", "K", "P", "PR", "RT", "U", "UN", "W", "WS"))
"""What may stand behind the dot of a share of the United States."""
_VENUE = re.compile(
    r"(?:(?:CME|CBOT|NYMEX|COMEX)(?:_MINI)?(?:_DL)?|BINANCE|COINBASE|BITSTAMP|KRAKEN|BITFINEX|BYBIT|OKX|KUCOIN|FX_IDC|FX|OANDA|FOREXCOM|SAXO"
    r"|PEPPERSTONE|NASDAQ|NYSE|AMEX|BATS|ARCA)[_:]"
)
_TAIL = re.compile(
    r"(?:, ?\w+|[ _-](?:\d+(?:S|M|MIN|H|D|W|MO)|[HMDW]\d{1,2}|MN1?|DAILY|HOURLY|WEEKLY|MONTHLY|CONT|CONTINUOUS)|_\d{8,12}(?:_\d{8,12})?"
    r"|\.(?:PRO|ECN|RAW|STP)|#|\.[CVN]\.\d| \d\d-\d\d|[-_.]?PERP|\.P)$"
)
_CONTRACT = re.compile(r"(?P<root>[A-Z0-9]{1,3}?)[FGHJKMNQUVXZ](?:\d|\d{2}|20\d{2})")
_CONTINUOUS = re.compile(r"(?:(?P<yahoo>[A-Z0-9]{1,4})=F|[/@](?P<slash>[A-Z0-9]{1,4})|(?P<charts>[A-Z0-9]{1,4})[12]!)")

_FIAT = frozenset(
    (
        "USD", "EUR", "JPY", "GBP", "CHF", "AUD", "CAD", "NZD", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "TRY", "ZAR", "MXN", "SGD",
        "HKD", "CNH", "CNY", "INR", "KRW", "BRL", "ILS", "RUB", "THB", "XAU", "XAG", "XPT", "XPD",
    )
)  # fmt: skip
_STABLE = frozenset(["USDT", "USDC", "BUSD", "TUSD", "FDUSD", "DAI"])
_COINS = frozenset(
    (
        "BTC", "XBT", "ETH", "SOL", "XRP", "ADA", "DOGE", "DOT", "AVAX", "LTC", "BCH", "LINK", "MATIC", "POL", "UNI", "ATOM", "XLM",
        "TRX", "ETC", "FIL", "APT", "ARB", "OP", "NEAR", "ICP", "SHIB", "PEPE", "AAVE", "ALGO", "EOS", "XMR", "BNB", "TON", "SUI",
        "HBAR", "VET", "GRT", "MKR", "CRV", "XTZ", "SUSHI", "YFI", "BAT", "DASH", "ZEC",
    )
)  # fmt: skip
_EXCHANGES = {
    "US": ("NYSE", "USD"), "L": ("LSE", "GBP"), "UK": ("LSE", "GBP"), "T": ("JPX", "JPY"), "DE": ("XETR", "EUR"), "F": ("XFRA", "EUR"),
    "PA": ("XPAR", "EUR"), "AS": ("XAMS", "EUR"), "BR": ("XBRU", "EUR"), "LS": ("XLIS", "EUR"), "MI": ("XMIL", "EUR"),
    "MC": ("XMAD", "EUR"), "VI": ("XWBO", "EUR"), "HE": ("XHEL", "EUR"), "IR": ("XDUB", "EUR"), "SW": ("SIX", "CHF"),
    "ST": ("XSTO", "SEK"), "CO": ("XCSE", "DKK"), "OL": ("XOSL", "NOK"), "WA": ("XWAR", "PLN"), "TO": ("TSX", "CAD"),
    "V": ("TSX", "CAD"), "MX": ("XMEX", "MXN"), "SA": ("BVMF", "BRL"), "HK": ("HKEX", "HKD"), "SS": ("SSE", "CNY"),
    "SZ": ("SSE", "CNY"), "KS": ("XKRX", "KRW"), "KQ": ("XKRX", "KRW"), "TW": ("XTAI", "TWD"), "SI": ("XSES", "SGD"),
    "AX": ("ASX", "AUD"), "NZ": ("XNZE", "NZD"), "BO": ("XBOM", "INR"), "NS": ("XBOM", "INR"), "TA": ("XTAE", "ILS"),
    "JO": ("XJSE", "ZAR"),
}  # fmt: skip
"""Calendar and currency of shares whose name ends as Yahoo and Stooq write it."""


def plain_name(symbol: str) -> str:
    """A name in capitals, without the venue in front and the bar length, the span or the broker's mark behind.

    >>> [plain_name(name) for name in ("eurusd", "CME_MINI_NQ1!, 1D", "BINANCE:BTCUSDT", "EURUSD_H1_202401020000_202405310000", "AAPL")]
    ['EURUSD', 'NQ1!', 'BTCUSDT', 'EURUSD', 'AAPL']
    """
    name = _VENUE.sub("", symbol.strip().upper(), count=1) if _VENUE.match(symbol.strip().upper()) else symbol.strip().upper()
    while (shorter := _TAIL.sub("", name)) not in (name, ""):
        name = shorter
    return name


def root_of(symbol: str) -> str | None:
    """The root of a future's name, None for a name that is not a future's.

    >>> [root_of(name) for name in ("NQ", "nq=f", "NQH24", "/ES", "CL1!", "KCZ5", "KC=F", "NQ_F", "GC1", "NQ.c.0", "AAPL", "X", "BMW.F")]
    ['NQ', 'NQ', 'NQ', 'ES', 'CL', None, 'KC', 'NQ', 'GC', 'NQ', None, None, None]
    """
    symbol = plain_name(symbol)
    if symbol in FUTURES:
        return symbol
    for tail in ("_F", ".F", "1", "2"):
        if symbol.removesuffix(tail) in FUTURES:
            return symbol.removesuffix(tail)
    if found := _CONTINUOUS.fullmatch(symbol):
        return found["yahoo"] or found["slash"] or found["charts"]
    found = _CONTRACT.fullmatch(symbol)
    return found["root"] if found and found["root"] in FUTURES else None


def pair_of(symbol: str) -> tuple[str, str, AssetClass] | None:
    """Base, quote currency and class of a name that is a pair, None for one that is not.

    >>> pair_of("EUR/USD"), pair_of("BTC-USD"), pair_of("BTCUSDT"), pair_of("BRK/B"), pair_of("BF-B"), pair_of("USDJPY=X")
    (('EUR', 'USD', 'fx'), ('BTC', 'USD', 'crypto'), ('BTC', 'USDT', 'crypto'), None, None, ('USD', 'JPY', 'fx'))
    """
    symbol = plain_name(symbol)
    if len(symbol) == 7 and symbol.endswith("M"):
        symbol = symbol[:6] if pair_of(symbol[:6]) else symbol  # a broker's micro lots
    for quote_length in (3, 4, 5):
        found = re.fullmatch(rf"([A-Z0-9]{{2,10}})([-/_.:]?)([A-Z]{{{quote_length}}})(?:=X)?", symbol)
        if not found:
            continue
        base, mark, quote = found.groups()
        if base in _FIAT and quote in _FIAT:
            return base, quote, "fx"
        if base in _COINS and (quote in _FIAT or quote in _STABLE or quote in ("BTC", "ETH", "BNB")):
            return base, quote, "crypto"
        if quote in _STABLE or (quote == "USD" and mark in ("-", "/")):
            return base, quote, "crypto"
    return None


def _equity(symbol: str, told: bool = False) -> InstrumentSpec:
    """A share or ETF; of the United States unless its name says otherwise.

    Args:
        told: a person says that it is one, so that its name need not.

    Raises:
        ConfigError: an ending that may be an exchange's and is not known, or a pair or a future within a longer name.
    """
    _, dot, suffix = symbol.upper().rpartition(".")
    if dot and suffix.isalpha() and len(suffix) <= 2 and suffix not in _SHARE_CLASSES and suffix not in _EXCHANGES:
        raise ConfigError(f"{symbol} ends in .{suffix}, and its exchange is not known; name its calendar and currency in data.instruments")
    if not told and (other := _named_within(symbol.upper())):
        raise ConfigError(
            f"{symbol} has {other} in its name and is not read as one; rename it to {other}, or say what it is with data.asset_class"
        )
    calendar, currency = _EXCHANGES[suffix] if dot and suffix in _EXCHANGES else ("NYSE", "USD")
    return InstrumentSpec(symbol=symbol, calendar=calendar, currency=currency)


def _named_within(name: str) -> str | None:
    """A pair or a future of the table that is a part of a longer name, None where there is none; BAC-PL and CL.TO are shares."""
    tokens = re.split(r"[^A-Z0-9=/]+", name)
    pairs = [token for token in tokens if token != name and pair_of(token)]
    pairs += [token[:6] for token in tokens if len(token) in (7, 8) and (pair_of(token[:6]) or "")[2:] == ("fx",)]
    is_share = re.fullmatch(r"[A-Z0-9]+[-._ /]P?[A-Z]", name) or name.rpartition(".")[2] in _EXCHANGES
    roots = [] if is_share else [root for token in tokens if token != name and (root := root_of(token)) in FUTURES]
    return next((token for token in (*pairs, *(f"{root}=F" for root in roots))), None)


def _crypto(symbol: str) -> InstrumentSpec:
    """A coin against a currency, round the clock."""
    quote = (pair_of(symbol) or ("", "USD", ""))[1]
    return InstrumentSpec(
        symbol=symbol, asset_class="crypto", calendar="24/7", yahoo=symbol.replace("/", "-"), currency="USD" if quote in _STABLE else quote
    )


def _rate(symbol: str) -> InstrumentSpec:
    """An exchange rate or spot metal, Sunday 17:00 to Friday 17:00 in New York; a fill pays one pip."""
    base, quote = (pair_of(symbol) or ("", "USD", ""))[:2]
    pip = 0.01 if quote in ("JPY", "HUF", "KRW") or base in ("XAU", "XPT", "XPD") else 0.0001
    yahoo = f"{base}{quote}=X" if base else symbol
    return InstrumentSpec(symbol=symbol, asset_class="fx", tick_size=pip, slippage_ticks=1.0, calendar="FX", currency=quote, yahoo=yahoo)


def _contract(symbol: str, asset_class: AssetClass | None) -> InstrumentSpec:
    root = root_of(symbol)
    if root not in FUTURES:
        raise ConfigError(
            f"{symbol} is a future and its contract is not known; expected one of {', '.join(FUTURES)}; "
            "give its multiplier, tick_size and calendar in data.instruments"
            + ("" if asset_class == "future" else ", or say what it is with data.asset_class")
        )
    spec = FUTURES[root]
    return spec if symbol == root else spec.model_copy(update={"symbol": symbol, "yahoo": f"{root}=F"})


def class_of(symbol: str) -> AssetClass:
    """What a name alone says: a name that is nothing else is a share's.

    >>> [class_of(name) for name in ("NQ=F", "BTC-USD", "EURUSD", "BRK/B", "AAPL", "BTC")]
    ['future', 'crypto', 'fx', 'equity', 'equity', 'crypto']
    """
    if root_of(symbol) is not None:
        return "future"
    if pair := pair_of(symbol):
        return pair[2]
    return "crypto" if plain_name(symbol) in ("BTC", "XBT", "ETH", "BITCOIN", "ETHEREUM") else "equity"


def instrument(symbol: str, asset_class: AssetClass | None = None) -> InstrumentSpec:
    """The instrument behind a name.

    Args:
        asset_class: says which one is meant where a share and a future have the same name (ES); empty leaves it to the name.

    Raises:
        ConfigError: a future whose contract is not in the table.

    >>> instrument("NQ").tick_value, instrument("AAPL").calendar, instrument("BTC/USD").calendar
    (5.0, 'NYSE', '24/7')
    """
    chosen = asset_class or class_of(symbol)
    if chosen == "future":
        return _contract(symbol, asset_class)
    if asset_class == "equity":
        return _equity(symbol, told=True)
    return {"equity": _equity, "crypto": _crypto, "fx": _rate}[chosen](symbol)


def equity(symbol: str) -> InstrumentSpec:
    """A US share or ETF, whatever its name looks like."""
    return InstrumentSpec(symbol=symbol)
