"""The run folder: what is saved comes back bit by bit; no kill, damage or full disk loses what was kept."""

import errno
import json
import math
import os
import stat
import sys
from contextlib import contextmanager, suppress

import pytest
import torch

from organza import run as run_module
from organza.run import Run, write_text

PLAN = {"recipe": "dcgan", "betas": [0.0, 0.99], "data": "Bücher 本"}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
FILES = ["game.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"]
FULL = OSError(errno.ENOSPC, "No space left on device")


class Kill(BaseException):
    """What no `except Exception` stops: the process is gone."""


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "a run, été 本", PLAN)


def groups_at(images):
    """A checkpoint whose every tensor tells its age, so that a mix of two shows."""
    game = {"weight": torch.full((4, 3), float(images)), "step": torch.tensor(images)}
    return {"game": game, "ema": {"weight": torch.full((4, 3), images + 0.5)}, "optimizer": {}}


def save(run, images, mark=0, **options):
    return run.save(images, groups_at(images + mark), {"images": images, "mark": mark}, **options)


def age(loaded):
    """(images, mark) of a checkpoint, after checking that all its parts are of one age."""
    groups, state, _ = loaded
    expected = groups_at(state["images"] + state["mark"])
    assert {name: group.keys() for name, group in groups.items()} == {k: v.keys() for k, v in expected.items()}
    assert all(torch.equal(x, groups[name][key]) for name in expected for key, x in expected[name].items())
    return state["images"], state["mark"]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def left(run):
    return names(run.path / "checkpoints")


def two_checkpoints(path, **options):
    run = Run.create(path, PLAN)
    save(run, 50, **options)
    save(run, 100, **options)
    return run


