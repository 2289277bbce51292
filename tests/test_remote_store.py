"""A store on S3, against moto's server: what two hosts see of one another, and what is left of a process that dies."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from moto.server import ThreadedMotoServer
from servers.slow_proxy import SlowProxy
from test_store import TEXT, counted

from ploutos import remote_store
from ploutos.errors import ConfigError, StoreError
from ploutos.remote_store import RemoteStore, open_store
from ploutos.settings import Settings
from ploutos.store import NotComputed, Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of botocore and of moto's server
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def address(s3, request):
    import s3fs

    bucket = f"b{abs(hash(request.node.nodeid))}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def hosts(address, tmp_path):
    """Two hosts before one store."""
    return RemoteStore(address, tmp_path / "a"), RemoteStore(address, tmp_path / "b")


def objects(store):
    return [name for name in store._files.find(store.address.removeprefix("s3://"), refresh=True) if "/objects/" in name]


def test_what_one_host_computed_another_finds_with_the_bytes_and_the_reference_of_a_local_store(hosts, tmp_path):
    a, b = hosts
    write, calls = counted()
    ref, hit = a.cached("stage", "k", TEXT, write, {"seed": 1})
    assert (hit, b.cached("stage", "k", TEXT, write), len(calls)) == (False, (ref, True), 1)
    assert b.load(ref, TEXT) == "content"
    local = Store(tmp_path / "local")
    assert local.cached("stage", "k", TEXT, write, {"seed": 1}) == (ref, False)
    assert local.path(ref).read_bytes() == b.path(ref).read_bytes()
    assert a._files.find(a._name("leases")) == []


def test_a_host_downloads_an_artifact_once(hosts, monkeypatch):
    a, b = hosts
    ref = a.publish("text", ".txt", lambda path: path.write_text("content"))
    fetched, plain = [], b._files.get_file

    def get_file(*args):
        fetched.append(args)
        time.sleep(0.05)
        return plain(*args)

    monkeypatch.setattr(b._files, "get_file", get_file)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: b.path(ref), range(8))) == {b.root / ref.path}
    assert len(fetched) == 1


def test_a_damaged_copy_on_a_host_is_found_and_fetched_again(hosts):
    a, b = hosts
    ref = a.publish("text", ".txt", lambda path: path.write_text("content"))
    b.path(ref).write_text("CONTENT")
    assert b.load(ref, TEXT) == "content"


@pytest.mark.parametrize("damage", ["delete", "overwrite", "truncate", "key"])
def test_what_was_lost_or_damaged_on_s3_is_computed_again(hosts, damage):
    a, b = hosts
    write, calls = counted()
    ref, _ = a.cached("stage", "k", TEXT, write)
    name = a._name(ref.path)
    if damage == "delete":
        a._files.rm_file(name)
    elif damage == "key":
        a._files.pipe_file(a._name("keys/stage/k.json"), b'{"ref": {"kind"')
    else:
        a._files.pipe_file(name, b"CONTENT" if damage == "overwrite" else b"con")
    if damage != "key":
        with pytest.raises(StoreError, match=r"missing or damaged in s3://"):
            b.path(ref)
    assert b.cached("stage", "k", TEXT, write) == (ref, False)
    assert len(calls) == 2
    assert (b.load(ref, TEXT), b.lookup("stage", "k")) == ("content", ref)


def test_of_two_that_computed_one_key_the_first_one_wins_and_both_go_on_with_it(hosts, monkeypatch):
    """Even if neither waits for the other and they come to different bytes."""
    monkeypatch.setattr(RemoteStore, "_acquire", lambda *_: None)
    meet = threading.Barrier(2)

    def compute(store, text):
        def write(path):
            path.write_text(text)
            meet.wait()

        return store.cached("stage", "k", TEXT, write)[0]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(compute, hosts, ("one", "another"))
    assert first == second == hosts[0].lookup("stage", "k") == hosts[1].lookup("stage", "k")


_WRITER = """
import sys, time
from pathlib import Path
from ploutos.remote_store import RemoteStore
from ploutos.store import Kind
address, root, log, seconds, size = sys.argv[1:]
def write(path):
    with open(log, "a") as lines: lines.write("computed\\n")
    time.sleep(float(seconds))
    path.write_bytes(b"whole" * int(size))
