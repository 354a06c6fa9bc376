from __future__ import annotations

import http.server
import os
import pickle
import socket
import tarfile
import threading
import time
from dataclasses import replace
from hashlib import md5, sha256

import numpy as np
import pytest
import torch
from cifar_files import binary, member, pixels, tar_gz, write_binary, write_python

from resattn.training import data, download
from resattn.training.cifar import members
from resattn.training.config import ConfigError
from resattn.training.download import DownloadError
from resattn.training.layouts import CIFAR10, CIFAR100, LAYOUTS, PIXEL_BYTES, DataError, Layout
from resattn.training.pickles import unpickle

pytestmark = pytest.mark.usefixtures("small")
BOTH = pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.name)


def assert_is(dataset: data.Dataset, layout: Layout) -> None:
    parts = [pixels(layout, file) for file in layout.train]
    assert (dataset.images.numpy() == np.concatenate([images for images, _ in parts])).all()
    assert (dataset.labels.numpy() == np.concatenate([labels for _, labels in parts])).all()
    images, labels = pixels(layout, layout.test[0])
    assert (dataset.test_images.numpy() == images).all()
    assert (dataset.test_labels.numpy() == labels).all()
    assert (dataset.classes, dataset.labels.dtype) == (layout.classes, torch.int64)


def archive(layout: Layout) -> bytes:
    folder = layout.binary_folder
    files = [member(f"{folder}/{file}", binary(layout, file)) for file in (*layout.train, *layout.test)]
    return tar_gz([member(folder, type=tarfile.DIRTYPE), member(f"{folder}/readme.html", b"<html>"), *files])


@pytest.fixture
def official(monkeypatch):
    """CIFAR-10 whose published digest is that of the small archive."""
    raw = archive(CIFAR10)
    layout = replace(CIFAR10, archive_sha256=sha256(raw).hexdigest())
    monkeypatch.setitem(LAYOUTS, "cifar10", layout)
    return layout, raw


@BOTH
def test_the_three_layouts_hold_the_same(tmp_path, layout, monkeypatch):
    write_binary(layout, tmp_path / "bin")
    write_python(layout, tmp_path / "py")
    raw = archive(layout)
    monkeypatch.setitem(LAYOUTS, layout.name, replace(layout, archive_sha256=sha256(raw).hexdigest()))
    (tmp_path / layout.archive).write_bytes(raw)
    loaded = [data.load(layout.name, folder) for folder in (tmp_path / "bin", tmp_path / "py", tmp_path)]
    for dataset in loaded:
        assert_is(dataset, layout)
    assert len({dataset.digest for dataset in loaded}) == 1
    digest = loaded[0].digest[:12]
    unknown = f"{layout.title} (not known to be the official pixels; digest {digest})"
    assert [d.label for d in loaded] == [unknown, unknown, f"{layout.title} (official binary)"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["bin", "py", layout.archive])  # nothing is extracted


def test_the_data_folder_is_that_of_the_environment(tmp_path, monkeypatch):
    write_binary(CIFAR10, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (tmp_path / "data", "data", "./data/../data", "~/data"):
        monkeypatch.setenv("RESATTN_DATA", str(place))
        assert data.home() == tmp_path / "data"
        assert_is(data.load("cifar10"), CIFAR10)
    monkeypatch.delenv("RESATTN_DATA")
    assert data.home().name == "resattn"


@BOTH
def test_the_usual_python_archive_is_read_without_extracting(tmp_path, layout):
    folder = write_python(layout, tmp_path / "made")
    files = [member(f"{folder.name}/{path.name}", path.read_bytes()) for path in sorted(folder.iterdir())]
    (tmp_path / layout.python_archive).write_bytes(tar_gz([member(f"{folder.name}/readme.html", b"x"), *files]))
    assert_is(data.load(layout.name, tmp_path), layout)
    assert data.verify(tmp_path / layout.python_archive).digest == data.load(layout.name, tmp_path / "made").digest
    raw = (tmp_path / layout.python_archive).read_bytes()
    (tmp_path / layout.python_archive).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="python.tar.gz: (truncated or altered|member .* is missing)"):
        data.load(layout.name, tmp_path)
    (tmp_path / layout.python_archive).write_bytes(tar_gz([*files[1:], member(files[0][0].name, b"0" * 10**6)]))
    with pytest.raises(DataError, match="expected at most [0-9]+ bytes, found 1000000"):
        data.load(layout.name, tmp_path)


