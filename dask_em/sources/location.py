"""Files and object stores: what is there, and errors that say so in a sentence without secrets."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dask_em.errors import DataError

T = TypeVar("T")

ATTEMPTS = 5
FIRST_WAIT = 0.2  # seconds; doubled at each attempt


@dataclass(frozen=True)
class Location:
    """A place that fsspec reaches: a path, or a URL with its storage options. Picklable."""

    url: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)  # may hold secrets: never printed

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine's file system."""
        return "://" not in self.url or self.url.startswith("file://")

    @property
    def is_process_local(self) -> bool:
        """Whether only this process can see it."""
        return self.url.startswith("memory://")

    @property
    def shown(self) -> str:
        """For people: the URL without a user, password or query."""
        return re.sub(r"(?<=://)[^/@]*@|\?.*$", "", self.url)

    def resolve(self) -> tuple[Any, str]:
        """The fsspec file system, and the path in it."""
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.url, **self.options)
        except ImportError as error:
            protocol = self.url.split("://")[0]
            raise DataError(
                f"{self.shown} needs a package that is not installed ({error.name or protocol}): {error}."
            ) from error
        except ValueError as error:
            raise DataError(f"{self.shown} cannot be opened: {error}.") from error


def locate(path: Any, storage_options: dict[str, Any] | None) -> Location:
    """A location for a path or URL."""
    text = os.fspath(path)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" not in text and "::" not in text:
        text = os.path.abspath(os.path.expanduser(text))
    return Location(text, dict(storage_options or {}))


def stamp(info: dict[str, Any]) -> tuple[Any, ...]:
    """What tells two versions of a file apart, from fsspec's description of it."""
    size = info.get("size")
    for name in ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if value is not None:
            if hasattr(value, "timestamp"):  # listing a folder and asking for one file may differ in the type
                value = value.timestamp()
            return size, f"{value:.6f}" if isinstance(value, float) else str(value).strip('"')
    return (size,)


def retrying(action: Callable[[], T]) -> T:
    """Run `action`, again after a growing pause where it fails for a reason that may pass."""
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not is_transient(error):
                raise
            time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


_TRANSIENT = re.compile(
    r"SlowDown|ServiceUnavailable|InternalError|RequestTimeout|Throttl|reduce your request rate|"
    r"\b(?:429|500|502|503|504)\b|timed out|timeout|reset by peer|broken pipe|Server disconnected|Connection",
    re.IGNORECASE,
)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, DataError | FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    module = type(error).__module__.split(".")[0]
    if module in ("botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs", "gcsfs", "adlfs") or type(error) is OSError:
        return bool(_TRANSIENT.search(f"{type(error).__name__}: {error}"))
    return False


def refusal(error: BaseException, where: str) -> DataError:
    """The error for a place that cannot be read, in a sentence that leaves out what may be secret."""
    text = str(error)
    if "NoSuchBucket" in text or "bucket does not exist" in text:
        reason = "the bucket does not exist: check its name and the endpoint in storage_options"
    elif isinstance(error, FileNotFoundError):
        reason = "there is nothing at that path"
    elif isinstance(error, PermissionError) or "AccessDenied" in text or "Forbidden" in text:
        reason = "access is denied: check the credentials and that they allow reading and listing"
    elif type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        reason = "no credentials were found: pass them in storage_options, or {'anon': True} for public data"
    elif "InvalidAccessKeyId" in text or "SignatureDoesNotMatch" in text:
        reason = "the store does not accept the credentials"
    elif is_transient(error):
        kind = type(error).__name__
        reason = f"the store did not answer ({kind}) in {ATTEMPTS} attempts: check the endpoint, or try later"
    else:
        reason = f"{type(error).__name__}: {without_secrets(text)}"
    return DataError(f"{where} cannot be read: {reason}.")


def without_secrets(text: str) -> str:
    """The first line of a message, without anything that looks like a key, token or signature."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    line = re.sub(r"(?i)((?:secret|token|key|password|signature|credential)[\w-]*\s*[=:]\s*)\S+", r"\1...", line)
    line = re.sub(r"(?<=://)[^/@\s]*@", "", line)
    return line[:300].rstrip(".")
