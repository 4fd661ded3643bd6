"""Who is there: a key's name and the key, and from then on a signed cookie. Nothing is kept, so a restart logs nobody out, and who loses
the key loses the session."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

COOKIE = "hunyuan_video_session"
LASTS = 7 * 24 * 3600  # seconds
_NOBODY = hashlib.sha256(b"").hexdigest()  # compared with where there is no such name, so that both take the same time


def admits(keys: Mapping[str, str], name: str, key: str) -> bool:
    """Whether `key` is the one of that name; `keys` holds their SHA-256, in hexadecimal."""
    right = hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), keys.get(name, _NOBODY))
    return right and name in keys


def session(keys: Mapping[str, str], name: str, now: float) -> str:
    """A cookie's value that says who came in, until when, and that it was here."""
    said = f"{urlsafe_b64encode(name.encode()).decode()}.{int(now) + LASTS}"
    return f"{said}.{_signed(keys[name], said)}"


def owner_of(keys: Mapping[str, str], cookie: str | None, now: float) -> str | None:
    """Whose session it is; None of one that is over, or was never made here."""
    said, _, signature = (cookie or "").rpartition(".")
    encoded, _, end = said.partition(".")
    try:
        name = urlsafe_b64decode(encoded.encode()).decode()
    except ValueError:
        return None
    # The digest of a key that has been taken away or changed signs nothing any more.
    right = hmac.compare_digest(_signed(keys.get(name, _NOBODY), said).encode(), signature.encode())
    return name if right and name in keys and end.isdigit() and now < int(end) else None


def _signed(digest: str, said: str) -> str:
    return hmac.new(f"session {digest}".encode(), said.encode(), hashlib.sha256).hexdigest()
