"""In which order the embedded cluster's platform goes: what ends others goes after them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from infra.platform.volumes_gone import VolumesGoneProvider
from infra.stack import WITH_VOLUMES
from slipway import cluster
from tests.unit.aws.stacks import Made, Stack, stack


@pytest.fixture(scope="module")
def local() -> Stack:
    return stack("local")


def named(local: Stack, token: str, *names: str) -> Iterator[Made]:
    for made in local.of(token):
        if made.inputs["metadata"]["name"] in names:
            yield made


def test_volumes_go_while_their_provisioner_works(local: Stack) -> None:
    [gone] = local.of(":VolumesGone")
    holding = list(named(local, ":Namespace", *WITH_VOLUMES))
    assert len(holding) == len(WITH_VOLUMES)
    for namespace in holding:
        assert local.goes_before(namespace, gone)
    works = [
        *named(local, ":Deployment", "local-path"),
        *named(local, ":ClusterRoleBinding", "local-path"),
        *named(local, ":ConfigMap", "local-path"),
        *named(local, ":Namespace", "local-path-storage"),
    ]
    assert len(works) == 4
    for needed in works:
        assert local.goes_before(gone, needed), needed.urn


def test_no_volume_is_in_another_namespace(local: Stack) -> None:
    claiming = [
        made.inputs["metadata"]["namespace"]
        for made in local.of(":StatefulSet", ":PersistentVolumeClaim")
        if made.token.endswith("Claim") or made.inputs["spec"].get("volumeClaimTemplates")
    ]
    assert set(claiming) == set(WITH_VOLUMES)


def test_models_go_while_argo_cd_works(local: Stack) -> None:
    synced = list(local.of(":ApplicationSet", ":Application"))
    [controller] = named(local, ":StatefulSet", "argocd-application-controller")
    working = [controller, *named(local, ":Deployment", "argocd-applicationset-controller")]
    kinds = list(named(local, ":CustomResourceDefinition", "applications.argoproj.io"))
    assert synced
    assert len(working + kinds) == 3
    for made in synced:
        for needed in (*working, *kinds):
            assert local.goes_before(made, needed), (made.urn, needed.urn)


def test_an_api_goes_before_who_answers_it(local: Stack) -> None:
    """Else no namespace can go: what is in it cannot be told."""
    [api] = local.of(":APIService")
    [server] = named(local, ":Deployment", "metrics-server")
    assert local.goes_before(api, server)


def test_what_runs_workflows_comes_after_its_stores_and_its_kinds_wait_for_nothing(
    local: Stack,
) -> None:
    stores = list(named(local, ":StatefulSet", "postgres", "minio"))
    programs = list(named(local, ":Deployment", "workflow-controller", "argo-server"))
    [kind] = named(local, ":CustomResourceDefinition", "workflows.argoproj.io")
    assert len(stores) == len(programs) == 2
    for store in stores:
        assert not local.goes_before(kind, store)
        for program in programs:
            assert local.goes_before(program, store), (program.urn, store.urn)


def volumes(*of: str) -> str:
    items = [{"metadata": {"name": f"pvc-{n}"}, "spec": {"claimRef": {"namespace": n}}} for n in of]
    return json.dumps({"items": items})


def test_a_destroy_waits_for_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [volumes("storage", "mine"), volumes("forge"), volumes("mine")]
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr(cluster, "kubectl", lambda *_: answers.pop(0))
    VolumesGoneProvider().delete("", {"namespaces": WITH_VOLUMES})
    assert answers == []
    assert len(slept) == 2


def test_volumes_that_stay_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VolumesGoneProvider, "wait_seconds", 0)
    monkeypatch.setattr(cluster, "kubectl", lambda *_: volumes("storage"))
    with pytest.raises(RuntimeError, match="there: pvc-storage\n  fix: "):
        VolumesGoneProvider().delete("", {"namespaces": ["storage"]})


def test_an_edit_of_the_file_replaces_nothing() -> None:
    def changed(**news: Any) -> bool | None:
        olds = {"namespaces": ["storage"], "__provider": "1"}
        return VolumesGoneProvider().diff("", olds, {**olds, **news}).changes

    assert changed(__provider="2") is False
    assert changed(namespaces=["forge"]) is True
