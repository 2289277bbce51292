"""Alpaca's historical bars on this machine: real paging, keys, limits per minute, and faults on demand.

Like the real one it takes `limit` for a ceiling, includes `end`, answers nothing for symbols that it does not know, and
cuts off the bar in which `end` lies.
"""

import base64
import json
import time
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

KEY, SECRET = "AK-TEST", "test-secret"
PATHS = {"/v2/stocks/bars": "stocks", "/v1beta3/crypto/us/bars": "crypto"}
RECENT = {"message": "subscription does not permit querying recent SIP data"}


def random_bars(stamps, seed=0):
    """A random walk over these bar starts, with high and low around it."""
    random = np.random.default_rng(seed)
    close = np.round(400 * np.exp(np.cumsum(random.normal(0, 0.004, len(stamps)))), 4)
    open_ = np.r_[close[:1], close[:-1]]
    high, low = np.maximum(open_, close) + 0.5, np.minimum(open_, close) - 0.5
    volume = random.integers(1, 10**6, len(stamps)).astype(float)
    return pd.DataFrame({"timestamp": stamps, "open": open_, "high": high, "low": low, "close": close, "volume": volume})


class FakeAlpaca:
    """A server over `{symbol: frame of bars}`.

    Attributes:
        asked: query of every request, in order, with its path under `path`.
        faults: taken one per request before anything else: None for no fault, (status, body), (status, body, headers),
            "hang" for silence, "truncate" for half an answer, "cut" for a connection that ends in the middle.
        busy_until: requests before this moment of `clock` are answered 429, with `busy_headers(now)`.
        recent_refused: whether the last 15 minutes are refused, as a free plan has it.
        per_minute: requests that a minute of `clock` may hold; more are answered 429.
        empty_pages: numbers of bars after which a page without bars comes.
    """

    def __init__(self, bars, page_rows=10_000, clock=time.time, per_minute=None):
        self._bars = {symbol: encoded(frame) for symbol, frame in bars.items()}
        self._page_rows, self._clock, self._per_minute = page_rows, clock, per_minute
        self._recent = deque()
        self.asked, self.faults, self.empty_pages = [], [], set()
        self.busy_until, self.busy_headers = 0.0, lambda now: {}
        self.recent_refused = False
        self.released = Event()

    def answer(self, path, query, headers):
        """Status, body and headers of one request, or the name of a fault of the connection."""
        self.asked.append({"path": path, **query})
        if (headers.get("APCA-API-KEY-ID"), headers.get("APCA-API-SECRET-KEY")) != (KEY, SECRET):
            return 401, {"code": 40110000, "message": "request is not authorized"}, {}
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, tuple):
            return (*fault, {})[:3]
        if (limit := self._limited()) is not None:
            return limit
        if path not in PATHS:
            return 404, {"message": "endpoint not found."}, {}
        if PATHS[path] == "stocks" and self.recent_refused and pd.Timestamp(query["end"]).timestamp() > self._clock() - 15 * 60:
            return 403, RECENT, {}
        return (200, self._page(query), {}) if fault is None else (fault, self._page(query), {})

    def _limited(self):
        now = self._clock()
        if now < self.busy_until:
            return 429, {"message": "too many requests."}, self.busy_headers(now)
        while self._recent and self._recent[0] <= now - 60:
            self._recent.popleft()
        if self._per_minute is not None and len(self._recent) >= self._per_minute:
            return 429, {"message": "too many requests."}, {"X-RateLimit-Reset": str(int(self._recent[0] + 61))}
        self._recent.append(now)
        return None

    def _page(self, query):
        start, end = query["start"], query["end"]
        found = [
            (symbol, bar)
            for symbol in sorted(query["symbols"].split(","))
            for bar in self._bars.get(symbol, [])
            if start <= bar["t"] <= end
        ]
        if found and pd.Timestamp(found[-1][1]["t"]) + pd.Timedelta(minutes=59) > pd.Timestamp(end) and query["timeframe"] == "1Hour":
            symbol, bar = found[-1]
            found[-1] = (symbol, {**bar, "c": 0.01, "v": 1.0})  # what the hour had so far
        offset, after_empty = json.loads(base64.b64decode(query["page_token"])) if "page_token" in query else (0, False)
        empty = offset in self.empty_pages and not after_empty
        rows = 0 if empty else min(int(query["limit"]), self._page_rows)
        answer = {}
        for symbol, bar in found[offset : offset + rows]:
            answer.setdefault(symbol, []).append(bar)
        token = base64.b64encode(json.dumps([offset + rows, empty]).encode()).decode()
        return {"bars": answer, "next_page_token": token if offset + rows < len(found) else None}


def encoded(frame):
    """Bars as Alpaca's JSON has them."""
    stamps = frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    columns = zip(stamps, *(frame[name].tolist() for name in ("open", "high", "low", "close", "volume")), strict=True)
    return [{"c": c, "h": h, "l": low, "n": 10, "o": o, "t": t, "v": v, "vw": (h + low) / 2} for t, o, h, low, c, v in columns]


@contextmanager
def serving(fake):
    """The address of a server that answers as `fake` says, for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: two wait for each other, 40 ms a time
        disable_nagle_algorithm = True

        def do_GET(self):
            split = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            status, body, headers = fake.answer(split.path, query, self.headers)
            content = body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()
            if status == "hang":
                fake.released.wait(10)
                self.close_connection = True
                return
            length = len(content)
            if status in ("truncate", "cut"):
                content = content[: length // 2]
                self.close_connection = status == "cut"
                length = length if status == "cut" else len(content)
            self.send_response(status if isinstance(status, int) else 200)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(length), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        fake.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
