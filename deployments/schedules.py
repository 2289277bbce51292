"""When a night starts: after the close of an exchange, on its session days.

A recurrence rule in the exchange's own zone, so that summer time moves nothing, with the holidays of the next years as exceptions: a cron
line knows no holidays, and a list of dates ends. After those years the rule goes on without exceptions, until `ploutos deploy` writes a new
one; a run on a holiday finds that the last session has its decision, and computes nothing. Half days close earlier, so the time holds.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pandas_market_calendars as mcal

from ploutos.errors import ConfigError
from ploutos.market.calendar import sessions_around

YEARS_OF_HOLIDAYS = 3
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


@dataclass(frozen=True)
class Schedule:
    """A recurrence rule (RFC 5545) and the zone that its times are in."""

    rrule: str
    timezone: str


def after_close(calendar: str, minutes: int, today: date) -> Schedule:
    """Every session day of an exchange, so many minutes after its regular close.

    Args:
        calendar: a pandas-market-calendars name.
        minutes: for the vendor's last bars to arrive.
        today: first day of the schedule.

    Raises:
        ConfigError: the time would lie on the next day.
    """
    zone = str(mcal.get_calendar(calendar).tz)
    last = date(today.year + YEARS_OF_HOLIDAYS, 12, 31)
    around = sessions_around(np.datetime64(today, "us"), np.datetime64(last, "us"), calendar)
    held = (around.dates >= np.datetime64(today)) & (around.dates <= np.datetime64(last))
    days = [day.item() for day in around.dates[held].astype("datetime64[D]")]
    closes = pd.DatetimeIndex(around.closes[held]).tz_localize("UTC").tz_convert(zone)
    at = max((close + pd.Timedelta(minutes=minutes)) - close.normalize() for close in closes)
    if at >= pd.Timedelta(days=1) or any(close.date() != day for close, day in zip(closes, days, strict=True)):
        raise ConfigError(f"{minutes} minutes after the close of {calendar} is another day; choose a calendar that closes before midnight")
    weekdays = sorted({day.weekday() for day in days})
    every = (today + timedelta(days=n) for n in range((last - today).days + 1))
    holidays = [day for day in every if day.weekday() in weekdays and day not in set(days)]
    clock = (datetime.min + at.to_pytimedelta()).strftime("T%H%M%S")
    lines = [
        f"DTSTART:{today:%Y%m%d}{clock}",
        f"RRULE:FREQ=WEEKLY;BYDAY={','.join(_WEEKDAYS[day] for day in weekdays)}",
        *([f"EXDATE:{','.join(f'{day:%Y%m%d}{clock}' for day in holidays)}"] if holidays else []),
    ]
    return Schedule("\n".join(lines), zone)
