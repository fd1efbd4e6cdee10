import tempfile, statistics
from contextlib import ExitStack
from pathlib import Path
import benchmarks.registry as b
from tests.registry.cluster import registry_cluster
with ExitStack() as s:
    f=Path(s.enter_context(tempfile.TemporaryDirectory(prefix="cgw-bench-",dir="/dev/shm")))
    made=s.enter_context(registry_cluster(f,"bookworm")); made.start_agents()
    found=list(b.agreements(made)); print(found); print(b._agreed(found))