def test_a_dataset_that_is_nowhere_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match="no CIFAR-10 in .*/no-data .looked for cifar-10-binary.tar.gz, .*python.tar.gz; "
    ):
        data.load("cifar10")


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path, protocol):
    write_python(CIFAR10, tmp_path, protocol)
    assert_is(data.load("cifar10", tmp_path), CIFAR10)


def test_official_pickles_are_known_by_their_md5(tmp_path, monkeypatch):
    folder = write_python(CIFAR10, tmp_path)
    sums = {file: md5((folder / file).read_bytes()).hexdigest() for file in CIFAR10.python_md5}
    monkeypatch.setitem(LAYOUTS, "cifar10", replace(CIFAR10, python_md5=sums))
    assert data.load("cifar10", tmp_path).label == "CIFAR-10 (official python)"
    raw = bytearray((folder / "data_batch_3").read_bytes())
    raw[5000] ^= 1
    (folder / "data_batch_3").write_bytes(raw)
    with pytest.raises(DataError, match=f"data_batch_3: altered: expected {sums['data_batch_3']} .official md5."):
        data.load("cifar10", tmp_path)


def test_a_source_note_is_quoted_and_is_no_label(tmp_path):
    folder = write_binary(CIFAR10, tmp_path)
    (folder / "SOURCE.txt").write_text("CIFAR-10 (official \x1b[1mbinary)\nby hand\n")
    loaded = data.load("cifar10", tmp_path)
    assert loaded.label.startswith("CIFAR-10 (not known to be the official pixels; digest ")
    assert loaded.note == "its SOURCE.txt says 'CIFAR-10 (official  [1mbinary)'"


def test_a_known_copy_is_named_and_an_altered_one_refused(tmp_path, monkeypatch):
    folder = write_binary(CIFAR10, tmp_path)
    sums = {file: sha256((folder / file).read_bytes()).hexdigest() for file in (*CIFAR10.train, *CIFAR10.test)}
    monkeypatch.setitem(LAYOUTS, "cifar10", replace(CIFAR10, copies={"CIFAR-10 (some copy)": sums}))
    assert data.load("cifar10", tmp_path).label == "CIFAR-10 (some copy)"
    raw = bytearray((folder / "data_batch_4.bin").read_bytes())
    raw[100] ^= 1
    (folder / "data_batch_4.bin").write_bytes(raw)
    with pytest.raises(DataError) as error:
        data.load("cifar10", tmp_path)
    assert f"data_batch_4.bin: altered: expected {sums['data_batch_4.bin']}" in str(error.value)
    assert f"found {sha256(raw).hexdigest()}" in str(error.value)


def test_sums_beside_the_files_are_checked(tmp_path):
    folder = write_binary(CIFAR10, tmp_path)
    sums = {file: sha256((folder / file).read_bytes()).hexdigest() for file in CIFAR10.train}
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {file}\n" for file, digest in sums.items()))
    data.load("cifar10", tmp_path)
    (folder / "SHA256SUMS").write_text(f"{'0' * 64} *data_batch_1.bin\n")
    with pytest.raises(DataError, match="data_batch_1.bin: altered: expected 0{64} .SHA256SUMS., found"):
        data.load("cifar10", tmp_path)
    (folder / "SHA256SUMS").write_text("\nword\n")
    with pytest.raises(DataError, match="SHA256SUMS, line 2: expected a digest and the name of a file, found 'word'"):
        data.load("cifar10", tmp_path)


