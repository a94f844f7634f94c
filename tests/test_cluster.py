"""One door for many jobs: this process, several, and a Dask cluster, with workers killed."""

import os
import signal
import sys
import time
from functools import partial

import dask
import distributed  # noqa: F401 -- its defaults must be in dask.config before anything is set there
import pytest
from cluster_jobs import deadly, picky, slow, square, starts, two_workers

from companion import cluster

JOBS = list(range(6))


@pytest.fixture(scope="module")
def scheduler():
    """A cluster of two processes, which gives a job up at the second death of its worker."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), two_workers() as here:
        yield here.scheduler_address


@pytest.fixture(params=["here", "processes", "cluster"])
def door(request):
    if request.param == "cluster":
        return {"cluster": request.getfixturevalue("scheduler")}
    return {"jobs_at_once": 1 if request.param == "here" else 2}


def test_every_job_is_done_once(door):
    done = list(cluster.run(JOBS, square, progress=False, **door))
    assert sorted(done) == [(job, job * job) for job in JOBS]


def test_equal_jobs_are_each_done(door):
    assert list(cluster.run([2, 2, 2], square, progress=False, **door)) == [(2, 4)] * 3


def test_no_jobs(door):
    assert list(cluster.run([], square, progress=False, **door)) == []


def test_an_exception_is_the_result_of_its_job_alone(door):
    done = dict(cluster.run(JOBS, picky, progress=False, **door))
    assert isinstance(done[3], ValueError)
    assert str(done[3]) == "not three"
    assert {job: x for job, x in done.items() if job != 3} == {j: j for j in JOBS if j != 3}


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_a_worker_killed_in_the_middle_loses_nothing(where, request, tmp_path):
    door = {"jobs_at_once": 2}
    if where == "cluster":
        door = {"cluster": request.getfixturevalue("scheduler")}
    done, killed = [], None
    for job, result in cluster.run(JOBS, partial(slow, tmp_path), progress=False, **door):
        done.append((job, result))
        if killed is None:
            over = {j for j, _ in done}
            killed = next(j for j in JOBS if j not in over and starts(tmp_path, j))
            os.kill(starts(tmp_path, killed)[-1], signal.SIGKILL)
    assert sorted(done) == [(job, job * job) for job in JOBS]
    assert len(starts(tmp_path, killed)) > 1, "the killed job was not begun again"


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_a_job_that_kills_its_workers_is_given_up_and_the_others_are_done(where, request, tmp_path):
    door = {"jobs_at_once": 2}
    if where == "cluster":
        door = {"cluster": request.getfixturevalue("scheduler")}
    done = dict(cluster.run(range(4), partial(deadly, tmp_path), progress=False, **door))
    assert isinstance(done.pop(2), Exception)
    assert done == {0: 0, 1: 1, 3: 3}
    # Dask: up to twice with others beside it, as it counts deaths of what only waited, twice alone
    most = cluster.DEATHS if where == "processes" else 4
    assert 2 <= len(starts(tmp_path, 2)) <= most


def test_a_scheduler_that_goes_away_is_said(tmp_path):
    with two_workers() as here:
        running = cluster.run(
            JOBS, partial(slow, tmp_path), cluster=here.scheduler_address, progress=False
        )
        done = [next(running)]
        here.close()
        with pytest.raises(OSError, match=r"went away with \d jobs to do.*the same command again"):
            done += list(running)
    assert len(done) < len(JOBS)


def test_closing_the_iterator_stops_the_processes(tmp_path):
    running = cluster.run(JOBS, partial(slow, tmp_path), jobs_at_once=2, progress=False)
    next(running)
    running.close()
    begun = len(list(tmp_path.iterdir()))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == begun < len(JOBS)


def test_bad_input_is_refused_with_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match=r"jobs_at_once must be 1 or more, got 0"):
        cluster.run(JOBS, square, jobs_at_once=0)
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(ValueError, match=r"no Dask scheduler answers there.*dask scheduler"):
        list(cluster.run(JOBS, square, cluster="tcp://127.0.0.1:9", progress=False))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install .*\[cluster\]"):
        list(cluster.run(JOBS, square, cluster="tcp://127.0.0.1:9", progress=False))
