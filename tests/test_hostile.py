"""What is hostile is refused before memory is taken for it, in one line that says what was got and what is allowed.

Each case runs in a process of its own, whose memory above what importing took must stay under a cap.
"""

import io
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

CAP = 96  # MiB

CHILD = """
import resource, sys
import organza as oz
from organza.data import open_data
import organza.api, organza.recipes, PIL.Image
oz.load, oz.train
from organza.data import folder
open_data("digits[:8]")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {do}
except (ValueError, OSError) as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) // 1024)
"""


def refused(do):
    """What is said, by a process that took little memory."""
    done = subprocess.run([sys.executable, "-c", CHILD.format(do=do)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, taken = done.stdout.strip().splitlines()
    assert said, "nothing was refused"
    assert len(said) == 1, said
    assert int(taken) < CAP, f"{taken} MiB: {said[0]}"
    return said[0]


def chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def bomb(side, of=b"\0"):
    """A PNG of side x side pixels, gray, in few bytes."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(of * (side + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png():
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return file.getvalue()


def in_folder(name, contents):
    def make(path):
        path.mkdir()
        (path / "1.png").write_bytes(png())
        (path / name).write_bytes(contents())
        return path

    return make


def in_zip(name, contents):
    def make(path):
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
            made.writestr("1.png", png())
            made.writestr(name, contents())
        return path.with_suffix(".zip")

    return make


def in_tar(**about):
    def make(path):
        info = tarfile.TarInfo("2.png")
        for key, value in about.items():
            setattr(info, key, value)
        with tarfile.open(path.with_suffix(".tar"), "w") as made:
            first = tarfile.TarInfo("1.png")
            first.size = len(png())
            made.addfile(first, io.BytesIO(png()))
            made.addfile(info)
        return path.with_suffix(".tar")

    return make


def lying_array(shape, descr="|u1"):
    """A .npy whose header promises more than there is."""

    def make(path):
        file = path.with_suffix(".npy")
        with file.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
            out.write(bytes(64))
        return file

    return make


def lying_archive(path):
    """An .npz whose array promises more than there is."""
    file = lying_array((10**7, 64, 64))(path)
    with zipfile.ZipFile(path.with_suffix(".npz"), "w") as made:
        made.write(file, "x.npy")
    return path.with_suffix(".npz")


def encrypted(path):
    file = in_zip("2.png", png)(path)
    data = bytearray(file.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(signature, 1 if signature == b"PK\3\4" else 0)
        data[data.rindex(signature) + place if at else place] |= 1
    file.write_bytes(data)
    return file


DATA = {
    "a bomb of pixels": (in_folder("2.png", lambda: bomb(30_000)), "exceeds limit"),
    "a bomb of bytes": (in_zip("2.bmp", lambda: b"BM" + bytes(2**27)), "times its size"),
    "a large file": (in_zip("2.bmp", lambda: np.random.bytes(2**21) * 130), "256 that are read"),
    "an array that lies": (lying_array((10**9, 64, 64)), "cannot be read"),
    "an archive of arrays that lies": (lying_archive, "cannot be read"),
    "an array of objects": (lying_array((4,), "|O"), "never"),
    "a way up": (in_zip("../2.png", png), "no plain relative name"),
    "an absolute path": (in_zip("/etc/2.png", png), "no plain relative name"),
    "an encrypted file": (encrypted, "is encrypted"),
    "a link": (in_tar(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link or no plain file"),
    "a hard link": (in_tar(type=tarfile.LNKTYPE, linkname="1.png"), "is a link or no plain file"),
    "a device": (in_tar(type=tarfile.CHRTYPE), "is a link or no plain file"),
    "a way up in a tar": (in_tar(name="../2.png"), "no plain relative name"),
    "a name twice": (in_tar(name="1.png"), "is there twice"),
    "a size that lies": (in_tar(size=10**8), "ends within"),
    "a sheet of labels": (in_folder("labels.csv", lambda: b"1.png,999999999999\n"), "labels must be"),
    "a sheet of text": (in_folder("labels.csv", lambda: b"1.png," + b"9" * 10**6 + b"\n"), "field larger"),
    "deep JSON": (in_folder("dataset.json", lambda: b"[" * 10**6), "is not JSON"),
}


@pytest.mark.parametrize("case", DATA)
def test_hostile_data(tmp_path, case):
    make, said = DATA[case]
    path = make(tmp_path / "x")
    assert said in refused(f"open_data({str(path)!r})")
    assert not (tmp_path.parent / "2.png").exists()


PLANS = {
    "generator.widths": '{"generator.widths": [10**9]}',
    "discriminator.widths": '{"discriminator.widths": [10**9, 10**9]}',
    "training.batch": '{"training.batch": 10**12}',
    "training.accumulate": '{"training.accumulate": 10**9}',
    "prior.dim": '{"prior.dim": 10**12, "generator.latent": 10**12}',
}


@pytest.mark.parametrize("key", PLANS)
def test_hostile_plans(tmp_path, key):
    do = f"oz.train('ring', 'modes', run={str(tmp_path / 'run')!r}, images=64, changes={PLANS[key]})"
    said = refused(do)
    assert not (tmp_path / "run").exists(), said


def test_a_plan_of_a_billion_channels(tmp_path):
    """As a file, which is read back before anything is built."""
    import organza as oz

    run = tmp_path / "run"
    oz.train("ring", "modes", run=run, images=64, changes={"generator.widths": [4], "discriminator.widths": [4]})
    plan = json.loads((run / "plan.json").read_text())
    plan["generator"]["widths"] = [10**9, 10**9]
    (run / "plan.json").write_text(json.dumps(plan))
    assert "its weights would take" in refused(f"oz.resume({str(run)!r}, images=512)")


def test_a_model_of_a_billion_channels(tmp_path):
    import organza as oz

    run, model = tmp_path / "run", tmp_path / "model"
    changes = {"generator.widths": [4], "discriminator.widths": [4]}
    oz.train("ring", "modes", run=run, images=64, changes=changes).save_pretrained(model)
    config = json.loads((model / "config.json").read_text())
    config["generator"]["widths"] = [10**9]
    (model / "config.json").write_text(json.dumps(config))
    refused(f"oz.load({str(model)!r})")


def test_a_header_of_weights_that_lies(tmp_path):
    import organza as oz

    run, model = tmp_path / "run", tmp_path / "model"
    changes = {"generator.widths": [4], "discriminator.widths": [4]}
    oz.train("ring", "modes", run=run, images=64, changes=changes).save_pretrained(model)
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    refused(f"oz.load({str(model)!r})")
