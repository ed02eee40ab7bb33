"""Fetches the bento into a folder, and refuses any bytes but those that the release stands for.

Usage: fetch_bento.py s3://BUCKET/KEY sha256:HEX SIZE FOLDER
           [--evidence s3://BUCKET/sha256/HEX --model NAME --version NUMBER --runtime IMAGE
            --environment ENV --keys FILE]

The bucket's real name begins with SLIPWAY_BUCKET_PREFIX, where that is set.

With --evidence nothing is fetched before the evidence is verified: its digest, its signature by a
key in FILE (PEM), and that it is about this bento, as this version of this model, in this image
and environment.

Runs in the serving image: its packages alone, on Python 3.11.2 (no tarfile filters).
Exit code 1: the store could not be reached or broke off, another try may help.
Exit code 2: no try will help (no such object, wrong bytes, unsafe archive, evidence that proves
nothing); the release is wrong.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import time
from pathlib import Path, PurePosixPath

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

TRIES = 8
CHUNK = 1 << 20
MAXIMUM_EVIDENCE = 16 << 20
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slipway.dev/evidence/v4"


class Refused(Exception):
    """What no further try can change."""


def download(client, uri, out, size=None):
    """Writes the object to `out` and returns its sha256 in hex; goes on where a try broke off."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    bucket = os.environ.get("SLIPWAY_BUCKET_PREFIX", "") + bucket
    digest, done = hashlib.sha256(), 0
    for left in reversed(range(TRIES)):
        try:
            answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={done}-")
            total = int(answer["ContentRange"].rpartition("/")[2])
            if size is not None and total != size:
                raise Refused(f"the object has {total} bytes, the release says {size}")
            if size is None and total > MAXIMUM_EVIDENCE:
                raise Refused(f"the object has {total} bytes, which no evidence has")
            for chunk in answer["Body"].iter_chunks(CHUNK):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
            if done == total:
                return digest.hexdigest()
            problem = f"broke off after {done} of {total} bytes"
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                raise Refused("the store has no such object") from error
            if status == 416:
                raise Refused("the object is empty") from error
            if status < 500 and status != 429:
                raise Refused(f"no such object, or no right to read it: {error}") from error
            problem = str(error)
        except (BotoCoreError, OSError) as error:
            problem = str(error)
        if left:
            delay = min(2 ** (TRIES - left - 1) / 2, 10)
            print(f"{problem}; trying again in {delay:g} s", file=sys.stderr, flush=True)
            time.sleep(delay)
    raise TimeoutError(f"{problem}; gave up after {TRIES} tries")


