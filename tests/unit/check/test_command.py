"""`slipway check`, as a person and as CI run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from slipway import attestation, paths, sources
from slipway.check import default_base
from slipway.cli import app
from slipway.endpoints import Cluster, ClusterError
from slipway.errors import BadInput, SlipwayError
from slipway.repository import Repository
from slipway.sources import Platform
from tests import samples
from tests.unit.check.place import Place, files


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No platform, and a cache of its own."""

    def nothing() -> None:
        raise ClusterError("no cluster", fix="run `make up`")

    monkeypatch.setattr(Cluster, "connect", nothing)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SLIPWAY_EVIDENCE_KEYS", raising=False)


@pytest.fixture
def clone(place: Place, tmp_path: Path) -> Path:
    """A clone in which a good release is proposed; its evidence and keys lie beside it."""
    made = place.next()
    place.write("head", files(made), "Release toy 3 to dev")
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(place.folder), str(folder)], check=True)
    subprocess.run(["git", "checkout", "--quiet", "head"], cwd=folder, check=True)
    (tmp_path / "evidence").mkdir()
    hexes = made.evidence.digest.removeprefix("sha256:")
    envelope = place.source.objects.get("evidence", made.evidence.digest)
    (tmp_path / "evidence" / hexes).write_bytes(envelope)
    (tmp_path / "keys.pem").write_bytes(samples.public_pem())
    return folder


