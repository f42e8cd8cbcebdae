"""An S3 server on this machine, so that object stores are tested over a real connection."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own on a server that runs."""

    name: str
    storage_options: dict[str, Any]

    def url(self, path: str) -> str:
        return f"s3://{self.name}/{path}"


@contextmanager
def s3_bucket() -> Iterator[Bucket]:
    """Start a server on a free port, make a bucket, and stop the server at the end."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {
            "key": "test-key",
            "secret": "test-secret-1234",
            "client_kwargs": {"endpoint_url": f"http://{host}:{port}"},
        }
        bucket = Bucket(f"data-{uuid.uuid4().hex[:8]}", options)
        s3fs.S3FileSystem(**options).mkdir(bucket.name)
        yield bucket
    finally:
        server.stop()
