"""Yahoo Finance on this machine: yfinance, curl and TLS are the real ones, and only a proxy leads them here.

A CONNECT proxy tunnels every host to a TLS server whose certificate a temporary authority signed. Answers are shaped as the
chart API's are; a cookie and a crumb are given as there.
"""

import datetime
import json
import socket
import ssl
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from urllib.parse import parse_qs, unquote, urlsplit

import pandas as pd
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ("yahoo.com", "*.yahoo.com", "*.finance.yahoo.com")
KEPT_DAYS = {"1m": 30, "2m": 60, "5m": 60, "15m": 60, "30m": 60, "90m": 60, "1h": 730}
MAINTENANCE = "<html><body>Will be right back... Thank you for your patience.</body></html>"
DAY = 86400


def make_certificate(folder):
    """A certificate for Yahoo's names, which vouches for itself, and its key, as two PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "yahoo of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "yahoo.pem", folder / "yahoo.key"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate, private


class FakeYahoo:
    """Charts over `{(symbol, interval): frame of bars}`, raw and in UTC; a daily frame is stamped with session dates.

    Attributes:
        charts: query of every request for a chart, in order, with its `symbol`.
        faults: taken one per request for a chart of a span: None for no fault, (status, body), "hang" for silence.
        zone: of the exchange.
        regular: opening and closing time of the session that Yahoo calls the current one.
        dividends: {moment: amount}, in every answer whose span holds it.
        paid: what an adjusted close is of a close.
    """

    def __init__(self, bars, clock=time.time, zone="America/New_York", regular=("09:30", "16:00"), paid=1.0):
        self._bars, self._clock, self.zone, self.regular, self.paid = bars, clock, zone, regular, paid
        self.charts, self.faults, self.dividends = [], [], {}
        self.released = Event()

    def answer(self, path, query):
        """Status, body and headers of one request; "hang" for silence."""
        if path == "/v1/test/getcrumb":
            return 200, "crumb", {"Content-Type": "text/plain"}
        if not path.startswith("/v8/finance/chart/"):
            return 404, "", {"Set-Cookie": "A3=d=x; Domain=.yahoo.com; Path=/; Max-Age=86400"}
        symbol = unquote(path.rsplit("/", 1)[1])
        self.charts.append({"symbol": symbol, **query})
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return (*fault, {}) if isinstance(fault, tuple) else (fault, "", {})
        return self._chart(symbol, query)

    def _chart(self, symbol, query):
        interval, now = query["interval"], int(self._clock())
        if not any(known == symbol for known, _ in self._bars):
            return _error(404, "Not Found", "No data found, symbol may be delisted")
        first, last = int(query.get("period1", now - DAY)), int(query.get("period2", now))
        asked = f"{interval} data not available for startTime={first} and endTime={last}."
        if interval in KEPT_DAYS and first < now - KEPT_DAYS[interval] * DAY:
            reason = f"{asked} The requested range must be within the last {KEPT_DAYS[interval]} days."
            return _error(422, "Unprocessable Entity", reason)
        if interval == "1m" and last - first > 8 * DAY:
            reason = f"{asked} Only 8 days worth of 1m granularity data are allowed to be fetched per request."
            return _error(422, "Unprocessable Entity", reason)
        frame = self._bars.get((symbol, interval))
        seconds = pd.Series(dtype="int64") if frame is None else self._seconds(frame["timestamp"], interval)
        keep = (seconds >= first) & (seconds < last)
        result = {"meta": self._meta(symbol, interval, seconds[keep]), "indicators": {"quote": [{}]}}
        if keep.any():
            kept = frame[keep.to_numpy()]
            result["timestamp"] = seconds[keep].tolist()
            result["indicators"]["quote"] = [{name: kept[name].tolist() for name in ("open", "high", "low", "close", "volume")}]
            if interval == "1d":
                result["indicators"]["adjclose"] = [{"adjclose": (kept["close"] * self.paid).tolist()}]
        paid = {str(int(pd.Timestamp(at).timestamp())): amount for at, amount in self.dividends.items()}
        if inside := {at: {"amount": amount, "date": int(at)} for at, amount in paid.items() if first <= int(at) < last}:
            result["events"] = {"dividends": inside}
        return 200, json.dumps({"chart": {"result": [result], "error": None}}), {}

    def _seconds(self, stamps, interval):
        """When the bars start; a day starts when its session opens."""
        if interval == "1d":
            opening = pd.Timedelta(f"{self.regular[0]}:00")
            stamps = (stamps.dt.tz_localize(None) + opening).dt.tz_localize(self.zone)
        return stamps.dt.tz_convert("UTC").dt.as_unit("s").astype("int64").reset_index(drop=True)

    def _meta(self, symbol, interval, seconds):
        today = pd.Timestamp(self._clock(), unit="s", tz="UTC").tz_convert(self.zone)
        days = sorted({pd.Timestamp(s, unit="s", tz="UTC").tz_convert(self.zone).date() for s in seconds} | {today.date()})
        meta = {
            "currency": "USD", "symbol": symbol, "exchangeName": "PCX", "instrumentType": "EQUITY", "firstTradeDate": 0,
            "exchangeTimezoneName": self.zone, "timezone": "EST", "gmtoffset": -18000, "priceHint": 2,
            "regularMarketTime": int(self._clock()), "dataGranularity": interval, "range": "", "validRanges": ["1d", "max"],
            "currentTradingPeriod": {name: self._session(today.date()) for name in ("pre", "regular", "post")},
        }  # fmt: skip
        return meta if interval == "1d" else {**meta, "tradingPeriods": [[self._session(day)] for day in days]}

    def _session(self, day):
        opening, close = (int(pd.Timestamp(f"{day} {clock}", tz=self.zone).timestamp()) for clock in self.regular)
        return {"timezone": "EST", "gmtoffset": -18000, "start": opening, "end": close}


def _error(status, code, description):
    return status, json.dumps({"chart": {"result": None, "error": {"code": code, "description": description}}}), {}


@contextmanager
def _running(server):
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(fake, certificate):
    """The address of a proxy behind which Yahoo is `fake`; whoever trusts the certificate can use it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: two wait for each other, 40 ms a time
        disable_nagle_algorithm = True

        def do_GET(self):
            split = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            status, body, headers = fake.answer(split.path, query)
            if status == "hang":
                fake.released.wait(10)
                self.close_connection = True
                return
            content = body.encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    class TlsServer(ThreadingHTTPServer):
        def finish_request(self, request, client_address):  # in the connection's own thread, so that a bad one stops no other
            try:
                with context.wrap_socket(request, server_side=True) as secure:
                    super().finish_request(secure, client_address)
            except (OSError, ValueError):
                pass  # the client went away

    with _running(TlsServer(("127.0.0.1", 0), Handler)) as target, _running(_proxy(target)) as port:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            fake.released.set()


def _proxy(target):
    class Tunnel(StreamRequestHandler):
        def handle(self):
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            with socket.create_connection(("127.0.0.1", target)) as server:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = Thread(target=_pump, args=(server, self.connection), daemon=True)
                back.start()
                _pump(self.connection, server)
                back.join()

    ThreadingTCPServer.allow_reuse_address = True
    return ThreadingTCPServer(("127.0.0.1", 0), Tunnel)


def _pump(source, sink):
    """Everything from one end to the other, until either closes."""
    try:
        while content := source.recv(65536):
            sink.sendall(content)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other end went away
