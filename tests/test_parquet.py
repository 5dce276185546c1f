"""organza.data.parquet: images in the rows of tables, as Hugging Face's data sets have them."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from organza.data import open_data

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def pixels(seed):
    return np.random.RandomState(seed).randint(0, 256, (6, 5, 3), np.uint8)


def png(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


def write(path, names=None, group=2, **columns):
    table = pa.table(columns)
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, path, row_group_size=group)
    return path


def fields(seeds):
    return [{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds]


def values(data):
    return data.x.permute(0, 2, 3, 1).numpy()


def test_as_hugging_face_writes_it(tmp_path):
    """Several files are one set, in order; integers have the names that the file gives."""
    write(tmp_path / "train-0.parquet", ["cat", "dog"], image=fields(range(5)), label=[0, 1, 1, 0, 1])
    write(tmp_path / "train-1.parquet", ["cat", "dog"], image=fields(range(5, 8)), label=[1, 1, None])
    data = open_data(tmp_path)
    assert np.array_equal(values(data), [pixels(seed) for seed in range(8)])
    assert data.y.tolist() == [0, 1, 1, 0, 1, 1, 1, -1] and data.labels == ("cat", "dog") and data.notes == ()
    assert np.array_equal(values(open_data(tmp_path / "train-1.parquet")), [pixels(seed) for seed in (5, 6, 7)])


def test_a_label_without_a_name_is_told(tmp_path):
    path = write(tmp_path / "a.parquet", names=["cat", "dog"], image=fields(range(3)), label=[0, 1, 2])
    with pytest.raises(ValueError, match="the column label holds 2, and the file names 2 classes"):
        open_data(path)


def test_bytes_alone_and_names_as_labels(tmp_path):
    path = write(tmp_path / "a.parquet", jpeg=[png(1), png(2), png(3)], labels=["dog", "cat", "dog"], id=[1, 2, 3])
    data = open_data(path)
    assert data.labels == ("cat", "dog") and data.y.tolist() == [1, 0, 1]
    assert open_data(write(tmp_path / "b.parquet", x=[png(1)])).y is None


def test_bad_rows(tmp_path):
    rows = [png(1), None, png(2)[:40], b"hello", png(3)]
    path = write(tmp_path / "a.parquet", image=rows, label=[0, 1, 0, 1, 1])
    with pytest.raises(ValueError, match=r"000000001 cannot be read as an image \(there is no image in this row\)"):
        open_data(path)
    data = open_data(f"{path}[bad=skip]")
    assert data.y.tolist() == [0, 1] and len(data.left_out) == 3 and np.array_equal(values(data)[1], pixels(3))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [1]}, "no column holds images among label"),
        ({"image": ["text"]}, "no column holds images among image"),
        ({"a": [b"x"], "b": [b"y"]}, "2 columns could hold images among a, b"),
        ({"image": [b"x"], "label": [0.5]}, "the column label holds 0.5"),
        ({"image": [b"x"], "label": [[1]]}, "the column label holds [1]"),
        ({"image": [b"x"], "label": [-2]}, "labels must be 0 to classes - 1"),
    ],
)
def test_tables_that_are_refused(tmp_path, columns, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        open_data(write(tmp_path / "a.parquet", **columns))


def test_a_later_table_without_labels_is_refused(tmp_path):
    (tmp_path / "tables").mkdir()
    write(tmp_path / "tables" / "0.parquet", image=[png(0)], label=[0])
    write(tmp_path / "tables" / "1.parquet", image=[png(1)])
    with pytest.raises(ValueError, match=r"1.parquet: the column label cannot be read"):
        open_data(tmp_path / "tables")


def test_files_that_are_no_tables(tmp_path):
    whole = write(tmp_path / "a.parquet", image=[png(i) for i in range(6)], label=[0] * 6).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 9):
        (tmp_path / "a.parquet").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="cannot be read as a parquet archive"):
            open_data(tmp_path / "a.parquet")
    spoilt = bytearray(whole)
    spoilt[len(png(0)) // 2 : len(png(0)) // 2 + 40] = bytes(40)
    (tmp_path / "a.parquet").write_bytes(spoilt)
    with pytest.raises(ValueError, match=r"a\.parquet"):
        open_data(tmp_path / "a.parquet")


def test_without_pyarrow(tmp_path, monkeypatch):
    import sys

    path = write(tmp_path / "a.parquet", image=[png(1)])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"install pyarrow: pip install 'organza\[parquet\]'"):
        open_data(path)
