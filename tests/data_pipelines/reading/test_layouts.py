"""Which layout a folder is taken for."""

import dataclasses
import pickle

import pytest

from data_pipelines.errors import DataError
from data_pipelines.reading.names import fault_of_name, leads_outside, natural_key
from data_pipelines.reading.recognise import read_table


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def unified(root):
    (root / "v1m").mkdir(parents=True)
    write(root / "metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label\na,a_0,0,0,cat,test,v1m\n")


def first_release(root):
    (root / "Multi-sources" / "ms3_data").mkdir(parents=True)
    write(root / "Multi-sources" / "ms3_meta_data.csv", "name,split\na_0,test\n")


def vpo(root):
    header = "cateName,cateId,img_Id,ann_Ids,vgg_file,split,audio_pos,multi_instance"
    write(root / "VPO-SS" / "vpo_ss_data_stereo.csv", f"{header}\ncat,17,1,2,s,val,0.5,0\n")
    write(root / "audios" / "s.wav")


def rearranged(root):
    (root / "VPO-SS").mkdir(parents=True)
    write(root / "vpo_data_clean.csv", "a,b,c,d,e,f\nu,u.jpg,u.png,[1],test,VPO-SS\n")


def plain(root):
    write(root / "clip" / "frames" / "0.png")
    write(root / "clip" / "audio.wav")


LAYOUTS = {
    "AVSBench, unified release": unified,
    "AVSBench, first release": first_release,
    "VPO, as published": vpo,
    "VPO, as DDESeg arranges it": rearranged,
    "plain folders": plain,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_recognised_without_being_told(tmp_path, name):
    LAYOUTS[name](tmp_path / "data")
    table = read_table(tmp_path / "data")
    assert table.layout == name and len(table.clips) == 1
    assert table.roots[0] == (tmp_path / "data").resolve()
    assert pickle.loads(pickle.dumps(table)) == table
    again = read_table(f"{tmp_path}/data")
    assert again == table and len(table.fingerprint) == 64


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "plain folders"])
def test_recognised_from_above(tmp_path, name):
    LAYOUTS[name](tmp_path / "above" / "inner")
    assert read_table(tmp_path / "above").layout == name


def test_two_data_sets_in_one_folder(tmp_path):
    unified(tmp_path / "AVSBench-semantic")
    vpo(tmp_path / "VPO-data")
    with pytest.raises(DataError, match="several data sets: name one of AVSBench-semantic, VPO-"):
        read_table(tmp_path)


def test_a_table_of_ones_own_is_not_avsbenchs(tmp_path):
    plain(tmp_path)
    write(tmp_path / "metadata.csv", "file_name,caption\nclip,a dog\n")
    assert read_table(tmp_path).layout == "plain folders"


def test_nothing_to_be_recognised(tmp_path):
    with pytest.raises(DataError, match="data folder missing: .*nowhere"):
        read_table(tmp_path / "nowhere")
    with pytest.raises(DataError, match="data folder missing"):
        read_table(tmp_path / "a\0b")
    write(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no data set recognised in .*docs/data\.md"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="data folder missing"):
        read_table(tmp_path / "notes.txt")


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    plain(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_table(tmp_path)


def test_names():
    good = ("a", "-_b 1", "собака", "犬", "..a", "x.mp4", "u" * 255)
    assert [fault_of_name(name) for name in good] == [None] * len(good)
    bad = ("", ".", "..", "a/b", "/a", "a\\b", "a\0", "a\n", "\udce9", "u" * 256, "ж" * 128)
    assert all(fault_of_name(name) for name in bad)


def test_order_of_names():
    names = ["10.jpg", "9.jpg", "a2b10", "a2b9", "009.jpg", "x", "a", "1" * 255]
    assert sorted(names, key=natural_key) == [
        *("009.jpg", "9.jpg", "10.jpg"),
        *("1" * 255, "a", "a2b9", "a2b10", "x"),
    ]


def test_inside_and_outside(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "inner2").mkdir()
    (inner / "up").symlink_to(tmp_path)
    assert not leads_outside(inner / "not" / "there", (inner,))
    assert leads_outside(inner / "up" / "inner2", (inner,))
    assert not leads_outside(inner / "up" / "inner" / "x", (inner,))
    assert leads_outside(tmp_path / "inner2", (inner,))
    assert not leads_outside("/etc", ("/",))


def test_tables_do_not_change(tmp_path):
    plain(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_table(tmp_path).layout = "another"
