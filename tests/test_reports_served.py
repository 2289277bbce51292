"""Reports are served to this host alone, to who knows the password, and nothing else is."""

import http.client
import socket
import time
from base64 import b64encode

import pytest

from deployments.reports import Reports
from tasks.links import link_to

PASSWORD = "ploutos:p:with-colon"
AUTH = {"Authorization": "Basic " + b64encode(PASSWORD.encode()).decode()}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    for name in ("runs/a b", "nights/2026-11-27", "serve"):
        (home / name).mkdir(parents=True)
    (home / "runs" / "a b" / "report.html").write_text("<p>report</p>")
    (home / "nights" / "2026-11-27" / "index.html").write_text("<p>night</p>")
    (home / "serve" / "auth").write_text("secret")
    (home / "runs" / "link").symlink_to(home / "serve")
    (home / "runs" / "link.html").symlink_to(home / "serve" / "auth")
    (home.parent / "runs-beside").mkdir(exist_ok=True)
    (home.parent / "runs-beside" / "x").write_text("secret")
    return home


@pytest.fixture(scope="module")
def port(home):
    reports = Reports(home, PASSWORD, "127.0.0.1", 0)
    reports.start()
    until = time.monotonic() + 30
    while not reports.addresses and time.monotonic() < until:
        time.sleep(0.02)
    [(host, port)] = reports.addresses
    assert host == "127.0.0.1"
    yield port
    reports.end()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port))


def ask(port, path, headers=AUTH, method="GET"):
    """The bare answer: a client of more manners would tidy the path."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_a_link_of_an_artifact_opens_the_page(home, port, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(home))
    monkeypatch.setenv("PLOUTOS_REPORTS", f"http://127.0.0.1:{port}")
    for file, text in (("runs/a b/report.html", b"<p>report</p>"), ("nights/2026-11-27/index.html", b"<p>night</p>")):
        link = link_to(home / file)
        answer, body = ask(port, link.removeprefix(f"http://127.0.0.1:{port}"))
        assert (answer.status, body) == (200, text)
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert link_to(home.parent / "elsewhere.html").startswith("file:///")  # --out names a folder that is not served
    monkeypatch.delenv("PLOUTOS_REPORTS")
    assert link_to(home / "runs" / "a b" / "report.html").startswith("file:///")


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../serve/auth", "/runs/%2e%2e/serve/auth", "/runs/..%2fserve/auth", "/runs/%2e%2e%2fserve%2fauth", "/serve/auth",
        "/../serve/auth", "//runs/../serve/auth", "/runs/..\\serve\\auth", "/runs/link/auth", "/runs/link.html", "/runs-beside/x",
        "/runs/..%00/serve/auth", "/runs/../../runs-beside/x", "/runs//etc/passwd", "/runs/%2fetc%2fpasswd", "/", "/runs", "/runs/",
    ],
)  # fmt: skip
def test_nothing_but_pages_of_runs_and_nights_is_given(port, path):
    answer, body = ask(port, path)
    assert answer.status in (307, 400, 404)
    assert b"secret" not in body
    assert b"root:" not in body


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic"}, {"Authorization": "Basic " + b64encode(b"ploutos:").decode()}, {"Authorization": "é"}]
)
def test_without_the_password_nothing_is_given(port, headers):
    answer, body = ask(port, "/runs/a%20b/report.html", {name: value.encode("latin-1") for name, value in headers.items()})
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert b"report" not in body.replace(b"reports", b"")


def test_nothing_is_written(port):
    for method in ("POST", "PUT", "DELETE"):
        assert ask(port, "/runs/a%20b/report.html", method=method)[0].status == 405
