"""A platform in memory: a Kubernetes API, a forge, a store and MLflow, as the commands see them."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slipway import attestation, bento, digests, evidence, release, store
from slipway.endpoints import Cluster
from slipway.evidence import Estimate, Evaluation, Evidence, Holdout
from slipway.forge import NotFound, PullRequest, Report, State
from slipway.lineage import MLflow
from slipway.release import Release
from tests import samples
from tests.samples import Objects, public_pem

ARGO = "/apis/argoproj.io/v1alpha1/namespaces"
Answer = Callable[[httpx.Request], httpx.Response]


class Forge:
    """Commits as mappings of path to content; `main` is the newest."""

    def __init__(self) -> None:
        self.login = "slipway-admin"
        self.commits: dict[str, dict[str, bytes]] = {}
        self.head = ""
        self.pull_requests: list[PullRequest] = []
        self.reported: dict[str, dict[str, State]] = {}
        self.reporter = "slipway-bot"

    def put(self, sha: str, files: dict[str, bytes]) -> None:
        self.commits[sha] = {**self.commits.get(self.head, {}), **files}
        self.head = sha

    def commit(self, ref: str = "main") -> str:
        sha = self.head if ref == "main" else ref
        if sha not in self.commits:
            raise NotFound(f"the forge has no commit {ref}", status=404)
        return sha

    def read(self, path: str, ref: str = "main") -> bytes:
        try:
            return self.commits[self.commit(ref)][path]
        except KeyError:
            raise NotFound(f"the forge has no file {path} at {ref}", status=404) from None

    def files(self, folder: str, ref: str = "main") -> list[str]:
        return sorted(p for p in self.commits[self.commit(ref)] if str(Path(p).parent) == folder)

    def pulls(self, state: str = "open") -> Iterator[PullRequest]:
        return (p for p in self.pull_requests if state in ("all", p.state))

    def changed(self, number: int) -> list[str]:
        pull = next(p for p in self.pull_requests if p.number == number)
        main, theirs = self.commits[self.head], self.commits[pull.sha]
        return sorted(p for p in main.keys() | theirs.keys() if main.get(p) != theirs.get(p))

    def statuses(self, sha: str) -> dict[str, State]:
        return self.reported.get(sha, {})

    def report(self, sha: str, context: str) -> Report | None:
        state = self.statuses(sha).get(context)
        return Report(state, self.reporter) if state else None


@dataclass
class Platform:
    """Everything at once; tests break one part and look at what is said."""

    objects: dict[str, Any] = field(default_factory=dict[str, Any])
    models: dict[str, Answer] = field(default_factory=dict[str, Answer])
    created: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    mlflow_answers: dict[str, Any] = field(default_factory=dict[str, Any])
    forge: Forge = field(default_factory=Forge)
    store: Objects = field(default_factory=Objects)
    release: Any = None
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def keys(self) -> Any:
        public = self.key.public_key()
        return {attestation.key_id(public): public}

    @property
    def cluster(self) -> Cluster:
        client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(self._api))
        return Cluster(client, embedded=True)

    @property
    def mlflow(self) -> MLflow:
        return MLflow("http://mlflow", transport=httpx.MockTransport(self._mlflow))

    def _api(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if "/proxy/" in path:
            name, _, rest = path.partition(":http/proxy/")
            answer = self.models.get(name.rpartition("/")[2])
            if answer is None:
                return httpx.Response(404, json={"message": "services not found"})
            return answer(request) if rest else httpx.Response(404)
        if request.method == "POST":
            body = json.loads(request.content)
            name = f"{body['metadata']['generateName']}abcde"
            body["metadata"] |= {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
            self.created.append(body)
            self.objects[f"{path}/{name}"] = body
            return httpx.Response(201, json=body)
        if path in self.objects:
            found = self.objects[path]
            # A list of states is taken one a request, the last one again and again.
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
            if isinstance(found, httpx.TransportError):
                raise found
            return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)
        return httpx.Response(404, json={"message": f"{path} not found"})

    def _mlflow(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/2.0/mlflow/")
        if path not in self.mlflow_answers:
            return httpx.Response(404, json={"message": f"no {path}"})
        return httpx.Response(200, json=self.mlflow_answers[path])


COMMIT = "d4" * 20
LOCK = bento.LOCK.relative_to(bento.BENTOS.parent).as_posix()
CODE = {"training.py": b"# train\n", "service.py": b"# serve\n", "model.yaml": b"name: toy\n"}


def answers(digest: str, body: Any = None, status: int = 200) -> Answer:
    headers = {"x-slipway-bento": digest}
    return lambda _: httpx.Response(status, json=body, headers=headers)


@pytest.fixture
def platform() -> Platform:
    """`toy` runs in dev, and every source agrees on what it is."""
    made = Platform()
    content = b"a bento"
    bento_digest = made.store.put("bentos", content)
    partition = made.store.put("data", b"rows")
    manifest = {
        "schema_version": 1,
        "model": "toy",
        "partitions": [{"name": "part-1", "digest": partition, "rows": 10, "size": 4}],
    }
    data = made.store.put("data", digests.canonical_json(manifest))
    pins = release.Bento(
        digest=bento_digest, uri=store.uri("bentos", bento_digest), size=len(content)
    )
    model_digest = digests.of(b"model files")
    run = "e5" * 16
    some = digests.of(b"something")
    signature = evidence.Signature(digest=digests.of(b"signature"), inputs=[], outputs=[])
    document = Evidence(
        created="2026-01-01T00:00:00Z",
        environment="dev",
        policy=evidence.PolicyPin(environment="dev", digest=some),
        version=3,
        bento=pins,
        runtime=release.Runtime(image=samples.IMAGE),
        evaluation=Evaluation(
            model="toy",
            task="classification",
            model_digest=model_digest,
            data=evidence.Data(digest=data, rows=10),
            code=COMMIT,
            run=run,
            evaluated="2026-01-01T00:00:00Z",
            parameters={},
            holdout=Holdout(
                digest=some,
                partitions=["part-1"],
                outcomes={"part-1": some},
                rows=10,
                unknown=0,
                mean_outcome=0.5,
                deviation=0.5,
            ),
            predictions=some,
            metrics={"roc_auc": Estimate(value=0.7, low=0.6, high=0.8)},
            baselines={},
            gain={},
            reliability=[],
            calibration_chance=0.0,
            by_period={},
            slice_columns=[],
            slices=[],
            decision_threshold=0.5,
            fairness=[],
            validation=evidence.Validation(rows=10, columns=2, checks=[]),
            signature=signature,
        ),
        serving=evidence.Serving(
            requests=1,
            latency_p50_ms=1,
            latency_p99_ms=2,
            memory_mib=100,
            start_seconds=1,
            bento_bytes=len(content),
        ),
        dependencies=evidence.Dependencies(lock=some, packages=[], vulnerabilities="not checked"),
        champion=None,
        comparison=None,
    )
    proof = made.store.put("evidence", attestation.sign(document, made.key))
    made.release = Release(
        model="toy",
        version=3,
        bento=pins,
        runtime=document.runtime,
        data=release.Data(digest=data),
        code=release.Code(commit=COMMIT),
        mlflow=release.MLflow(run=run),
        signature=release.Signature(digest=signature.digest),
        evidence=release.Evidence(digest=proof, summary=document.summary()),
    )
    code = {f"bentos/toy/{name}": text for name, text in CODE.items()}
    made.forge.put(COMMIT, {**code, LOCK: b"pins\n"})
    path = str(release.path("dev", "toy"))
    made.forge.put("f6" * 20, {path: release.dumps(made.release).encode()})
    tags = {
        "slipway.data_digest": data,
        "slipway.model_digest": model_digest,
        "slipway.code_digest": digests.of_files({**CODE, LOCK: b"pins\n"}),
    }
    listed = [{"key": key, "value": value} for key, value in tags.items()]
    made.mlflow_answers = {
        "runs/get": {"run": {"info": {"status": "FINISHED"}, "data": {"tags": listed}}},
        "model-versions/get": {"model_version": {"tags": listed}},
    }
    pod = {
        "metadata": {"name": "toy-1", "annotations": made.release.pins},
        "spec": {
            "containers": [
                {
                    "name": "model",
                    "image": made.release.runtime.image,
                    "env": [{"name": "SLIPWAY_BENTO_DIGEST", "value": bento_digest}],
                },
                # What ships its predictions is told of no bento.
                {"name": "predictions", "image": made.release.runtime.image},
            ]
        },
    }
    application = {
        "metadata": {"name": "dev-toy"},
        "status": {"sync": {"status": "Synced"}, "health": {"status": "Healthy"}},
    }
    made.objects = {
        "/api/v1/namespaces/dev/pods": {"items": [pod]},
        f"{ARGO}/argocd/applications": {"items": [application]},
        f"{ARGO}/pipelines/workflowtemplates/train": {},
        "/api/v1/namespaces/pipelines/configmaps/evidence-keys": {
            "data": {"public.pem": public_pem(made.key).decode()}
        },
    }
    made.models["toy"] = answers(bento_digest)
    return made


@pytest.fixture
def connected(platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Platform:
    """The same, as what `slipway` finds when it connects."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cluster = platform.cluster
    monkeypatch.setattr(cluster, "forge", lambda: contextlib.nullcontext(platform.forge))
    monkeypatch.setattr(cluster, "store", lambda: contextlib.nullcontext(platform.store))
    monkeypatch.setattr(Cluster, "connect", lambda: cluster)
    monkeypatch.setattr("slipway.lineage.mlflow", lambda _: platform.mlflow)
    return platform


def changed(item: Any, **values: Any) -> Any:
    """A deep copy, so that one test's change is not the next one's start."""
    made = copy.deepcopy(item)
    made.update(values)
    return made