RemoteStore(address, Path(root)).cached("stage", "k", Kind("bytes", ".bin", write, Path.read_bytes), write)
"""


def writer(address, root, log, seconds, size=1, **environment):
    command = [sys.executable, "-c", _WRITER, address, str(root), str(log), str(seconds), str(size)]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)


def wait_for(what, seconds=60):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_processes_of_two_hosts_that_ask_at_once_compute_once(address, tmp_path, hosts):
    log = tmp_path / "log"
    both = [writer(address, tmp_path / host, log, 1) for host in ("x", "y")]
    assert [each.wait(timeout=120) for each in both] == [0, 0]
    assert log.read_text() == "computed\n"
    assert len(objects(hosts[0])) == 1


def test_a_holder_that_was_killed_holds_nobody_up_for_long(address, hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_store, "_LEASE_S", 1.0)
    monkeypatch.setattr(remote_store, "_LOOK_S", 0.1)
    log = tmp_path / "log"
    process = writer(address, tmp_path / "x", log, 600)
    wait_for(log.exists)
    process.kill()
    process.wait()
    write, calls = counted("whole")
    ref, hit = hosts[0].cached("stage", "k", TEXT, write)
    assert (hit, len(calls), hosts[1].load(ref, TEXT)) == (False, 1, "whole")


def test_a_holder_that_lives_is_waited_for_however_long_it_takes(hosts, monkeypatch):
    monkeypatch.setattr(remote_store, "_LEASE_S", 1.5)  # the clock of a lease's version has seconds
    monkeypatch.setattr(remote_store, "_RENEWED_S", 0.2)
    monkeypatch.setattr(remote_store, "_LOOK_S", 0.1)
    calls, begun = [], threading.Event()

    def write(path):
        calls.append(path)
        begun.set()
        time.sleep(4)
        path.write_text("content")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hosts[0].cached, "stage", "k", TEXT, write)
        begun.wait()
        second = pool.submit(hosts[1].cached, "stage", "k", TEXT, write)
        assert {first.result()[0]} == {second.result()[0]}
    assert len(calls) == 1


def test_a_process_killed_in_the_middle_of_an_upload_leaves_nothing_that_anybody_sees(s3, address, hosts, tmp_path, monkeypatch):
    """The way to S3 is slow, so that the kill comes when a part of the body has arrived."""
    monkeypatch.setattr(remote_store, "_LEASE_S", 1.0)
    monkeypatch.setattr(remote_store, "_LOOK_S", 0.1)
    log = tmp_path / "log"
    with SlowProxy(s3, after=2 << 20) as proxy:
        process = writer(address, tmp_path / "x", log, 0, 2 << 20, AWS_ENDPOINT_URL=f"http://{proxy.address}")
        wait_for(proxy.holding.is_set)  # 2 of 10 MiB are through
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.5)
    assert hosts[0].lookup("stage", "k") is None
    assert objects(hosts[0]) == []
    write, calls = counted("whole")
    ref, hit = hosts[0].cached("stage", "k", TEXT, write)
    assert (hit, len(calls), hosts[1].load(ref, TEXT)) == (False, 1, "whole")


def test_a_store_that_travels_takes_the_folder_of_the_host_it_comes_to(hosts, tmp_path, monkeypatch):
    ref = hosts[0].publish("text", ".txt", lambda path: path.write_text("content"))
    hosts[0].code = "abc"
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "elsewhere"))
    arrived = pickle.loads(pickle.dumps(hosts[0]))
    assert (arrived.address, arrived.code) == (hosts[0].address, "abc")
    assert arrived.path(ref).is_relative_to(tmp_path / "elsewhere")


def test_a_store_that_only_finds_connects_no_second_time_and_leaves_the_other_as_it_is(hosts):
    a, _ = hosts
    write, calls = counted()
    ref, _ = a.cached("stage", "k", TEXT, write)
    found = a.only_found()
    assert found._files is a._files
    assert found.cached("stage", "k", TEXT, write) == (ref, True)
    with pytest.raises(NotComputed):
        found.cached("stage", "other", TEXT, write)
    a.cached("stage", "other", TEXT, write)
    assert len(calls) == 2


def test_a_store_belongs_to_one_home_so_that_trials_are_counted_in_one_place(address, tmp_path):
    mine, other = Settings(home=tmp_path / "mine", store=address), Settings(home=tmp_path / "other", store=address + "/")
    for _ in range(2):
        assert open_store(mine).where == address
    with pytest.raises(ConfigError, match=r"belongs to .*mine on .*start runs there, on which any host can work"):
        open_store(other)
    assert open_store(Settings(home=tmp_path / "other", store=f"{address}/of-its-own")).where.endswith("own")


def test_a_store_without_an_address_is_a_folder(tmp_path):
    store = open_store(Settings(home=tmp_path, store=""))
    assert type(store) is Store
    assert store.where == str(tmp_path / "store")


def test_settings_that_would_split_or_lose_what_is_written_are_refused(monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", "s3://bucket/prefix")
    with pytest.raises(ConfigError, match=r"files of one host; give it a folder, .* PLOUTOS_STORE=s3://bucket/prefix"):
        Settings()
    monkeypatch.setenv("PLOUTOS_HOME", "folder")
    monkeypatch.setenv("PLOUTOS_STORE", "gs://bucket")
    with pytest.raises(ConfigError, match="expected an address such as s3://bucket/prefix"):
        Settings()


def test_a_missing_package_bucket_or_server_is_one_sentence(s3, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=r"does not exist: .* make the bucket first"):
        open_store(Settings(home=tmp_path, store="s3://no-such-bucket/x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="does not answer: Could not connect"):
        open_store(Settings(home=tmp_path, store="s3://bucket/x"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs s3fs, which is not installed: pip install 'ploutos\[s3\]'"):
        open_store(Settings(home=tmp_path, store="s3://bucket/x"))


def test_the_key_says_what_it_stands_on_like_that_of_a_local_store(hosts, tmp_path):
    local = Store(tmp_path / "local")
    for store in (hosts[0], local):
        store.cached("stage", "k", TEXT, counted()[0], {"seed": 1})
    assert json.loads(hosts[0]._read_key("stage", "k")) == json.loads(local._read_key("stage", "k"))
