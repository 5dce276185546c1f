"""What befalls a training: no room, no memory, numbers that are not finite, a folder that another writes.

Each is one clear line, and what was saved before is whole.
"""

from __future__ import annotations

import itertools
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import toy

import organza as oz
from organza.lock import held
from organza.objective import NonSaturating
from organza.progress import playing
from organza.run import Run
from organza.term import Term
from organza.training import Diverged, Judge, OutOfMemory, State, Unwritten, fit

RING = ("train", "ring", "--recipe", "modes", "--images", "4096")
RING += tuple(f"--set=training.{part}" for part in ("log_every=1024", "sample_every=0", "save_every=1024", "threads=1"))


@contextmanager
def full(limit: int) -> Iterator[None]:
    """Files of at most ``limit`` bytes: what a full disk does to a file too long."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def weights(run: Path) -> dict[str, bytes]:
    last = run / "checkpoints" / str(Run(run).checkpoints()[-1])
    return {file.name: file.read_bytes() for file in last.glob("*.safetensors")}


def test_a_full_disk_loses_nothing_that_was_saved(organza, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert organza(*RING, "--run", str(whole))[0] == 0
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints/4096")
    with full(100_000):
        code, _, said = organza("resume", str(run))
    assert code == 2 and "cannot be written (File too large)" in said
    assert "organza resume" in said and "Traceback" not in said
    assert Run(run).checkpoints() == [3072] and not list((run / "checkpoints").glob(".*"))
    assert organza("resume", str(run))[0] == 0
    assert weights(run) == weights(whole)


def test_a_folder_that_became_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy()
    fit(made.game, made.data, made.training, images=32, run=tmp_path / "run", device="cpu")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "run" / "log.jsonl"))

    monkeypatch.setattr(Run, "log", refuse)
    with pytest.raises(Unwritten, match=r"log.jsonl: cannot be written \(Permission denied\)"):
        fit(made.game, made.data, made.training, images=4096, run=tmp_path / "run", device="cpu")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=r"run cannot be written \(Permission denied\): make it writable, or copy it"):
        fit(made.game, made.data, made.training, images=4096, run=tmp_path / "run", device="cpu")


def test_what_cannot_be_read_elsewhere_is_not_told_as_a_write(tmp_path: Path) -> None:
    def score(_: object) -> dict[str, float]:
        raise FileNotFoundError(2, "No such file or directory", "/elsewhere/weights.pt")

    made = toy()
    with pytest.raises(FileNotFoundError):
        fit(made.game, made.data, made.training, images=32, run=tmp_path / "run", device="cpu", judge=Judge(score))


HOLDER = "from pathlib import Path; from organza.lock import held; import sys, time\n"
HOLDER += "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_one_training_in_a_folder(tmp_path: Path) -> None:
    """And one that was killed holds it no more."""
    made = toy()
    run = tmp_path / "run"
    fit(made.game, made.data, made.training, images=32, run=run, device="cpu")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        before = sorted(run.rglob("*"))
        with pytest.raises(ValueError, match=f"run is being written by process {holder.pid} on .*; wait for it"):
            fit(made.game, made.data, made.training, images=64, run=run, device="cpu")
        assert sorted(run.rglob("*")) == before
        os.kill(holder.pid, signal.SIGKILL)
    fit(made.game, made.data, made.training, images=64, run=run, device="cpu")
    assert Run(run).checkpoints()[-1] == 64
    with held(run), pytest.raises(ValueError, match="is being written"), held(run):
        pass


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has the clock's time; nothing else asks for it."""
    runs = []
    for name, clock in (("one", time.time), ("other", lambda: -1e12)):
        monkeypatch.setattr(time, "time", clock)
        torch.manual_seed(0)
        made = toy()
        fit(made.game, made.data, made.training, images=64, run=tmp_path / name, device="cpu")
        runs.append(weights(tmp_path / name))
    assert runs[0] == runs[1]


class Spoilt(Term):
    """Zero, of which the loss, or the gradient alone, is not finite in the moves of G that are named."""

    def __init__(self, moves: range, gradient: bool = False) -> None:
        super().__init__()
        self.moves, self.gradient = moves, gradient

    def discriminator(self, round):
        nothing = 0 * round.fake_verdict.logits
        if round.step not in self.moves:
            return nothing
        return nothing.abs().sqrt() if self.gradient else nothing + math.nan


