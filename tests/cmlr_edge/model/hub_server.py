"""A stand-in for the hub, on loopback: repositories are folders, a commit replaces files."""

from __future__ import annotations

import base64
import json
import threading
from hashlib import sha1
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.cmlr_edge.web import Quiet


class HubServer(ThreadingHTTPServer):
    """Serves `folder`; `refuse` answers every request with that status."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.refuse = folder, 0
        self.sizes = dict[str, int]()  # lies about a file
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(Quiet):
    server: HubServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuse:
            self._answer(self.server.refuse, {"error": "no"})
        elif (path := urlsplit(self.path).path) == "/api/repos/create":
            self._create(json.loads(body)["name"], json.loads(body).get("organization"))
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        else:
            self._commit(path, body)

    def _commit(self, path: str, body: bytes) -> None:
        _, _, _, owner, name, verb, _ = path.split("/")
        if verb == "preupload":
            files = [
                {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False}
                for item in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
            return
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                (self.server.folder / owner / name / line["value"]["path"]).write_bytes(content)
        url = f"{self.server.url}/{owner}/{name}/commit/0"
        self._answer(
            200, {"success": True, "commitUrl": url, "commitOid": "0" * 40, "hookOutput": ""}
        )

    def _create(self, name: str, owner: str | None) -> None:
        (self.server.folder / (owner or "me") / name).mkdir(parents=True, exist_ok=True)
        full = f"{owner or 'me'}/{name}"
        self._answer(200, {"url": f"{self.server.url}/{full}", "name": full, "id": full})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.server.refuse:
            self._answer(self.server.refuse, {"error": "no"})
        elif parts[:2] == ["api", "models"]:
            self._describe(self.server.folder / parts[2] / parts[3], "/".join(parts[2:4]))
        else:
            self._send_file(parts)

    def _send_file(self, parts: list[str]) -> None:
        path = self.server.folder.joinpath(*parts[:2], *parts[4:])
        if not path.is_file():
            self._answer(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        headers = {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": "0" * 40}
        self._send(200, content, "application/octet-stream", headers)

    def _describe(self, place: Path, name: str) -> None:
        if not place.is_dir():
            self._answer(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
            return
        files = [
            {"rfilename": path.name, "size": self.server.sizes.get(path.name, path.stat().st_size)}
            for path in place.iterdir()
        ]
        self._answer(200, {"id": name, "modelId": name, "sha": "0" * 40, "siblings": files})

    def _answer(self, status: int, record: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(record).encode(), "application/json", headers or {})

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        given = {"Content-Type": kind, "Content-Length": str(len(content)), **headers}
        for key, value in given.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
