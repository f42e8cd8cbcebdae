"""Options: defaults, what overrides them, and what is refused."""

import os
import subprocess
import sys

import dask
import pytest
import yaml

from dask_em import config
from dask_em.config import option
from dask_em.errors import ConfigurationError


def test_every_default_is_usable_and_every_option_has_a_default():
    with open(os.path.join(os.path.dirname(config.__file__), "dask_em.yaml"), encoding="utf-8") as file:
        tree = yaml.safe_load(file)["em"]
    named = {k for k, v in tree.items() if not isinstance(v, dict)} | {f"cluster.{k}" for k in tree["cluster"]}
    assert named == set(config._OPTIONS)
    assert all(option(name) > 0 for name in named)
    assert option("sample-bytes") == 256 * 2**20


def test_threads_follow_the_affinity_of_the_process():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert option("threads") == 1
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize(
    "name, value",
    [
        ("threads", 0),
        ("threads", True),
        ("threads", "many"),
        ("block-bytes", "large"),
        ("block-bytes", None),
        ("block-bytes", "-1 MiB"),
        ("sample-bytes", float("inf")),
        ("cluster.workers-timeout", "soon"),
        ("cluster.batch-seconds", 0),
        ("cluster.batch-seconds", float("nan")),
        ("cluster.retries", 1.5),
        ("cluster.retries", -1),
    ],
)
def test_a_value_without_sense_is_named(name, value):
    with dask.config.set({f"em.{name}": value}), pytest.raises(ConfigurationError, match=f"em.{name} is .*should be"):
        option(name)


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="block-bytes"):
        option("bloc-bytes")


def test_a_section_set_to_a_scalar_is_an_error_not_a_crash():
    with dask.config.set({"em.cluster": 3}), pytest.raises(ConfigurationError, match="em.cluster.retries"):
        option("cluster.retries")


def test_environment_and_files_override_defaults(tmp_path):
    (tmp_path / "mine.yaml").write_text("em:\n  cluster:\n    retries: 9\n")
    names = ("cluster.retries", "block-bytes", "threads")
    code = f"from dask_em.config import option; print(*map(option, {names}))"
    env = os.environ | {"DASK_CONFIG": str(tmp_path), "DASK_EM__BLOCK_BYTES": "3 MiB", "DASK_EM__THREADS": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["9", str(3 * 2**20), "7"]
    assert (tmp_path / "dask_em.yaml").read_text().splitlines()[2].startswith("# em:")  # nothing but comments


def test_defaults_survive_a_setting_made_before_they_were_first_asked_for():
    code = """
import dask
from dask_em.config import option
with dask.config.set({"em.cluster.retries": 1}):
    assert option("cluster.retries") == 1
assert option("cluster.retries") == 3
assert option("block-bytes") > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
