"""python -m benchmarks [--paper-code DIR --paper-python PYTHON]: all of it, then the tables."""

import sys

from benchmarks import (
    argon_atoms,
    argon_forces,
    argon_training,
    homework_grading,
    many_body,
    rollout,
    step_time,
    tables,
    throughput,
)

if __name__ == "__main__":
    print(step_time.main(sys.argv[1:]))
    print(throughput.main(sys.argv[1:]))
    print(rollout.main([]))
    print(many_body.main([]))
    print(argon_training.main([]))
    print(argon_forces.main([]))
    print(argon_atoms.main([]))
    print(homework_grading.main([]))
    print(tables.main())
