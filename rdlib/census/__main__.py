"""Rate and distortion of every tensor of a checkpoint.

python -m rdlib.census MODEL OUT
"""

import argparse
import sys

import joblib

from rdlib.census.run import census


def main() -> None:
    """Measure every tensor of a checkpoint; a run that was stopped goes on where it was."""
    parser = argparse.ArgumentParser(prog="python -m rdlib.census", description=main.__doc__)
    parser.add_argument("model", help="embedded, a local folder, or a hub id")
    parser.add_argument("out", help="folder for census.parquet, census.html and the parts")
    parser.add_argument("--scalar", action="store_true", help="only what follows from the histograms")
    parser.add_argument("--blahut", action="store_true", help="also R(D) of the weights themselves")
    parser.add_argument("--sample", type=int, default=0, help="also trellises and lattices, on so many rows")
    parser.add_argument("--jobs", type=int, default=-1, help="local processes (default: one a core)")
    parser.add_argument("--cluster", help="address of a Dask scheduler, like tcp://host:8786")
    given = parser.parse_args()
    try:
        with backend(given.cluster):
            file = census(given.model, given.out, not given.scalar, given.blahut, given.sample, given.jobs)
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:  # no room, no right to write
        sys.exit(f"{error}. The finished tensors are kept; the next run goes on from there.")
    except (KeyboardInterrupt, SystemError) as error:
        if not isinstance(error.__cause__ or error, KeyboardInterrupt):  # compiled code wraps it
            raise
        sys.exit("Stopped. The finished tensors are kept; the next run goes on from there.")
    print(f"Look at {file.with_suffix('.html')}; every point is in {file}.")


def backend(cluster: str | None) -> joblib.parallel_config:
    """Where joblib sends the tensors: to the Dask cluster of this address, or to local processes.

    Raises:
        ValueError: Dask is not installed.
    """
    if not cluster:
        return joblib.parallel_config("loky")
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("A cluster needs Dask: pip install -e '.[cluster]'.") from None
    Client(cluster)  # becomes the client of joblib's backend
    return joblib.parallel_config("dask")


if __name__ == "__main__":
    main()
