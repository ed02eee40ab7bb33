from pathlib import Path

import pytest

from slipway import digests


def test_a_digest_is_the_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digests.of(b"abc") == digests.of_file(tmp_path / "file") == expected


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert digests.canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


def test_canonical_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digests.canonical_json(float("nan"))


def test_files_count_by_name_and_content_not_by_order() -> None:
    one = digests.of_files({"a": b"1", "b": b"2"})
    assert one == digests.of_files({"b": b"2", "a": b"1"})
    assert one != digests.of_files({"a": b"2", "b": b"1"})