def public_keys(file):
    """The Ed25519 keys in a file of PEM blocks, by the sha256 of the raw key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        text = Path(file).read_text()
    except OSError as error:
        raise Refused(f"{file}, with the keys that sign evidence: {error.strerror}") from error
    block = "-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----"
    try:
        keys = [load_pem_public_key(pem.encode()) for pem in re.findall(block, text)]
    except ValueError as error:
        raise Refused(f"{file} holds what is no public key: {error}") from error
    keys = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not keys:
        raise Refused(f"{file} holds no Ed25519 public key: no evidence can be verified")
    return {hashlib.sha256(key.public_bytes_raw()).hexdigest(): key for key in keys}


def payload(envelope, keys):
    """What is sealed in a DSSE envelope that one of `keys` signed."""
    from cryptography.exceptions import InvalidSignature

    sealed = json.loads(envelope)
    kind, content = sealed["payloadType"], base64.b64decode(sealed["payload"], validate=True)
    if kind != PAYLOAD:
        raise Refused(f"its payload is {kind!r}, not {PAYLOAD!r}")
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(content), content)
    known = [one for one in sealed["signatures"] if one["keyid"] in keys]
    for one in known:
        try:
            keys[one["keyid"]].verify(base64.b64decode(one["sig"], validate=True), signed)
            return content
        except InvalidSignature:
            pass
    if known:
        raise Refused("altered since it was signed: the signature does not fit")
    by = ", ".join(str(one["keyid"])[:12] for one in sealed["signatures"]) or "nobody"
    raise Refused(f"not signed by a key that is trusted here: signed by {by}")


def verify(envelope, keys, args):
    """Refuses evidence unless it is signed and about the bento, as the arguments name it."""
    try:
        statement = json.loads(payload(envelope, keys))
        evidence = statement["predicate"]
        subject = [(one["name"], one["digest"]["sha256"]) for one in statement["subject"]]
        found = {
            "statement": statement["_type"],
            "predicate": statement["predicateType"],
            "subject": [(name, f"sha256:{digits}") for name, digits in subject],
            "bento": evidence["bento"]["digest"],
            "version": str(evidence["version"]),
            "runtime image": evidence["runtime"]["image"],
            "environment": evidence["environment"],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"not an envelope with evidence: {error!r}") from error
    expected = {
        "statement": STATEMENT,
        "predicate": PREDICATE,
        "subject": [(args.model, args.digest)],
        "bento": args.digest,
        "version": args.version,
        "runtime image": args.runtime,
        "environment": args.environment,
    }
    for what, value in expected.items():
        if found[what] != value:
            raise Refused(f"its {what} is {found[what]}, the release's is {value}")


def extract(archive, folder):
    """Unpacks plain files and folders below `folder`; anything else in the archive is refused."""
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                raise Refused(f"{member.name!r} in the archive leads out of it")
            target = folder / path
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, open(target, "xb") as out:
                    shutil.copyfileobj(source, out, CHUNK)
            else:
                raise Refused(f"{member.name!r} in the archive is neither a file nor a folder")
    if not (folder / "bento.yaml").is_file():
        raise Refused("no bento.yaml at the root of the archive: not a bento")


def empty(folder):
    """Removes what an earlier, interrupted run left; the folder itself is a mount point."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def fetch_evidence(client, args):
    envelope = io.BytesIO()
    found, named = download(client, args.evidence, envelope), args.evidence.rpartition("/")[2]
    if found != named:
        raise Refused(f"wrong bytes: the object's digest is sha256:{found}")
    verify(envelope.getvalue(), public_keys(args.keys), args)


def fetch_bento(client, args):
    archive = args.folder / ".download"
    with open(archive, "wb") as out:
        found = download(client, args.uri, out, args.size)
    if found != args.digest.removeprefix("sha256:"):
        raise Refused(f"wrong bytes: the object's digest is sha256:{found}")
    extract(archive, args.folder)
    archive.unlink()


def parse(arguments):
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("uri")
    parser.add_argument("digest")
    parser.add_argument("size", type=int)
    parser.add_argument("folder", type=Path)
    for option in ("--evidence", "--model", "--version", "--runtime", "--environment", "--keys"):
        parser.add_argument(option)
    return parser.parse_args(arguments)


def main(*arguments):
    args, started = parse(arguments), time.monotonic()
    # Our own tries resume; botocore's would begin again, and in silence.
    config = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1})
    what = args.evidence or args.uri
    try:
        empty(args.folder)
        client = boto3.client("s3", config=config)
        if args.evidence:
            fetch_evidence(client, args)
            print(f"evidence {what}: verified, about this bento in {args.environment}")
        what = args.uri
        fetch_bento(client, args)
    except (Refused, tarfile.TarError) as error:
        empty(args.folder)
        kind = "evidence " if what == args.evidence else ""
        print(f"{kind}{what} refused: {error}", file=sys.stderr)
        print(f"  expected {args.digest}, {args.size} bytes", file=sys.stderr)
        return 2
    except (BotoCoreError, OSError) as error:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "the store")
        print(f"{what} could not be fetched from {endpoint}: {error}", file=sys.stderr)
        return 1
    print(f"{args.digest}: {args.size} bytes in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
