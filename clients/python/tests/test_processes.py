"""Servers that are killed, started again, in use, or not there."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Dict, List

import pytest

import kvdb
from kvdb.server import find_program

from conftest import Cluster
from test_calls import MIB, made


def ended(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for has."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_was_stored_is_there_when_the_directory_is_opened_again(tmp_path: pathlib.Path) -> None:
    with kvdb.Store.open(tmp_path / "s") as store:
        store.create("a", {"n": 1})
        store.create("short", {}, ttl=0.05)
        pid = store.server_pid
    assert pid is not None and ended(pid), "nothing is left running"
    time.sleep(0.05)
    with kvdb.Store.open(tmp_path / "s") as store:
        assert store.get("a") == {"n": 1}
        assert list(store.list()) == ["a"]


def test_a_second_opener_gets_an_error_until_the_first_has_closed(tmp_path: pathlib.Path) -> None:
    with kvdb.Store.open(tmp_path / "s") as store:
        with pytest.raises(kvdb.AlreadyOpen, match="open already"):
            kvdb.Store.open(tmp_path / "s")
        code = "import kvdb, sys\ntry: kvdb.Store.open(sys.argv[1])\nexcept kvdb.AlreadyOpen: sys.exit(77)"
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")]).returncode == 77
        store.create("a", {})
    kvdb.Store.open(tmp_path / "s").close()


def test_a_directory_is_made_up_where_none_is_given(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with kvdb.Store.open() as one, kvdb.Store.open() as other:
        one.create("a", {})
        assert list(other.list()) == []
        assert one.directory is not None and other.directory is not None
        assert one.directory.parent == tmp_path and one.directory.name.startswith("kvdb-")
        assert one.directory != other.directory


def test_the_server_ends_with_a_process_that_is_killed_and_what_it_stored_is_there(tmp_path: pathlib.Path) -> None:
    code = """
