"""Where joblib sends its work: processes here, or the workers of a Dask cluster."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from melanoma_lib.errors import SettingsError


@contextmanager
def workers(backend: str = "loky", jobs: int = 1, scheduler: str | None = None) -> Iterator[None]:
    """Send what joblib runs in the body to these workers.

    Args:
        backend: of joblib. ``dask`` needs the kit's extra of that name.
        jobs: workers of a Dask cluster that is started here, for the body, one piece of work at a time each.
        scheduler: address of a running Dask scheduler, such as ``tcp://node1:8786``, whose workers see the same folders and have
            the kit installed; then no cluster is started.

    Raises:
        SettingsError: if joblib knows no such backend, a scheduler is given to another one than Dask, or Dask is not installed.
    """
    from joblib import parallel_config

    if scheduler and backend != "dask":
        raise SettingsError(f"a scheduler ({scheduler}) takes work from the dask backend only, got {backend}: add --backend dask")
    if backend != "dask":
        try:
            known = parallel_config(backend)
        except ValueError as error:
            raise SettingsError(f"backend={backend}: expected dask or one that joblib knows; {error}") from error
        with known:
            yield
        return
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise SettingsError('the dask backend needs Dask: python -m pip install -e ".[dask]"') from error
    here = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    with nullcontext(scheduler) if scheduler else LocalCluster(**here) as cluster, Client(cluster), parallel_config("dask"):
        yield
