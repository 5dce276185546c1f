"""What is hostile is refused before memory is taken for it, in one line that says what was got and what is allowed.

The cases run in another process, whose memory above what it had before each must stay under a cap.
"""

import io
import json
import shutil
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
import json, resource, sys
import organza as oz
from organza.data import folder, open_data
import organza.api, organza.recipes, PIL.Image
oz.load, oz.train, oz.resume

def peak(reset=False):
    try:
        if reset:
            open("/proc/self/clear_refs", "w").write("5")
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    except OSError:  # no Linux: the most there ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def warm():
    open_data("digits[:8]")

warm()
for line in sys.stdin:
    before, said = peak(True), None
    try:
        exec(json.loads(line))
    except (ValueError, OSError) as error:
        said = str(error)
    except BaseException as error:
        said = f"not ours: {error!r}"
    print(json.dumps([said, (peak() - before) // 1024]), flush=True)
"""


@pytest.fixture(scope="module")
def refused():
    """What is said by another process, which took little memory."""
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def told(do):
            child.stdin.write(json.dumps(do) + "\n")
            child.stdin.flush()
            said, taken = json.loads(child.stdout.readline())
            assert said, "nothing was refused"
            assert "\n" not in said and "not ours" not in said, said
            assert taken < CAP, f"{taken} MiB: {said}"
            return said

        yield told
        child.kill()


def chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def bomb(side, of=b"\0"):
    """A PNG of side x side pixels, gray, in few bytes."""
    packer = zlib.compressobj(1)
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


def in_zip(name, contents, how=zipfile.ZIP_DEFLATED):
    def make(path):
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", how, compresslevel=9) as made:
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
    "a bomb of pixels": (in_folder("2.png", lambda: bomb(14_000)), "exceeds limit"),
    "a bomb of bytes": (in_zip("2.bmp", lambda: b"BM" + bytes(2**27)), "times its size"),
    "a large file": (in_zip("2.bmp", lambda: bytes(2**28 + 1), zipfile.ZIP_STORED), "256 that are read"),
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
def test_hostile_data(refused, tmp_path, case):
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
    "prior.components": '{"prior": {"kind": "Mixture", "components": 10**18}}',
}


@pytest.mark.parametrize("key", PLANS)
def test_hostile_plans(refused, tmp_path, key):
    do = f"oz.train('ring', 'modes', run={str(tmp_path / 'run')!r}, images=64, changes={PLANS[key]})"
    said = refused(do)
    assert not (tmp_path / "run").exists(), said


def test_a_plan_of_a_billion_channels(refused, tmp_path):
    """As a file, which is read back before anything is built."""
    import organza as oz

    run = tmp_path / "run"
    oz.train("ring", "modes", run=run, images=64, changes={"generator.widths": [4], "discriminator.widths": [4]})
    plan = json.loads((run / "plan.json").read_text())
    plan["generator"]["widths"] = [10**9, 10**9]
    (run / "plan.json").write_text(json.dumps(plan))
    assert "its weights would take" in refused(f"oz.resume({str(run)!r}, images=512)")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model whose files may be changed: nothing says their hash."""
    import organza as oz

    folder = tmp_path_factory.mktemp("model")
    changes = {"generator.widths": [4], "discriminator.widths": [4], "training.threads": 1}
    oz.train("ring", "modes", run=folder / "run", images=64, changes=changes).save_pretrained(folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    config.pop("sha256")
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return folder / "model"


def test_a_model_of_a_billion_channels(refused, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["generator"]["widths"] = [10**9]
    (folder / "config.json").write_text(json.dumps(config))
    assert "do not fit" in refused(f"oz.load({str(folder)!r})")


def lies(header, body):
    """The same weights under headers that are not true of them."""
    name = next(name for name in header if name != "__metadata__")
    start, stop = header[name]["data_offsets"]
    changes = {
        "a huge header": None,
        "a type": {"dtype": "F64"},
        "a shape": {"shape": [10**9, 10**9]},
        "a smaller shape": {"shape": [1]},
        "an overlap": {"data_offsets": [start, stop + 4]},
        "an end before the start": {"data_offsets": [stop, start]},
        "beyond the file": {"data_offsets": [start, 2**62]},
    }
    for lie, change in changes.items():
        told = json.dumps({**header, name: header[name] | (change or {})}).encode()
        yield lie, struct.pack("<Q", len(told) if change else 2**40) + told + body
    told = json.dumps({**header, "more": {"dtype": "U8", "shape": [0], "data_offsets": [len(body)] * 2}}).encode()
    yield "a weight too many", struct.pack("<Q", len(told)) + told + body
    told = json.dumps({key: value for key, value in header.items() if key != name}).encode()
    yield "a weight too few", struct.pack("<Q", len(told)) + told + body


LIES = ["a huge header", "a type", "a shape", "a smaller shape", "an overlap", "an end before the start"]
LIES += ["beyond the file", "a weight too many", "a weight too few"]


@pytest.mark.parametrize("lie", LIES)
def test_headers_of_weights_that_lie(refused, model, tmp_path, lie):
    folder = shutil.copytree(model, tmp_path / "model")
    data = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    made = dict(lies(json.loads(data[8 : 8 + size]), data[8 + size :]))
    assert [*made] == LIES
    (folder / "model.safetensors").write_bytes(made[lie])
    said = refused(f"oz.load({str(folder)!r})")
    assert "model.safetensors" in said or "the weights do not fit" in said