def run(clone: Path, *arguments: str) -> tuple[int, str, str]:
    given = ("--evidence", str(clone.parent / "evidence"), "--keys", str(clone.parent / "keys.pem"))
    done = CliRunner().invoke(app, ["check", "--repo", str(clone), *given, *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_a_good_release_passes_in_every_format(clone: Path) -> None:
    status, said, noted = run(clone)
    assert (status, noted) == (0, "")
    assert said.startswith("✅ may be merged: 4 of 4 gates pass")
    assert "toy in dev: version 3, its first release" in said
    status, said, _ = run(clone, "-o", "json")
    assert (status, json.loads(said)["exit_code"]) == (0, 0)
    assert json.loads(said)["releases"][0]["evidence"]["bento"]["digest"] == samples.digest("be")
    status, said, _ = run(clone, "-o", "markdown")
    assert (status, said[:20]) == (0, "## ✅ may be merged: ")


def test_a_gate_that_fails_is_1_and_bad_input_is_2(clone: Path) -> None:
    (clone.parent / "keys.pem").write_bytes(samples.public_pem(Ed25519PrivateKey.generate()))
    status, said, _ = run(clone)
    assert status == 1
    assert "not signed by a known key" in said
    (clone / "environments" / "odd.txt").write_text("x")
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "odd"]
    subprocess.run(["git", "add", "environments/odd.txt"], cwd=clone, check=True)
    status, _, noted = run(clone)
    assert (status, "not looked at: changes of environments/" in noted) == (1, True)
    subprocess.run(commit, cwd=clone, check=True)
    status, said, noted = run(clone)
    assert (status, noted) == (2, "")
    assert said.startswith("❌ bad input: environments/odd.txt")
    assert run(clone, "--base", "nowhere")[0] == 2
    assert run(clone, "--keys", "/nowhere")[0] == 2


@pytest.mark.parametrize("output", ["text", "json", "markdown"])
def test_who_approves_a_change_of_the_gates_stands_on_its_pull_request(
    clone: Path, place: Place, output: str
) -> None:
    place.write("code", {"slipway/gates.py": b"x"}, "Code")
    subprocess.run(["git", "fetch", "--quiet"], cwd=clone, check=True)
    status, said, _ = run(clone, "--head", "origin/code", "-o", output)
    assert status == 1
    words = " ".join(said.split())
    for part in ("1 of 2 gates fails: custody", "not evaluated: approvals", "open a pull request"):
        assert part in words


def test_the_base_is_what_pull_requests_go_to(clone: Path, tmp_path: Path) -> None:
    with Repository(clone) as repository:
        assert default_base(repository) == "refs/remotes/origin/main"
        repository.git("remote", "remove", "origin")
        repository.git("branch", "--force", "main", "HEAD")
        assert default_base(repository) == "refs/heads/main"
        assert run(clone)[:2] == (0, "✅ no release changed\n")
        repository.git("branch", "-m", "main", "trunk")
        with pytest.raises(SlipwayError, match="name one: --base REV"):
            default_base(repository)


def test_without_network_what_was_seen_before_is_enough(
    clone: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["check", "--repo", str(clone)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "no cluster" in done.stdout

    class Online:
        asked = 0

        def store(self) -> Online:
            return self

        def __enter__(self) -> Online:
            Online.asked += 1
            return self

        def __exit__(self, *_: object) -> None: ...

        def get(self, bucket: str, digest: str) -> bytes:
            return place.source.objects.get("evidence", digest)

        def verify(self, bucket: str, digest: str) -> None:
            assert (bucket, digest) == ("bentos", samples.digest("be"))

        def config(self, namespace: str, name: str) -> dict[str, str]:
            return {"public.pem": samples.public_pem().decode()}

    with monkeypatch.context() as online:
        online.setattr(Cluster, "connect", Online)
        assert CliRunner().invoke(app, arguments).exit_code == 0
    assert Online.asked == 2  # for the evidence, and for the bento
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_a_cache_that_was_altered_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "slipway" / "evidence"
    folder.mkdir(parents=True)
    (folder / ("ab" * 32)).write_bytes(b"other")
    source = Platform(Cluster.connect)
    with pytest.raises(SlipwayError, match="altered: its content has another digest"):
        source.get(samples.digest("ab"))
    with pytest.raises(BadInput, match="no folder"):
        Platform(Cluster.connect, folder=tmp_path / "none")
    with pytest.raises(SlipwayError, match=r"no evidence sha256:.*\n  fix: save it as"):
        Platform(Cluster.connect, folder=tmp_path).get(samples.digest("ab"))


def test_keys_are_given_by_file_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.pem"
    file.write_bytes(samples.public_pem())
    assert Platform(Cluster.connect, keys=file).keys("dev") == samples.KEYS
    monkeypatch.setenv(sources.KEYS, str(file))
    assert Platform(Cluster.connect).keys("dev") == samples.KEYS
    assert sources.Mounted(samples.Objects()).keys("dev") == samples.KEYS
    file.write_text("nonsense")
    with pytest.raises(BadInput, match="no public key in it"):
        Platform(Cluster.connect).keys("dev")
    assert attestation.key_id(samples.KEY.public_key()) in samples.KEYS


def test_another_stacks_keys_count_for_its_environments_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "public.pem").write_bytes(samples.public_pem(Ed25519PrivateKey.generate()))
    (tmp_path / "dev.pem").write_bytes(samples.public_pem())
    monkeypatch.setenv(sources.KEYS, str(tmp_path / "public.pem"))
    mounted = sources.Mounted(samples.Objects())
    assert mounted.keys("dev") == samples.KEYS
    assert not mounted.keys("staging").keys() & samples.KEYS.keys()


def test_only_what_is_needed_is_loaded(clone: Path) -> None:
    """A check without network has two seconds; each of these takes a good part of that."""
    heavy = "pandas numpy matplotlib sklearn mlflow kr8s boto3 bentoml scipy onnxruntime pulumi"
    program = f"""
import sys
from typer.testing import CliRunner
from slipway.cli import app
done = CliRunner().invoke(app, sys.argv[1:])
assert done.exit_code == 0, done.output
print(*(set(sys.modules) & set({heavy.split()!r})))
"""
    given = ("--evidence", clone.parent / "evidence", "--keys", clone.parent / "keys.pem")
    command = [sys.executable, "-c", program, "check", "--repo", clone, *given]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=paths.REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