def state(*terms: Term, **play: object) -> State:
    torch.manual_seed(0)
    made = toy(NonSaturating(), terms=terms, play={"accumulate": 2, **play})
    return State(made.game, made.training, made.data, torch.device("cpu"))


def go_on(played: State, rounds: int) -> State:
    for _ in range(rounds):
        played.training.moves(played, played.stream)
    return played


def test_a_loss_that_is_not_finite_is_found_in_its_move() -> None:
    """By name and place, before the step: the weights are those of before."""
    spoilt, good = state(Spoilt(range(3, 4))), go_on(state(Spoilt(range(0))), 3)
    with pytest.raises(Diverged, match="discriminator/Spoilt: not finite in move 3 of the discriminator, at image 48"):
        go_on(spoilt, 9)
    for name, value in good.tensors()["game"].items():
        assert torch.equal(value, spoilt.tensors()["game"][name]), name


def test_a_gradient_that_is_not_finite_poisons_no_checkpoint() -> None:
    with pytest.raises(Diverged, match=r"the gradient of discriminator\.0\.weight.* in move 4 of the discriminator"):
        go_on(state(Spoilt(range(4, 5), gradient=True)), 9)
    spoilt = state(Spoilt(range(3, 4), gradient=True))  # whose norm is not taken: found in the next move
    with pytest.raises(Diverged, match=r"discriminator\.0\.weight, .* in move 3 of the discriminator"):
        go_on(spoilt, 9)
    with pytest.raises(Diverged, match=r"discriminator\.0\.weight is not finite"):
        spoilt.tensors()


@pytest.mark.parametrize("gradient", [False, True])
def test_moves_may_be_skipped(gradient: bool) -> None:
    """They are counted, and leave all weights as they were; too many in a row are an end."""
    played = go_on(state(Spoilt(range(3, 6), gradient), nonfinite="skip"), 9)
    assert played.steps == 9 and played.means()["skipped"] == 3 * 2  # k = 2 moves of D
    assert all(bool(value.isfinite().all()) for value in played.tensors()["game"].values())
    with pytest.raises(Diverged, match="in move 13 of the discriminator"):
        go_on(state(Spoilt(range(3, 99), gradient), nonfinite="skip", moves=oz.Simultaneous()), 20)
    often = Spoilt(range(3, 99, 3), gradient)  # but never two in a row
    assert go_on(state(often, nonfinite="skip", moves=oz.Simultaneous()), 60).steps == 60


def test_skipping_changes_nothing_where_all_is_finite() -> None:
    one, other = (go_on(state(Spoilt(range(0)), nonfinite=how), 6) for how in ("stop", "skip"))
    for name, value in one.tensors()["game"].items():
        assert torch.equal(value, other.tensors()["game"][name]), name


def test_a_weight_that_is_not_finite_is_named() -> None:
    played = go_on(state(), 2)
    with torch.no_grad():
        next(iter(played.game.generator.parameters()))[0] = math.inf
    with pytest.raises(Diverged, match=r"generator\.0\.weight, .* in move 2 of the discriminator, at image 32"):
        go_on(played, 1)


def test_out_of_memory_says_what_to_do_and_the_run_goes_on_in_parts(tmp_path: Path, monkeypatch) -> None:
    """In twice as many micro-batches it comes to the same numbers, but for the last bits."""
    words = {"recipe": "modes", "images": 2048, "changes": {"training.save_every": 512, "training.threads": 1}}
    whole, learn = oz.train("ring", run=tmp_path / "whole", **words), State.learn

    def short(self: State, player: str, *rest: object, **more: object) -> None:
        if self.images >= 1024 and self.training.accumulate == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        learn(self, player, *rest, **more)

    monkeypatch.setattr(State, "learn", short)
    with pytest.raises(OutOfMemory, match=r"at image 1024 .*, with 256 of 256 .*--set training.accumulate=2, which"):
        oz.train("ring", run=tmp_path / "run", **words)
    with pytest.warns(UserWarning, match="goes on with accumulate=2, not 1: the last bits may differ"):
        model = oz.resume(tmp_path / "run", changes={"training.accumulate": 2})
    torch.testing.assert_close(model.sample(64, seed=1), whole.sample(64, seed=1), rtol=0, atol=0.05)
    assert Run(tmp_path / "run").plan["training"]["accumulate"] == 2
    with pytest.raises(ValueError, match=r"--set training.batch: a run goes on as it began; what may change is"):
        oz.resume(tmp_path / "run", changes={"training.batch": 2})


