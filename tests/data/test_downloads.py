"""Published files: found locally, or downloaded and checked; a local HTTP server stands for the publisher."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.data import downloads
from harness.data.downloads import NotAvailable, Remote, fetch
from harness.errors import UserError

CONTENT = b"ham\thello\n" * 1000


class Publisher(BaseHTTPRequestHandler):
    """Serves `files`; "/cut" promises more than it sends, and "/silent" never answers."""

    files: dict[str, bytes]
    release: threading.Event

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.release.wait(30)
            return
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"") + (100 if self.path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


FILES = {
    "/plain": CONTENT,
    "/cut": CONTENT,
    "/zip": zipped(readme=b"about", texts=CONTENT, texts2=b"other"),
    "/zip/without": zipped(readme=b"about"),
    "/zip/changed": zipped(texts=b"ham\thi\n"),
    "/changed": b"ham\thi\n",
    "/login": b"<html>Log in</html>",
}


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has FILES."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    release = threading.Event()
    handler = type("Handler", (Publisher,), {"files": FILES, "release": release})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        release.set()
        server.shutdown()


def remote(url: str, member: str | None = None) -> Remote:
    return Remote("the made-up texts", "made_up/Texts", url, hashlib.sha256(CONTENT).hexdigest(), member)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("path", "member"), [("/plain", None), ("/zip", "texts")])
def test_a_file_is_downloaded_once_without_a_word(
    publisher: str, tmp_path: Path, capfd: pytest.CaptureFixture, path: str, member: str | None
) -> None:
    found = fetch(remote(publisher + path, member), tmp_path, None)
    assert found == tmp_path / "made_up" / "Texts"
    assert found.read_bytes() == CONTENT
    assert files_below(tmp_path) == ["made_up/Texts"]
    assert fetch(remote("http://127.0.0.1:9/nobody", member), tmp_path, None) == found
    assert capfd.readouterr() == ("", "")
    fresh = tmp_path / "fresh"
    fresh.touch()
    assert stat.S_IMODE(found.stat().st_mode) == stat.S_IMODE(fresh.stat().st_mode), "others may read it, too"


@pytest.mark.parametrize(
    ("path", "member", "reason"),
    [
        ("/absent", None, r"the made-up texts can't be downloaded \(HTTPError\)"),
        ("/cut", None, r"the made-up texts can't be downloaded \(\w+Error\)"),
        ("/silent", None, r"the made-up texts can't be downloaded \(ReadTimeout\)"),
        ("/changed", None, r"/changed has changed \(its sha256 differs"),
        ("/zip/changed", "texts", r"/zip/changed has changed \(its sha256 differs"),
        ("/zip/without", "texts", "/zip/without holds no texts"),
        ("/login", "texts", "/login holds no texts"),
    ],
)
def test_what_can_not_be_had_leaves_nothing(
    publisher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, member: str | None, reason: str
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(NotAvailable, match=reason):
        fetch(remote(publisher + path, member), tmp_path, None)
    assert files_below(tmp_path) == []


def test_an_unreachable_publisher(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match=r"can't be downloaded \(ConnectionError\)"):
        fetch(remote("http://127.0.0.1:9/plain"), tmp_path, None)


def test_the_assets_come_before_the_cache(tmp_path: Path) -> None:
    nobody = remote("http://127.0.0.1:9/nobody")
    copies = [tmp_path / folder / nobody.path for folder in ("assets", "cache")]
    for copy in copies:
        copy.parent.mkdir(parents=True)
        copy.write_bytes(CONTENT)
    assert fetch(nobody, tmp_path / "cache", tmp_path / "assets") == copies[0]
    assert fetch(nobody, tmp_path / "cache", tmp_path / "no assets") == copies[1]
    for copy in copies:
        copy.write_bytes(CONTENT[:-1])
        with pytest.raises(UserError, match=f"{copy} is not the made-up texts as published"):
            fetch(nobody, tmp_path / "cache", tmp_path / "assets")
        copy.write_bytes(CONTENT)
        copies[0].unlink(missing_ok=True)


def test_a_cache_that_can_not_be_written(publisher: str, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=r"cache folder '.*cache' can't be written .*CACHE"):
        fetch(remote(f"{publisher}/plain"), tmp_path / "cache", None)
