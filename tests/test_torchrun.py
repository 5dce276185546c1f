"""The command under torchrun: several processes, killed, restarted, stopped and continued by others, are one run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RUN = ["train", "ring", "--recipe", "modes", "--images", "40960", "--seed", "3"]
RUN += [f"--set=training.{part}" for part in ("log_every=4096", "sample_every=0", "save_every=4096")]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def start(*words: str, processes: int = 2, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The command in so many processes, one thread each, all from one torchrun if there is more than one."""
    command = [sys.executable, "-m", "organza", *words]
    if processes > 1:
        command = [*TORCHRUN, "--nproc-per-node", str(processes), *(options or ("--standalone",))]
        command += ["-m", "--", "organza", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        text=True,
        **pipes,
    )


def end(job: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    said = job.communicate(timeout=240)
    assert job.returncode == code, said
    return said


def trained(run: Path, *words: str, **how: Any) -> Path:
    end(start(*RUN, "--run", str(run), *words, **how))
    return run


def checkpoints(run: Path) -> list[int]:
    folder = run / "checkpoints"
    return sorted(int(each.name) for each in folder.iterdir() if each.name.isdecimal()) if folder.exists() else []


def wait_for(run: Path, least: int) -> None:
    """Until a checkpoint is at ``least`` images or more."""
    for _ in range(2400):
        if max(checkpoints(run), default=0) >= least:
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint at {least} in {run}")


def workers(job: subprocess.Popen[str]) -> list[int]:
    """The processes that a torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()]


def all_of(run: Path) -> dict[str, Any]:
    """What a run came to: the last checkpoint, file by file, and the log without the clock."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = run / "checkpoints" / str(max(checkpoints(run)))
    files: dict[str, Any] = {file.name: file.read_bytes() for file in last.glob("*.safetensors")}
    return files | {"log": [{name: value for name, value in line.items() if name != "time"} for line in log]}


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "checkpoints" / str(max(checkpoints(run))) / "state.json").read_text())
    return found


def test_two_processes_are_the_run_that_one_is(organza: Any, tmp_path: Path) -> None:
    """The same bits as one process that takes each batch in two parts."""
    short = ("--images", "8192")  # what is said last counts
    assert organza(*RUN, *short, "--set=training.accumulate=2", "--set=training.threads=1", "--run", "one")[0] == 0
    trained(tmp_path / "two", *short)
    assert all_of(tmp_path / "two") == all_of(tmp_path / "one")
    assert (record(tmp_path / "two")["processes"], record(tmp_path / "one")["processes"]) == (2, 1)


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    run = tmp_path / "two"
    run.mkdir()
    (run / "plan.json").write_text("{}")
    _, told = end(start(*RUN, "--run", str(run)), code=1)
    assert told.count("organza: ") == 1 and "two exists; organza resume" in told


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_started_anew_and_the_run_goes_on(victim: int, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    restarted = start(*RUN, "--run", str(tmp_path / "cut"), options=("--standalone", "--max-restarts", "2"))
    wait_for(tmp_path / "cut", 12288)
    os.kill(workers(restarted)[victim], signal.SIGKILL)
    end(restarted)
    assert all_of(tmp_path / "cut") == all_of(whole)


@pytest.mark.slow
def test_stopped_gently_and_continued_elsewhere_by_another_number_of_processes(tmp_path: Path) -> None:
    """A copy by one process with two micro-batches, a copy of that by two: the bits of the run never stopped."""
    whole = trained(tmp_path / "whole")
    run, place = tmp_path / "run", 0
    job, told = start(*RUN, "--run", str(run)), []
    for processes, parts, least in ((1, 2, 12288), (2, 1, 24576)):
        wait_for(run, least)
        job.send_signal(signal.SIGTERM)
        told.append(job.communicate(timeout=60)[1])
        assert job.returncode != 0 and place < max(checkpoints(run)) < 40960
        place = max(checkpoints(run))
        run = Path(shutil.copytree(run, tmp_path / f"elsewhere {processes}" / "run"))
        job = start("resume", str(run), f"--set=training.accumulate={parts}", processes=processes)
    told.append(end(job)[1])
    assert "the run goes on with processes 1, not 2" in told[1] and "goes on with processes 2, not 1" in told[2]
    assert all_of(run) == all_of(whole)


@pytest.mark.slow
def test_two_machines_rehearsed_on_one(tmp_path: Path) -> None:
    """Two torchruns, as on two machines, that meet at one address."""
    whole = trained(tmp_path / "whole")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "rehearsal", "--rdzv-endpoint", meet)
    command = [
        *TORCHRUN,
        "--nproc-per-node",
        "1",
        *options,
        "-m",
        "--",
        "organza",
        *RUN,
        "--run",
        str(tmp_path / "two"),
    ]
    jobs = [subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for job in jobs:
        end(job)
    assert all_of(tmp_path / "two") == all_of(whole)


@pytest.mark.slow
def test_restarts_need_a_folder(tmp_path: Path) -> None:
    _, told = end(start(*RUN, options=("--standalone", "--max-restarts", "1")), code=1)
    assert "with --max-restarts give --run too" in told
