from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from slipway import digests
from slipway import store as stores
from slipway.store import Corrupt, Missing, Store, StoreError, Unreachable
from tests.unit.steps.conftest import BUCKETS


def test_what_is_put_is_got_by_its_digest(store: Store) -> None:
    digest = store.put("data", b"content")
    assert digest == digests.of(b"content")
    assert store.get("data", digest) == b"content"
    assert store.has("data", digest)


def test_an_object_that_is_there_is_not_sent_again(store: Store, minio: Path) -> None:
    digest = store.put("data", b"once")
    written = _object(minio, digest).stat().st_mtime_ns
    assert store.put("data", b"once") == digest
    assert _object(minio, digest).stat().st_mtime_ns == written


def test_a_missing_object_is_named(store: Store) -> None:
    digest = digests.of(b"never stored")
    assert not store.has("data", digest)
    with pytest.raises(Missing, match=f"s3://data/sha256/{digest[7:]}: no such object\n  fix: "):
        store.get("data", digest)


def test_an_object_of_other_content_is_refused_and_put_right(store: Store) -> None:
    digest = digests.of(b"right content")
    _overwrite(store, digest, b"wrong content")
    with pytest.raises(Corrupt, match=rf"{digest[7:]}: corrupt: its content has the digest"):
        store.get("data", digest)
    store.put("data", b"right content")
    assert store.get("data", digest) == b"right content"


def test_a_truncated_object_is_refused(store: Store) -> None:
    digest = store.put("data", b"whole")
    _overwrite(store, digest, b"who")
    with pytest.raises(Corrupt):
        store.get("data", digest)


def test_what_is_whole_is_told_without_reading_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.put("data", b"whole")
    _overwrite(store, other := digests.of(b"by hand"), b"by hand")
    store.verify("data", other)  # nobody took its checksum, so it is read
    with pytest.raises(Missing, match="no such object"):
        store.verify("data", digests.of(b"never stored"))
    with monkeypatch.context() as unread:
        unread.setattr(store, "get", lambda *_: pytest.fail("it was read"))
        store.verify("data", digest)
    for content in (b"wrong", b"who"):
        _overwrite(store, digest, content)
        with pytest.raises(Corrupt):
            store.verify("data", digest)


def test_no_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(Unreachable, match="see AWS_ENDPOINT_URL"):
        Store().get("data", digests.of(b""))


def test_wrong_credentials_say_so(minio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="see the credentials in AWS_ACCESS_KEY_ID"):
        Store().get("data", digests.of(b""))


@pytest.mark.parametrize(
    ("code", "status", "kind", "said"),
    [
        ("RequestTimeTooSkewed", 403, StoreError, "clock.*differ.*\n  fix: set the clocks"),
        ("NoSuchBucket", 404, Missing, "no such bucket"),
        ("AccessDenied", 403, StoreError, "the store refused: AccessDenied"),
        ("SlowDown", 503, Unreachable, r"the store answered 503 \(SlowDown\)"),
    ],
)
def test_what_the_store_refuses_is_said(
    code: str, status: int, kind: type[StoreError], said: str
) -> None:
    about: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(kind, match=said) as refused, stores.answering("s3://data/x"):
        raise ClientError(about, "GetObject")
    assert type(refused.value) is kind


def test_a_tar_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    files = {"b/c": b"2", "a": b"1"}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
    assert stores.tar_folder(tmp_path) == stores.tar(files)
    assert stores.untar(stores.tar(files)) == files


def _object(minio: Path, digest: str) -> Path:
    return minio / f"{BUCKETS}data" / "sha256" / digest[7:] / "xl.meta"


def _overwrite(store: Store, digest: str, content: bytes) -> None:
    store._s3.put_object(Bucket=f"{BUCKETS}data", Key=digest.replace(":", "/"), Body=content)
