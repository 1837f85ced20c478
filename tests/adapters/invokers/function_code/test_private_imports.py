"""Modules of a function's own under names of their own: every way of importing, two versions at once, and nothing left behind."""

import asyncio
import gc
import importlib
import logging
import pickle
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.function_code.private_imports import PrivateImports, plain_name
from tests.adapters.invokers.function_code.sites import replace, write

FILES = {
    "helper.py": "NAME = 'first'\n",
    "json.py": "raise RuntimeError('the one of the standard library is meant')\n",
    "shop/__init__.py": "",
    "shop/deep/__init__.py": "",
    "shop/deep/down.py": "from ... import never\n",
    "shop/model.py": """
from __future__ import annotations
import dataclasses, typing
@dataclasses.dataclass
class Order:
    kinds: typing.ClassVar[list[Order]] = []
    name: str = "x"
""",
    "mere/inside.py": "NAME = 'in a folder without __init__'\n",
    "vendored/__init__.py": "NAME = __name__\n",
    "vendored-1.dist-info/RECORD": "vendored/__init__.py,sha256=x,1\n",
}
IMPORTS: dict[str, tuple[str, Any]] = {
    "a module": ("import helper\nfound = helper.NAME", "first"),
    "under another name": ("import helper as other\nfound = other.NAME", "first"),
    "a name of it": ("from helper import NAME as found", "first"),
    "everything of it": ("from helper import *\nfound = NAME", "first"),
    "a package and its module": ("import shop.model\nfound = shop.model.Order().name", "x"),
    "a module from a package": ("from shop import model\nfound = model.Order().name", "x"),
    "a folder without __init__": (
        "import mere.inside\nfound = mere.inside.NAME",
        "in a folder without __init__",
    ),
    "by importlib": ("import importlib\nfound = importlib.import_module('helper').NAME", "first"),
    "by a name of importlib": (
        "from importlib import import_module\nfound = import_module('shop.model').Order().name",
        "x",
    ),
    "by importlib, relative": (
        "import importlib\nimport shop\nfound = importlib.import_module('.model', shop.__name__).Order().name",
        "x",
    ),
    "by __import__": ("found = __import__('helper').NAME", "first"),
    "by pkgutil": ("import pkgutil\nfound = pkgutil.resolve_name('helper:NAME')", "first"),
    "resources of a package": (
        "from importlib import resources\nfound = sorted(each.name for each in resources.files('shop').iterdir() if each.is_file())",
        ["__init__.py", "model.py"],
    ),
    "in exec": ("names = {}\nexec('import helper', names)\nfound = names['helper'].NAME", "first"),
    "in a thread": (
        "from threading import Thread\nfound = []\ndef work():\n    import helper\n    found.append(helper.NAME)\n"
        "thread = Thread(target=work)\nthread.start()\nthread.join()",
        ["first"],
    ),
    "in a pool": (
        "from concurrent.futures import ThreadPoolExecutor\ndef work():\n    import helper\n    return helper.NAME\n"
        "with ThreadPoolExecutor(1) as pool:\n    found = pool.submit(work).result()",
        "first",
    ),
    "the standard library's": ("import json\nfound = json.loads('1')", 1),
    "what was installed in the folder": ("import vendored\nfound = vendored.NAME", "vendored"),
    "a pickle there and back": (
        "import pickle\nfrom shop.model import Order\nfound = pickle.loads(pickle.dumps(Order('y'))) == Order('y')",
        True,
    ),
    "again": ("import importlib, helper\nfound = importlib.reload(helper).NAME", "first"),
    "nothing": (
        "try:\n    import nothing_there\nexcept ModuleNotFoundError as error:\n    found = error.name",
        "nothing_there",
    ),
    "relative outside of a package": (
        "try:\n    from . import helper\nexcept ImportError as error:\n    found = str(error)",
        "attempted relative import with no known parent package",
    ),
    "relative beyond the package": (
        "try:\n    import shop.deep.down\nexcept ImportError as error:\n    found = str(error)",
        "attempted relative import beyond top-level package",
    ),
}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = set(sys.modules), list(sys.meta_path), importlib.import_module
    path, loggers = list(sys.path), set(logging.root.manager.loggerDict)
    yield
    left = {each for each in sys.modules if "@" in each}
    assert (left, list(sys.meta_path), importlib.import_module) == (set(), before[1], before[2])
    assert {each for each in logging.root.manager.loggerDict if "@" in each} <= loggers
    sys.path[:] = path
    for name in set(sys.modules) - before[0]:
        if name.partition(".")[0] in {"vendored", "helper", "shop", "mere"}:
            del sys.modules[name]


@pytest.mark.parametrize("how", IMPORTS)
def test_every_way_of_importing_finds_the_functions_own(tmp_path: Path, how: str) -> None:
    source, expected = IMPORTS[how]
    write(tmp_path, FILES | {"app.py": source})
    imports = PrivateImports("orders", str(tmp_path))
    try:
        assert imports.import_plain("app").found == expected
        assert "helper" not in sys.modules
    finally:
        imports.close()


def test_two_versions_are_apart_and_each_goes_on_after_its_end(tmp_path: Path) -> None:
    app = "def late():\n    import helper, shop.model\n    from shop import model\n    return helper.NAME\ndef never():\n    import mere.inside\n"
    write(tmp_path, FILES | {"app.py": app})
    first = PrivateImports("orders", str(tmp_path))
    old = first.import_plain("app")
    assert old.late() == "first"
    replace(tmp_path / "helper.py", "NAME = 'second'\n")
    second = PrivateImports("orders", str(tmp_path))
    new = second.import_plain("app")
    assert (old.late(), new.late()) == ("first", "second")
    first.close()
    assert (old.late(), new.late()) == ("first", "second"), "a thread of the old code may run for long"
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'mere\.inside'"):
        old.never()
    second.close()
    second.close()
    assert new.late() == "second"


def test_a_hundred_versions_leave_nothing_behind(tmp_path: Path) -> None:
    write(
        tmp_path,
        FILES
        | {
            "app.py": "import logging, helper, threading\nlog = logging.getLogger(__name__)\nlog.info('x')\n"
            "class Big(bytearray): pass\nheld = Big(1_000_000)\ndef act(e, c):\n    return [helper, held]\n"
        },
    )
    alive = []
    for _ in range(100):
        imports = PrivateImports("orders", str(tmp_path))
        alive.append(weakref.ref(imports.import_plain("app").held))
        imports.sources.show_lines()
        imports.close()
        del imports
    gc.collect()
    assert [each for each in alive if each() is not None] == []


def test_a_logger_has_the_functions_name_in_the_log() -> None:
    names = {"orders@12.shop.model": "shop.model", "orders@12.app": "app", "a@b.c": "a@b.c", "shop": "shop"}
    assert {name: plain_name(name) for name in names} == names


def test_a_pickle_of_another_version_says_which_class_is_missing(tmp_path: Path) -> None:
    write(tmp_path, FILES | {"app.py": "from shop.model import Order"})
    imports = PrivateImports("orders", str(tmp_path))
    pickled = pickle.dumps(imports.import_plain("app").Order())
    imports.close()
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(pickled)


def test_a_task_imports_what_its_own_module_means(tmp_path: Path) -> None:
    write(
        tmp_path,
        FILES
        | {
            "app.py": "async def act():\n    import asyncio\n    await asyncio.sleep(0)\n    import helper\n    return helper.NAME\n"
        },
    )
    imports = PrivateImports("orders", str(tmp_path))
    try:
        assert asyncio.run(imports.import_plain("app").act()) == "first"
    finally:
        imports.close()
