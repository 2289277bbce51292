"""Keeps a list of every address outside this host that a process tries to reach; a folder on PYTHONPATH brings it into children.

Python imports a module of this name when it starts. The audit events fire before anything is sent, whatever library asks.
"""

import os
import sys

FILE = "PLOUTOS_TEST_TRIED"
_HERE = ("", "localhost", "::1", "0.0.0.0", "::", os.uname().nodename)


def _tried(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host or "")
    if host not in _HERE and not host.startswith("127.") and FILE in os.environ:
        with open(os.environ[FILE], "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{host} by {sys.argv[:3]}\n")


if FILE in os.environ:
    sys.addaudithook(_tried)