@contextmanager
def failing(call, error, once=False):
    """Lets `call` calls to the disk through, then raises `error` at the next one, unless `once` at all later too.

    Yields a list that is non-empty once it was raised. A write that fails leaves half of its bytes.
    """
    count, raised = [0], []

    def guard(real):
        def guarded(*args, **options):
            count[0] += 1
            if count[0] <= call or (raised and once):
                return real(*args, **options)
            raised.append(real)
            if real.__name__ == "_write":
                args[0].write_bytes(args[1][: len(args[1]) // 2])
            raise error

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, guard(getattr(os, name)))
        patch.setattr(run_module, "_write", guard(run_module._write))
        yield raised


def test_create_and_open(tmp_path):
    path = tmp_path / "deep" / "er" / "é 本"
    assert Run.create(path, PLAN).plan == PLAN == Run(path).plan
    assert names(path) == ["plan.json"]
    assert Run(path).records() == [] and Run(path).checkpoints() == []
    Run(path).rewind(0)
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", PLAN).plan == PLAN


def test_create_refuses_what_exists_and_writes_nothing(run, tmp_path):
    with pytest.raises(ValueError, match=r"exists; organza resume .* or choose another --run"):
        Run.create(run.path, {"other": 1})
    assert run.plan == PLAN
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(ValueError, match="exists and is not a run; choose another --run"):
            Run.create(path, PLAN)
    with pytest.raises(ValueError, match=r"cannot make .* choose another --run"):
        Run.create(tmp_path / "file" / "below", PLAN)
    with pytest.raises(ValueError, match="JSON"):
        Run.create(tmp_path / "new", {"gamma": math.nan})
    assert names(tmp_path) == [run.path.name, "file"]


def test_what_cannot_be_read_is_named(run, tmp_path):
    with pytest.raises(ValueError, match=rf"no run at .* \(no plan.json\); those in it are {run.path.name}$"):
        Run(tmp_path)
    (run.path / "log.jsonl").write_text('{"images": 1}\n{"ima\n{"images": 3}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*log.jsonl is not JSON"):
        run.records()
    (run.path / "plan.json").write_text('{"recipe": ')
    with pytest.raises(ValueError, match=r"plan.json.* is not JSON"):
        _ = run.plan


def test_log_round_trip_in_strict_json(run):
    record = {"images": 64, "loss/D": 0.1 + 0.2, "note": "é\u2028\n", "path": "\udcff", "k": [1, None]}
    run.log(record)
    run.log({"images": 192, "a": math.nan, "b": (math.inf, {"c": -math.inf})})
    assert run.records() == [record, {"images": 192, "a": "nan", "b": ["inf", {"c": "-inf"}]}]
    for line in (run.path / "log.jsonl").read_bytes().splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_log_torn_at_every_byte(run):
    records = [{"images": 64, "loss": 0.25}, {"images": 128, "loss": 0.5}]
    for record in records:
        run.log(record)
    log, whole = run.path / "log.jsonl", (run.path / "log.jsonl").read_bytes()
    tails = [whole[:end] for end in range(whole.index(b"\n") + 1, len(whole) - 1)]
    for torn in [*tails, tails[0] + bytes(100)]:  # zeros: what a power cut may leave
        log.write_bytes(torn)
        assert run.records() == records[:1]
        run.log({"images": 192})
        assert run.records() == [records[0], {"images": 192}]
    log.write_bytes(whole[:-1])  # only the newline is missing: the record is whole
    run.log({"images": 192})
    assert run.records() == [*records, {"images": 192}]


def test_rewind(run):
    for images in (0, 64, 128, 192):
        run.log({"images": images})
    run.log({"event": "of no time"})
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"images": 2')
    (run.path / "samples").mkdir()
    for name in ("0.png", "128.png", "000192.png", "192.png", "final.png", "192.txt"):
        (run.path / "samples" / name).write_bytes(b"")
    for _ in range(2):
        run.rewind(128)
        assert run.records() == [{"images": 0}, {"images": 64}, {"images": 128}, {"event": "of no time"}]
        assert (run.path / "log.jsonl").read_bytes().endswith(b"}\n")
        assert names(run.path / "samples") == ["0.png", "128.png", "192.txt", "final.png"]


def test_every_dtype_comes_back_bit_by_bit(run):
    raw = torch.randint(0, 256, (48,), dtype=torch.uint8)  # seen as floats, these hold NaNs of many payloads
    tensors = {str(t): raw > 127 if t == torch.bool else raw.view(t) for t in DTYPES}
    tensors |= {f"scalar {t}": torch.ones((), dtype=t) for t in DTYPES}
    tensors |= {"empty": torch.zeros(0, 3), "minus zero": torch.tensor(-0.0)}
    state = {"rng": [2**63, -1], "p": 0.1 + 0.2, "none": None, "name": "é", "deep": {"a": [True, {}]}}
    run.save(7, {"game": tensors, "nothing": {}}, state)
    groups, loaded_state, warnings = Run(run.path).load()
    assert (groups["nothing"], loaded_state, warnings) == ({}, state, [])
    assert groups["game"].keys() == tensors.keys()
    for name, x in groups["game"].items():
        assert (x.dtype, x.shape) == (tensors[name].dtype, tensors[name].shape)
        assert torch.equal(x.view(-1).view(torch.uint8), tensors[name].view(-1).view(torch.uint8)), name
        x.zero_()  # what is loaded may be written to


def test_views_and_shared_memory_are_written_whole(run):
    flat = torch.nn.Parameter(torch.arange(12.0))
    tensors = {"flat": flat, "tied": flat, "slice": flat[2:8:3], "transposed": flat.view(3, 4).t()}
    tensors["expanded"] = torch.tensor([1.0]).expand(5)
    tensors["channels_last"] = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    folder = run.save(0, {"game": tensors}, {})
    for name, x in run.load()[0]["game"].items():
        assert torch.equal(x, tensors[name]) and x.is_contiguous() and not x.requires_grad
    elements = sum(x.numel() for x in tensors.values())
    assert (folder / "game.safetensors").stat().st_size < 4 * elements + 1000  # no hidden storage


def test_same_content_same_bytes_with_a_real_fsync(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", sys.modules[os.name].fsync)
    a, b = (save(Run.create(tmp_path / name, PLAN), 64) for name in "ab")
    assert a == tmp_path / "a" / "checkpoints" / "64" and names(a) == sorted(FILES)
    assert {name: (a / name).read_bytes() for name in FILES} == {f: (b / f).read_bytes() for f in FILES}
    manifest = json.loads((a / "MANIFEST.json").read_text())
    assert {f: each["size"] for f, each in manifest.items()} == {f: (a / f).stat().st_size for f in FILES[:-1]}


def test_keep(run):
    os.replace(save(run, 0), run.path / "checkpoints" / ".old-0")  # as a kill between the two renames leaves it
    assert run.checkpoints() == [0] and age(run.load(0)) == (0, 0)
    save(run, 64)
    assert run.checkpoints() == [0, 64] and age(run.load(0)) == (0, 0)
    save(run, 1000)
    save(run, 1064)
    assert run.checkpoints() == [1000, 1064]
    save(run, 2000, keep=3)
    assert run.checkpoints() == [1000, 1064, 2000]
    save(run, 3000, mark=1, keep=1)
    save(run, 3000, mark=2, keep=1)
    assert left(run) == ["3000"] and run.checkpoints() == [3000] and age(run.load()) == (3000, 2)


def test_a_save_after_a_rewind_is_the_newest_and_leaves_strangers_alone(tmp_path):
    run = two_checkpoints(tmp_path)
    folder = run.path / "checkpoints"
    flip_byte(folder / "100" / "game.safetensors")
    for stranger in (folder / ".DS_Store", folder / "50" / ".DS_Store", folder / "99"):
        stranger.write_bytes(b"a file")
    assert age(run.load()) == (50, 0)
    save(run, 70, mark=1)
    assert run.checkpoints() == [50, 70] and age(run.load()) == (70, 1)
    (folder / ".tmp-75").mkdir()
    (folder / "70" / "state.json").unlink()  # what is incomplete is not one of those to keep
    save(run, 80)
    assert left(run) == [".DS_Store", "50", "80", "99"]


def test_refusals_write_nothing(run):
    for name in ("", "..", "a/b", "a\\b", "a.b", "état", "a b"):
        with pytest.raises(ValueError, match=r"group name .* only letters"):
            run.save(64, {name: {}}, {})
    for state in ({1: 2}, {"betas": (0.0, 0.99)}, {"loss": math.nan}):
        with pytest.raises(ValueError, match="JSON"):
            run.save(64, {}, state)
    with pytest.raises(ValueError, match="keep = 0"):
        run.save(64, {}, {}, keep=0)
    with pytest.raises(ValueError, match=r"no sound checkpoint in .*; the first is made"):
        run.load()
    assert names(run.path) == ["plan.json"]


def flip_byte(path, position=0.5, bit=0):
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(data)


DAMAGE = {
    "flip": flip_byte,
    "flip last": lambda path: flip_byte(path, 0.9999, bit=7),
    "truncate": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "delete": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_skipped_by_name(tmp_path, name, damage):
    run = two_checkpoints(tmp_path)
    DAMAGE[damage](run.path / "checkpoints" / "100" / name)
    loaded = run.load()
    assert age(loaded) == (50, 0)
    (warning,) = loaded[2]
    assert warning.startswith("checkpoint 100 skipped: ") and "\n" not in warning
    lies = name == "MANIFEST.json" and damage == "flip"  # then the file is named that it lies about
    with pytest.raises(ValueError, match="safetensors|json" if lies else name) as refusal:
        run.load(100)
    assert lies or name in warning
    assert "no sound checkpoint 100" in str(refusal.value) and "whole are [50" in str(refusal.value)
    assert (100 in run.checkpoints()) == (damage.startswith("flip") and name != "MANIFEST.json") or lies
    DAMAGE[damage](run.path / "checkpoints" / "50" / name)
    with pytest.raises(ValueError, match=r"checkpoint 100 skipped: .* checkpoint 50 skipped: "):
        run.load()


def test_no_spoilt_manifest_is_believed(tmp_path):
    run = two_checkpoints(tmp_path)
    manifest = run.path / "checkpoints" / "100" / "MANIFEST.json"
    whole = manifest.read_bytes()
    for position in range(0, len(whole), 3):
        manifest.write_bytes(whole)
        flip_byte(manifest, (position + 0.5) / len(whole), bit=position % 8)
        loaded = run.load()
        assert age(loaded) == ((50, 0) if loaded[2] else (100, 0))  # a changed blank changes nothing
    (tmp_path / "outside.safetensors").write_bytes(manifest.with_name("ema.safetensors").read_bytes())
    outside = json.loads(whole)
    outside["../../outside.safetensors"] = outside.pop("ema.safetensors")
    for other in (outside, [], 3, {}, {"state.json": 3}, {"state.json": {"size": None, "sha256": ""}}):
        manifest.write_text(json.dumps(other))
        assert run.checkpoints() == [50]
        with pytest.raises(ValueError, match=r"MANIFEST.json is damaged"):
            run.load(100)


@pytest.mark.parametrize("error", [Kill(), FULL], ids=["killed", "disk full"])
@pytest.mark.parametrize("later", [200, 100], ids=["next", "same images"])
@pytest.mark.parametrize("keep", [1, 2])
def test_stopped_anywhere_in_save_the_old_or_the_new_is_whole(tmp_path, keep, later, error):
    seen = set()
    for call in range(100):
        run, returned = two_checkpoints(tmp_path / str(call), keep=keep), False
        with failing(call, error, once=error is FULL) as raised, suppress(Kill, OSError):
            returned = save(run, later, mark=1, keep=keep)
        loaded = run.load()
        assert age(loaded) in ([(later, 1)] if returned else [(100, 0), (later, 1)]) and loaded[2] == []
        seen.add(age(loaded))
        if age(loaded) == (100, 0):
            assert run.checkpoints() == [50, 100][-keep:]
        if error is FULL:
            assert not any(name.startswith(".tmp-") for name in left(run))
        for images in (later, 300):  # the resumed run
            save(run, images, mark=2, keep=keep)
            assert age(run.load()) == (images, 2)
            assert left(run) == sorted(map(str, run.checkpoints())) and len(left(run)) == keep
        if not raised:
            break
    assert call > 12 and seen == {(100, 0), (later, 1)}


def test_an_error_within_save_leaves_nothing(run):
    resource = pytest.importorskip("resource")
    save(run, 64)
    with pytest.raises(AttributeError):
        run.save(128, {"game": {"weight": 3}}, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError):
            run.save(128, {"game": {"large": torch.zeros(100_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left(run) == ["64"] and age(run.load()) == (64, 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folder")
def test_all_is_synced_whole_before_it_is_renamed_and_its_folder_after(run, monkeypatch):
    events, replace = [], os.replace  # (old name, new name) and (inode, size when synced or None of a folder)

    def seen(status):
        return status.st_ino, None if stat.S_ISDIR(status.st_mode) else status.st_size

    def watched_replace(old, new):
        events.append((os.path.basename(old), os.path.basename(new)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(seen(os.fstat(descriptor))))
    monkeypatch.setattr(os, "replace", watched_replace)
    folder = save(run, 64)
    rename = events.index((".tmp-64", "64"))
    assert set(events[: rename - 2]) == {seen((folder / name).stat()) for name in FILES[:-1]}
    assert events[rename - 2 : rename] == [seen((folder / "MANIFEST.json").stat()), seen(folder.stat())]
    assert events[rename + 1 :] == [seen(folder.parent.stat()), seen(run.path.stat())]
    events.clear()
    write_text(run.path / "a", "é\n")
    assert events == [seen((run.path / "a").stat()), (".a.tmp", "a"), seen(run.path.stat())]


@pytest.mark.parametrize("error", [Kill(), FULL], ids=["killed", "disk full"])
def test_a_file_that_fails_to_be_written_stays_as_it_was(run, error):
    for images in (64, 128):
        run.log({"images": images})
    for call in range(5):  # the write, its fsync, the rename, the folder's fsync, none
        with failing(call, error, once=error is FULL) as raised, suppress(Kill, OSError):
            run.rewind(64)
        assert len(run.records()) == (2 if call < 3 else 1) and bool(raised) == (call < 4)
        assert error is not FULL or names(run.path) == ["log.jsonl", "plan.json"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EINVAL])
def test_a_system_that_cannot_sync_folders_is_no_error(run, monkeypatch, code):
    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    save(run, 64)
    assert age(run.load()) == (64, 0)
