"""Weights that are fetched once and kept, with a checksum that is trusted on first use."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backbones.contract import Download, WeightsError

PATIENCE = 5.0  # seconds to wait for a server when a run asks whether it is there


def cache_folder() -> Path:
    """Where downloads lie: `FLEXIVIT_CACHE`, else `~/.cache/flexivit`."""
    return Path(os.environ.get("FLEXIVIT_CACHE") or Path.home() / ".cache" / "flexivit")


def cached_path(url: str) -> Path:
    """Where the download of a URL lies, or would."""
    return cache_folder() / url.rsplit("/", 1)[-1]


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, checksum: str | None = None) -> Path:
    """Path of a cached download; downloads once, atomically.

    What a server tells of size and MD5 is compared. The SHA-256 is kept beside the file when it is first used (as
    `sha256sum` writes it) and compared ever after; `checksum`, whole or its beginning, goes before it.

    Raises: WeightsError without a network (where to put the file by hand), for a download that is cut or altered, and
    for a file that is not what it was.
    """
    target = cached_path(url)
    if not target.exists():
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            print(f"downloading {url} -> {target}")
            with urllib.request.urlopen(url, timeout=30) as source, partial.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
                _compare_with_server(partial, source.headers, sink.tell(), url)
            partial.replace(target)
        except (OSError, urllib.error.URLError) as error:
            raise WeightsError(f"cannot download {url} ({error}); {_by_hand(target)}") from error
        finally:
            partial.unlink(missing_ok=True)
    verify(target, checksum)
    return target


def _by_hand(target: Path) -> str:
    return f"fetch it elsewhere and put it at {target}, or set FLEXIVIT_CACHE to the folder that has it"


def _compare_with_server(file: Path, headers: Any, size: int, url: str) -> None:
    told = headers.get("Content-Length") if hasattr(headers, "get") else None
    if told and int(told) != size:
        raise OSError(f"{size} of {told} bytes came")
    hashes = ",".join(getattr(headers, "get_all", lambda _: None)("x-goog-hash") or [])
    expected = next((h.strip().removeprefix("md5=") for h in hashes.split(",") if h.strip().startswith("md5=")), None)
    if expected is None:
        return
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).digest()
    if base64.b64encode(digest).decode() != expected:
        raise OSError(f"what came from {url} has another MD5 than the server tells")


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file, once in a process as long as the file stays as it is."""
    return sha256(path)


def verify(path: Path, checksum: str | None = None) -> None:
    """Compare a file with `checksum` (SHA-256, whole or its beginning) and with the one kept on first use.

    Raises: WeightsError where either differs.
    """
    stat, kept = path.stat(), path.with_name(f"{path.name}.sha256")
    digest = _digest(path, stat.st_size, stat.st_mtime_ns)
    if checksum and not digest.startswith(checksum):
        raise WeightsError(f"{path}: checksum mismatch, expected sha256 {checksum}, got {digest}; delete it and retry")
    try:
        known = kept.read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        _keep(kept, f"{digest}  {path.name}\n")
        return
    if known != digest:
        raise WeightsError(
            f"{path}: checksum mismatch, sha256 was {known} when it was first used and is {digest}; delete the file "
            f"to download it again, or {kept.name} to accept it"
        )


def _keep(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError:  # a cache that only its owner may write is still read
        partial.unlink(missing_ok=True)


def pending(url: str, size: int | None = None) -> Download | None:
    """What a download of a URL would be; None where it is in the cache. Nothing is asked of the server."""
    target = cached_path(url)
    return None if target.exists() else Download(f"the weights {target}", url, _by_hand(target), size)


def obstacle(wanted: Download, connect: bool = True) -> str | None:
    """Why a download cannot be had now, in one line; None where it can, as far as is known.

    Args: connect: ask the server whether it answers; else only whether this machine has a network at all.

    Example: `obstacle(pending("https://example.org/a.npz"), connect=False)`
    """
    problem = unreachable(wanted.url) if connect else no_network()
    return problem and f"{wanted.what} are not there and {wanted.url} cannot be reached ({problem}); {wanted.without}"


@functools.lru_cache(maxsize=1)
def no_network() -> str | None:
    """Why nothing can be fetched on this machine at all; None where it has a way out, or a proxy. Nothing is sent."""
    if urllib.request.getproxies():
        return None
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):  # of documentation
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # of a datagram this looks up a route, no more
            return None
    return "this machine has no network"


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Nothing is fetched within the block, from the Hugging Face hub neither: its cache alone is read.

    Example: `with offline(): plan(suite, store, data_root)`
    """
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@functools.lru_cache(maxsize=256)
def unreachable(url: str) -> str | None:
    """Why a URL does not answer, asked once in a process; None where it does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return None
    except (OSError, urllib.error.URLError, ValueError) as error:
        return str(getattr(error, "reason", None) or error)
