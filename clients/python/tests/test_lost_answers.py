"""Answers that are lost on their way: a write takes effect once, and its call says what became of it."""

from __future__ import annotations

from typing import Any, Callable, List

import pytest
import requests

import kvdb
from kvdb.transport import Broken, Data, Transport

Ask = Callable[..., Any]


class Lossy:
    """Loses the answer to each request of which `is_lost` says so, before or after the server has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, arrives: bool, is_lost: Callable[[str], bool], times: int = 1) -> None:
        self.lost: List[str] = []
        self.sent: List[str] = []
        original: Ask = Transport.ask

        def ask(transport: Transport, method: str, url: str, headers: Any, data: Data = b"") -> Any:
            losing = is_lost(url) and len(self.lost) < times
            if losing:
                self.lost.append(url)
            if losing and not arrives:
                raise Broken("cut before it was sent")
            self.sent.append(url)
            answer = original(transport, method, url, headers, data)
            if losing:
                raise Broken("cut before the answer came")
            return answer

        monkeypatch.setattr(Transport, "ask", ask)


def permitted(url: str) -> bool:
    """The second request of a write, which changes something."""
    return "ticket=" in url


@pytest.mark.parametrize("arrives", [True, False])
def test_a_write_whose_answer_is_lost_is_done_once_and_says_so(
    either: kvdb.Store[bytes], monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    either.create("old", b"1")
    calls: List[Callable[[], object]] = [
        lambda: either.create("new", b"x" * 100_000),
        lambda: either.put("put", b"y"),
        lambda: either.put("old", b"2"),
        lambda: either.delete("put"),
    ]
    told = []
    for call in calls:
        with monkeypatch.context() as patch:
            lossy = Lossy(patch, arrives, permitted)
            told.append(call())
            assert len(lossy.lost) == 1
            assert any("/-/outcome" in url for url in lossy.sent)
            # What arrived is not sent again; what did not is.
            assert len([url for url in lossy.sent if permitted(url)]) == 1
    assert told == [None, True, False, None]
    assert either.get("new") == b"x" * 100_000 and either.get("old") == b"2"
    assert list(either.list()) == ["new", "old"]


def test_what_cannot_be_learned_is_an_outcome_unknown(plain: kvdb.Store[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    store = kvdb.Store.connect(plain.url, profile=kvdb.PLAIN, retry_for=0.2)
    with monkeypatch.context() as patch:
        Lossy(patch, True, lambda url: permitted(url) or "/-/outcome" in url, times=1_000)
        with pytest.raises(kvdb.OutcomeUnknown) as told:
            store.create("a", b"1")
        assert not told.value.retry
    assert store.get("a") == b"1", "it was done, in truth"


def test_a_deletion_of_all_keys_goes_on_after_an_answer_that_is_lost(plain: kvdb.Store[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(10):
        plain.put(str(n), b"")
    with monkeypatch.context() as patch:
        lossy = Lossy(patch, True, lambda url: "?delete-all" in url)
        assert plain.delete_all() == 0, "what the lost answer told is not known"
        assert len(lossy.lost) == 1
    assert list(plain.list()) == []


def test_an_answer_that_ends_too_early_is_asked_for_again_and_never_returned(
    plain: kvdb.Store[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.put("a", b"0123456789" * 1000)
    original = requests.Response.iter_content
    cut: List[int] = []

    def short(answer: requests.Response, chunk_size: int = 1, decode_unicode: bool = False) -> Any:
        pieces = list(original(answer, chunk_size, decode_unicode))
        if answer.status_code == 200 and len(cut) < 2:
            cut.append(1)
            return iter([b"".join(pieces)[:-1]])
        return iter(pieces)

    monkeypatch.setattr(requests.Response, "iter_content", short)
    assert plain.get("a") == b"0123456789" * 1000
    assert len(cut) == 2


def test_problems_become_errors_of_their_kind() -> None:
    from kvdb.errors import from_problem

    document = {"code": "value_too_large", "detail": "d", "retry": False, "request_id": "r", "keys": ["a"]}
    error = from_problem(document, 413)
    assert isinstance(error, kvdb.TooLarge)
    assert (str(error), error.code, error.status, error.retry, error.request_id, error.keys) == ("d", "value_too_large", 413, False, "r", ("a",))
    newer = from_problem({"code": "of_a_later_day", "title": "t", "retry": True}, 418)
    assert type(newer) is kvdb.KvdbError and newer.code == "of_a_later_day" and newer.retry and str(newer) == "t"
    assert type(from_problem({"code": ["x"], "keys": 1}, 500)) is kvdb.KvdbError
