import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from acquisition.errors import RecordingError, SourceNotFoundError
from app.numpy_pickle import read_numpy_pickle


def dictionary() -> dict[str, object]:
    rng = np.random.default_rng(0)
    return {
        "preprocessed_eeg_data": rng.normal(size=(20, 4, 3, 50)),
        "fortran": np.asfortranarray(rng.normal(size=(200, 100)).astype(np.float32)),
        "big_endian": np.arange(5, dtype=">i4"),
        "ch_names": ["O1", "Oz", "O2"],
        "times": np.linspace(-0.2, 0.8, 50),
        "texts": np.array(["a", "été"]),
        "objects": np.array([[1, 2], "x", None], dtype=object),
        "count": np.int64(7),
        "nested": {"yes": (True, 1.5, -(2**40))},
    }


@pytest.mark.parametrize("how", ["numpy.save", 3, 4])
def test_a_dictionary_of_arrays_is_read_as_it_was_written(tmp_path: Path, how: object) -> None:
    path, written = tmp_path / "a.npy", dictionary()
    if how == "numpy.save":
        np.save(path, written, allow_pickle=True)  # type: ignore[arg-type]
    else:
        path.write_bytes(pickle.dumps(written, protocol=how))  # type: ignore[arg-type]

    read = read_numpy_pickle(path)

    assert list(read) == list(written)
    for name, value in written.items():
        if isinstance(value, np.ndarray):
            assert read[name].dtype == value.dtype
            np.testing.assert_array_equal(read[name], value)
        else:
            assert read[name] == value


def test_large_arrays_are_mapped_and_small_ones_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, dictionary(), allow_pickle=True)  # type: ignore[arg-type]
    read = read_numpy_pickle(path)
    assert isinstance(read["preprocessed_eeg_data"], np.memmap)
    assert isinstance(read["fortran"], np.memmap)
    assert not isinstance(read["times"], np.memmap)


def test_a_plain_array_is_mapped_too(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(read_numpy_pickle(path), [[0, 1, 2], [3, 4, 5]])


class Malicious:
    """What a pickle from a stranger may hold: a call of any function."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("call", [os.mkdir, eval, np.load, np.frombuffer, OrderedDict])
def test_nothing_that_a_pickle_names_is_called(tmp_path: Path, call: object) -> None:
    target = tmp_path / "made by the pickle"
    argument = f"__import__('os').mkdir({str(target)!r})" if call is eval else str(target)
    path = tmp_path / "a.npy"
    np.save(path, {"ch_names": Malicious(call, argument)}, allow_pickle=True)  # type: ignore[arg-type]

    with pytest.raises(RecordingError, match=r"a\.npy was not opened: it is a pickle that asks"):
        read_numpy_pickle(path)
    assert not target.exists()


def test_an_array_type_cannot_be_called_by_another_way(tmp_path: Path) -> None:
    # "ndarray" may be named, as every array names it, but not called.
    (path := tmp_path / "a.npy").write_bytes(b"\x80\x03cnumpy\nndarray\nK\x05\x85R.")
    with pytest.raises(RecordingError, match="a call of 'ndarray'"):
        read_numpy_pickle(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
def test_a_file_that_is_cut_off_gets_a_sentence(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.npy"
    np.save(path, dictionary(), allow_pickle=True)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(RecordingError, match=r"a\.npy is damaged, or no dictionary"):
        read_numpy_pickle(path)


def test_other_files_and_none_get_a_sentence(tmp_path: Path) -> None:
    (path := tmp_path / "a.npy").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(RecordingError, match="is damaged, or no dictionary"):
        read_numpy_pickle(path)
    with pytest.raises(SourceNotFoundError, match="There is no file"):
        read_numpy_pickle(tmp_path / "nowhere.npy")