@BOTH
def test_broken_binary_files_are_named(tmp_path, layout):
    folder = write_binary(layout, tmp_path)
    path, n_bytes = folder / layout.train[0], layout.file_bytes(layout.train[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(
        DataError, match=f"{layout.train[0]}: truncated or altered: expected {n_bytes} bytes, found {n_bytes - 1}"
    ):
        data.load(layout.name, tmp_path)
    path.write_bytes(whole[: layout.label_bytes - 1] + bytes([layout.classes]) + whole[layout.label_bytes :])
    with pytest.raises(
        DataError, match=f"altered: label {layout.classes} in record 0, expected labels in .0, {layout.classes}."
    ):
        data.load(layout.name, tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=f"{layout.train[0]}: missing"):
        data.load(layout.name, tmp_path)


def test_the_official_sizes_are_the_published_ones():
    # cs.toronto.edu/~kriz/cifar.html: 10000 records of 1 + 3072 bytes.
    assert 10_000 * (CIFAR10.label_bytes + PIXEL_BYTES) == 30_730_000


def test_an_altered_archive_is_refused_and_under_auto_too(tmp_path, official):
    layout, raw = official
    (tmp_path / layout.archive).write_bytes(raw[:-10])
    for name in ("cifar10", "auto"):
        with pytest.raises(DataError) as error:
            data.load(name, tmp_path)
        assert f"expected sha256 {layout.archive_sha256}, found {sha256(raw[:-10]).hexdigest()}" in str(error.value)
    with pytest.raises(DataError):
        data.fetch("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("members_", "message"),
    [
        ([member("/etc/data.bin", b"abc")], "member '/etc/data.bin' would lie outside its folder"),
        ([member("set/../../data.bin", b"abc")], "would lie outside its folder"),
        (
            [member("set/data.bin", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
            "member 'set/data.bin' is a link or a device",
        ),
        ([member("set/data.bin", type=tarfile.LNKTYPE, linkname="x")], "is a link or a device"),
        ([member("set/data.bin", type=tarfile.CHRTYPE)], "is a link or a device"),
        ([member("set/data.bin", b"abcd")], "member 'set/data.bin': expected 3 bytes, found 4"),
        ([member("set/data.bin", b"abc"), member("set/data.bin", b"xyz")], "member 'set/data.bin' occurs twice"),
        ([member("set/other.bin", b"abc")], "member 'set/data.bin' is missing"),
    ],
)
def test_hostile_archives_are_refused(tmp_path, members_, message):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_gz(members_))
    with pytest.raises(DataError) as error:
        members(path, {"set/data.bin": 3})
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_that_breaks_off_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    whole = tar_gz([member("set/data.bin", np.random.default_rng(0).bytes(5000))])
    for raw in (whole[:3000], b"", b"no archive"):
        path.write_bytes(raw)
        with pytest.raises(DataError, match="truncated or altered|is missing"):
            members(path, {"set/data.bin": 5000})


# ---- pickles


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# A key whose hash would take 2**60 steps: tuples of twice the tuple before.
DOUBLED = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
RECURSIVE: list = []
RECURSIVE.append(RECURSIVE)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_runs_nothing(tmp_path, protocol):
    proof = tmp_path / "ran"
    for function, argument in (
        (os.system, f"touch {proof}"),
        (eval, f"open({str(proof)!r}, 'w')"),
        (os.mkdir, str(proof)),
    ):
        raw = pickle.dumps({"data": Calls(function, argument)}, protocol=protocol)
        with pytest.raises(DataError, match="refused: the pickle asks for .*; nothing was run"):
            unpickle(raw, "file")
    assert not proof.exists()


def huge(shape: bytes) -> bytes:
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return b"\x80\x03" + array + b"(K\x01" + shape + dtype + b"\x89C\x03abctb."


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (huge(b"\x8a\x06\x00\x00\x00\x00\x00\x10\x85"), "needs 17592186044416 bytes, the pickle has 3"),
        (huge(b"J\xff\xff\xff\xff\x85"), "an array without a shape or without bytes"),
        (pickle.dumps({"data": np.array([object()])}), "refused: the pickle asks for builtins.object"),
        (pickle.dumps({"data": np.array(["text", None], dtype=object)}), "refused: an array of dtype 'O8'; only numbers are read"),
        (pickle.dumps({"data": np.zeros(2, "U3")}), "refused: an array of dtype 'U3'"),
        (pickle.dumps({"data": np.zeros(2, [("a", "i4")])}), "refused: a dtype that is not a plain number"),
        (DOUBLED, "refused: a dictionary with a tuple as key"),
        (pickle.dumps({1, 2}), "refused: the pickle contains more than data (EMPTY_SET)"),
        (b"\x80\x02(ios\nsystem\nU\x02lso.", "contains more than data (INST)"),
        (b"\x80\x02\x82\x01.", "contains more than data (EXT1)"),
        (b"\x80\x02U\x01aQ.", "contains more than data (BINPERSID)"),
        (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", "no readable pickle"),
        (b"\x80\x02" + b"N0" * 600_000 + b".", "refused: a pickle of more than 1000000 parts"),
        (b"\x80\x02U\x01aU\x01bR.", "no readable pickle"),
        (b"\x80\x02K\x01", "no readable pickle"),
        (b"", "no readable pickle"),
        (b"garbage", "no readable pickle"),
    ],
)  # fmt: skip
def test_pickles_that_hold_more_than_data_are_refused(raw, message):
    start = time.monotonic()
    with pytest.raises(DataError) as error:
        unpickle(raw, "file")
    assert message in str(error.value)
    assert time.monotonic() - start < 10


def test_deep_and_recursive_pickles_do_no_harm():
    deep = b"\x80\x02)" + b"\x85" * 200_000 + b"."
    assert isinstance(unpickle(deep, "file"), tuple)
    assert isinstance(unpickle(pickle.dumps(RECURSIVE), "file"), list)
    assert unpickle(b"\x80\x02r\xff\xff\xff\x7f."[:2] + b"Nr\xff\xff\xff\x7f.", "file") is None  # memo slot 2**31 - 1


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1], "expected a dictionary, found a list"),
        ({"labels": [0] * 10}, "expected 'data' as a (10, 3072) array of uint8, found a NoneType"),
        ({"data": np.zeros((9, 3072), np.uint8)}, "found a (9, 3072) array of uint8"),
        ({"data": np.zeros((10, 3072), np.int8)}, "found a (10, 3072) array of int8"),
        ({"data": RECURSIVE}, "found a list of 1"),
        (
            {"data": np.zeros((10, 3072), np.uint8), "labels": [0] * 9},
            "expected 10 integers as labels, found a list of 9",
        ),
        ({"data": np.zeros((10, 3072), np.uint8), "labels": [RECURSIVE] * 10}, "expected 10 integers as labels"),
        (
            {"data": np.zeros((10, 3072), np.uint8), "labels": [0] * 9 + [10]},
            "label of record 9, expected labels in [0, 10)",
        ),
    ],
)
def test_pickles_of_something_else_are_refused(tmp_path, batch, message):
    folder = write_python(CIFAR10, tmp_path)
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError) as error:
        data.load("cifar10", tmp_path)
    assert f"{folder / 'data_batch_2'}: " in str(error.value)
    assert message in str(error.value)


