"""`icr data fetch` against a local server that imitates the hub: resumes, verifies, refuses, stops early."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.benchmarks import helmet_rag, infbench
from icr_tasks.benchmarks.fetch import Remote, download, extract
from icr_tasks.cli import main
from icr_tasks.errors import IcrError


class Hub(ThreadingHTTPServer):
    """Serves `files` with ranges. `break_after` closes a connection early once per path; `fail` answers 503
    that often."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.break_after: dict[str, int] = {}
        self.fail: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.auth: list[str | None] = []
        self.agents: list[str] = []
        self.commits: dict[str, str] = {}  # paths that are answered as a hub does, with their commit

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        hub, path = self.server, self.path
        hub.agents.append(self.headers.get("User-Agent", ""))
        if path not in hub.commits:
            self.send_error(404 if path not in hub.files else 405)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(hub.files[path]).hexdigest()}"')
        self.send_header("X-Repo-Commit", hub.commits[path])
        self.send_header("Content-Length", str(len(hub.files[path])))
        self.end_headers()

    def do_GET(self) -> None:
        hub, path = self.server, self.path
        hub.auth.append(self.headers.get("Authorization"))
        if hub.fail.get(path, 0) > 0:
            hub.fail[path] -= 1
            self.send_error(503)
            return
        if path not in hub.files:
            self.send_error(404)
            return
        body, start = hub.files[path], 0
        if (given := self.headers.get("Range")) is not None:
            start = int(given.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = hub.break_after.pop(path, len(body))
        try:
            for at in range(start, stop, 1 << 16):
                # counted first: a client that has what it wanted is gone before the write returns
                hub.sent[path] = hub.sent.get(path, 0) + min(1 << 16, stop - at)
                self.wfile.write(body[at : min(at + (1 << 16), stop)])
        except OSError:
            self.close_connection = True  # the client has what it wanted


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ICR_DATA_DIR", raising=False)
    yield server
    server.shutdown()


def archive(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            if name == link:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(info)
                continue
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return raw.getvalue()


NQ = "data/kilt/nq-dev-multikilt_1000_k20_dep6.jsonl"


def noise(n: int) -> bytes:
    return b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(n // 32))


def test_helmet_members_only_and_early_stop(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/" + helmet_rag.ARCHIVE
    hub.files[path] = archive(
        {"data/other.jsonl": b"no", NQ: b'{"a": 1}\n', "data/big.bin": noise(40_000_000)}
    )
    assert main(["data", "fetch", "helmet", "--datasets", "nq", "--lengths", "4k", "--dry-run"]) == 0
    assert "get " in capsys.readouterr().out and not hub.sent
    assert main(["data", "fetch", "helmet", "--datasets", "nq", "--lengths", "4k"]) == 0
    root = tmp_path / "cache" / "icr-tasks" / "data"
    assert (root / "helmet" / NQ).read_bytes() == b'{"a": 1}\n'
    assert [p.name for p in root.rglob("*") if p.is_file()] == [Path(NQ).name]
    assert hub.sent[path] < 20_000_000  # the rest of the archive was not read
    # requests, not bytes: a server may still be writing into the closed connection when the command has ended
    asked = len(hub.auth)
    assert main(["data", "fetch", "helmet", "--datasets", "nq", "--lengths", "4k"]) == 0
    assert len(hub.auth) == asked  # nothing fetched twice
    assert main(["data", "ls"]) == 0
    assert "nq-dev" in capsys.readouterr().out


def test_an_address_that_nobody_answers_is_exit_code_3(tmp_path: Path) -> None:
    with pytest.raises(IcrError, match=r"--from MIRROR, or files put in place by hand") as refused:
        extract("http://127.0.0.1:9/x.tar.gz", ["a"], tmp_path, "out")
    assert refused.value.exit_code == 3


def test_broken_stream_keeps_finished_members(hub: Hub, tmp_path: Path) -> None:
    body = archive({"a": b"first", "pad": noise(3_000_000), "b": b"second"})
    hub.files["/x.tar.gz"], hub.break_after["/x.tar.gz"] = body, 1_000_000
    with pytest.raises(IcrError, match="1 finished files are kept; run the command again"):
        extract(hub.url + "/x.tar.gz", ["a", "b"], tmp_path, "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"first"
    extract(hub.url + "/x.tar.gz", ["a", "b"], tmp_path, "out")
    assert (tmp_path / "out" / "b").read_bytes() == b"second"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_escaping_entries_are_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.files["/x.tar.gz"] = archive({name: b"x", "good": b"y"})
    with pytest.raises(IcrError, match="outside"):
        extract(hub.url + "/x.tar.gz", ["good"], tmp_path / "in", "out")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_links_are_refused_and_missing_members_named(hub: Hub, tmp_path: Path) -> None:
    hub.files["/l.tar.gz"] = archive({"good": b""}, link="good")
    with pytest.raises(IcrError, match="link or device"):
        extract(hub.url + "/l.tar.gz", ["good"], tmp_path, "out")
    hub.files["/m.tar.gz"] = archive({"other": b"x"})
    with pytest.raises(IcrError, match="has no good"):
        extract(hub.url + "/m.tar.gz", ["good"], tmp_path, "out")


def test_plain_file_resumes_after_a_break_and_a_503(hub: Hub, tmp_path: Path) -> None:
    body = noise(2_000_000)
    hub.files["/f"], hub.break_after["/f"], hub.fail["/f"] = body, 700_000, 1
    path = download(Remote("d/f", hub.url + "/f", len(body), hashlib.sha256(body).hexdigest()), tmp_path)
    assert path.read_bytes() == body
    assert hub.sent["/f"] < 1.1 * len(body)  # what had arrived was not sent again


def test_wrong_hash_and_404(hub: Hub, tmp_path: Path) -> None:
    hub.files["/f"] = b"abc"
    with pytest.raises(IcrError, match="sha256"):
        download(Remote("f", hub.url + "/f", None, "0" * 64), tmp_path)
    assert not list(tmp_path.glob("f*"))
    with pytest.raises(IcrError, match="HTTP 404"):
        download(Remote("g", hub.url + "/g"), tmp_path)


def test_token_goes_to_the_hub_only_and_never_into_messages(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(IcrError) as caught:
        download(Remote("g", hub.url + "/missing"), tmp_path)
    assert hub.auth[-1] == "Bearer hf_secret" and "hf_secret" not in str(caught.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/elsewhere")
    hub.files["/f"] = b"x"
    download(Remote("f", hub.url + "/f"), tmp_path)
    assert hub.auth[-1] is None


def test_mirror_and_unknown_names(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.files["/" + NQ.removeprefix("data/")] = b"{}\n"
    assert main(["data", "fetch", "helmet", "--datasets", "nq", "--lengths", "4k", "--from", hub.url]) == 0
    assert main(["data", "fetch", "helmt"]) == 2
    assert "Did you mean 'helmet'" in capsys.readouterr().err


FILE = "datasets/xinrongzhang2022/InfiniteBench/resolve/" + infbench.REVISION + "/longbook_choice_eng.jsonl"


def _hub_process(code: str, hub: Hub, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Another process: huggingface_hub reads its variables when it is imported."""
    given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "XDG_CACHE_HOME": str(home / "ours"), **env}
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **given},
    )


FETCH = "import sys; from icr_tasks.cli import main; sys.exit(main(['data', 'fetch', 'infbench', '--datasets', 'mc']))"


def test_a_hub_is_asked_through_its_own_library(hub: Hub, tmp_path: Path) -> None:
    """Token, cache, one copy on the disk, resuming after a break, offline mode; the secret stays out of
    messages."""
    body = noise(300_000)
    hub.files["/" + FILE], hub.commits["/" + FILE] = body, infbench.REVISION
    hub.break_after["/" + FILE] = 100_000
    offline = {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_secret"}
    done = _hub_process(FETCH, hub, tmp_path, **offline)
    assert done.returncode == 2 and "offline mode is on" in done.stderr and "hf_secret" not in done.stderr
    for _ in range(3):  # at most two breaks
        done = _hub_process(FETCH, hub, tmp_path, HF_TOKEN="hf_secret", HF_HUB_DISABLE_XET="1")
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr[-2000:]
    path = tmp_path / "ours" / "icr-tasks" / "data" / "infinitebench" / "longbook_choice_eng.jsonl"
    assert path.read_bytes() == body and path.stat().st_nlink == 2
    assert hub.auth[-1] == "Bearer hf_secret" and any("icr-tasks" in agent for agent in hub.agents)
    assert hub.sent["/" + FILE] < 1.5 * len(body)
    path.unlink()
    sent = hub.sent["/" + FILE]
    assert _hub_process(FETCH, hub, tmp_path, **offline).returncode == 0
    assert path.read_bytes() == body and hub.sent["/" + FILE] == sent  # from the cache


def test_a_hub_that_cannot_be_reached_is_not_asked_for_minutes(hub: Hub, tmp_path: Path) -> None:
    done = _hub_process(FETCH, hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    assert done.returncode == 3 and "the hub cannot be reached" in done.stderr.splitlines()[-1], done.stderr
    assert "Retry" not in done.stderr and "Traceback" not in done.stderr


def test_a_mirror_that_is_no_hub_and_a_file_that_is_gone(hub: Hub, tmp_path: Path) -> None:
    hub.files["/" + FILE] = b"{}\n"
    done = _hub_process(FETCH, hub, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    del hub.files["/" + FILE]
    done = _hub_process(FETCH, hub, tmp_path / "other")
    assert done.returncode == 2 and "404" in done.stderr and done.stderr.count("Traceback") == 0
