"""A server on loopback that answers the handful of calls about TrainJobs as Kubernetes does, with faults on demand."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import yaml

JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/coda/trainjobs"
PODS = "/api/v1/namespaces/coda/pods"


class KubernetesServer(ThreadingHTTPServer):
    """Jobs, pods and logs of one namespace.

    Attributes:
        jobs: Documents by name.
        pods: Pods of every job.
        logs: Log by pod.
        faults: Taken by the next requests of a method: status, or 'cut' for a connection that breaks off.
        asked: Method and path of every request.
        on_create, on_look, on_delete: Called with a job's document.
        keeps: Whether deleted jobs stay a while, as jobs do whose pods are ending.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs, self.pods, self.logs, self.faults, self.asked = {}, [], {}, {}, []
        self.on_create = self.on_look = self.on_delete = lambda job: None
        self.installed, self.keeps = True, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def kubeconfig(self, path):
        """Write what kubectl would be told of this server."""
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "me", "user": {"token": "a-token"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "coda"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(config))
        return path

    def end(self, name, state, reason="", message=""):
        """Give a job a condition."""
        condition = {"type": state, "status": "True", "reason": reason, "message": message}
        self.jobs[name].setdefault("status", {})["conditions"] = [condition]


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body, form="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", form)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message):
        self.answer(status, {"kind": "Status", "status": "Failure", "message": message, "code": status})

    def faulty(self, method):
        server = self.server
        server.asked.append((method, urlsplit(self.path).path))
        assert self.headers["authorization"] == "Bearer a-token"
        waiting = server.faults.get(method)
        fault = waiting.pop(0) if waiting else None
        if fault == "cut":
            self.connection.close()
        elif fault is not None:
            status, message = fault if isinstance(fault, tuple) else (fault, "a fault")
            self.refuse(status, message)
        return fault is not None

    def do_GET(self):
        url, server = urlsplit(self.path), self.server
        if self.faulty("GET"):
            return
        if url.path == PODS:
            (selector,) = parse_qs(url.query)["labelSelector"]
            name = selector.removeprefix("jobset.sigs.k8s.io/jobset-name=")
            self.answer(200, {"items": server.pods if name in server.jobs else []})
        elif url.path.startswith(PODS):
            pod = url.path.removeprefix(f"{PODS}/").removesuffix("/log")
            assert parse_qs(url.query)["container"] == ["node"]
            if pod in server.logs:
                self.answer(200, server.logs[pod], "text/plain")
            else:
                self.refuse(404, f"pods {pod} not found")
        else:
            name = url.path.removeprefix(f"{JOBS}/")
            job = server.jobs.get(name)
            if job is None:
                self.refuse(404, f"trainjobs {name} not found")
                return
            server.on_look(job)
            if "deletionTimestamp" in job["metadata"]:
                server.keeps -= 1
                if server.keeps <= 0:
                    del server.jobs[name]
            self.answer(200, job)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.faulty("POST"):
            return
        assert self.path == JOBS
        name = body["metadata"]["name"]
        if not self.server.installed:
            self.answer(404, "404 page not found\n", "text/plain")
        elif name in self.server.jobs:
            self.refuse(409, f'trainjobs "{name}" already exists')
        else:
            self.server.jobs[name] = body
            self.server.on_create(body)
            self.answer(201, body)

    def do_DELETE(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.faulty("DELETE"):
            return
        url = urlsplit(self.path)
        assert parse_qs(url.query)["propagationPolicy"] == ["Foreground"]
        name = url.path.removeprefix(f"{JOBS}/")
        job = self.server.jobs.get(name)
        if job is None:
            self.refuse(404, f"trainjobs {name} not found")
            return
        self.server.on_delete(job)
        if self.server.keeps:
            job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            del self.server.jobs[name]
        self.answer(200, job)
