"""Ships the prediction log to the store, segment by segment; what the store refuses waits on disk.

Usage: ship_predictions.py LOG s3://BUCKET/PREFIX POD MAXIMUM_BYTES

The bucket's real name begins with SLIPWAY_BUCKET_PREFIX, where that is set.

Whoever writes opens LOG for each line, so a segment is LOG renamed. Its object is
PREFIX/<time of its first line>-POD-<predictions in it>.jsonl: a listing tells how many were served,
and when. While the store is away segments wait beside LOG; beyond MAXIMUM_BYTES the oldest goes,
and that is said. Ends on SIGTERM, once nobody writes any more (serve.py has a lock on LOG's
neighbour "writing") and everything is shipped; after a crash it goes on.

Runs in the serving image. At rest it is a few megabytes: the S3 client is imported when there is
something to ship, and is no more than botocore's signature.
"""

import fcntl
import json
import os
import re
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

TICK, EVERY, MAXIMUM_SEGMENT = 1, 10, 4 << 20
# From the rename of the log until its last writer, which had just opened it, is done.
SETTLE = 1
SLOWEST = 30
SEGMENT = re.compile(r"\d{8}T\d{6}-.+-(\d+)\.jsonl")


class Store:
    """Puts objects, and nothing else."""

    def __init__(self):
        import botocore.session
        from botocore.httpsession import URLLib3Session

        self.session = botocore.session.get_session()
        self.region = self.session.get_config_variable("region")
        aws = f"https://s3.{self.region}.amazonaws.com"
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        self.endpoint = next((os.environ[name] for name in names if name in os.environ), aws)
        self.prefix = os.environ.get("SLIPWAY_BUCKET_PREFIX", "")
        self.http = URLLib3Session(timeout=(3, 10))

    def put(self, uri, body):
        """Raises `OSError` when the store has not taken it."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        try:
            url = f"{self.endpoint}/{self.prefix}{uri.removeprefix('s3://')}"
            request = AWSRequest("PUT", url, data=body)
            # Those of a role change while the pod lives.
            keys = self.session.get_credentials()
            if keys is None:
                raise OSError("neither a key nor a role to write with")
            S3SigV4Auth(keys.get_frozen_credentials(), "s3", self.region).add_auth(request)
            answer = self.http.send(request.prepare())
        except BotoCoreError as error:
            raise OSError(str(error)) from error
        if answer.status_code >= 300:
            raise OSError(f"{answer.status_code} {answer.text[:300]}")


class Shipper:
    def __init__(self, log, prefix, pod, maximum, connect=Store):
        self.log, self.prefix, self.pod, self.maximum = log, prefix, pod, maximum
        self.renamed, self.writing = log.with_name("renamed"), log.with_name("writing")
        self.connect, self.store = connect, None
        self.rotated, self.stamp = time.monotonic(), 0
        self.delay, self.next_try = 0, 0

    def segments(self):
        """Oldest first: their names begin with the time."""
        return sorted(f for f in self.log.parent.iterdir() if SEGMENT.fullmatch(f.name))

    def due(self):
        try:
            size = self.log.stat().st_size
        except FileNotFoundError:
            return False
        return size >= MAXIMUM_SEGMENT or time.monotonic() - self.rotated >= EVERY

    def rotate(self, settle=SETTLE):
        """Makes a segment of what has been logged so far."""
        self.rotated = time.monotonic()
        # A run that was interrupted here has left it.
        if not self.renamed.exists():
            try:
                self.log.rename(self.renamed)
            except FileNotFoundError:
                return
        time.sleep(settle)
        first, predictions = None, 0
        with self.renamed.open("rb") as lines:
            for line in lines:
                try:
                    found = json.loads(line)
                    first = first or datetime.fromisoformat(found["time"]).timestamp()
                    predictions += len(found.get("prediction", ()))
                except (ValueError, KeyError, TypeError):
                    continue  # cut off where the disk was full, or its writer killed
        # Strictly later than the one before, so that no two have one name.
        self.stamp = max(int(first or time.time()), self.stamp + 1)
        when = datetime.fromtimestamp(self.stamp, UTC).strftime("%Y%m%dT%H%M%S")
        self.renamed.rename(self.log.with_name(f"{when}-{self.pod}-{predictions}.jsonl"))

    def ship(self):
        """Whether everything is in the store now."""
        waiting = self.segments()
        if not waiting or time.monotonic() < self.next_try:
            return not waiting
        try:
            self.store = self.store or self.connect()
            for segment in waiting:
                self.store.put(f"{self.prefix}/{segment.name}", segment.read_bytes())
                segment.unlink()
        except OSError as error:
            self.delay = min(2 * self.delay or 1, SLOWEST)
            self.next_try = time.monotonic() + self.delay
            left = _predictions(self.segments())
            _say(f"{left} predictions wait for the store: {error}; again in {self.delay} s")
            return False
        if self.delay:
            _say("the store takes predictions again")
        self.delay = 0
        return True

    def bound(self):
        """Drops the oldest segments beyond the maximum: a full disk would end the replica."""
        waiting = self.segments()
        total = sum(segment.stat().st_size for segment in waiting)
        for segment in waiting:
            if total <= self.maximum:
                return
            total -= segment.stat().st_size
            segment.unlink()
            _say(f"dropped {_predictions([segment])} predictions, {segment.name}: no room to wait")

    def is_written(self):
        """Whether a server is there that may still write."""
        with self.writing.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def run(self, stop):
        # A pod's containers are told to stop all at once, and a server answers on for a while.
        while not stop.is_set() or self.is_written():
            time.sleep(TICK)
            if self.due():
                self.rotate()
            self.ship()
            self.bound()
        while True:
            self.rotate(settle=0)
            if self.ship() and not self.log.exists():
                return
            time.sleep(TICK)
            self.next_try = 0


def _predictions(segments):
    return sum(int(SEGMENT.fullmatch(segment.name)[1]) for segment in segments)


def _say(text):
    print(text, file=sys.stderr, flush=True)


def main(log, prefix, pod, maximum):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Shipper(Path(log), prefix, pod, int(maximum)).run(stop)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
