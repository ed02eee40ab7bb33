"""Fetches the bento into a folder, and refuses any bytes but those that the digest names.

Usage: fetch_bento.py s3://BUCKET/KEY sha256:HEX SIZE FOLDER

Runs in the serving image: standard library and boto3, on Python 3.11.2 (no tarfile filters).
Exit code 1: the store could not be reached or broke off, another try may help.
Exit code 2: no try will help (no such object, wrong bytes, unsafe archive); the release is wrong.
"""

import hashlib
import os
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


class Refused(Exception):
    """What no further try can change."""


def download(client, bucket, key, size, file):
    """Writes the object to `file` and returns its sha256 in hex; goes on where a try broke off."""
    digest, done = hashlib.sha256(), 0
    with open(file, "wb") as out:
        for left in reversed(range(TRIES)):
            try:
                answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={done}-")
                total = int(answer["ContentRange"].rpartition("/")[2])
                if total != size:
                    raise Refused(f"the object has {total} bytes, the release says {size}")
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    out.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                if done == size:
                    return digest.hexdigest()
                problem = f"broke off after {done} of {size} bytes"
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


def main(uri, digest, size, folder):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    started, folder = time.monotonic(), Path(folder)
    # Our own tries resume; botocore's would begin again, and in silence.
    config = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1})
    archive = folder / ".download"
    try:
        empty(folder)
        client = boto3.client("s3", config=config)
        found = download(client, bucket, key, int(size), archive)
        if found != digest.removeprefix("sha256:"):
            raise Refused(f"wrong bytes: the object's digest is sha256:{found}")
        extract(archive, folder)
        archive.unlink()
    except (Refused, tarfile.TarError) as error:
        empty(folder)
        print(f"{uri} refused: {error}\n  expected {digest}, {size} bytes", file=sys.stderr)
        return 2
    except (BotoCoreError, OSError) as error:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "the store")
        print(f"{uri} could not be fetched from {endpoint}: {error}", file=sys.stderr)
        return 1
    print(f"{digest}: {size} bytes in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