import kvdb, sys, time
store = kvdb.Store.open(sys.argv[1], profile=kvdb.PLAIN)
store.create("a", b"x" * 2_000_000)
print(store.server_pid, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    server = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 30
    while not ended(server):
        assert time.monotonic() < until, "the server is an orphan"
        time.sleep(0.02)
    with kvdb.Store.open(tmp_path / "s", profile=kvdb.PLAIN) as store:
        assert store.get("a") == b"x" * 2_000_000


def test_acknowledged_writes_survive_kills_of_the_embedded_server(tmp_path: pathlib.Path) -> None:
    stored: Dict[str, bytes] = {}
    for life in range(4):
        store = kvdb.Store.open(tmp_path / "s", profile=kvdb.PLAIN, retry_for=5)
        for key, value in stored.items():
            assert store.get(key) == value
        failed: List[BaseException] = []

        def write(thread: int) -> None:
            for n in range(10_000):
                key, value = f"{life}/{thread}/{n}", made(100 if n % 3 else 100_000, n)
                try:
                    store.create(key, value)
                except (kvdb.Closed, kvdb.OutcomeUnknown) as error:
                    failed.append(error)
                    return
                stored[key] = value

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        before = len(stored)
        while len(stored) < before + 20:
            time.sleep(0.01)
        assert store.server_pid is not None
        os.kill(store.server_pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert len(failed) == 4
        with pytest.raises(kvdb.Closed):
            store.get("any")
        store.close()


def test_calls_go_on_while_servers_of_a_cluster_are_killed_and_started_again(cluster: Cluster) -> None:
    store = kvdb.Store.connect(cluster.url, profile=kvdb.PLAIN, retry_for=60)
    stop, counts = threading.Event(), [0, 0, 0]

    def work(thread: int) -> None:
        n = 0
        while not stop.is_set():
            key, value = f"{thread}/{n}", made(300 if n % 2 else 200_000, n)
            # Each exactly once: a lost answer must not make an error of what was done.
            store.create(key, value)
            assert store.get(key) == value
            if n % 3 == 0:
                store.delete(key)
            n += 1
            counts[thread] = n

    errors: List[BaseException] = []

    def watched(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=watched, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for server in (0, 1, 2, 0):
        time.sleep(0.3)
        cluster.kill(server)
        time.sleep(0.1)
        cluster.start(server)
        cluster.wait()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    expected = {f"{t}/{n}" for t, count in enumerate(counts) for n in range(count) if n % 3}
    assert set(store.list()) == expected and len(expected) > 4


def test_a_download_goes_on_after_a_kill_of_the_volume_that_sends_it(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    store = kvdb.Store.connect(cluster.url, profile=kvdb.PLAIN, retry_for=60)
    source, killed = tmp_path / "source", False
    source.write_bytes(made(64 * MIB))
    store.put_file("big", source)

    class Slow:
        """A file that kills a volume when half of the value has come."""

        def __init__(self) -> None:
            self.file = open(tmp_path / "target", "w+b")

        def write(self, piece: bytes) -> int:
            nonlocal killed
            if not killed and self.file.tell() > 32 * MIB:
                killed = True
                cluster.kill(1)
            return self.file.write(piece)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    slow = Slow()
    assert store.get_file("big", slow) == 64 * MIB  # type: ignore[arg-type]
    slow.file.close()
    assert killed and (tmp_path / "target").read_bytes() == source.read_bytes()


def test_a_program_that_is_not_there_or_fails_is_an_error_that_says_so(tmp_path: pathlib.Path) -> None:
    with pytest.raises(kvdb.ServerFailed, match="is not there"):
        kvdb.Store.open(tmp_path / "s", program=tmp_path / "none")
    with pytest.raises(kvdb.ServerFailed, match="did not start"):
        kvdb.Store.open(tmp_path / "s", program="true")
    (tmp_path / "file").write_text("")
    with pytest.raises(kvdb.ServerFailed, match="file"):
        kvdb.Store.open(tmp_path / "file")


def test_a_token_goes_to_the_master_and_to_nobody_else(plain: kvdb.Store[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    sent: Dict[str, List[str]] = {}
    original = requests.Session.send

    def send(self: requests.Session, request: requests.PreparedRequest, **kwargs: object) -> requests.Response:
        assert request.url is not None
        sent.setdefault("/".join(request.url.split("/")[:3]), []).append(request.headers.get("Authorization", ""))
        return original(self, request, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(requests.Session, "send", send)
    store = kvdb.Store.connect(plain.url, "secret-token", profile=kvdb.PLAIN)
    store.put("a", b"1")
    assert store.get("a") == b"1"
    assert set(sent.pop(plain.url)) == {"Bearer secret-token"}
    assert sent and all(set(values) == {""} for values in sent.values())


def test_a_cluster_with_tokens_permits_what_the_token_may(cluster: Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens.json"

    def made_token(name: str, rights: str) -> str:
        command = [find_program(None), "token", "new", name, "--right", rights, "--file", str(file), "--quiet"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    owner, reader = made_token("owner", "admin"), made_token("reader", "read,list:a/")
    cluster.kill(0)
    cluster.start(0, "--tokens", str(file))
    cluster.wait()
    store = kvdb.Store.connect(cluster.url, token=owner, profile=kvdb.PLAIN)
    large = os.urandom(3 * MIB)
    store.put("a/large", large)
    store.put("b", b"1", ttl=60)
    assert store.get("a/large") == large and sorted(store.list()) == ["a/large", "b"]
    narrow = kvdb.Store.connect(cluster.url, token=reader, profile=kvdb.PLAIN)
    assert narrow.get("a/large") == large
    for refused in (
        lambda: narrow.get("b"),
        lambda: narrow.put("a/new", b""),
        lambda: narrow.delete("a/large"),
        lambda: kvdb.Store.connect(cluster.url, profile=kvdb.PLAIN).get("b"),
    ):
        with pytest.raises(kvdb.Forbidden):
            refused()
    store.delete_all()
    assert list(store.list()) == []
    # The server of a directory is for its own process, which has no token, whatever the environment says of clusters.
    monkeypatch.setenv("KVDB_TOKENS", str(file))
    with kvdb.Store.open(tmp_path / "own", profile=kvdb.PLAIN) as own:
        own.put("a", b"1")
