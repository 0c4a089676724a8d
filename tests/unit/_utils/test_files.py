import pytest

from keras_acclip._utils import files


def test_a_file_appears_whole_with_its_folder(tmp_path):
    path = tmp_path / "folder" / "file"
    with files.replacing(path) as partial:
        partial.write_bytes(b"half")
        assert not path.exists()
        partial.write_bytes(b"whole")
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"whole"


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "folder" / "file"
    files.write_atomically(path, b"old")

    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
