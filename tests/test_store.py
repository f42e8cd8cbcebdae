"""The store: what goes in comes out to the last bit, and nothing else ever comes out."""

import json
import os
import pickle
import random
import stat
import struct
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from safetensors.numpy import load as read_safetensors
from safetensors.numpy import save as safetensors_bytes

from dask_em import store, store_file
from dask_em.errors import StoreError


@store.register
@dataclass(frozen=True)
class Shape:
    means: np.ndarray
    weights: tuple = ()
    label: str = "none"

    def __post_init__(self):
        if self.label == "bad":
            raise ValueError("label is bad")


@store.register
@dataclass(frozen=True)
class Run:
    shape: Shape
    loglik: float = -np.inf
    notes: list = field(default_factory=list)


@dataclass(frozen=True)
class Unregistered:
    x: int = 0


def same(a, b):
    """Equal in type, bits, dtype, shape and layout, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        layout = not isinstance(a, np.ndarray) or a.flags.c_contiguous == b.flags.c_contiguous
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() and layout
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return same(vars(a), vars(b))
    return a == b


RNG = np.random.default_rng(0)
ARRAYS = [np.arange(6).astype(t).reshape(2, 3) for t in ["?", *"bBhHiIlLefd"]]
TREES = {
    "scalars": [
        None,
        True,
        False,
        0,
        -1,
        2**53,
        -(2**53) - 1,
        10**6000,
        -(2**9000),
        "",
        "é\ud800\0",
        "d",
        "__metadata__",
    ],
    "floats": [0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, np.inf, -np.inf, np.nan, -np.nan, 1e22, 1 / 3],
    "nan payload": struct.unpack("d", struct.pack("Q", 0x7FF80000DEADBEEF))[0],
    "containers": {
        "t": (),
        "l": [],
        "d": {},
        "n": [(1, [2, (3,)]), {"a": {"f": "0"}}],
        "c": ["x"],
        "order": {"z": 1, "a": 2},
    },
    "dtypes": ARRAYS,
    "numpy scalars": [a[1, 1] for a in ARRAYS] + [np.float64("nan"), np.float32(-0.0), np.bool_(False), np.int64(-1)],
    "shapes": [
        np.array(1.5),
        np.zeros((0,)),
        np.zeros((3, 0, 2), np.int8),
        np.asfortranarray(RNG.normal(size=(5, 3, 2))),
    ],
    "views": [RNG.normal(size=(3, 4)).T, np.array([np.nan, -0.0, np.inf])],
    "array alone": RNG.normal(size=3),
    "names": {
        "a/b": np.ones(1),
        "a": {"b": np.zeros(1)},
        "__metadata__": np.ones(2),
        "../../x": np.ones(3),
        "é\ud800": np.ones(4),
    },
    "generators": [np.random.default_rng(3).bit_generator.state, np.random.RandomState(3).get_state(legacy=False)],
    "dataclasses": {"runs": [Run(Shape(np.eye(2), (1.0, np.float32(2)), "é"), np.nan, [Run(Shape(np.zeros(0)))])]},
}


@pytest.mark.parametrize("name", TREES)
def test_round_trip(tmp_path, name):
    path = tmp_path / "a.safetensors"
    store.save(TREES[name], path, kind="model")
    back = store.load(path, kind="model")
    assert same(back, TREES[name])
    read_safetensors(path.read_bytes())  # any safetensors reader can read it


def test_layouts_that_are_no_dense_block_come_back_equal(tmp_path):
    tree = [np.arange(10.0)[::2], np.arange(6, dtype=">i4"), np.broadcast_to(1.5, (2, 2))]
    store.save(tree, tmp_path / "a", kind="model")
    for a, b in zip(tree, store.load(tmp_path / "a", kind="model"), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.flags.writeable
        assert b.flags.aligned


def test_a_generator_continues(tmp_path):
    rng = np.random.default_rng(5)
    rng.normal(size=7)
    store.save(rng.bit_generator.state, tmp_path / "a", kind="checkpoint")
    other = np.random.default_rng()
    other.bit_generator.state = store.load(tmp_path / "a", kind="checkpoint")
    assert rng.normal() == other.normal()


CYCLE: list = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "tree, part",
    [
        ({"a": [np.array([None])]}, "/a/0 is of dtype object"),
        (np.array([1j]), "the tree is of dtype complex128"),
        (np.array(["a"]), "dtype <U1"),
        (np.array(["2020"], "M8[Y]"), "datetime64"),
        (np.ma.array([1.0], mask=[True]), "masked"),
        ({"a": {1, 2}}, "/a is of type builtins.set"),
        ({1: 2}, "keys that are not str"),
        (b"x", "builtins.bytes"),
        (Unregistered(), "store.register"),
        (lambda: 0, "builtins.function"),
        (CYCLE, "64 deep"),
        ([0] * (2**21 + 1), "make arrays of them"),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_written(tmp_path, tree, part):
    with pytest.raises(StoreError) as err:
        store.save(tree, tmp_path / "a", kind="model")
    assert part in str(err.value)
    assert str(tmp_path / "a") in str(err.value)
    assert not list(tmp_path.iterdir())


def test_register_refuses_what_is_not_frozen_and_a_name_that_is_taken():
    @dataclass
    class Loose:
        x: int

    with pytest.raises(TypeError, match="frozen"):
        store.register(Loose)
    with pytest.raises(TypeError, match="rename"):
        store.register(dataclass(frozen=True)(type("Run", (), {"__module__": "elsewhere"})))
    assert store.register(Run) is Run


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_midway_changes_nothing(tmp_path, monkeypatch, call, error):
    path = tmp_path / "a"
    store.save([1], path, kind="model")
    before = path.read_bytes()

    def fail(*_):
        raise error

    if call == "write":
        fdopen = open

        def half(*args):
            file = fdopen(*args)
            write = file.write

            class Half:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def write(self, data):
                    write(data[: len(data) // 2])
                    raise error

            return Half()

        monkeypatch.setattr(store_file, "open", half, raising=False)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError if isinstance(error, OSError) else KeyboardInterrupt) as err:
        store.save([2], path, kind="model")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    if isinstance(error, OSError):
        assert str(path) in str(err.value)
        assert "No space left" in str(err.value)


def test_overwrite_false_refuses_and_keeps(tmp_path):
    path = tmp_path / "a"
    store.save([1], path, kind="model", overwrite=False)
    with pytest.raises(StoreError, match="exists: choose another name"):
        store.save([2], path, kind="model", overwrite=False)
    assert store.load(path, kind="model") == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_of_many_writers_without_overwrite_exactly_one_wins(tmp_path):
    won = []

    def write(i):
        try:
            store.save([i], tmp_path / "a", kind="model", overwrite=False)
            won.append(i)
        except StoreError:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert store.load(tmp_path / "a", kind="model") == won
    assert len(list(tmp_path.iterdir())) == 1


def test_modes_and_links_are_kept(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    store.save([1], path, kind="model")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    link.symlink_to(path)
    store.save([2], f"file://{link}", kind="model")
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert store.load(path, kind="model") == [2]


@pytest.mark.parametrize(
    "place, part",
    [
        ("no/such/a", "no folder"),
        ("", "is a folder"),
        ("nonsense://x/a", "nonsense"),
        ("http://u:pw@127.0.0.1:9/a", ""),
    ],
)
def test_places_that_cannot_be_written(tmp_path, place, part):
    path = place if "://" in place else f"{tmp_path}/{place}"
    with pytest.raises(StoreError) as err:
        store.save([1], path, kind="model")
    assert part in str(err.value)
    assert "pw@" not in str(err.value)


# ---------------------------------------------------------------- reading what should not be trusted


def container(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def forged(tree, arrays=None, **changes):
    """A file with a right checksum around whatever tree text and metadata."""
    metadata = {"format": "dask_em", "schema": "1", "kind": "model", "version": "0", "tree": tree} | changes
    return store_file.pack(arrays or {}, metadata)


def entry(dtype="F64", shape=(1,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


VALID = forged("[1]")
TENSOR = {"__metadata__": {"format": "dask_em", "schema": "1", "kind": "model", "tree": "[]"}}
HOSTILE = {
    "empty": b"",
    "seven bytes": b"1234567",
    "zeros": bytes(1000),
    "random": random.Random(0).randbytes(5000),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(500),
    "zip": b"PK\x03\x04" + bytes(500),
    "pickle": pickle.dumps({"a": np.ones(3)}),
    "gigantic header": container(b"{}", length=2**63),
    "header over the limit": container(b"{}", length=2**26 + 1),
    "header longer than the file": container(b"{}", length=2**26),
    "deep header": container(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "very many values": container(b'{"a":[' + b"[]," * 2**21 + b"0]}"),
    "not utf-8": container(b'{"\xff\xfe": 1}'),
    "utf-16": container('{"a": 1}'.encode("utf-16")),
    "not json": container(b"{" + b"x" * 50),
    "list": container(b"[1, 2]  "),
    "key twice": container(b'{"__metadata__": {"format": "x", "format": "dask_em"}}'),
    "metadata not strings": container({"__metadata__": {"format": 3}}),
    "metadata a list": container({"__metadata__": ["dask_em"]}),
    "integer of many digits": container(b'{"a": ' + b"9" * 10_000 + b"}"),
    "gigantic shape": container(TENSOR | {"a": entry(shape=(2**40, 2**40), offsets=(0, 2**40))}),
    "gigantic size": container(TENSOR | {"a": entry(shape=(2**37,), offsets=(0, 2**40))}),
    "gigantic empty": container(TENSOR | {"a": entry(shape=(2**62, 0), offsets=(0, 0))}),
    "shape disagrees": container(TENSOR | {"a": entry(shape=(2,))}, bytes(8)),
    "negative shape": container(TENSOR | {"a": entry(shape=(-1, -1))}, bytes(8)),
    "float shape": container(TENSOR | {"a": entry(shape=(1.0,))}, bytes(8)),
    "bool shape": container(TENSOR | {"a": entry(shape=(True,))}, bytes(8)),
    "many axes": container(TENSOR | {"a": entry(shape=(1,) * 65)}, bytes(8)),
    "overlap": container(TENSOR | {"a": entry(), "b": entry(offsets=(0, 8))}, bytes(8)),
    "gap": container(TENSOR | {"a": entry(offsets=(8, 16))}, bytes(16)),
    "backwards": container(TENSOR | {"a": entry(offsets=(8, 0))}, bytes(8)),
    "other dtype": container(TENSOR | {"a": entry("BF16", (4,))}, bytes(8)),
    "no dtype": container(TENSOR | {"a": {"shape": [1]}}, bytes(8)),
    "unhashable dtype": container(TENSOR | {"a": {"dtype": [], "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "no checksum": container(TENSOR),
    "bool of 2": forged('{"a":"x"}', {"x": np.array([2], "u1").view(bool)}),
    "foreign safetensors": safetensors_bytes({"w": np.ones(3)}, {"format": "pt"}),
    "trailing bytes": VALID + b"\0",
    "truncated": VALID[:-3],
    "schema text": forged("[]", schema="one"),
    "schema huge": forged("[]", schema="9" * 5000),
    "schema none": forged("[]", schema=""),
    "newer schema": forged("[]", schema="2", version="9.1"),
    "other kind": forged("[]", kind="checkpoint"),
    "tree not json": forged("[1"),
    "tree deep": forged("[" * 100 + "]" * 100),
    "tree very deep": forged("[" * 200_000),
    "tree deep tags": forged('{"t":[' * 100 + "]}" * 100),
    "tree key twice": forged('{"d":{"a":1,"a":2}}'),
    "tree NaN": forged("[NaN]"),
    "tree infinity": forged("[-Infinity]"),
    "tree overflow": forged("[1e999]"),
    "unknown tag": forged('{"x":1}'),
    "two tags": forged('{"t":[],"d":{}}'),
    "no tag": forged("{}"),
    "tag of another type": forged('{"d":[]}'),
    "unknown class": forged('{"c":["os.system",{}]}'),
    "class by path": forged('{"c":["../../Run",{}]}'),
    "dunder class": forged('{"c":["__class__",{}]}'),
    "class name a list": forged('{"c":[["Run"],{}]}'),
    "unknown field": forged('{"c":["Run",{"shape":1,"more":2}]}'),
    "dunder field": forged('{"c":["Run",{"shape":1,"__class__":2}]}'),
    "missing field": forged('{"c":["Run",{}]}'),
    "refused by the class": forged('{"c":["Shape",{"means":1,"label":"bad"}]}'),
    "no such array": forged('{"a":"/etc/passwd"}'),
    "array twice": forged('[{"a":"x"},{"a":"x"}]', {"x": np.ones(1)}),
    "array nowhere": forged("[]", {"x": np.ones(1)}),
    "bad hex int": forged('{"i":"0x1_0"}'),
    "bad float": forged('{"f":"zz"}'),
    "bad scalar": forged('{"n":["F64","00"]}'),
    "scalar of no type": forged('{"n":["OBJ","00"]}'),
    "bool scalar of 2": forged('{"n":["BOOL","02"]}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_get_one_sentence(tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(StoreError) as err:
        store.load(path, kind="model")
    message = str(err.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))


def test_sentences_say_what_to_do(tmp_path):
    def message(name, kind="model"):
        (tmp_path / "a").write_bytes(HOSTILE[name])
        with pytest.raises(StoreError) as err:
            store.load(tmp_path / "a", kind=kind)
        return str(err.value)

    assert "holds a checkpoint, not a model" in message("other kind")
    assert "dask_em 9.1 with schema 2" in message("newer schema")
    assert "upgrade dask_em" in message("newer schema")
    assert "cut short" in message("truncated")
    assert "not one of dask_em" in message("foreign safetensors")
    assert "does not begin like one" in message("hdf5")
    with pytest.raises(StoreError, match="no such file"):
        store.load(tmp_path / "nothing", kind="model")
    with pytest.raises(StoreError, match="is a folder"):
        store.load(tmp_path, kind="model")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="not a regular file"):
        store.load(tmp_path / "pipe", kind="model")


def test_older_files_without_a_new_field_take_its_default(tmp_path):
    (tmp_path / "a").write_bytes(forged('{"c":["Run",{"shape":null}]}'))
    assert store.load(tmp_path / "a", kind="model") == Run(None)


def test_describe_reads_no_arrays(tmp_path):
    store.save(TREES["dataclasses"], tmp_path / "a", kind="model")
    header = store.describe(tmp_path / "a")
    assert (header.kind, header.schema, header.nbytes) == ("model", 1, (tmp_path / "a").stat().st_size)
    assert header.arrays["/runs/0/shape/means"] == ("F64", (2, 2))
    (tmp_path / "a").write_bytes(VALID[:-3])
    with pytest.raises(StoreError, match="cut short"):
        store.describe(tmp_path / "a")


def fuzz(path, tree, rounds, seed):
    """Damage a valid file in many ways; return how many damaged ones were still read."""
    store.save(tree, path, kind="model")
    valid = path.read_bytes()
    rng = random.Random(seed)
    header = 8 + int.from_bytes(valid[:8], "little")
    survived = 0
    for _ in range(rounds):
        data = bytearray(valid)
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            at = rng.randrange(rng.choice([8, header, len(data)]))
            how = rng.randrange(5)
            if how == 0:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            elif how == 1:
                data[at % len(data)] = rng.choice(b'0123456789-{}[]",:\\eE.\0\xff')
            elif how == 2:
                del data[at:]
            elif how == 3:
                del data[at : at + rng.randrange(1, 9)]
            else:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            if not data:
                break
        path.write_bytes(data)
        try:
            back = store.load(path, kind="model")
        except StoreError:
            continue
        assert same(back, tree)
        survived += 1
    return survived


def test_damage_is_found(tmp_path):
    tree = [TREES["containers"], TREES["dataclasses"], TREES["floats"], ARRAYS]
    assert fuzz(tmp_path / "a", tree, 4000, 0) < 100  # white space in the header, and no-op edits


@pytest.mark.faults
def test_damage_is_found_in_a_long_campaign(tmp_path):
    for seed in range(1, 50):
        fuzz(tmp_path / "a", list(TREES.values()), 4000, seed)


# ---------------------------------------------------------------- URLs


@pytest.fixture(scope="module")
def bucket():
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "k",
        "secret": "s",
        "endpoint_url": f"http://{host}:{port}",
    }
    import s3fs

    s3fs.S3FileSystem(**options).mkdir("models")
    yield "s3://models", options
    server.stop()


def test_s3(bucket):
    url, options = bucket
    path = f"{url}/deep/a.safetensors"
    assert not store.exists(path, storage_options=options)
    store.save(TREES["dataclasses"], path, kind="model", storage_options=options, overwrite=False)
    assert store.exists(path, storage_options=options)
    assert same(store.load(path, kind="model", storage_options=options), TREES["dataclasses"])
    with pytest.raises(StoreError, match=f"{path} exists"):
        store.save([2], path, kind="model", storage_options=options, overwrite=False)
    store.save([2], path, kind="model", storage_options=options)
    assert store.load(path, kind="model", storage_options=options) == [2]
    assert store.describe(path, storage_options=options).kind == "model"
    for absent in (f"{url}/nothing", "s3://no-such-bucket/a"):
        with pytest.raises(StoreError, match="cannot be read: there is no such"):
            store.load(absent, kind="model", storage_options=options)


def test_s3_errors_are_sentences(bucket):
    url, options = bucket
    with pytest.raises(StoreError, match="no-such-bucket/a cannot be written"):
        store.save([1], "s3://no-such-bucket/a", kind="model", storage_options=options)
    import s3fs

    s3fs.S3FileSystem(**options).pipe_file("models/bad", VALID[:-3])
    with pytest.raises(StoreError, match="cut short"):
        store.load(f"{url}/bad", kind="model", storage_options=options)


def test_memory_url_and_home(tmp_path, monkeypatch):
    store.save((1,), "memory://x/a", kind="checkpoint")
    assert store.load("memory://x/a", kind="checkpoint") == (1,)
    monkeypatch.setenv("HOME", str(tmp_path))
    store.save((2,), "~/a", kind="checkpoint")
    assert store.load(tmp_path / "a", kind="checkpoint") == (2,)
