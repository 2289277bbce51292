"""A way to a server on which a body stops half-way until whoever sent it is gone."""

import socket
import threading
from contextlib import suppress


class SlowProxy:
    """Passes connections to `upstream` on, and of each only the first `after` bytes.

    Attributes:
        holding: set when so much of one is through and the rest is held back.
    """

    def __init__(self, upstream: str, after: int) -> None:
        host, port = upstream.split(":")
        self._upstream, self._after = (host, int(port)), after
        self.holding = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> "SlowProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            back = threading.Thread(target=_pass, args=(server, client), daemon=True)
            back.start()
            _pass(client, server, self._after, self.holding)
            back.join()


def _pass(source: socket.socket, target: socket.socket, limit: float = float("inf"), over: threading.Event | None = None) -> None:
    """Hand on what comes; beyond the limit it is read, so that its sender's end is noticed, and dropped."""
    passed = 0
    with suppress(OSError):
        while block := source.recv(1 << 16):
            passed += len(block)
            if passed <= limit:
                target.sendall(block)
            elif over is not None:
                over.set()
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