def test_a_pickle_far_too_large_is_not_read(tmp_path):
    folder = write_python(CIFAR10, tmp_path)
    with (folder / "data_batch_1").open("ab") as f:
        f.truncate(100_000_000)
    with pytest.raises(DataError, match="data_batch_1: altered: expected at most 61440 bytes, found 100000000"):
        data.load("cifar10", tmp_path)


# ---- verify, auto, download


def test_verify_takes_a_file_a_layout_or_a_home(tmp_path, official):
    layout, raw = official
    folder = write_binary(CIFAR10, tmp_path)
    assert data.verify(folder).digest == data.verify(tmp_path).digest
    (tmp_path / layout.archive).write_bytes(raw)
    found = data.verify(tmp_path / layout.archive)
    assert found.label == "CIFAR-10 (official binary)"
    assert (
        str(found) == f"CIFAR-10 (official binary): 50 training and 10 test images, 10 classes, sha256 {found.digest}"
    )
    with pytest.raises(
        DataError, match="no-such: no dataset found, expected one of cifar-10-binary.tar.gz, cifar-10-batches-bin"
    ):
        data.verify(tmp_path / "no-such")


def test_unknown_names_are_refused():
    with pytest.raises(
        ConfigError, match="unknown dataset 'mnist' .one of: auto, cifar10, cifar100, cluttered-digits."
    ):
        data.load("mnist")
    with pytest.raises(
        ConfigError, match="nothing to download for dataset 'cluttered-digits' .one of: cifar10, cifar100."
    ):
        data.fetch("cluttered-digits")


