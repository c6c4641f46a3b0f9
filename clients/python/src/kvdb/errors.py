"""What can go wrong. Errors that a server tells of carry its stable ``code``."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Type


class KvdbError(Exception):
    """Any error of this package.

    ``code`` and ``status`` are the server's, where it told of the error; ``retry`` is whether the same call can succeed later;
    ``keys`` are those to blame, where it is some of several.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: Optional[str] = None,
        status: Optional[int] = None,
        retry: bool = False,
        request_id: str = "",
        keys: Sequence[str] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.retry = retry
        self.request_id = request_id
        self.keys = tuple(keys)


class NotFound(KvdbError, LookupError):
    """The key has no value, or it has expired."""


class KeyExists(KvdbError):
    """The key has a value, and the call was to create it."""


class BadKey(KvdbError, ValueError):
    """The key is empty, reserved, too long, or not text where text is asked for."""


class BadValue(KvdbError, ValueError):
    """The value, or the time to live, is not of the kind that the store takes."""


class TooLarge(KvdbError, ValueError):
    """The value is larger than the store takes."""


class PreconditionFailed(KvdbError):
    """A precondition does not hold."""


class Conflict(KvdbError):
    """Another write came first, again and again."""


class Forbidden(KvdbError):
    """The token is missing, or does not permit this."""


class NoSpace(KvdbError):
    """There is no room for the value."""


class QuotaExceeded(NoSpace):
    """The keys or bytes that a prefix may have are used up."""


class Corrupt(KvdbError):
    """Bytes are not what was stored. They are not returned."""


class Unavailable(KvdbError):
    """No server answered in time that could do it. Nothing was changed."""


class OutcomeUnknown(KvdbError):
    """The answer to a write was lost, and what became of it could not be learned in time. It is done or not, and never half."""


class AlreadyOpen(KvdbError):
    """The directory is open already, in this process or in another one."""


class ServerFailed(KvdbError):
    """The program that serves the directory is not there, or did not start."""


class Closed(KvdbError):
    """The store was closed."""


_BY_CODE: Mapping[str, Type[KvdbError]] = {
    "bad_key": BadKey,
    "too_long": BadKey,
    "key_too_long": BadKey,
    "not_found": NotFound,
    "exists": KeyExists,
    "value_too_large": TooLarge,
    "precondition_failed": PreconditionFailed,
    "conflict": Conflict,
    "unauthorized": Forbidden,
    "forbidden": Forbidden,
    "content_type_refused": BadValue,
    "content_invalid": BadValue,
    "no_space": NoSpace,
    "quota_exceeded": QuotaExceeded,
    "corrupt": Corrupt,
    "digest_mismatch": Corrupt,
    "outcome_unknown": OutcomeUnknown,
    "request_timeout": Unavailable,
    "too_many_requests": Unavailable,
    "unavailable": Unavailable,
    "no_replica": Unavailable,
    "no_volumes": Unavailable,
    "read_only": Unavailable,
    "busy": Unavailable,
}


def from_problem(problem: Mapping[str, Any], status: int) -> KvdbError:
    """The error that a problem document (RFC 9457) tells of; a code that is not known here is a plain ``KvdbError``."""
    code = problem.get("code")
    kind = _BY_CODE.get(code, KvdbError) if isinstance(code, str) else KvdbError
    keys = problem.get("keys")
    return kind(
        str(problem.get("detail") or problem.get("title") or f"the server answered {status}"),
        code=code if isinstance(code, str) else None,
        status=status,
        retry=problem.get("retry") is True,
        request_id=str(problem.get("request_id", "")),
        keys=[str(key) for key in keys] if isinstance(keys, list) else (),
    )
