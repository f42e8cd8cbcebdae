"""``python -m dask_em`` is the program ``dask-em``."""

from dask_em.cli import main

if __name__ == "__main__":
    main()