def test_auto_takes_what_is_on_disk(tmp_path):
    folder = write_binary(CIFAR10, tmp_path)
    found = data.load("auto", tmp_path)
    assert (found.name, found.note) == ("cifar10", f"auto: found in {folder}")


def test_auto_falls_back_within_ten_seconds_where_no_name_is_resolved(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SITE", "https://dataset.invalid/")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(60))
    start = time.monotonic()
    name, note = data.resolve("auto", tmp_path)
    assert time.monotonic() - start < 10
    assert name == "cluttered-digits"
    assert note == (
        f"auto: no CIFAR-10 in {tmp_path}, and https://dataset.invalid/cifar-10-binary.tar.gz: no answer within 8 s"
    )


def test_auto_falls_back_where_nothing_listens_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "made", lambda name, note: note)  # they are drawn elsewhere
    note = data.load("auto", tmp_path)
    assert note.startswith(
        f"auto: no CIFAR-10 in {tmp_path}, and http://127.0.0.1:9/cifar-10-binary.tar.gz: not reached: "
    )
    with pytest.raises(DownloadError, match="not reached"):
        data.load("cifar10", tmp_path)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web site that serves a folder, slowly where it is told to."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        pause_s = 0.0

        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "site"))

        def log_message(self, *args):
            pass

        def copyfile(self, source, outputfile):
            while chunk := source.read(1 << 14):
                time.sleep(self.pause_s)
                try:
                    outputfile.write(chunk)
                except OSError:  # the client gave up
                    return

    (tmp_path / "site").mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(download, "SITE", f"http://127.0.0.1:{server.server_port}/")
    yield tmp_path / "site", Handler
    server.shutdown()
    server.server_close()


def test_a_download_is_checked_and_read(tmp_path, official, site):
    layout, raw = official
    (site[0] / layout.archive).write_bytes(raw)
    found = data.load("auto", tmp_path / "home")
    assert found.label == "CIFAR-10 (official binary)"
    assert found.note == f"auto: downloaded to {tmp_path / 'home' / layout.archive}"
    (site[0] / layout.archive).unlink()
    assert data.fetch("cifar10", tmp_path / "home") == tmp_path / "home" / layout.archive  # not a second time


@pytest.mark.parametrize(
    ("content", "pause_s", "limit_s", "message"),
    [
        (b"another file", 0, 60, "not downloaded: .*hash"),
        (bytes(1 << 20), 0.2, 1, "not downloaded within 1 s"),
        (None, 0, 60, "the site does not have it"),
    ],
    ids=["altered", "slow", "absent"],
)
def test_a_download_that_fails_leaves_nothing(tmp_path, official, site, content, pause_s, limit_s, message):
    layout, _ = official
    site[1].pause_s = pause_s
    if content is not None:
        (site[0] / layout.archive).write_bytes(content)
    with pytest.raises(DownloadError, match=message):
        download.fetch(layout, tmp_path / "home", limit_s=limit_s)
    assert not list((tmp_path / "home").glob("*"))
