"""A Hugging Face Hub on the loopback interface, for tests that push and load by name without the internet.

It speaks the part of the Hub's HTTP protocol that ``huggingface_hub`` uses for repositories and files:
create, validate the card, upload modes, LFS, commit, branches, pull requests, a Space's variables, tree,
info, download. The client is the real one, only told another address::

    with LoopbackHub() as hub:
        subprocess.run([...], env=hub.env(tmp_path))        # a process of its own
        hub.patch(monkeypatch, tmp_path)                    # or this one

Everything is kept in memory. Repositories lie in ``hub.repos`` under ``"org/name"``, ``"datasets/org/name"``
and ``"spaces/org/name"``; ``hub.requests`` lists what was asked, as ``"METHOD /path"``. Writing, and reading
what is private, needs ``hub.token``. ``hub.faults`` says which requests go wrong, and how.
"""

import base64
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

CREATED = "2026-01-01T00:00:00.000Z"
Files = dict[str, bytes]


@dataclass
class Repo:
    """One repository: every commit's files, and where branches and ``refs/pr/N`` point."""

    private: bool = False
    gated: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, ref: str, files: Files, message: str) -> str:
        self.messages.append(message)
        oid = hashlib.sha1(f"{len(self.messages)} {ref} {message} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        self.refs[ref] = oid
        return oid

    def files(self, revision: str = "main") -> Files:
        return self.commits[self.refs.get(revision, revision)]


@dataclass
class Fault:
    """What goes wrong with the next requests like this one.

    Attributes:
        request: regular expression for ``"METHOD /path"``, from its start.
        does: a status answers with that; ``"cut"`` closes the connection and does nothing; ``"half"`` does what was
            asked, sends half of the answer and closes; ``"die"`` cuts, and takes the whole server down.
        times: how often.
    """

    request: str
    does: int | str
    times: int = 1


class HubError(Exception):
    """An answer that is not a success; ``code`` is what the client reads to choose its exception."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


class LoopbackHub:
    """Context manager: a server on a free port while the block runs."""

    def __init__(self) -> None:
        self.token = "hf_loopback"
        self.user = "tester"
        self.lfs_suffixes: tuple[str, ...] = (".safetensors", ".npz", ".parquet", ".arrow", ".bin")
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.delay = 0.0  # seconds before each answer
        self.spaces_are_paid_for = True
        self.alive = True
        self.lock = threading.Lock()
        self.handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LoopbackHub":
        self._serve()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.alive:
            self.stop()

    def _serve(self) -> None:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Take the server down: new connections are refused, open ones closed at their next request."""
        self.alive = False
        self.server.server_close()
        self.server.shutdown()

    def start_again(self) -> None:
        """Bring it up again where it was, with all that it had been sent."""
        self.server = ThreadingHTTPServer(("127.0.0.1", self.server.server_port), self.handler)
        self.alive = True
        self._serve()

    def fault(self, request: str) -> int | str | None:
        """Give what goes wrong with this request, and count it."""
        for fault in self.faults:
            if fault.times > 0 and re.match(fault.request, request):
                fault.times -= 1
                return fault.does
        return None

    def env(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Give the environment of a process that knows this Hub alone and keeps its cache under ``home``."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        switches = ("DISABLE_XET", "DISABLE_TELEMETRY", "DISABLE_PROGRESS_BARS")
        ours = {"HF_ENDPOINT": self.url, "HF_HOME": str(home)} | {f"HF_HUB_{name}": "1" for name in switches}
        return inherited | ours | ({"HF_TOKEN": token} if token else {})

    def patch(self, monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = None) -> None:
        """Point the ``huggingface_hub`` of this process here: its constants were read at import."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", token or "")


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes

    def log_message(self, *args: object) -> None: ...

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.half else body)
        if self.half:
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle_any(self) -> None:
        """Find the route, call its method with the path's parts, and send what it gives as JSON."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(address.query).items()}
        request = f"{self.command} {address.path}"
        self.hub.requests.append(request)
        if self.hub.delay:
            time.sleep(self.hub.delay)
        fault = self.hub.fault(request)
        if fault == "die":
            self.hub.stop()
        if fault == "cut" or not self.hub.alive:
            self.hang_up()
            return
        self.half = fault == "half"
        try:
            if isinstance(fault, int):
                raise HubError(fault, "out of order")
            for methods, pattern, action in ROUTES:
                match = pattern.fullmatch(address.path)
                if match and self.command in methods:
                    with self.hub.lock:
                        given = action(self, *[part and unquote(part) for part in match.groups()])
                    break
            else:
                raise HubError(501, f"the loopback Hub has no {self.command} {address.path}")
        except HubError as error:
            self.answer(error.status, json.dumps({"error": str(error)}).encode(), error.headers)
        else:
            if given is not None:
                self.answer(200, json.dumps(given).encode(), {"Content-Type": "application/json"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    # Who asks, and for what

    def signed_in(self, needed: bool = False) -> bool:
        header = self.headers.get("Authorization")
        if header not in (None, f"Bearer {self.hub.token}"):
            raise HubError(401, "Invalid credentials in Authorization header")
        if needed and header is None:
            raise HubError(401, "Invalid username or password.")
        return header is not None

    def repo(self, kind: str | None, name: str, write: bool = False) -> Repo:
        key = name if kind in (None, "models") else f"{kind}/{name}"
        repo = self.hub.repos.get(key)
        signed_in = self.signed_in(needed=write)
        if repo is None or (repo.private and not signed_in):  # a private one is as good as none
            raise HubError(404 if signed_in else 401, "Repository not found", "RepoNotFound")
        return repo

    def commit_of(self, repo: Repo, revision: str) -> str:
        oid = repo.refs.get(revision, revision)
        if oid not in repo.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def is_lfs(self, path: str) -> bool:
        return path.endswith(self.hub.lfs_suffixes)

    def oid(self, path: str, data: bytes) -> str:
        return hashlib.sha256(data).hexdigest() if self.is_lfs(path) else _git_oid(data)

    # Routes: repositories

    def create_repo(self) -> dict | None:
        self.signed_in(needed=True)
        asked = json.loads(self.body)
        kind = asked.get("type") or "model"
        key = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        key = key if kind == "model" else f"{kind}s/{key}"
        if kind == "space" and not self.hub.spaces_are_paid_for:
            raise HubError(402, "Payment required: Gradio Spaces need a subscription")
        given = {"url": f"{self.hub.url}/{key}"}
        if key in self.hub.repos:
            self.answer(409, json.dumps({"error": "You already created this repo", **given}).encode(), {})
            return None
        repo = self.hub.repos[key] = Repo(private=asked.get("visibility") == "private")
        repo.commit(
            "main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit"
        )
        return given

    def info(self, kind: str, name: str, revision: str | None) -> dict:
        repo = self.repo(kind, name)
        oid = self.commit_of(repo, revision or "main")
        siblings = [{"rfilename": path} for path in sorted(repo.files(oid))]
        common = {"id": name, "sha": oid, "private": repo.private, "siblings": siblings, "tags": []}
        return common | {"createdAt": CREATED, "lastModified": CREATED, "downloads": 0, "likes": 0}

    def create_branch(self, kind: str, name: str, branch: str) -> dict:
        repo = self.repo(kind, name, write=True)
        if branch in repo.refs:
            raise HubError(409, f"Reference already exists: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        repo.refs[branch] = self.commit_of(repo, start)
        return {}

    def open_pull_request(self, kind: str, name: str) -> dict:
        repo = self.repo(kind, name, write=True)
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
        repo.refs[f"refs/pr/{number}"] = repo.refs["main"]
        return {"num": number}

    def pull_request(self, kind: str, name: str, number: str) -> dict:
        self.repo(kind, name)
        about = {"num": int(number), "title": "", "status": "draft", "isPullRequest": True, "createdAt": CREATED}
        about |= {"author": {"name": self.hub.user}, "repo": {"name": name, "type": kind.removesuffix("s")}}
        return about | {"events": [], "diff": "", "changes": {"base": "main"}, "filesWithConflicts": []}

    def set_variable(self, name: str) -> dict:
        repo = self.repo("spaces", name, write=True)
        asked = json.loads(self.body)
        repo.variables[asked["key"]] = asked["value"]
        return {key: {"key": key, "value": value} for key, value in repo.variables.items()}

    # Routes: sending files

    def validate_yaml(self) -> dict | None:
        asked = json.loads(self.body)
        errors = _card_errors(asked["content"])
        given = {"errors": [{"message": error} for error in errors], "warnings": []}
        if not errors:
            return given
        self.answer(400, json.dumps(given).encode(), {"Content-Type": "application/json"})
        return None

    def preupload(self, kind: str, name: str, revision: str) -> dict:
        repo = self.repo(kind, name, write=True)
        there = repo.files(self.commit_of(repo, revision))
        files = []
        for asked in json.loads(self.body)["files"]:
            path = asked["path"]
            mode = {
                "path": path,
                "uploadMode": "lfs" if self.is_lfs(path) else "regular",
                "shouldIgnore": False,
            }
            files.append(mode | ({"oid": self.oid(path, there[path])} if path in there else {}))
        return {"files": files}

    def lfs_batch(self, kind: str | None, name: str) -> dict:
        self.repo(kind, name, write=True)
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.lfs:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}", "header": {}}}
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, oid: str) -> dict:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, f"these bytes have another SHA-256 than {oid}")
        self.hub.lfs[oid] = self.body
        return {}

    def commit(self, kind: str, name: str, revision: str) -> dict:
        repo = self.repo(kind, name, write=True)
        files = dict(repo.files(self.commit_of(repo, revision)))
        message = ""
        for line in map(json.loads, self.body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise HubError(400, f"{value['path']}: its LFS object was never sent")
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif key in ("deletedFile", "deletedFolder"):
                gone = value["path"].rstrip("/")
                files = {path: data for path, data in files.items() if not f"{path}/".startswith(f"{gone}/")}
            else:
                raise HubError(400, f"unknown operation {key}")
        given = {}
        if self.query.get("create_pr"):
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
            revision = f"refs/pr/{number}"
            given["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{number}"
        oid = repo.commit(revision, files, message)
        return given | {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"}

    # Routes: reading files

    def tree(self, kind: str, name: str, revision: str, folder: str | None) -> list[dict]:
        repo = self.repo(kind, name)
        files = repo.files(self.commit_of(repo, revision))
        prefix = f"{folder}/" if folder else ""
        deep = self.query.get("recursive", "").lower() in ("true", "1")
        entries: dict[str, dict] = {}
        for path, data in sorted(files.items()):
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts)) if deep else range(1, min(2, len(parts))):
                parent = prefix + "/".join(parts[:depth])
                entries[parent] = {"type": "directory", "path": parent, "size": 0, "oid": "0" * 40}
            if deep or len(parts) == 1:
                entries[path] = {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
                if self.is_lfs(path):
                    lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                    entries[path]["lfs"] = lfs
        if folder and not entries:
            raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        return list(entries.values())

    def resolve(self, kind: str | None, name: str, revision: str, path: str) -> None:
        repo = self.repo(kind, name)
        if repo.gated:  # the page is open to all, the files to those who were let in
            raise HubError(403 if self.signed_in() else 401, "Access to this model is restricted", "GatedRepo")
        oid = self.commit_of(repo, revision)
        if path not in repo.commits[oid]:
            raise HubError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": oid})
        data = repo.commits[oid][path]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{self.oid(path, data)}"', "Accept-Ranges": "bytes"}
        if self.is_lfs(path):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data))}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self.answer(200, data, headers)
            return
        start, stop = int(part[1]), min(int(part[2] or len(data)) + 1, len(data))
        if start >= len(data):
            raise HubError(416, "Range not satisfiable", **{"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self.answer(206, data[start:stop], headers)


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _card_errors(content: str) -> list[str]:
    """Give what the Hub finds wrong with a card's front matter: the rules of its model card specification."""
    block = re.match(r"---\r?\n(.*?)\r?\n---", content, re.DOTALL)
    try:
        metadata = yaml.safe_load(block[1]) if block else {}
    except yaml.YAMLError as error:
        return [f"the YAML does not parse: {error}"]
    if not isinstance(metadata, dict):
        return ["the YAML must be an object"]
    texts = [metadata.get(key, "") for key in ("library_name", "pipeline_tag")] + (metadata.get("tags") or [])
    errors = [f"{value!r} must be a string" for value in texts if not isinstance(value, str)]
    for model in metadata.get("model-index") or []:
        errors += [] if model.get("name") else ["model-index needs a name"]
        for result in model.get("results") or []:
            needed = [result.get("task", {}).get("type")]
            needed += [result.get("dataset", {}).get(key) for key in ("type", "name")]
            needed += [metric.get(key) for metric in result.get("metrics") or [{}] for key in ("type", "value")]
            if None in needed:
                errors.append("model-index results need task.type, dataset.type, dataset.name, and metrics")
    return errors


def _route(methods: str, path: str, action: Callable) -> tuple[list[str], re.Pattern[str], Callable]:
    parts = {
        "{api}": "/api/(models|datasets|spaces)/([^/]+/[^/]+)",
        "{page}": "/(?:(datasets|spaces)/)?([^/]+/[^/]+)",
        "{rev}": "([^/]+)",
        "{path}": "(.+)",
    }
    for name, pattern in parts.items():
        path = path.replace(name, pattern)
    return methods.split(), re.compile(path), action


ROUTES = [
    _route("POST", "/api/repos/create", _Handler.create_repo),
    _route("POST", "/api/validate-yaml", _Handler.validate_yaml),
    _route("POST", "{api}/preupload/{rev}", _Handler.preupload),
    _route("POST", "{page}[.]git/info/lfs/objects/batch", _Handler.lfs_batch),
    _route("PUT", "/lfs/{rev}", _Handler.lfs_put),
    _route("POST", "{api}/commit/{rev}", _Handler.commit),
    _route("POST", "{api}/branch/{rev}", _Handler.create_branch),
    _route("POST", "{api}/discussions", _Handler.open_pull_request),
    _route("GET", "{api}/discussions/{rev}", _Handler.pull_request),
    _route("POST", "/api/spaces/([^/]+/[^/]+)/variables", _Handler.set_variable),
    _route("GET", "{api}/tree/{rev}(?:/{path})?", _Handler.tree),
    _route("GET", "{api}(?:/revision/{rev})?", _Handler.info),
    _route("GET HEAD", "{page}/resolve/{rev}/{path}", _Handler.resolve),
]
