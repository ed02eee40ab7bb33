"""A refusal says what was refused, who has the right, and whom to ask."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from slipway import lineage, people
from slipway.endpoints import Cluster, ClusterError
from slipway.errors import SlipwayError
from slipway.people import Access


def refused(verb: str, kind: str, group: str, namespace: str, name: str) -> httpx.Response:
    """As an API server answers whom no rule lets."""
    what = f'{kind} "{name}"' if name else kind
    message = (
        f'{what} is forbidden: User "ada" cannot {verb} resource "{kind}" '
        f'in API group "{group}" in the namespace "{namespace}"'
    )
    return httpx.Response(403, json={"message": message, "details": {"name": name, "kind": kind}})


def cluster(*answers: httpx.Response) -> Cluster:
    left = list(answers)
    transport = httpx.MockTransport(lambda _: left.pop(0))
    return Cluster(httpx.Client(base_url="https://api", transport=transport), embedded=False)


@pytest.mark.parametrize(
    ("access", "roles"),
    [
        (("list", "applications", "argoproj.io", "argocd", ""), ["viewer"]),
        (("get", "secrets", "", "pipelines", "reader"), ["viewer"]),
        (("get", "secrets", "", "pipelines", "labels"), ["labeller"]),
        (("create", "workflows", "argoproj.io", "pipelines", ""), ["promoter"]),
        (("create", "services/proxy", "", "prod", "toy:http"), ["promoter"]),
        (("get", "services/proxy", "", "prod", "toy:http"), ["viewer"]),
        (("create", "services/proxy", "", "mlflow", "mlflow:main"), []),
        (("get", "pods/portforward", "", "storage", "minio-0"), ["viewer"]),
        (("get", "pods/portforward", "", "storage", "postgres-0"), []),
        (("get", "secrets", "", "pipelines", "evidence-key"), []),
        (("list", "secrets", "", "pipelines", ""), []),
        (("get", "pods", "", "elsewhere", "one"), []),
    ],
)
def test_who_has_a_right(access: tuple[str, str, str, str, str], roles: list[str]) -> None:
    asked = Access(*access)
    assert people.having(asked) == roles
    with pytest.raises(ClusterError) as told:
        cluster(refused(*access)).find("/api")
    said = str(told.value)
    assert f'User "ada" cannot {access[0]} resource "{access[1]}"' in said
    expected = f"under slipway:people.{roles[0]}s" if roles else "ask who administers the cluster"
    assert expected in said
    assert (told.value.status, told.value.exit_code) == (403, 1)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(403, json={"message": 'pods "one" is forbidden: violates PodSecurity'}),
        httpx.Response(403, text="a proxy says no"),
        httpx.Response(500, json={"message": "etcd is down"}),
    ],
)
def test_what_is_no_want_of_a_right_sends_nobody_to_ask(answer: httpx.Response) -> None:
    with pytest.raises(ClusterError) as told:
        cluster(answer).find("/api")
    assert "ask who" not in str(told.value)


def pod(name: str, ready: str = "True") -> dict[str, Any]:
    ports = [{"name": "main", "containerPort": 9000}]
    return {
        "metadata": {"name": name, "namespace": "storage"},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


SERVICE = {
    "metadata": {"name": "minio", "namespace": "storage"},
    "spec": {"selector": {"app": "minio"}, "ports": [{"targetPort": 9000}]},
}


def test_a_forward_that_is_not_allowed_is_refused_before_it_begins() -> None:
    """By itself it would only be cut off."""
    answers = (
        httpx.Response(200, json=SERVICE),
        httpx.Response(200, json={"items": [pod("minio-1", "False"), pod("minio-0")]}),
        httpx.Response(201, json={"status": {"allowed": False}}),
    )
    with (
        pytest.raises(ClusterError, match="get pods/portforward storage/minio-0: 403") as told,
        cluster(*answers).service("storage", "minio"),
    ):
        pass
    assert "slipway:people.viewers" in str(told.value)


def test_a_service_without_a_pod_that_is_ready_is_not_waited_for() -> None:
    answers = (
        httpx.Response(200, json=SERVICE),
        httpx.Response(200, json={"items": [pod("minio-0", "False")]}),
    )
    with (
        pytest.raises(ClusterError, match="no pod behind service storage/minio is ready"),
        cluster(*answers).service("storage", "minio"),
    ):
        pass


# --- MLflow, through the API server -----------------------------------------------------------


def test_mlflow_is_asked_by_its_own_name_through_the_api_server() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"run": 1})

    client = httpx.Client(
        base_url="https://api",
        headers={"Authorization": "Bearer hers"},
        transport=httpx.MockTransport(answer),
    )
    found = lineage.mlflow(Cluster(client, embedded=False)).get("runs/get", run_id="a b")
    assert found == {"run": 1}
    [request] = seen
    assert request.method == "GET"
    assert str(request.url) == (
        "https://api/api/v1/namespaces/mlflow/services/mlflow:main/proxy"
        "/api/2.0/mlflow/runs/get?run_id=a+b"
    )
    # It refuses names that are not its own; the API server takes what it is called by.
    assert request.headers["Host"] == "mlflow"
    assert request.headers["Authorization"] == "Bearer hers"


def test_what_mlflow_does_not_know_is_told_from_what_was_not_answered() -> None:
    def ask(answer: httpx.Response) -> SlipwayError:
        with pytest.raises(SlipwayError) as told:
            lineage.mlflow(cluster(answer)).get("runs/get", run_id="r")
        return told.value

    assert isinstance(ask(httpx.Response(404, json={"message": "no run r"})), lineage.Broken)
    down = ask(httpx.Response(503, json={"message": "no endpoints available"}))
    assert not isinstance(down, lineage.Broken)
    no = ask(refused("get", "services/proxy", "", "mlflow", "mlflow:main"))
    assert isinstance(no, ClusterError)
    assert "slipway:people.viewers" in str(no)
