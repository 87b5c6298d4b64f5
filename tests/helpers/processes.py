"""Training in processes of its own that start in no time: they are forked from a server that has torch loaded."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from keylm.run import Run

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["keylm.stages", "keylm.train.stages"])


def start(run: Run, size: int = 1, *overrides: str) -> list[ForkServerProcess]:
    """Begin to pretrain in `run` with `size` ranks; each writes its screen to `rank-N.log` beside the run folder."""
    port = _free_port()
    processes = [
        _CONTEXT.Process(target=_pretrain, args=(run.folder, overrides, rank, size, port)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    return processes


def train(run: Run, size: int = 1, *overrides: str) -> None:
    """Pretrain to the end."""
    processes = start(run, size, *overrides)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * size, screen(run)


def screen(run: Run, rank: int = 0) -> str:
    """What a rank has shown so far, on one line."""
    return " ".join(_log(run.folder, rank).read_text().split())


def _pretrain(folder: Path, overrides: tuple[str, ...], rank: int, size: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    log = _log(folder, rank).open("w")
    os.dup2(log.fileno(), sys.stderr.fileno())
    os.dup2(log.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)
    sys.argv = ["keylm", "pretrain", str(folder)]
    for override in overrides:
        sys.argv += ["--set", override]
    from keylm.cli import main

    main()


def _log(folder: Path, rank: int) -> Path:
    return folder.with_name(f"{folder.name}.rank-{rank}.log")


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
