"""What a Prometheus that is there collects, and is told of: where a stack asks for it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.manifests.program import LOCAL, ROOT, Kubectl, of_stack
from tests.manifests.test_chart import VALID, render

MONITORED = ROOT / "tests" / "unit" / "infra" / "valid" / "monitored.yaml"
KINDS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")


def has(labels: dict[str, str], wanted: dict[str, Any]) -> bool:
    return wanted["matchLabels"].items() <= labels.items()


def test_there_is_none_unless_a_stack_asks_for_it() -> None:
    assert not of_stack(LOCAL).all(*KINDS)
    for policy in of_stack(LOCAL).all("NetworkPolicy"):
        assert "observability" not in str(policy)


def test_what_a_prometheus_knows_its_own_by_is_on_all() -> None:
    made = of_stack(MONITORED).all(*KINDS)
    assert {m["kind"] for m in made} == set(KINDS)
    assert [m["metadata"]["labels"] for m in made] == [{"release": "prometheus"}] * len(made)


@pytest.mark.parametrize("file", VALID, ids=lambda f: f.stem)
def test_models_of_each_environment_are_collected_from(file: Path) -> None:
    pod = render(file)["Deployment"]["spec"]["template"]
    for environment in ("dev", "prod"):
        spec = of_stack(MONITORED).one("PodMonitor", "models", environment)["spec"]
        assert has(pod["metadata"]["labels"], spec["selector"])
        assert set(spec["podTargetLabels"]) <= set(pod["metadata"]["labels"])
        [endpoint] = spec["podMetricsEndpoints"]
        [container] = [c for c in pod["spec"]["containers"] if c["name"] == "model"]
        assert endpoint["port"] in {port.get("name") for port in container["ports"]}


def test_both_argos_are_collected_from() -> None:
    made = of_stack(MONITORED)
    [services] = [m["spec"] for m in made.all("ServiceMonitor")]
    [service] = [
        s for s in made.all("Service") if has(s["metadata"].get("labels", {}), services["selector"])
    ]
    [endpoint] = services["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    workflows = made.one("PodMonitor", "workflow-controller", "argo")["spec"]
    controller = made.one("Deployment", "workflow-controller", "argo")["spec"]["template"]
    assert has(controller["metadata"]["labels"], workflows["selector"])
    [container] = controller["spec"]["containers"]
    [endpoint] = workflows["podMetricsEndpoints"]
    assert endpoint["port"] in {port.get("name") for port in container["ports"]}


def test_whoever_collects_reaches_what_is_collected_from() -> None:
    """And nothing else: MLflow, which asks nobody who they are, no more than before."""
    reached = {
        (policy["metadata"]["namespace"], policy["metadata"]["name"], rule["ports"][0]["port"])
        for policy in of_stack(MONITORED).all("NetworkPolicy")
        for rule in policy["spec"].get("ingress", [])
        for peer in rule.get("from", [])
        if "observability" in str(peer)
    }
    assert reached == {
        ("dev", "dev-models", 3000),
        ("prod", "prod-models", 3000),
        ("argocd", "argocd-application-controller", 8082),
        ("argo", "workflow-controller", 9090),
    }


def test_an_alert_says_what_it_is_and_what_to_do() -> None:
    [rule] = of_stack(MONITORED).all("PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["for"]
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description"}


@pytest.mark.apiserver
def test_an_api_server_that_knows_its_operator_s_kinds_takes_them(kubectl: Kubectl) -> None:
    made = of_stack(MONITORED).all(*KINDS)
    dry_run = ("--dry-run=server", "--validate=strict")
    done = kubectl("apply", "--server-side", *dry_run, objects=made)
    assert len(done.stdout.splitlines()) == len(made)
