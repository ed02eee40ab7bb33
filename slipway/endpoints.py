"""How the command line reaches what runs in the cluster: its API, its services, its models."""

from __future__ import annotations

import base64
import os
import ssl
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

from slipway import paths, people
from slipway.credentials import Credentials, Token
from slipway.errors import BadInput, SlipwayError
from slipway.forge import (
    Gitea,
    GitHub,
    connect,
    from_environment,
    login,
    own_credentials,
    own_login,
)
from slipway.release import service
from slipway.store import PREFIX, UPSTREAM, Given, Store, upstream

BENTO_HEADER = "x-slipway-bento"
PREDICTION_HEADER = "x-slipway-prediction"
_MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ClusterError(SlipwayError):
    """The cluster cannot be reached, or refused. `status` is the HTTP status, 0 for no answer."""

    def __init__(self, message: str, *, status: int = 0, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.status = status

    @property
    def may_pass(self) -> bool:
        """Whether the API server was away or not ready yet, and may answer a moment later."""
        return self.status in (0, 429) or self.status >= 500


Answer = TypeVar("Answer")


def patiently(
    ask: Callable[[], Answer],
    say: Callable[[str], None] = lambda _: None,
    *,
    seconds: float = 120,
    every_s: float = 1,
) -> Answer:
    """What `ask` gets of the API server, where one that begins anew is waited for.

    Args:
        ask: asked again after each answer that may pass.
        say: called, once, with what is waited for.
        seconds: how long, at the most.

    Raises:
        ClusterError: it refuses, or is away for longer than that.
    """
    deadline, away = time.monotonic() + seconds, False
    while True:
        try:
            return ask()
        except ClusterError as error:
            # One that has just begun anew has not read yet who may do what.
            again = error.may_pass or (away and error.status in (401, 403))
            if not again or time.monotonic() > deadline:
                raise
            if not away:
                problem = str(error).partition("\n")[0]
                say(f"waiting for the API server, at most {seconds:.0f} s: {problem}")
            away = True
        time.sleep(every_s)


def part(item: Any, *keys: str) -> Any:
    """What stands at a path in an API object; None when any of its keys is absent or null."""
    for key in keys:
        item = cast("dict[str, Any]", item).get(key) if isinstance(item, dict) else None
    return item


def parts(item: Any, *keys: str) -> list[Any]:
    """The list at a path in an API object; empty when there is none."""
    return part(item, *keys) or []


def kubeconfig(stack: str = "local") -> Path:
    """The user's cluster where KUBECONFIG or the stack file means one, else the embedded one.

    Raises:
        BadInput: KUBECONFIG names several files.
    """
    named = os.environ.get("KUBECONFIG")
    if named and os.pathsep in named and not Path(named).exists():
        raise BadInput(
            f"several files: {named}",
            field="KUBECONFIG",
            fix="`kubectl config view --flatten >FILE`, and KUBECONFIG=FILE",
        )
    if named:
        return Path(named)
    from slipway import pulumi  # which pods do not have all of

    usual = Path.home() / ".kube" / "config"
    return usual if pulumi.is_elsewhere(stack) else paths.kubeconfig()


@dataclass(frozen=True)
class Outside:
    """A forge that was there before the platform. `gates`: who judges, actions or cluster; `ca`:
    see `slipway.authority`; `app`: number of the GitHub App that the platform is there, if any."""

    kind: str
    url: str
    repository: str
    gates: str
    ca: str = ""
    app: str = ""


class Cluster:
    """The Kubernetes API, as far as the command line needs it."""

    def __init__(self, client: httpx.Client, *, embedded: bool, connection: Any = None) -> None:
        """`client` speaks to the API server, `connection` is kr8s' for port-forwards."""
        self._client, self._connection, self.embedded = client, connection, embedded

    @classmethod
    def connect(cls, stack: str = "local") -> Cluster:
        """Connects by the kubeconfig.

        Raises:
            ClusterError: there is none, or nothing answers where it points.
        """
        import kr8s  # takes half a second: only commands that need the cluster pay it

        config = kubeconfig(stack)
        if not config.exists():
            raise ClusterError(
                f"no cluster: {config} does not exist",
                fix="run `make up`, or set KUBECONFIG to a cluster that has the platform",
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # kr8s on versions it has not been tried with
                connection: Any = kr8s.api(kubeconfig=str(config))
                verify = _run(connection.auth.ssl_context)
        except Exception as error:
            raise _unreachable(f"{config}: {error or type(error).__name__}") from error
        auth = connection.auth
        headers = {"Authorization": f"Bearer {auth.token}"} if auth.token else {}
        client = httpx.Client(
            base_url=str(auth.server),
            headers=headers,
            verify=verify,
            proxy=auth.proxy,
            timeout=httpx.Timeout(30, connect=5),
        )
        embedded = config.resolve() == paths.kubeconfig().resolve()
        return cls(client, embedded=embedded, connection=connection)

    @classmethod
    def inside(cls) -> Cluster:
        """The cluster that this pod runs in, with its service account's rights.

        Raises:
            ClusterError: this is no pod, or one without a token.
        """
        try:
            token = (_MOUNTED / "token").read_text()
            host, port = (os.environ[f"KUBERNETES_SERVICE_{k}"] for k in ("HOST", "PORT"))
        except (OSError, KeyError) as error:
            raise ClusterError(f"no cluster around this process: {error}") from error
        client = httpx.Client(
            base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=str(_MOUNTED / "ca.crt")),
            timeout=httpx.Timeout(30, connect=5),
            trust_env=False,
        )
        return cls(client, embedded=False)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request to the API server, its answer whatever the status."""
        try:
            return self._client.request(method, path, **options)
        except httpx.TransportError as error:
            where = f"{self._client.base_url}: {error or type(error).__name__}"
            raise _unreachable(where) from error

    def _checked(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self.send(method, path, **options)
        if response.is_error:
            raise _refusal(response, path)
        return response

    def find(self, path: str, **params: str) -> dict[str, Any] | None:
        """The object or list at an API path; None when there is no such thing."""
        try:
            return cast("dict[str, Any]", self._checked("GET", path, params=params).json())
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **params: str) -> list[dict[str, Any]]:
        """The items of a list; empty when the cluster does not know the kind."""
        return parts(self.find(path, **params), "items")

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Creates an object in the collection at `path`."""
        return cast("dict[str, Any]", self._checked("POST", path, json=body).json())

    def patch(self, path: str, change: Mapping[str, Any]) -> None:
        """Merges `change` into the object at an API path; None removes a key."""
        merge = {"Content-Type": "application/merge-patch+json"}
        self._checked("PATCH", path, json=change, headers=merge)

    def delete(self, path: str, **params: str) -> None:
        """Deletes the object or the collection at an API path; what is not there is no error."""
        try:
            self._checked("DELETE", path, params=params)
        except ClusterError as error:
            if error.status != 404:
                raise

    def annotate(self, path: str, annotations: Mapping[str, str]) -> None:
        """Sets annotations on the object at an API path."""
        self.patch(path, {"metadata": {"annotations": dict(annotations)}})

    def log(self, namespace: str, pod: str, container: str, lines: int) -> str | None:
        """The last lines a container wrote; None when it is gone."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        params = {"container": container, "tailLines": lines}
        response = self.send("GET", path, params=params)
        return None if response.is_error else response.text

    def _data(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        found = self.find(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
        if found is None:
            raise ClusterError(
                f"the cluster has no {kind[:-1]} {namespace}/{name}: the platform is not complete",
                status=404,
                fix="run `make up`",
            )
        return found.get("data") or {}

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """A Secret's decoded content. Not to be printed."""
        data = self._data(namespace, "secrets", name)
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def config(self, namespace: str, name: str) -> dict[str, str]:
        """A ConfigMap's content."""
        return self._data(namespace, "configmaps", name)

    @contextmanager
    def service(self, namespace: str, name: str) -> Generator[str, None, None]:
        """URL at which a Service's first port answers here: its node port, or a port-forward."""
        found = self.find(f"/api/v1/namespaces/{namespace}/services/{name}")
        if found is None:
            raise ClusterError(f"no service {namespace}/{name}", status=404, fix="run `make up`")
        # Only the embedded cluster's node is this machine.
        if self.embedded and (node_port := found["spec"]["ports"][0].get("nodePort")):
            yield f"http://127.0.0.1:{node_port}"
            return
        from kr8s.objects import Pod
        from kr8s.portforward import PortForward

        pod = self._behind(found)
        # What is refused of a forward is said to nobody.
        name = str(pod["metadata"]["name"])
        self.check(people.Access("get", "pods/portforward", "", namespace, name))
        port = _port_number(pod, found["spec"]["ports"][0]["targetPort"])
        forward = PortForward(Pod(pod, api=self._connection), port, local_port="auto")
        forward.start()
        try:
            _wait_for(forward)
            yield f"http://127.0.0.1:{forward.local_port}"
        finally:
            forward.stop()

    def _behind(self, service: Mapping[str, Any]) -> dict[str, Any]:
        """A pod of a service that is ready."""
        namespace, name = (service["metadata"][key] for key in ("namespace", "name"))
        selector = ",".join(f"{k}={v}" for k, v in service["spec"]["selector"].items())
        for pod in self.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector):
            conditions = {c["type"]: c["status"] for c in parts(pod, "status", "conditions")}
            if conditions.get("Ready") == "True":
                return pod
        raise ClusterError(f"no pod behind service {namespace}/{name} is ready")

    def check(self, access: people.Access) -> None:
        """Asks whether one may do this.

        Raises:
            ClusterError: one may not; says who may. Status 403.
        """
        kind, _, subresource = access.kind.partition("/")
        attributes = {"resource": kind, "subresource": subresource} | {
            key: getattr(access, key) for key in ("verb", "group", "namespace", "name")
        }
        api = "authorization.k8s.io/v1"
        review = self.create(
            f"/apis/{api}/selfsubjectaccessreviews",
            {
                "apiVersion": api,
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        if not part(review, "status", "allowed"):
            what = f"{access.verb} {access.kind} {access.namespace}/{access.name}"
            raise ClusterError(f"{what}: 403", status=403, fix=people.advice(access))

    def outside_forge(self) -> Outside | None:
        """The forge that the platform reads where that is none of its own."""
        found = self.find("/api/v1/namespaces/pipelines/configmaps/platform")
        known = part(found, "data") or {}
        if "FORGE_KIND" not in known:
            return None
        names = ("KIND", "SERVER", "REPOSITORY", "GATES")
        told = (known[f"FORGE_{name}"] for name in names)
        return Outside(*told, ca=known.get("FORGE_CA", ""), app=known.get("FORGE_APP", ""))

    def forge_login(self, *, administrator: bool = False) -> tuple[str, str]:
        """Who one is on the platform's own forge, and the password: of FORGE_USERNAME where that is
        set, else the administrator.

        Raises:
            BadInput: half of one's own login is set.
            ClusterError: none is, and the administrator's Secret is not for everybody to read.
        """
        if not administrator and (own := own_login()):
            return own
        try:
            admin = self.secret("forge", "gitea-admin")
        except ClusterError as error:
            if error.status != 403:
                raise
            said = str(error).partition("\n")[0]
            fix = "log in to the forge as yourself: set FORGE_USERNAME and FORGE_PASSWORD, or "
            fix += "FORGE_TOKEN; who keeps the forge makes you a login"
            raise ClusterError(said, status=403, fix=fix) from error
        return admin["username"], admin["password"]

    def _bot(self, kind: str) -> Credentials:
        """As whom steps are on the forge: of an app, with a token that counts for half an hour at
        the least."""
        bot = self.secret("pipelines", "forge")
        if not bot.get("FORGE_PASSWORD"):
            raise ClusterError(
                "Secret pipelines/forge has no token of the app yet",
                fix="kubectl -n argocd logs deployment/forge-token",
            )
        if known := bot.get("FORGE_LOGIN"):
            return Token(bot["FORGE_PASSWORD"], known)
        return login(kind, bot["FORGE_USERNAME"], bot["FORGE_PASSWORD"])

    @contextmanager
    def forge(self, *, administrator: bool = False) -> Generator[Gitea | GitHub, None, None]:
        """The git forge: the one that FORGE_KIND says, or that the platform reads.

        Of the platform's own one is the administrator unless one says who one is; of another always
        whom one says. `administrator`: there, the platform itself, which may write no less than
        what steps do.

        Raises:
            BadInput: the platform's is another, and nothing says who one is there.
        """
        if os.environ.get("FORGE_KIND", "gitea") != "gitea":
            with from_environment() as forge:
                yield forge
            return
        if outside := self.outside_forge():
            where, ca = (outside.kind, outside.url, outside.repository), outside.ca
            who = self._bot(outside.kind) if administrator else own_credentials(*where, ca=ca)
            if who is None:
                raise BadInput(
                    f"the platform reads {outside.repository} on {outside.url}, and nothing says "
                    "who you are there",
                    field="FORGE_TOKEN",
                    fix="set it to an access token of yours, or FORGE_USERNAME and FORGE_PASSWORD",
                )
            with connect(*where, who, ca=ca) as forge:
                yield forge
            return
        username, password = self.forge_login(administrator=administrator)
        repository = self.config("pipelines", "platform")["FORGE_REPOSITORY"]
        with (
            self.service("forge", "gitea") as url,
            Gitea(url, repository, username, password, retries=2) as forge,
        ):
            yield forge

    @contextmanager
    def store(self, rights_of: str = people.READER) -> Generator[Store, None, None]:
        """The object store, to be read; or with the rights of another Secret beside that one's.

        On S3 nobody's keys are in a Secret: whoever asks has credentials for AWS of his own.
        """
        import boto3  # pyright: ignore[reportMissingTypeStubs]

        keys = self.secret("pipelines", people.READER)
        prefix, region = keys.get(PREFIX, ""), keys["AWS_DEFAULT_REGION"]
        if "AWS_ENDPOINT_URL" not in keys:
            client = cast(Any, boto3).Session().client("s3", region_name=region)
            before = self.config("pipelines", "platform").get(UPSTREAM, "")
            yield Given(client, prefix, upstream(before))
            return
        rights = keys if rights_of == people.READER else self.secret("pipelines", rights_of)
        inside = keys["AWS_ENDPOINT_URL"]
        host = inside.partition("://")[2].partition(":")[0]
        name, _, rest = host.partition(".")
        in_cluster = rest.endswith((".svc", ".svc.cluster.local"))

        def at(url: str) -> Store:
            client = cast(Any, boto3).client(
                "s3",
                endpoint_url=url,
                aws_access_key_id=rights["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=rights["AWS_SECRET_ACCESS_KEY"],
                region_name=region,
            )
            return Given(client, prefix)

        if not in_cluster:
            yield at(inside)
            return
        with self.service(rest.partition(".")[0], name) as url:
            yield at(url)

    @contextmanager
    def mlflow(self) -> Generator[str, None, None]:
        """MLflow's URL from here, for whoever may change what it holds."""
        with self.service("mlflow", "mlflow") as url:
            yield url

    def through(self, namespace: str, service: str) -> httpx.BaseTransport:
        """The way to a service through the API server, which lets some send GET alone."""
        return _Through(self, f"/api/v1/namespaces/{namespace}/services/{service}/proxy")

    def ask(
        self, env: str, model: str, path: str, *, body: Any = None, timeout_s: float = 10
    ) -> httpx.Response:
        """A request to a model through the API server: POST with a JSON body, GET without.

        Raises:
            ClusterError: no model answers there; `status` tells 404 (no such model) from 503.
        """
        name = service(model)
        url = f"/api/v1/namespaces/{env}/services/{name}:http/proxy/{path.lstrip('/')}"
        method = "GET" if body is None else "POST"
        content = {"content": body} if isinstance(body, bytes) else {"json": body} if body else {}
        headers = {"Content-Type": "application/json"} if body is not None else {}
        response = self.send(method, url, headers=headers, timeout=timeout_s, **content)
        if BENTO_HEADER not in response.headers and response.is_error:
            if response.status_code == 404:
                raise ClusterError(
                    f"{model} does not run in {env}",
                    status=404,
                    fix=f"see `slipway status`; a release file puts it there: "
                    f"environments/{env}/models/{model}.yaml",
                )
            raise _refusal(response, f"{model} in {env} gives no answer")
        return response


class _Through(httpx.BaseTransport):
    """Sends requests to a service by the API server, under the name by which they were meant."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._cluster, self._prefix = cluster, prefix

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = f"{self._prefix}{request.url.raw_path.decode()}"
        headers = {k: v for k, v in request.headers.items() if k in ("host", "content-type")}
        body = request.read()
        answer = self._cluster.send(request.method, path, headers=headers, content=body)
        if asked := _refused(answer):
            raise _refusal(answer, f"{asked.namespace}/{asked.name}")
        # As it was sent, its content has been unpacked by now.
        return httpx.Response(answer.status_code, headers=_plain(answer), content=answer.content)


def _plain(answer: httpx.Response) -> dict[str, str]:
    packed = ("content-encoding", "content-length", "transfer-encoding")
    return {k: v for k, v in answer.headers.items() if k not in packed}


def _port_number(pod: Mapping[str, Any], port: int | str) -> int:
    """The number of a container's port."""
    if isinstance(port, int):
        return port
    for known in [p for c in parts(pod, "spec", "containers") for p in parts(c, "ports")]:
        if known.get("name") == port:
            return int(known["containerPort"])
    raise ClusterError(f"pod {pod['metadata']['name']} has no port {port}")


def _run(function: Any) -> Any:
    import anyio

    return anyio.run(function)


def _wait_for(forward: Any) -> None:
    deadline = time.monotonic() + 10
    while not forward.servers:
        if time.monotonic() > deadline:
            raise ClusterError("the port-forward did not start within 10 s")
        time.sleep(0.02)


def _unreachable(where: str) -> ClusterError:
    return ClusterError(
        f"the cluster does not answer ({where})",
        fix="run `make up`, or set KUBECONFIG to a cluster that has the platform",
    )


def _refused(response: httpx.Response) -> people.Access | None:
    """What the API server lets somebody else do, but not this one."""
    if response.status_code != 403:
        return None
    try:
        said = response.json()
    except ValueError:
        return None
    return people.asked(str(part(said, "message")), str(part(said, "details", "name") or ""))


def _refusal(response: httpx.Response, what: str) -> ClusterError:
    try:
        said = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        said = response.text[:200]
    access = _refused(response)
    fix = people.advice(access) if access else ""
    return ClusterError(
        f"{what}: {response.status_code} {said}", status=response.status_code, fix=fix
    )
