"""Where the command line finds the platform's objects: in MinIO, or in S3 as the user himself."""

from __future__ import annotations

import base64

import httpx
import pytest

from slipway.endpoints import Cluster

MINIO = {
    "AWS_ENDPOINT_URL": "http://store.example:9000",
    "AWS_ACCESS_KEY_ID": "reader",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
S3 = {"AWS_DEFAULT_REGION": "eu-central-1", "SLIPWAY_BUCKET_PREFIX": "slipway-dev-111111111111-"}


def cluster(held: dict[str, str]) -> Cluster:
    """One with this in Secret `reader`, and no other Secret; a stack comes before its own."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/pipelines/configmaps/platform"):
            return httpx.Response(200, json={"data": {"SLIPWAY_UPSTREAM": "dev=slipway-dev-1-"}})
        if not request.url.path.endswith("/pipelines/secrets/reader"):
            return httpx.Response(404, json={"message": "no such Secret"})
        data = {key: base64.b64encode(value.encode()).decode() for key, value in held.items()}
        return httpx.Response(200, json={"data": data})

    client = httpx.Client(base_url="http://cluster", transport=httpx.MockTransport(answer))
    return Cluster(client, embedded=False)


@pytest.mark.parametrize("rights_of", ["reader", "labels"])
def test_s3_is_asked_with_the_users_own_credentials(
    rights_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    with cluster(S3).store(rights_of) as store:
        assert store._bucket("workflows") == "slipway-dev-111111111111-workflows"
        assert store.hosting("dev")._bucket("labels") == "slipway-dev-1-labels"
        assert store.hosting("staging") is store
        assert store._s3.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
        assert store._s3._request_signer._credentials.access_key == "mine"


def test_minio_is_asked_with_a_key_that_only_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_BUCKET_PREFIX", "of-another-")
    with cluster(MINIO).store() as store:
        assert store._bucket("bentos") == "bentos"
        assert store._s3.meta.endpoint_url == "http://store.example:9000"
        assert store._s3._request_signer._credentials.access_key == "reader"
