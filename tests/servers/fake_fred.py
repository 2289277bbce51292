"""A FRED of our own on this machine: the CSV of a series between two dates, a web page for an id that it does not have."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from ploutos.market.macro import FRED_URL

PAGE = b"<!DOCTYPE html><html><title>FRED | Error</title></html>"


@contextmanager
def fake_fred(tables, header="observation_date"):
    """Serve `{id: {date: text}}`; yields a `get(url) -> bytes` that sends FRED's addresses here, and the paths asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            table = tables.get(query["id"])
            body = PAGE
            if isinstance(table, bytes):
                body = table
            elif table is not None:
                rows = [f"{day},{text}" for day, text in table.items() if query["cosd"] <= day <= query["coed"]]
                body = "\n".join([f"{header},{query['id']}", *rows, ""]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def get(url):
        assert url.startswith(FRED_URL)
        with urlopen(f"http://127.0.0.1:{server.server_port}{url.removeprefix('https://fred.stlouisfed.org')}", timeout=5) as answer:
            return answer.read()

    try:
        yield get, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
