"""The official CIFAR archives from their site, within a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from resattn.training.layouts import DataError, Layout, check_archive

SITE = "https://www.cs.toronto.edu/~kriz/"
# Seconds: until the site has answered at all (together well within the 10 s an offline machine may lose), and until
# the whole archive is here.
ANSWER_LIMIT_S, STALL_LIMIT_S, DOWNLOAD_LIMIT_S = 8.0, 5.0, 300.0


class DownloadError(DataError):
    """A dataset that could not be downloaded, or not in time."""


def fetch(layout: Layout, home: Path, *, limit_s: float = DOWNLOAD_LIMIT_S) -> Path:
    """The official archive under `home`, downloaded where it is not there yet.

    Given up when the site does not answer within 8 s, when the download stalls, and after `limit_s`. The file is put
    into place only once its sha256 is right.

    Raises: DataError for an archive that is there and altered; DownloadError.
    """
    # Imported here, as most runs download nothing.
    import pooch
    from tqdm import tqdm

    target = home / layout.archive
    if target.exists():
        check_archive(layout, target)
        return target
    url = SITE + layout.archive
    deadline = time.monotonic() + limit_s

    class Bar(tqdm):  # type: ignore[type-arg]
        def __bool__(self) -> bool:  # pooch asks; for tqdm a bar of unknown length is none
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
    # In a thread of its own: a name server that does not answer cannot be timed out in any other way.
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
    # The messages of requests repeat every layer below; the innermost says it.
    while error.__context__ is not None:
        error = error.__context__
    return error
