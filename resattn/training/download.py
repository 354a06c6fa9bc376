"""Download of the official CIFAR archives, within a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from resattn.training.layouts import DataError, Layout, check_archive

SITE = "https://www.cs.toronto.edu/~kriz/"
# Seconds until the first answer (well within the 10 s that an offline machine may lose), between two pieces, and for
# the whole archive.
ANSWER_LIMIT_S, STALL_LIMIT_S, DOWNLOAD_LIMIT_S = 8.0, 5.0, 300.0


class DownloadError(DataError):
    """A dataset could not be downloaded, or not in time."""


def fetch(layout: Layout, home: Path, *, limit_s: float = DOWNLOAD_LIMIT_S) -> Path:
    """The path of the official archive in `home`, downloaded if it is missing.

    The download fails if the site does not answer within 8 s, if it stalls, or after `limit_s`. The file gets its name
    only after its sha256 is verified.

    Raises: DataError for an altered archive in `home`; DownloadError.
    """
    # Imported here, because most runs download nothing.
    import pooch
    from tqdm import tqdm

    target = home / layout.archive
    if target.exists():
        check_archive(layout, target)
        return target
    url = SITE + layout.archive
    deadline = time.monotonic() + limit_s

    class Bar(tqdm):  # type: ignore[type-arg]
        def __bool__(self) -> bool:  # pooch asks; for tqdm a bar of unknown length is false
            return True

        def update(self, n: float | None = 1) -> bool | None:
            if time.monotonic() > deadline:
                raise DownloadError(f"{url}: not downloaded within {limit_s:.0f} s")
            return super().update(n)

    bar = Bar(desc=layout.archive, unit="B", unit_scale=True, leave=False, disable=None)
    download = pooch.HTTPDownloader(progressbar=bar, timeout=STALL_LIMIT_S, chunk_size=1 << 16)
    try:
        _within(min(ANSWER_LIMIT_S, limit_s), url, lambda: download(url, None, None, check_only=True))
        pooch.retrieve(
            url, known_hash=f"sha256:{layout.archive_sha256}", fname=layout.archive, path=home, downloader=download
        )
    except (OSError, ValueError) as error:
        raise DownloadError(f"{url}: not downloaded: {error}") from error
    finally:
        bar.close()
    return target


def _within(limit_s: float, url: str, ask: Callable[[], bool]) -> None:
    # In a thread, because a name server that does not answer cannot be timed out in any other way.
    answers: list[bool | Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    match answers:
        case []:
            raise DownloadError(f"{url}: no answer within {limit_s:.0f} s")
        case [Exception() as error]:
            raise DownloadError(f"{url}: not reached: {_root(error)}") from error
        case [False]:
            raise DownloadError(f"{url}: the site does not have it")


def _root(error: BaseException) -> BaseException:
    # The messages of requests repeat those of every layer below; the innermost gives the cause.
    while error.__context__ is not None:
        error = error.__context__
    return error
