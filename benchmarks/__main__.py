"""python -m benchmarks [--paper-code DIR --paper-python PYTHON]: all of it, then the tables."""

import sys

from benchmarks import rollout, step_time, tables

if __name__ == "__main__":
    print(step_time.main(sys.argv[1:]))
    print(rollout.main([]))
    print(tables.main())
