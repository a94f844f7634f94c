"""A cluster, and jobs for its tests: a file of its own, so that a worker begins quickly."""

import hashlib
import os
import signal
import time
from pathlib import Path


def two_workers():
    """A cluster of two processes on this machine."""
    import dask  # which workers need not import for a job
    import distributed

    # A killed worker that is not back in 15 seconds is given up, which a busy machine does not do.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"})
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )


def square(job):
    return job * job


def picky(job):
    if job == 3:
        raise ValueError("not three")
    return job


def slow(folder, job):
    """Says which process has begun it, and takes its time."""
    begin(folder, job)
    time.sleep(0.3)
    return job * job


def deadly(folder, job):
    """Kills its worker, if it is job 2."""
    begin(folder, job)
    time.sleep(0.1)
    if job == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def begin(folder, job):
    (folder / f"{job}.{os.getpid()}.{time.monotonic_ns()}").touch()


def starts(folder: Path, job: int) -> list[int]:
    """The processes that began this job, in order."""
    files = sorted(folder.glob(f"{job}.*"), key=lambda path: int(path.name.split(".")[2]))
    return [int(path.name.split(".")[1]) for path in files]


def dies_once(folder, function, job):
    """`function(job)`, the second time; the first time the worker is killed in the middle."""
    name = hashlib.sha256(job).hexdigest() if isinstance(job, bytes) else job.name
    if not starts(folder, name):
        begin(folder, name)
        os.kill(os.getpid(), signal.SIGKILL)
    return function(job)
