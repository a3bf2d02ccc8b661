"""A Hub in miniature: the part of its protocol that fetching a model takes, on this machine."""

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse


class Hub:
    """Models by name, each a list of commits (files by path), and what was asked of the server."""

    def __init__(self):
        self.models, self.refs, self.gated, self.private, self.asked = {}, {}, set(), {}, []
        self.url, self.down = "", False

    def commit(self, repo, files, ref="main"):
        """A new commit of `repo` with the files `files`, and its name."""
        text = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, sort_keys=True)
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.models.setdefault(repo, {})[sha] = dict(files)
        self.refs.setdefault(repo, {})[ref] = sha
        return sha

    def downloads(self):
        """The files that were sent, in order, and none asked for before."""
        sent = [path.split("/")[-1] for method, path in self.asked if method == "GET" and not path.startswith("/api")]
        self.asked.clear()
        return sorted(sent)


@contextlib.contextmanager
def running():
    """A `Hub` and the server of it."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = urllib.parse.urlsplit(self.path).path
        self.hub.asked.append((self.command, path))
        if self.hub.down:
            return self.reply(503)
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if parts[:1] == ["blobs"]:  # where large files are, as on a CDN
            return self.reply(200, self.blob(parts[1]))
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        repo, rest = "/".join(parts[:2]), parts[2:]
        if repo not in self.hub.models or not self.allowed(repo):
            return self.refuse(401, "RepoNotFound")
        if repo in self.hub.gated and not (api and rest[:1] != ["tree"]):
            return self.refuse(403, "GatedRepo")
        revision = rest[1] if len(rest) > 1 else "main"
        sha = self.hub.refs[repo].get(revision, revision)
        if sha not in self.hub.models[repo]:
            return self.refuse(404, "RevisionNotFound")
        files = self.hub.models[repo][sha]
        if api and rest[:1] == ["tree"]:
            return self.reply_json([self.entry(name, data) for name, data in files.items()])
        if api:
            return self.reply_json({"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]})
        name = "/".join(rest[2:])
        if name not in files:
            return self.refuse(404, "EntryNotFound", sha)
        return self.send_file(name, files[name], sha)

    def allowed(self, repo):
        token = self.hub.private.get(repo)
        return token is None or self.headers.get("Authorization") == f"Bearer {token}"

    def blob(self, digest):
        every = (data for commits in self.hub.models.values() for files in commits.values() for data in files.values())
        return next(data for data in every if hashlib.sha256(data).hexdigest() == digest)

    def entry(self, name, data):
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def send_file(self, name, data, sha):
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if name.endswith((".safetensors", ".bin")):
            headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            headers |= {"Location": f"http://localhost:{self.server.server_port}/blobs/{digest}"}
            return self.reply(302, b"", headers)
        return self.reply(200, data, headers)

    def refuse(self, status, code, sha=None):
        headers = {"X-Error-Code": code, "X-Error-Message": f"{code} of the miniature"}
        return self.reply(status, b"", headers | ({"X-Repo-Commit": sha} if sha else {}))

    def reply_json(self, value):
        return self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status, data=b"", headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
