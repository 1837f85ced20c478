"""Owns how the child process of a Python function finds the daemon's modules: from where this file lies, whatever the import path says.

This is a program of its own, `child_program.py FUNCTION HANDLER`. The function may have packages with the names of the daemon's,
before them on the import path.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

OWN = ("poller", "adapters")
"""The names of the daemon's packages."""


def import_own(root: str) -> None:
    """Imports the daemon's packages from the folder `root`. Their modules are then found through them."""
    for name in OWN:
        spec = PathFinder.find_spec(name, [root])
        assert spec is not None, f"{root} has no package {name}"
        assert spec.loader is not None, f"{root}/{name} is no package"
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


if __name__ == "__main__":
    import_own(os.path.normpath(f"{__file__}/../../../.."))
    from adapters.invokers.handlers.child import main

    main()