def test_out_of_memory_while_the_speed_is_measured(tmp_path: Path, monkeypatch) -> None:
    def short(self: State, *_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(State, "learn", short)
    with pytest.raises(
        OutOfMemory, match=r"out of memory while the speed was measured, with 256 of 256 .*accumulate=2"
    ):
        oz.train("ring", "modes", run=tmp_path / "run", minutes=1.0)
    assert not (tmp_path / "run").exists()


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch) -> None:
    made = toy()

    def fail(*_: object) -> None:
        raise RuntimeError("expected scalar type Float but found Double")

    monkeypatch.setattr(State, "learn", fail)
    with pytest.raises(RuntimeError, match="scalar type"):
        fit(made.game, made.data, made.training, device="cpu")


def test_sigterm_saves_and_says_how_to_resume(organza) -> None:
    """In this process, whose own answer to it is back afterwards; test_cli sends Ctrl-C to another."""
    before, over = signal.getsignal(signal.SIGTERM), threading.Event()

    def send() -> None:
        while signal.getsignal(signal.SIGTERM) == before:  # sent then, it would end the tests
            if over.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        code, out, _ = organza("train", "ring", "--recipe", "modes", "--images", "400000", "--run", "run")
    finally:
        over.set()
        sender.join()
    assert code == 143 and "organza resume run" in out and Run("run").checkpoints()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As `| head` does: no traceback, and no noise as the interpreter ends."""
    there, here = os.pipe()
    os.close(there)
    code = "import sys; from organza.cli import shell; sys.exit(shell.run(lambda **_: print('said')))"
    done = subprocess.run([sys.executable, "-c", code], stdout=here, stderr=subprocess.PIPE, text=True)
    os.close(here)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_run_whose_reader_goes_away_is_saved(organza, monkeypatch) -> None:
    told = []

    def gone(*words: object, **_: object) -> None:
        told.append(words)
        if len(told) == 1:
            raise BrokenPipeError

    monkeypatch.setattr("organza.progress.print", gone, raising=False)
    monkeypatch.setattr("organza.progress.time", SimpleNamespace(monotonic=itertools.count(0, 20).__next__))
    code, _, _ = organza("train", "ring", "--recipe", "modes", "--images", "400000", "--run", "run")
    assert code == 128 + signal.SIGPIPE and Run("run").checkpoints()[-1] < 400_000


def test_moments_that_are_not_finite_are_not_kept() -> None:
    made = toy()
    fit(made.game, made.data, made.training, images=32, device="cpu")
    state = State(made.game, made.training, made.data, torch.device("cpu"))
    state.training.moves(state, state.stream)
    moments = next(iter(state.optimizers["generator"].state.values()))
    moments["exp_avg_sq"].view(-1)[0] = float("inf")
    with pytest.raises(Diverged, match="exp_avg_sq of generator's optimizer is not finite at image"):
        state.tensors()


def test_a_console_that_lacks_letters_and_one_that_is_closed() -> None:
    code = "import sys; from organza.cli import shell; shell.app = lambda **_: print('\u2264 \u00b1'); shell.main()"
    narrow = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=narrow, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u2264 \\xb1\n", "")
    code = "import sys; sys.stderr = None; " + code.replace("print('\u2264 \u00b1')", "print('lost', file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_second_signal_ends_the_program_at_once() -> None:
    """The first is only noted, and the system's own answer is put back."""
    before = signal.getsignal(signal.SIGTERM)
    with playing(as_json=False) as watch:
        assert signal.getsignal(signal.SIGTERM) is before  # while data are read there is nothing to save
        watch.listen()
        watch.stop(signal.SIGTERM, None)
        assert watch.signal == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == watch.stop
