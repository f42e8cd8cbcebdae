"""Outputs are never mixed up with inputs, whatever way either is written; columns of arrays are positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import dask_em
from dask_em.cli import em
from dask_em.cli.places import columns_of, options_for, refuse_clash
from dask_em.errors import ConfigurationError


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """A Zarr array, and a model of it beside it."""
    path = tmp_path / "x.zarr"
    x = np.random.default_rng(0).normal(size=(500, 2))
    zarr.create_array(str(path), data=x, chunks=(200, 2))
    dask_em.GaussianMixture(1).fit(x).save(tmp_path / "m.safetensors")
    return path


@pytest.mark.parametrize("written", ["{}", "file://{}", "local://{}", "{}/", "{}/../x.zarr"])
@pytest.mark.parametrize("command", ["predict", "fit"])
def test_the_data_is_never_replaced_by_the_output(array: Path, command: str, written: str) -> None:
    out = written.format(array)
    before = {f: f.read_bytes() for f in sorted(array.rglob("*")) if f.is_file()}
    start = ["predict", str(array.parent / "m.safetensors")]
    if command == "fit":
        start = ["fit", "gaussian-mixture", "--n-components", "1"]
    result = CliRunner().invoke(em, [*start, str(array), "--out", out, "--overwrite"])
    assert result.exit_code == 78, result.output
    assert "mixed up with the data" in result.stderr
    assert {f: f.read_bytes() for f in sorted(array.rglob("*")) if f.is_file()} == before


@pytest.mark.parametrize(
    "data, out",
    [
        ("{}/x", "file://{}/x/deeper"),
        ("file://{}/x/part.parquet", "{}/x"),
        ("{}/*.parquet", "{}/0.parquet"),
        ("{}/*.parquet", "{}/0.parquet/part"),
        ("{}/x/*.parquet", "{}/x"),
        ("{}/x/y=*/*.parquet", "file://{}/x/y=1"),
        ("memory://a/x", "memory:///a/x/"),
        ("s3://bucket/a/*.parquet", "s3a://bucket/a/0.parquet"),
        ("simplecache::file://{}/x", "{}/x"),
    ],
)
def test_one_place_written_in_two_ways_is_one_place(tmp_path: Path, data: str, out: str) -> None:
    with pytest.raises(ConfigurationError, match="mixed up"):
        refuse_clash([data.format(tmp_path)], out.format(tmp_path))


@pytest.mark.parametrize(
    "data, out",
    [
        ("{}/*.parquet", "{}/labels.zarr"),
        ("{}/x.zarr", "{}/x.zarr2"),
        ("s3://bucket/a", "s3://other/a"),
        ("memory://tmp/x", "/tmp/x"),
        ("unheard-of://x", "{}/x"),
    ],
)
def test_other_places_are_allowed(tmp_path: Path, data: str, out: str) -> None:
    refuse_clash([data.format(tmp_path)], out.format(tmp_path))


def test_storage_options_are_for_urls_of_other_places() -> None:
    assert options_for("s3://a/b", {"anon": True}) == {"anon": True}
    assert options_for("/a/b", {"anon": True}) is None
    assert options_for("file:///a/b", {"anon": True}) is None


def test_columns_of_a_remote_array_are_positions_whatever_its_name() -> None:
    zarr.create_array("memory://points", data=np.zeros((4, 3)), overwrite=True)
    assert columns_of(["memory://points"], ["0", "2"], None) == [0, 2]
    assert columns_of(["memory://points"], ["a"], None) == ["a"]
    assert columns_of(["memory://numbers/1.parquet"], ["0", "2"], None) == ["0", "2"]
    assert columns_of(["memory://numbers/*"], ["0", "2"], None) == ["0", "2"]
