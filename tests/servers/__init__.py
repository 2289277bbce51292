"""Vendors of our own on this machine, and the time they live in."""

import pandas as pd


class VirtualTime:
    """A clock that only waiting moves."""

    def __init__(self, now):
        self.start = self.seconds = pd.Timestamp(now).timestamp()
        self.pauses = []

    @property
    def now(self):
        return pd.Timestamp(self.seconds, unit="s", tz="UTC")

    @property
    def waited(self):
        return self.seconds - self.start

    def clock(self):
        return self.seconds

    def sleep(self, seconds):
        assert seconds > 0
        self.pauses.append(seconds)
        self.seconds += seconds
