"""Many independent jobs: one after the other, in processes of this machine, or on a Dask cluster.

    for job, result in cluster.run(jobs, function, cluster="tcp://10.0.0.1:8786"):
        store(job, result)

`run` is the one door, for the comparison of models as for grading homework. A job is anything that
can be pickled, `function` a function of a module that the workers can import. What a job yields
must depend on the job alone: then one process, several, and a cluster give the same results, and a
job whose worker was killed can be done again. Workers share no disk with the caller: results come
back, and the caller stores each as it comes; so a run that is stopped loses no finished job.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from tqdm.auto import tqdm

Job = TypeVar("Job")
Function = Callable[[Job], Any]
Outcomes = Iterator[tuple[Job, Any]]

DEATHS = 3  # of its worker, after which a job is given up: as many as Dask allows a task
PATIENCE = 10  # seconds until a scheduler must have answered


def run(
    jobs: Iterable[Job],
    function: Function,
    cluster: str | None = None,
    jobs_at_once: int = 1,
    title: str = "jobs",
    progress: bool = True,
) -> Outcomes:
    """Yields (job, result) for every job, in the order in which they end.

    An exception that `function` raises is yielded in the place of the result; the other jobs go on.
    A job whose worker dies is done again, and after three deaths its result is the exception that
    says so. With `jobs_at_once` = 1 and no cluster the jobs run in this process, where nothing
    survives a kill. Closing the iterator stops the jobs that still run.

    Args:
        jobs: what there is to do; may not be equal only by accident, each is done once.
        function: called with a job, in a worker.
        cluster: address of a Dask scheduler, `tcp://host:port`; its workers decide how many jobs
            run at once. They need the same version of this package.
        jobs_at_once: number of processes on this machine.
        title: what the progress bar, the only one, says.
        progress: whether to show it.

    Raises:
        ValueError: `jobs_at_once` below 1, `distributed` is not installed, or no scheduler answers
            at this address.
        OSError: the scheduler went away. Start again, with what is left.
    """
    jobs = list(jobs)
    if jobs_at_once < 1:
        raise ValueError(f"jobs_at_once must be 1 or more, got {jobs_at_once}")
    if cluster is not None:
        outcomes = _on_cluster(jobs, function, cluster)
    elif jobs_at_once == 1:
        outcomes = ((job, _outcome(function, job)) for job in jobs)
    else:
        outcomes = _in_processes(jobs, function, jobs_at_once)
    # disable=None: a bar where there is a terminal, and none in a log
    return _shown(outcomes, tqdm(total=len(jobs), desc=title, disable=None if progress else True))


def _shown(outcomes: Outcomes, bar: tqdm) -> Outcomes:
    failed = 0
    with bar:
        for job, result in outcomes:
            failed += isinstance(result, Exception)
            if failed:
                bar.set_postfix_str(f"{failed} failed")
            bar.update()
            yield job, result


def _outcome(function: Function, job: Any) -> Any:
    try:
        return function(job)
    except Exception as error:
        return error


# Processes of this machine ----------------------------------------------------------------------


def _in_processes(jobs: list, function: Function, many: int) -> Outcomes:
    left = list(reversed(jobs))
    while left:
        running: dict[Future, Any] = {}
        try:
            for future in _pool(left, running, function, many):
                result = future.result()  # may say that the pool is broken: the job is not out yet
                yield running.pop(future), result
        except BrokenProcessPool:  # some worker was killed, and all that ran is suspected
            for job in running.values():
                yield job, _alone(function, job)


def _pool(left: list, running: dict, function: Function, many: int) -> Iterator[Future]:
    """The futures of a fresh pool as they end; takes jobs from the end of `left`."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(many, len(left)), multiprocessing.get_context("spawn"))
    try:
        while left or running:
            while left and len(running) < many:
                # out of `left` only once it is in `running`: submitting to a broken pool raises
                running[pool.submit(_outcome, function, left[-1])] = left[-1]
                left.pop()
            yield from wait(running, return_when=FIRST_COMPLETED).done
    finally:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(function: Function, job: Any) -> Any:
    """The outcome of a job with nothing beside it, so that a death is its own."""
    lost: Exception = RuntimeError("not tried")
    for _ in range(DEATHS - 1):  # the first is behind it
        try:
            return next(_pool([job], {}, function, 1)).result()
        except BrokenProcessPool as error:
            lost = error
    return lost


# A Dask cluster ---------------------------------------------------------------------------------


def _on_cluster(jobs: list, function: Function, address: str) -> Outcomes:
    client, as_completed, killed = _connected(address)
    # With keys of our own, equal jobs are not taken for one.
    submitted = partial(client.submit, _outcome, function, pure=False)
    futures = [submitted(job) for job in jobs]
    left = {future.key: job for future, job in zip(futures, jobs, strict=True)}
    suspects = []
    try:
        for future in as_completed(futures, loop=client.loop):
            result = _result(future)
            if isinstance(result, killed):
                suspects.append(future.key)
                continue
            future.release()  # the workers need not keep it
            yield left.pop(future.key), result
        # Dask gives up what waited on a worker together with what killed it. So each once more,
        # with nothing beside it.
        for key in suspects:
            futures.append(submitted(left[key]))
            result = _result(futures[-1])
            yield left.pop(key), result
    except (CancelledError, OSError) as error:
        raise OSError(
            f"the scheduler at {address} went away with {len(left)} jobs to do; what was "
            "yielded is not lost: start the cluster and give the same command again"
        ) from error
    finally:
        client.cancel([future for future in futures if not future.done()])
        client.close()


def _result(future: Any) -> Any:
    """What came of a job, or the exception of its worker, as those of functions are results.

    A result whose worker died before it was fetched is made again, so fetching may fail as well.
    Raises CancelledError or OSError if the scheduler went away.
    """
    try:
        return future.result()
    except (CancelledError, OSError):
        raise
    except Exception as error:
        return error


def _connected(address: str) -> tuple[Any, Any, type[Exception]]:
    """A client of the scheduler, the function that waits for its futures, and the exception of a
    job that was given up."""
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise ValueError(
            f"cluster = {address!r} needs the package distributed: "
            "pip install 'symmetry-by-construction[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"cluster = {address!r}: no Dask scheduler answers there ({error}); expected an "
            "address such as tcp://host:8786, which `dask scheduler` prints"
        ) from error
    return client, as_completed, KilledWorker
