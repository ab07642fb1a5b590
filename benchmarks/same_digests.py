"""Whether a study gives the same bits on the three backends: ``python -m benchmarks.same_digests [--set scale=0.1]``.

Each backend computes all tasks of the study with processes and a home of its own, so nothing is kept from before. The
digests of the results are left in `--folder`, so the backends may also be run one by one (`--on cluster`); what is there is
compared in the end. Ends with one JSON line; exit 0 where all digests are equal.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from contextlib import closing
from pathlib import Path

from manybody.core.study import Study
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.run import RunOptions, run_study
from manybody.testing.three_backends import BACKENDS, NODES, Silent, Where, network


def main() -> int:
    """Run, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, nargs="?", default=Path("studies/lennard-jones-liquid"))
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as of `manybody run`")
    parser.add_argument("--on", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--folder", type=Path, default=Path("runs/same-digests"))
    options = parser.parse_args()
    study = load_study(options.study, options.set)
    folder = options.folder.absolute() / study.digest[:12]
    for where in options.on:
        start = time.perf_counter()
        shutil.rmtree(folder / where, ignore_errors=True)
        found = results_on(where, study, folder / where)
        (folder / f"{where}.json").write_text(json.dumps(found), encoding="utf-8")
        print(f"{where}: {len(found)} results in {time.perf_counter() - start:.1f} s", flush=True)
    results = {where: json.loads(path.read_text()) for where in BACKENDS if (path := folder / f"{where}.json").exists()}
    tasks = [task.digest for task in expand(study).tasks]
    equal = sum(len({found.get(task) for found in results.values()}) == 1 for task in tasks)
    print(
        json.dumps({"study": study.name, "digest": study.digest, "backends": list(results), "tasks": len(tasks), "equal": equal})
    )
    return 0 if equal == len(tasks) else 1


def results_on(where: Where, study: Study, folder: Path) -> dict[str, str]:
    """Compute a study on a backend of its own below `folder`; the digest of each task's result, by the task's digest.

    All tasks of the study, those of its checks included. What the certificate says of the results is not looked at.
    """
    with network(where, folder) as (home, address):
        run_study(study, RunOptions(home=home.path, out=folder / "out", network=address, workers=NODES), Silent())
        with closing(home.ledger()) as ledger:
            rows = {task.digest: ledger.result(task.digest) for task in expand(study).tasks}
    return {task: row.result for task, row in rows.items() if row is not None}


if __name__ == "__main__":
    sys.exit(main())
