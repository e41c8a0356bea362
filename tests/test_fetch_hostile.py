"""What servers send in place of a file: archives that inflate, are cut off or lead elsewhere, web pages, plain http."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from test_fetch import Hub, archive, noise
from test_fetch import hub as hub

from icr_tasks import benchmarks
from icr_tasks.benchmarks import archives, fetch, loong_fin, net
from icr_tasks.benchmarks.fetch import Remote, download, extract
from icr_tasks.cli import main
from icr_tasks.errors import IcrError

DOCUMENTS = {"a.txt": b"first filing", "b.txt": b"second filing"}
SUMS = {name: hashlib.sha256(body).hexdigest() for name, body in DOCUMENTS.items()}


def zipped(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in members.items():
            file.writestr(name, body)
    return raw.getvalue()


def text(path: PurePosixPath) -> bool:
    return path.suffix == ".txt" and "financial" in path.parts


def put(folder: Path, body: bytes) -> Path:
    path = folder / "documents.tar.gz"
    path.write_bytes(body)
    return path


MAKERS: list[Callable[[dict[str, bytes]], bytes]] = [zipped, archive]


@pytest.mark.parametrize("make", MAKERS)
def test_documents_appear_whole_or_not_at_all(make: Any, tmp_path: Path) -> None:
    inside = {f"x/financial/{name}": body for name, body in DOCUMENTS.items()} | {"x/legal/c.txt": b"no"}
    place = tmp_path / "doc" / "financial"
    path = put(tmp_path, make(inside))
    assert archives.unpack(path, place, archives.flat(text), archives.manifest(SUMS)) == 2
    assert {p.name: p.read_bytes() for p in place.iterdir()} == DOCUMENTS and path.exists()
    other = put(tmp_path, make({**inside, "x/financial/a.txt": b"another filing"}))
    with pytest.raises(IcrError, match="2 files are not the official ones"):
        archives.unpack(other, place, archives.flat(text), archives.manifest(SUMS))
    assert (place / "a.txt").read_bytes() == b"first filing" and not other.exists()
    assert [p.name for p in place.parent.iterdir()] == ["financial"]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "name", ["../financial/evil.txt", "/financial/evil.txt", "a/../../financial/evil.txt"]
)
def test_an_entry_that_leaves_the_folder(make: Any, name: str, tmp_path: Path) -> None:
    path = put(tmp_path, make({"x/financial/a.txt": b"x", name: b"evil"}))
    with pytest.raises(IcrError, match="outside"):
        archives.unpack(path, tmp_path / "in" / "doc", archives.flat(text), None)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("make", MAKERS)
def test_bombs_are_refused_before_they_fill_the_disk(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "TEXT", 1 << 20)
    path = put(tmp_path, make({"x/financial/a.txt": bytes(64 << 20)}))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(IcrError, match="larger than|no such file is expected"):
        archives.unpack(path, tmp_path / "doc", archives.flat(text), None)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(archives, "TOTAL", 3 << 20)
    several = put(tmp_path, make({f"x/financial/{i}.txt": bytes(1 << 20) for i in range(8)}))
    with pytest.raises(IcrError, match="larger than"):
        archives.unpack(several, tmp_path / "doc", archives.flat(text), None)


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    """An entry declares 10 bytes and inflates to many: what is written never exceeds what was declared."""
    body = bytearray(zipped({"x/financial/a.txt": bytes(1 << 22)}))
    size = (1 << 22).to_bytes(4, "little")
    while (at := body.find(size)) >= 0:
        body[at : at + 4] = (10).to_bytes(4, "little")
    path = put(tmp_path, bytes(body))
    with pytest.raises(IcrError, match="cannot be read"):
        archives.unpack(path, tmp_path / "doc", archives.flat(text), None)
    assert not list(tmp_path.iterdir())


def test_a_gzip_stream_that_inflates_thousandfold(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE", 1 << 20)
    hub.files["/x.tar.gz"] = archive({f"junk{i}": bytes(4 << 20) for i in range(8)} | {"good": b"y"})
    with pytest.raises(IcrError, match="inflates more than 200-fold"):
        extract(hub.url + "/x.tar.gz", ["good"], tmp_path, "out")
    monkeypatch.setattr(archives, "LARGEST", 1 << 20)
    with pytest.raises(IcrError, match="no such file is expected"):
        extract(hub.url + "/x.tar.gz", ["good"], tmp_path, "out")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


BROKEN = {
    "cut off": lambda: zipped({"x/financial/a.txt": noise(100_000)})[:-200],
    "cut in a member": lambda: archive({"x/financial/a.txt": noise(100_000)})[:50_000],
    "a page": lambda: b"<html><body>Sorry</body></html>",
    "a gzip that is no tar": lambda: gzip.compress(b"just text " * 1000),
    "nothing": lambda: b"",
    "other files": lambda: archive({"x/readme.md": b"x"}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_archive_that_cannot_be_read_is_removed_with_a_sentence(what: str, tmp_path: Path) -> None:
    path = put(tmp_path, BROKEN[what]())
    with pytest.raises(IcrError, match="removed") as caught:
        archives.unpack(path, tmp_path / "doc", archives.flat(text), None)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, archive({"x/financial/a.txt": b""}, link="x/financial/a.txt"))
    with pytest.raises(IcrError, match="link or device"):
        archives.unpack(path, tmp_path / "doc", archives.flat(text), None)


def test_pages_and_cut_files_without_a_hash(hub: Hub, tmp_path: Path) -> None:
    hub.files["/p.jsonl"] = b"\n <!DOCTYPE html><html>Please log in</html>"
    with pytest.raises(IcrError, match="sent a web page"):
        download(Remote("d/p.jsonl", hub.url + "/p.jsonl"), tmp_path)
    hub.files["/c.jsonl"] = b'{"a": 1}\n{"a": 2, "b": "cu'
    with pytest.raises(IcrError, match="cut off"):
        download(Remote("d/c.jsonl", hub.url + "/c.jsonl"), tmp_path)
    hub.files["/d.tar.gz"] = b"no archive at all"
    with pytest.raises(IcrError, match=r"no .gz archive"):
        download(Remote("d/d.tar.gz", hub.url + "/d.tar.gz"), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_member_with_another_hash_never_gets_its_name(hub: Hub, tmp_path: Path) -> None:
    hub.files["/x.tar.gz"] = archive({"good": b"changed"})
    right = hashlib.sha256(b"original").hexdigest()
    with pytest.raises(IcrError, match="is not the official file's"):
        extract(hub.url + "/x.tar.gz", ["good"], tmp_path, "out", hashes={"good": right})
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_https_only(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://example.org/f", "ftp://example.org/f", "http://127.0.0.1.example.org/f"):
        with pytest.raises(IcrError, match="is not https"):
            download(Remote("f", url), tmp_path)
    with pytest.raises(IcrError) as caught:
        net.secure("http://me:hunter2hunter2@example.org/f?key=sk-abcdefghijklmnop")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example.org")
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    assert main(["data", "fetch", "infbench", "--datasets", "mc"]) == 2


def test_a_redirect_to_plain_http_is_not_followed(tmp_path: Path) -> None:
    handler = net._Https()
    request = net.urllib.request.Request("https://a.example/f", headers={"Authorization": "Bearer x"})
    with pytest.raises(IcrError, match="is not https"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://b.example/f")
    assert handler.redirect_request(request, None, 302, "", {}, "https://a.example/g").has_header(
        "Authorization"
    )
    elsewhere = handler.redirect_request(request, None, 302, "", {}, "https://b.example/g")
    assert not elsewhere.has_header("Authorization")


def test_every_source_is_pinned() -> None:
    """A commit in the address or a hash of the contents; never a branch."""
    for name in ("helmet", "infbench", "longbench_v2", "loong"):
        found = benchmarks.get(name)
        for task in found.tasks:
            for remote in found.files(task.dataset, task.length):
                source = f"{remote.url} {remote.archive}"
                assert "/main/" not in source and "/master/" not in source, source
                assert not source.startswith("http:"), source
                pinned = any(len(part) == 40 for part in source.replace("/", " ").replace("'", " ").split())
                # HELMET: members of an archive at a commit; not all of them have a hash that is known here
                assert pinned and (remote.sha256 or remote.unpack or name in ("infbench", "helmet")), source
    assert len(loong_fin.DOCUMENTS_MANIFEST) == 64


def test_the_hubs_own_hash_is_checked(tmp_path: Path) -> None:
    """Its cache names large files by their sha256; the small ones have a git hash, which says nothing here."""
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"other content")
    told = fetch._as_told(Remote("f", "u"), blob)
    assert told.sha256 == "ab" * 32
    with pytest.raises(IcrError, match="sha256"):
        fetch._verify(told, blob, keep=True)
    assert fetch._as_told(Remote("f", "u"), tmp_path / ("ab" * 20)).sha256 is None


def test_the_official_filings_have_the_pinned_manifest(official_loong: Path) -> None:
    """192 of the 574 documents are at hand; each is one that the questions can mean."""
    folder = official_loong / "loong" / "doc" / "financial"
    assert len(list(folder.glob("*.txt"))) == 192
    with tarfile.open(official_loong / "made.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname="Loong/data/doc/financial")
    with pytest.raises(IcrError, match="192 files are not the official ones"):
        loong_fin.unpack(official_loong / "made.tar.gz", official_loong / "elsewhere")
