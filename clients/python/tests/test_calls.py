"""What each call does, over a directory and over a cluster."""

from __future__ import annotations

import datetime
import io
import json
import pathlib
import random
import threading
import time
from typing import List

import pytest

import kvdb

from conftest import Cluster

MIB = 1 << 20


def made(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def test_values_of_every_size_come_back_as_they_were(either: kvdb.Store[bytes]) -> None:
    for length in (0, 1, 65_536, 65_537, 3 * MIB + 1):
        either.create(f"of {length}", made(length))
        assert either.get(f"of {length}") == made(length)
        assert either.info(f"of {length}").length == length


def test_create_of_an_existing_key_is_an_error_and_put_replaces(either: kvdb.Store[bytes]) -> None:
    either.create("a", b"one")
    with pytest.raises(kvdb.KeyExists) as told:
        either.create("a", b"two")
    assert (told.value.code, told.value.status, told.value.retry) == ("exists", 409, False)
    assert either.get("a") == b"one"
    assert either.put("a", b"three") is False
    assert either.put("b", b"four") is True
    assert either.get("a") == b"three"


def test_what_is_absent_is_not_found_by_any_call(either: kvdb.Store[bytes], tmp_path: pathlib.Path) -> None:
    either.create("a", b"")
    either.delete("a")
    for call in (either.get, either.delete, either.info, lambda key: either.get_file(key, tmp_path / "file")):
        with pytest.raises(kvdb.NotFound) as told:
            call("a")
        assert told.value.code == "not_found"
    assert list(tmp_path.glob("*file*")) == [], "nothing is left of the file"
    assert isinstance(told.value, LookupError)


def test_an_expired_value_is_absent_and_its_key_can_be_created_again(either: kvdb.Store[bytes]) -> None:
    either.create("long", b"x", ttl=3600)
    remaining = either.info("long").remaining
    assert remaining is not None and datetime.timedelta(seconds=3500) < remaining <= datetime.timedelta(seconds=3600)
    either.create("a", b"x", ttl=datetime.timedelta(milliseconds=50))
    time.sleep(0.06)
    with pytest.raises(kvdb.NotFound):
        either.get("a")
    assert list(either.list()) == ["long"]
    either.create("a", b"y")
    assert either.get("a") == b"y" and either.info("a").remaining is None


def test_lists_go_over_pages_in_order_and_delete_all_takes_what_it_says(either: kvdb.Store[bytes]) -> None:
    names = [f"k/{n}" for n in range(70)] + ["%41", "a b+c", "ä", "x/../y", "."]
    for name in names:
        either.put(name, name.encode())
    either.put(b"\xff\x00", b"bytes")
    assert list(either.list()) == sorted(names, key=str.encode) + [b"\xff\x00"]
    assert all(either.get(name) == name.encode() for name in names)
    assert either.get(b"\xff\x00") == b"bytes"
    assert list(either.list("k/1")) == ["k/1"] + [f"k/1{n}" for n in range(10)]
    assert either.delete_all("k/") == 70
    assert either.delete_all("k/") == 0
    with pytest.raises(kvdb.BadKey):
        either.delete_all("")
    assert either.delete_all() == 6
    assert list(either.list()) == []


def test_more_keys_than_a_page_are_listed_and_deleted(plain: kvdb.Store[bytes]) -> None:
    names = [f"{n:04}" for n in range(1_050)]

    def put(some: List[str]) -> None:
        for name in some:
            plain.put(name, b"")

    threads = [threading.Thread(target=put, args=(names[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(plain.list()) == names
    assert plain.delete_all() == len(names)


def test_files_go_and_come_without_being_read_into_memory(either: kvdb.Store[bytes], tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(made(20 * MIB))
    assert either.put_file("big", source) is True
    assert either.put_file("big", source, ttl=3600) is False
    with pytest.raises(kvdb.KeyExists):
        either.put_file("big", source, create=True)
    assert either.get_file("big", target) == 20 * MIB
    assert target.read_bytes() == source.read_bytes()
    assert (target.stat().st_mode & 0o777) == (source.stat().st_mode & 0o777)
    rest, out = io.BytesIO(b"not this, but this"), io.BytesIO()
    rest.seek(10)
    either.put_file("rest", rest)
    out.write(b"before ")
    assert either.get_file("rest", out) == 8
    assert out.getvalue() == b"before but this"
    either.put_file("empty", io.BytesIO())
    assert either.get("empty") == b""
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["source", "target"]


def test_a_large_value_is_refused_where_it_would_be_in_memory(tmp_path: pathlib.Path, plain: kvdb.Store[bytes]) -> None:
    small = kvdb.Store.connect(plain.url, profile=kvdb.PLAIN.limits(max_value_bytes=1000))
    with pytest.raises(kvdb.TooLarge):
        small.put("a", made(1001))
    plain.put("a", made(1001))
    with pytest.raises(kvdb.TooLarge, match="get_file"):
        small.get("a")
    assert small.get_file("a", tmp_path / "a") == 1001


def test_objects_are_kept_by_the_profile_of_key_value_ds(tmp_path: pathlib.Path) -> None:
    with kvdb.Store.open(tmp_path / "s") as store:
        value = {"name": "Ädä", "list": [1, 2.5, None, True], "in": {"a": {}}}
        store.create("k" * 32, value)
        assert store.get("k" * 32) == value
        assert store.info("k" * 32).content_type == "application/json"
        store.create("ä" * 32, {})
        with pytest.raises(kvdb.BadKey):
            store.create("k" * 33, {})
        store.create("full", {"a": "x" * (16_384 - 8)})
        with pytest.raises(kvdb.TooLarge):
            store.create("a", {"a": "x" * (16_384 - 7)})
        for bad in ([1], "text", 1, None, {1: 2}, {"a": object()}, {"a": float("nan")}, {"a": "\ud800"}):
            with pytest.raises(kvdb.BadValue):
                store.create("a", bad)  # type: ignore[arg-type]
        kvdb.Store.connect(store.url, profile=kvdb.PLAIN).put("list", b"[1]")
        with pytest.raises(kvdb.BadValue):
            store.get("list")
        assert "a" not in list(store.list())


def test_keys_and_times_that_cannot_be_are_refused_before_anything_is_sent() -> None:
    nowhere = kvdb.Store.connect("http://localhost:9", profile=kvdb.PLAIN, retry_for=0)
    for key in ("", "-/x", "k" * 1025, "\ud800"):
        with pytest.raises(kvdb.BadKey):
            nowhere.put(key, b"")
    for ttl in (0, -1, 0.0001, float("inf"), float("nan"), True, "5"):
        with pytest.raises(kvdb.BadValue):
            nowhere.put("a", b"", ttl=ttl)  # type: ignore[arg-type]
    with pytest.raises(kvdb.BadValue):
        nowhere.put("a", "text")  # type: ignore[arg-type]
    with pytest.raises(kvdb.Unavailable):
        nowhere.get("a")


def test_limits_of_a_cluster_are_errors_of_their_kind(cluster: Cluster) -> None:
    limits = {"limits": [{"prefix": "j/", "content": "json_object"}, {"prefix": "q/", "max_keys": 1, "max_key_bytes": 5}]}
    (cluster.directory / "limits.json").write_text(json.dumps(limits))
    cluster.kill(0)
    cluster.start(0, "--limits", str(cluster.directory / "limits.json"))
    cluster.wait()
    store = kvdb.Store.connect(cluster.url, profile=kvdb.PLAIN)
    with pytest.raises(kvdb.BadValue) as content:
        store.create("j/a", b"[1]")
    store.create("q/a", b"")
    with pytest.raises(kvdb.QuotaExceeded) as quota:
        store.create("q/b", b"")
    with pytest.raises(kvdb.BadKey) as key:
        store.create("q/long", b"")
    assert [e.value.code for e in (content, quota, key)] == ["content_invalid", "quota_exceeded", "key_too_long"]
    assert list(store.list()) == ["q/a"]


def test_many_threads_may_create_one_key_and_one_of_them_does(either: kvdb.Store[bytes]) -> None:
    created: List[int] = []

    def create(thread: int) -> None:
        for n in range(10):
            try:
                either.create(f"shared {n}", made(1000, thread))
                created.append(n)
            except kvdb.KeyExists:
                pass
            either.put(f"own {thread}", made(70_000, thread + n))
            assert either.get(f"own {thread}") == made(70_000, thread + n)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == list(range(10))


def test_a_closed_store_says_so() -> None:
    store = kvdb.Store.connect("http://localhost:9")
    store.close()
    with pytest.raises(kvdb.Closed):
        store.get("a")
