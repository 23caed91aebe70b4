"""A stand-in for the server of Weights & Biases on the loopback interface: what a sweep, its agent and its runs ask.

It can also fail in the ways that real servers do.
"""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

# What is wrong with a server: it answers 500 to everything, accepts requests and never answers, refuses connections,
# is a web page (such as the login of a hotel's network), is of another version, whose answers have other fields, or
# does not know the key.
Fault = Literal["error", "hang", "refuse", "page", "version", "key"]
FAULTS: tuple[Fault, ...] = ("error", "hang", "refuse", "page", "version", "key")

# The client wants 40 characters or more.
API_KEY = "0123456789" * 4
ENTITY, PROJECT, SWEEP = "someone", "discs", "sweep001"


class StandIn:
    """Answer on 127.0.0.1 while the `with` block lasts, and keep what was received.

    Args:
        commands: the parameters of each run that the agent of a sweep is told to start, one after the other.
        fault: what is wrong with it.
        fault_after: the GraphQL operation that is still answered well, e.g. UpsertBucket, which starts a run; by
            default, none.

    Attributes:
        configs: run id to the configuration it sent.
        history: run id to the rows that it logged.
        summaries: run id to its last summary.
        exit_codes: run id to the exit code that it reported.
        files: run id to the files that it uploaded.
        artifacts: name of an artifact to the request that made it; its files are in `files`.
        downloads: the files of artifacts that were fetched.
        unknown: requests that had no answer.
    """

    def __init__(
        self,
        commands: list[dict[str, Any]] | None = None,
        fault: Fault | None = None,
        fault_after: str | None = None,
    ) -> None:
        self.commands = list(commands or [])
        self.fault = None if fault_after else fault
        self._later_fault, self._fault_after = fault, fault_after
        self._is_over = threading.Event()
        self.sweep_config = ""
        self.configs: dict[str, dict[str, Any]] = defaultdict(dict)
        self.history: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.summaries: dict[str, dict[str, Any]] = defaultdict(dict)
        self.exit_codes: dict[str, int] = {}
        self.files: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.downloads: list[str] = []
        self.unknown: list[str] = []
        stand_in = self

        class Handler(_Handler):
            owner = stand_in

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """The variables with which a process takes this server for Weights & Biases."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY, "WANDB_MODE": "online", "WANDB_SILENT": "false"}

    def __enter__(self) -> "StandIn":
        self._thread.start()
        if self.fault == "refuse":
            self.stop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self.stop()

    def stop(self) -> None:
        """Go away in the middle of whatever is going on."""
        self.fault = "refuse"  # connections that are open outlive the server
        self._server.shutdown()
        self._server.server_close()

    # --- GraphQL -----------------------------------------------------------------------------------------------------

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The data that answers a GraphQL operation; None if there is no answer."""
        handler: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, f"_on_{_snake(operation)}", None)
        if operation == self._fault_after:
            self.fault = self._later_fault
            if self.fault == "refuse":
                self.stop()
        return None if handler is None else handler(variables)

    def _on_viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "v", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def _on_server_features_query(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _on_run_resume_status(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"model": None}

    def _on_upsert_bucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or variables.get("id")
        config = json.loads(variables.get("config") or "{}")
        self.configs[name] |= {key: entry.get("value", entry) for key, entry in config.items()}
        project = {"name": PROJECT, "entity": {"name": ENTITY}}
        bucket = {
            "id": f"bucket-{name}",
            "name": name,
            "displayName": name,
            "sweepName": variables.get("sweep"),
            "historyLineCount": 0,
            "project": project,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _on_upsert_sweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.sweep_config = variables["config"]
        sweep = {"name": SWEEP, "project": {"name": PROJECT, "entity": {"name": ENTITY}}}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _on_sweep_with_runs(self, variables: dict[str, Any]) -> dict[str, Any]:
        sweep = {"id": "s", "name": SWEEP, "state": "RUNNING", "config": self.sweep_config, "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def _on_create_agent(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "agent-1"}}}

    def _on_heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:
        commands: list[dict[str, Any]] = []
        running = json.loads(variables.get("runState") or "{}")
        if not any(running.values()):
            commands.append(self._next_command())
        return {"agentHeartbeat": {"agent": {"id": "agent-1"}, "commands": json.dumps(commands)}}

    def _next_command(self) -> dict[str, Any]:
        if not self.commands:
            return {"type": "exit"}
        parameters = self.commands.pop(0)
        run_id = f"run{len(self.commands)}"
        arguments = {name: {"value": value} for name, value in parameters.items()}
        return {"type": "run", "run_id": run_id, "args": arguments, "program": None}

    def _on_create_run_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables["run"]
        files = [{"name": name, "uploadUrl": f"{self.url}/put/{run}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": f"bucket-{run}", "uploadHeaders": [], "files": files}}

    # --- artifacts: each collection has the one version that came last, which is v0 -------------------------------

    def _on_get_default_entity(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "v", "entity": ENTITY}}

    def _on_artifact_type(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _on_create_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        created = variables["input"]
        name = created["artifactCollectionName"]
        self.artifacts[name] = created
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _on_create_artifact_manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["artifactID"]
        file = {"id": f"manifest-{name}", "uploadUrl": f"{self.url}/put/{name}/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _on_update_artifact_manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        file = {"uploadUrl": f"{self.url}/put/{variables['artifactManifestID']}/manifest", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"file": file}}}

    def _on_create_artifact_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for file in variables["input"]["artifactFiles"]:
            artifact, name = file["artifactID"], file["name"]
            node = {
                "name": name,
                "storagePath": f"wandb_artifacts/{name}",
                "uploadUrl": f"{self.url}/put/{artifact}/{name}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": artifact},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _on_commit_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}

    def _on_artifact_membership_by_name(self, variables: dict[str, Any]) -> dict[str, Any]:
        name, _, alias = variables["name"].partition(":")
        created = self.artifacts.get(name)
        if created is None or alias not in {"v0", *(entry["alias"] for entry in created["aliases"])}:
            return {"project": {"artifactCollectionMembership": None}}
        project = {
            "id": "p",
            "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==",
            "name": PROJECT,
            "entity": {"id": "e", "name": ENTITY},
        }
        collection = {"__typename": "ArtifactSequence", "name": name, "project": project}
        artifact = {
            "__typename": "Artifact",
            "id": name,
            "artifactSequence": collection,
            "versionIndex": 0,
            "artifactType": {"name": created["artifactTypeName"]},
            "description": None,
            "metadata": created["metadata"],
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED",
            "size": 1,
            "digest": created["digest"],
            "commitHash": "c",
            "fileCount": 1,
            "createdAt": "2025-01-01T00:00:00Z",
            "updatedAt": None,
        }
        membership = {
            "__typename": "ArtifactCollectionMembership",
            "id": "m",
            "versionIndex": 0,
            "createdAt": "2025-01-01T00:00:00Z",
            "aliases": [],
            "artifactCollection": collection,
            "artifact": artifact,
        }
        return {"project": {"artifactCollectionMembership": membership}}

    def _on_fetch_artifact_manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        file = {"directUrl": f"{self.url}/get/{variables['id']}/manifest"}
        return {"artifact": {"currentManifest": {"file": file}}}

    def _on_get_artifact_membership_file_urls(self, variables: dict[str, Any]) -> dict[str, Any]:
        collection = variables["collection"]
        edges = [
            {"node": {"__typename": "File", "name": name, "directUrl": f"{self.url}/get/{collection}/{name}"}}
            for name in self.files[collection]
            if name != "manifest"
        ]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        files = {"pageInfo": page, "edges": edges}
        membership = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
        return {"project": {"artifactCollection": membership}}

    def receive_stream(self, run: str, message: dict[str, Any]) -> None:
        """Take in what a run streams: rows of its history, its summary, its exit code."""
        for name, part in (message.get("files") or {}).items():
            rows = [json.loads(line) for line in part["content"]] if name.endswith((".jsonl", ".json")) else []
            if name == "wandb-history.jsonl":
                self.history[run] += rows
            elif name == "wandb-summary.json" and rows:
                self.summaries[run] = rows[-1]
        if message.get("complete"):
            self.exit_codes[run] = message["exitcode"]

    def fail(self, handler: "_Handler") -> bool:
        """Answer a request as the fault says; False if there is none."""
        if self.fault == "refuse":
            handler.close_connection = True
        elif self.fault == "hang":
            self._is_over.wait()
            handler.close_connection = True
        elif self.fault == "error":
            handler.send_bytes(b"", 500)
        elif self.fault == "page":
            handler.send_bytes(b"<html><body>Please log in</body></html>", 200, "text/html")
        elif self.fault == "version":
            handler.send_bytes(b'{"data": {"renamed": {"id": 1}}, "limits": 3}', 200)
        elif self.fault == "key":
            handler.send_bytes(b'{"errors": [{"message": "user is not logged in"}], "data": {"viewer": null}}', 401)
        return self.fault is not None


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up without a word when their process ends."""


class _Handler(BaseHTTPRequestHandler):
    owner: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.owner.fail(self):
            return
        if self.path == "/graphql":
            self._answer_graphql(json.loads(body))
        elif match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.owner.receive_stream(match[1], json.loads(body))
            self._send({"limits": {}})
        elif self.path.startswith("/sdk/otel/"):
            self._send({})
        else:
            self._send_unknown(f"POST {self.path}")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.owner.fail(self):
            return
        if match := re.fullmatch(r"/put/([^/]+)/(.+)", self.path):
            self.owner.files[match[1]][match[2]] = body
            self._send({})
        else:
            self._send_unknown(f"PUT {self.path}")

    def do_GET(self) -> None:
        if self.owner.fail(self):
            return
        match = re.fullmatch(r"/get/([^/]+)/(.+)", self.path)
        content = self.owner.files[match[1]].get(match[2]) if match else None
        if content is None:
            self._send_unknown(f"GET {self.path}")
        else:
            if match and match[2] != "manifest":
                self.owner.downloads.append(f"{match[1]}/{match[2]}")
            self.send_bytes(content, 200)

    def _answer_graphql(self, request: dict[str, Any]) -> None:
        found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        operation = found[1] if found else ""
        data = self.owner.answer(operation, request.get("variables") or {})
        if data is None:
            self.owner.unknown.append(f"{operation} {request.get('variables')} {request['query']}")
            self._send({"data": None, "errors": [{"message": f"no answer to {operation}"}]})
        else:
            self._send({"data": data})

    def _send_unknown(self, request: str) -> None:
        self.owner.unknown.append(request)
        self._send({}, status=404)

    def _send(self, content: dict[str, Any], status: int = 200) -> None:
        self.send_bytes(json.dumps(content).encode(), status)

    def send_bytes(self, body: bytes, status: int, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
