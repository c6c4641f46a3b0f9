"""What keys and values of a store may be."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Callable, Dict, Generic, Optional, TypeVar, Union

from .errors import BadKey, BadValue, TooLarge

V = TypeVar("V")

JsonObject = Dict[str, Any]

#: Longest key of all, in bytes.
MAX_KEY_BYTES = 1024


@dataclasses.dataclass(frozen=True)
class Profile(Generic[V]):
    """The limits of a store, and how values become bytes. Lengths of keys are in characters and bytes, of values in bytes."""

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    content_type: str
    max_value_bytes: int
    max_key_characters: Optional[int] = None

    def limits(self, *, max_key_characters: Optional[int] = None, max_value_bytes: Optional[int] = None) -> Profile[V]:
        """The same with other limits; those not given stay."""
        return dataclasses.replace(
            self,
            max_key_characters=self.max_key_characters if max_key_characters is None else max_key_characters,
            max_value_bytes=self.max_value_bytes if max_value_bytes is None else max_value_bytes,
        )

    def key_bytes(self, key: Union[str, bytes]) -> bytes:
        """The bytes of a key, checked."""
        try:
            raw = key.encode() if isinstance(key, str) else bytes(key)
            characters = len(raw.decode()) if self.max_key_characters is not None else 0
        except UnicodeError as error:
            raise BadKey(f"the key is not UTF-8 text: {error}") from error
        if self.max_key_characters is not None and characters > self.max_key_characters:
            raise BadKey(f"the key has {characters} characters; this store takes at most {self.max_key_characters}")
        if not 1 <= len(raw) <= MAX_KEY_BYTES:
            raise BadKey(f"the key has {len(raw)} bytes; it may have 1 to {MAX_KEY_BYTES}")
        if raw.startswith(b"-/"):
            raise BadKey("keys that begin with '-/' are the server's own")
        return raw

    def value_bytes(self, value: V) -> bytes:
        """The bytes of a value, checked."""
        raw = self.encode(value)
        if len(raw) > self.max_value_bytes:
            raise TooLarge(f"the value has {len(raw)} bytes; this store takes at most {self.max_value_bytes}")
        return raw


def _encode_object(value: JsonObject) -> bytes:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise BadValue("the value is not a JSON object: give a dict whose keys are text")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadValue(f"the value is not a JSON object: {error}") from error


def _decode_object(raw: bytes) -> JsonObject:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"the stored value is not a JSON object: {error}; read it with profile=kvdb.PLAIN") from error
    if not isinstance(value, dict):
        raise BadValue("the stored value is JSON, but no object; read it with profile=kvdb.PLAIN")
    return value


def _encode_bytes(value: bytes) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise BadValue(f"the value is {type(value).__name__}, and must be bytes")
    return bytes(value)


#: As key-value-ds has it: keys of at most 32 characters, JSON objects of at most 16 KiB.
KEY_VALUE_DS: Profile[JsonObject] = Profile(_encode_object, _decode_object, "application/json", 16 << 10, 32)

#: Keys of at most 1024 bytes; values are bytes, in memory at most 64 MiB.
PLAIN: Profile[bytes] = Profile(_encode_bytes, bytes, "application/octet-stream", 64 << 20)
