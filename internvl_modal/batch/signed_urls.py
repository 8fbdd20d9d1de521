"""URLs as keys: without what signs them, which is secret and another one the next time.

An output file lives long and is shared; a signed URL in it would be a key lying about, and the same
picture would have another key with every signature. What is taken out is what the signing schemes
of the large clouds add, and nothing else: other parameters tell pictures apart.

>>> without_signature("https://x.com/a.jpg?id=7&X-Amz-Signature=abc&X-Amz-Expires=60")
'https://x.com/a.jpg?id=7'
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_plus

from internvl_modal.images.names import is_url

_SIGNATURES = {"signature", "sig", "q-signature"}
"""Parameters that sign a URL: CloudFront, S3's first kind, Azure, Aliyun, Tencent."""
_LONG_SIGNATURES = {"sign", "hmac", "hm", "oh"}
"""The same, where the value is as long as one: of other sites, which call other things so too."""
_SHORTEST = 16
"""Characters: a shorter value of such a name signs nothing."""
_BESIDE = {
    "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid", "ossaccesskeyid",
    "security-token", "se", "st", "sp", "sv", "sr", "ss", "srt", "spr", "sip", "skoid", "sktid",
    "skt", "ske", "sks", "skv", "ex", "is", "oe", "exp", "expiry", "timestamp", "hash-algorithm",
}  # fmt: skip
"""What stands beside a signature, and is as fleeting."""
_VENDORS = re.compile(
    r"x-(amz|goog|oss|obs|tos|cos|ms)-(algorithm|credential|date|expires|signature(-version)?"
    r"|signed-?headers|security-token|content-sha256|additional-headers)|q-[a-z-]+",
)
_SECRETS = {
    "token", "access_token", "accesstoken", "auth", "authorization", "api_key", "apikey",
    "api-key", "x-api-key", "password", "passwd", "pwd", "secret", "client_secret", "jwt",
    "session", "sessionid", "credentials",
}  # fmt: skip
"""What lets somebody in and may tell pictures apart: a digest stands for it."""
_DIGEST = re.compile(r"sha256-[0-9a-f]{12}(?:/|$)")
_USER = re.compile(r"(?<=://)[^/?#@]*@")


def without_signature(key: str) -> str:
    """``key``, unless it is a URL with secrets: that without them.

    A picture that is signed anew keeps its key; so does one that has lost its secrets already.
    """
    if not is_url(key):
        return key
    key = _USER.sub("", key, count=1)
    address, mark, rest = key.partition("?")
    if not mark:
        return key
    query, hash_mark, fragment = rest.partition("#")
    parts = query.split("&")
    # Names such as "se" or "exp" mean something else where nothing is signed.
    signed = any(map(_signs, parts))
    kept = [_digested(part) for part in parts if not signed or not _is_of_signature(part)]
    return f"{address}{'?' if kept else ''}{'&'.join(kept)}{hash_mark}{fragment}"


def without_secrets(name: str) -> str:
    """A path or an address as errors, keys and files may have it.

    >>> without_secrets("ftp://me:pw@example.com/a.tar")
    'ftp://example.com/a.tar'
    """
    return without_signature(name) if is_url(name) else _USER.sub("", name, count=1)


def _name(part: str) -> str:
    return unquote_plus(part.partition("=")[0]).lower()


def _signs(part: str) -> bool:
    name, long = _name(part), len(part.partition("=")[2]) >= _SHORTEST
    vendors = _VENDORS.fullmatch(name) is not None
    return name in _SIGNATURES or vendors or (long and name in _LONG_SIGNATURES)


def _is_of_signature(part: str) -> bool:
    return _signs(part) or _name(part) in _BESIDE


def _digested(part: str) -> str:
    """A parameter with its secret replaced by a digest: still another one for another picture."""
    name, _, value = part.partition("=")
    # Behind a digest may follow what the file of that address holds: ``/MEMBER``.
    if _name(part) not in _SECRETS or not value or _DIGEST.match(value):
        return part
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()
    return f"{name}=sha256-{digest[:12]}"
