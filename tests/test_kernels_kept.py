"""Compiled code that is kept between processes: when it is stale, and where it cannot be kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dask_em
from dask_em.kernels import gaussian_full, gaussian_tiles, simd


def test_kept_code_goes_stale_with_any_file_of_the_folder():
    """By an attribute that is no part of numba's interface: without it, old code would be run in silence."""
    for function in (gaussian_full.sums_2, gaussian_full.sums_any, gaussian_tiles.into_groups):
        assert function._cache._cache_file._source_stamp == simd._STAMP
    newest = max(path.stat().st_mtime for path in Path(simd.__file__).parent.glob("*.py"))
    assert simd._STAMP[0] == newest


def test_kernels_work_where_no_folder_can_be_written_to(tmp_path):
    copy = tmp_path / "dask_em"
    shutil.copytree(Path(dask_em.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "kernels" / "__pycache__").write_text("a file where numba wants a folder")
    code = (
        "import numpy as np\n"
        "from dask_em.kernels import gaussian_tiles as t\n"
        f"assert t.__file__.startswith({str(tmp_path)!r})\n"
        "rows = next(t.slabs(np.arange(6.0).reshape(3, 2), None, np.zeros(2), 2, 1))\n"
        "assert rows.x[:3].tolist() == [0.0, 2.0, 4.0]\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA")}
    nowhere = {**clean, "HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=nowhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
