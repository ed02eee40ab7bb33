"""What a stack is to make and a cluster has already: the names are the program's, the answers an
API server's."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.config import load
from slipway import claims, pulumi
from slipway.claims import Object
from slipway.endpoints import Cluster
from tests.manifests import program
from tests.manifests.program import FIRST, LOCAL, Kubectl

pytestmark = pytest.mark.apiserver

SIMULATED = LOCAL.with_name("Pulumi.simulated.yaml")


def declared(file: Path, *kinds: str) -> set[Object]:
    found = program.of_stack(file)
    return {one for one in map(Object.of, found.all(*kinds) if kinds else found.manifests) if one}


@pytest.mark.parametrize("file", [LOCAL, SIMULATED], ids=lambda f: f.name)
def test_what_is_asked_for_first_is_what_the_program_makes(file: Path) -> None:
    config = load(program.settings(file), "local")
    names = {one.name for one in declared(file, "Namespace")}
    assert names == config.namespaces.keys()
    kinds = {one.name for one in declared(file, "CustomResourceDefinition")}
    assert (set(pulumi.KINDS) <= kinds) == (file == LOCAL)


def test_what_is_there_is_found_unless_it_is_ours(
    kubectl: Kubectl, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    platform = Cluster.connect()
    every, there = declared(LOCAL), declared(LOCAL, *FIRST)
    found = claims.taken(platform, every, ())
    assert there <= set(found)
    assert not {one for one in found if one.namespace in {n.name for n in there}}
    assert set(claims.taken(platform, there, there)) == set()
    uid = platform.find("/api/v1/namespaces/prod")["metadata"]["uid"]  # type: ignore[index]
    prod = Object("v1", "Namespace", "prod")
    assert claims.taken(platform, [prod], ()) == [prod]
    assert claims.taken(platform, [prod], {uid}) == []
